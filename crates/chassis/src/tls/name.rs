//! The one name of a certificate and the SAN allow-list. Names match exactly, never by pattern.
//! Must not know what a name is allowed to do, nor how a chain is verified.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Maximum number of names in one list.
const NAMES_MAX: usize = 256;

/// The peer's name in its certificate: a URI (such as a SPIFFE id) or a DNS name.
/// A request extension on connections with mutual TLS, and on no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name as the certificate has it; a DNS name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a name of the allow-list.
    ///
    /// # Errors
    /// When the text is neither a URI with a scheme nor a DNS name, or a pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Malformed(text.to_owned());
        if text.contains('*') {
            return Err(NameError::Pattern(text.to_owned()));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let is_word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            let is_sound = !scheme.is_empty() && !rest.is_empty() && scheme.chars().all(is_word);
            let is_visible = rest.chars().all(|c| c.is_ascii_graphic());
            return if is_sound && is_visible { Ok(Self(text.into())) } else { Err(wrong()) };
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        match text.len() <= 253 && text.split('.').all(is_label) {
            true => Ok(Self(text.to_ascii_lowercase().into())),
            false => Err(wrong()),
        }
    }

    /// The single name of a client's certificate.
    ///
    /// # Errors
    /// When the certificate has none, more than one, or one that is no URI and no DNS name.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::None)?;
        let names = parsed.subject_alternative_name().map_err(|_| NameError::None)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        match names {
            [] => Err(NameError::None),
            [GeneralName::DNSName(name)] if !name.contains("://") => Self::parse(name),
            [GeneralName::URI(name)] if name.contains("://") => Self::parse(name),
            [_] => Err(NameError::Malformed("another kind of name".to_owned())),
            several => Err(NameError::Several(several.len())),
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text or a certificate has no usable name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A certificate without a subject alternative name.
    #[error("the certificate has no name")]
    None,
    /// A certificate with several of them.
    #[error("the certificate has {0} names, and one is needed")]
    Several(usize),
    /// A wildcard.
    #[error("\"{0}\" is a pattern; names are exact")]
    Pattern(String),
    /// Neither a URI nor a DNS name.
    #[error("\"{0}\" is neither a DNS name nor a URI")]
    Malformed(String),
    /// A list without a name.
    #[error("is empty: every client would be rejected")]
    EmptyList,
    /// More names than a list may hold.
    #[error("has more than {NAMES_MAX} names")]
    LongList,
}

/// The SAN allow-list. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SanAllowList {
    /// Only these names are accepted.
    Names(Arc<[PeerName]>),
    /// Any single name that the CA has signed.
    OfAuthority,
}

impl SanAllowList {
    /// Reads names that are separated by commas or white space.
    ///
    /// # Errors
    /// When there are no names, too many, or one that is no exact name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::list(text.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty()))
    }

    /// Parses each text as one name.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, NameError> {
        let names = names.into_iter().map(PeerName::parse).collect::<Result<Vec<_>, _>>()?;
        match names.len() {
            0 => Err(NameError::EmptyList),
            many if many > NAMES_MAX => Err(NameError::LongList),
            _ => Ok(Self::Names(names.into())),
        }
    }

    /// Whether this name is accepted.
    #[must_use]
    pub fn admits(&self, name: &PeerName) -> bool {
        match self {
            Self::Names(names) => names.contains(name),
            Self::OfAuthority => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_dns_names_know_no_case() {
        let allowed =
            SanAllowList::parse("spiffe://cluster/ns/antaeus/sa/antaeus, Billing.Antaeus.svc").unwrap();
        let admits = |name: &str| PeerName::parse(name).is_ok_and(|name| allowed.admits(&name));
        assert!(admits("spiffe://cluster/ns/antaeus/sa/antaeus") && admits("billing.antaeus.svc"));
        for other in [
            "spiffe://cluster/ns/antaeus/sa/antaeus/x",
            "spiffe://cluster/ns/Antaeus/sa/antaeus",
            "antaeus.svc",
            "a.billing.antaeus.svc",
        ] {
            assert!(!admits(other), "{other}");
        }
    }

    #[test]
    fn a_pattern_or_an_empty_list_is_a_mistake() {
        assert!(matches!(SanAllowList::parse("*.svc"), Err(NameError::Pattern(_))));
        assert!(matches!(SanAllowList::parse("spiffe://cluster/*"), Err(NameError::Pattern(_))));
        assert_eq!(SanAllowList::parse(" ,"), Err(NameError::EmptyList));
        for wrong in ["a..b", "://x", "a b://c", "spiffe://"] {
            assert!(PeerName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
