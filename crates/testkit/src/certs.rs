//! A CA that signs any requested certificate, and certificates as users make them with openssl. Keys are on elliptic
//! curves, which are quick. Knows no service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::requirements::has;

/// A CA of a test.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The contents of a certificate, which may be invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The names: a URI if it contains `://`, an address if it begins with `ip:`, a mail address if it contains `@`,
    /// else a host.
    pub names: Vec<String>,
    /// The years in which validity begins and ends.
    pub years: (i32, i32),
    /// Whether it may act as a client, and as a server.
    pub usages: (bool, bool),
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new CA; a second one with the same name is another CA.
    ///
    /// # Panics
    /// Never, with a plain name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it signs itself"))
    }

    /// The CA's certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A valid server certificate for this DNS name.
    #[must_use]
    pub fn server(&self, name: &str) -> Pair {
        self.sign(params(&[name], ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// A server certificate for this DNS name that expired long ago.
    #[must_use]
    pub fn expired_server(&self, name: &str) -> Pair {
        let mut params = params(&[name], ExtendedKeyUsagePurpose::ServerAuth);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// A server certificate without a name.
    #[must_use]
    pub fn nameless_server(&self) -> Pair {
        self.sign(params(&[], ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// A client certificate with one name, a URI or a DNS name.
    #[must_use]
    pub fn client(&self, name: &str) -> Pair {
        self.sign(params(&[name], ExtendedKeyUsagePurpose::ClientAuth))
    }

    /// A certificate with these contents, valid or not.
    ///
    /// # Panics
    /// Never, with names in ASCII.
    #[must_use]
    pub fn leaf(&self, wanted: &Leaf) -> Pair {
        self.sign(wanted.params())
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.0).expect("an authority signs");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Leaf {
    /// A valid client certificate with this one name.
    #[must_use]
    pub fn client(name: &str) -> Self {
        Self { names: vec![name.to_owned()], years: (2000, 2100), usages: (true, false) }
    }

    /// A self-signed certificate with these contents.
    ///
    /// # Panics
    /// Never, with names in ASCII.
    #[must_use]
    pub fn self_signed(&self) -> Pair {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = self.params().self_signed(&key).expect("it signs itself");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = self.names.iter().map(|name| san(name)).collect();
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        let (client, server) = self.usages;
        let usages = [
            client.then_some(ExtendedKeyUsagePurpose::ClientAuth),
            server.then_some(ExtendedKeyUsagePurpose::ServerAuth),
        ];
        params.extended_key_usages = usages.into_iter().flatten().collect();
        params
    }
}

fn san(name: &str) -> SanType {
    let text = |text: &str| text.try_into().expect("a test's names are ASCII");
    match name.strip_prefix("ip:") {
        Some(address) => SanType::IpAddress(address.parse().expect("a test's addresses are addresses")),
        None if name.contains("://") => SanType::URI(text(name)),
        None if name.contains('@') => SanType::Rfc822Name(text(name)),
        None => SanType::DnsName(text(name)),
    }
}

fn params(names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| san(name)).collect();
    params.extended_key_usages = vec![usage];
    params
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key`; returns both paths.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[track_caller]
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        replace(&certificate, &self.certificate);
        replace(&key, &self.key);
        (certificate, key)
    }
}

/// Replaces a file atomically.
///
/// # Panics
/// When the file cannot be written.
#[track_caller]
pub fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).expect("a test's file can be written");
    fs::rename(&next, path).expect("a test's file can be replaced");
}

/// A certificate as users of the ping pair make it: by `openssl req -x509`, self-signed, CA:TRUE, with RSA. Where
/// openssl is missing, reports that as skipped, and makes one with another kind of key.
///
/// # Panics
/// When openssl fails, or is missing in CI.
#[must_use]
#[track_caller]
pub fn as_users_make_it(folder: &Path, name: &str) -> Pair {
    if !has("openssl", "certificates made by openssl") {
        return self_signed(name);
    }
    let (certificate, key) = (folder.join("made.pem"), folder.join("made.key"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stdin(Stdio::null())
        .output()
        .expect("openssl can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path| fs::read_to_string(path).expect("openssl wrote the requested file");
    Pair { certificate: read(certificate), key: read(key) }
}

/// A self-signed certificate with CA:TRUE that also is a server's leaf.
fn self_signed(name: &str) -> Pair {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a test's names are ASCII");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("it signs itself");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}
