//! An authority that signs what a test asks for, and certificates as users make them with openssl. Keys are on
//! elliptic curves, which are quick. Knows no service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// Signs.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one; the same name again is another authority.
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

    /// Its certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for this DNS name, sound in all.
    #[must_use]
    pub fn server(&self, name: &str) -> Pair {
        self.sign(params(&[name], ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// The same, long expired.
    #[must_use]
    pub fn expired_server(&self, name: &str) -> Pair {
        let mut params = params(&[name], ExtendedKeyUsagePurpose::ServerAuth);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// A server's certificate that names nobody.
    #[must_use]
    pub fn nameless_server(&self) -> Pair {
        self.sign(params(&[], ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// A client's certificate of one name, a URI or a DNS name.
    #[must_use]
    pub fn client(&self, name: &str) -> Pair {
        self.sign(params(&[name], ExtendedKeyUsagePurpose::ClientAuth))
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.0).expect("an authority signs");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn params(names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = |name: &&str| {
        let text = (*name).try_into().expect("a test's names are ASCII");
        if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
    };
    params.subject_alt_names = names.iter().map(name).collect();
    params.extended_key_usages = vec![usage];
    params
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key`; answers both paths.
    ///
    /// # Panics
    /// When they cannot be written.
    #[track_caller]
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        replace(&certificate, &self.certificate);
        replace(&key, &self.key);
        (certificate, key)
    }
}

/// Replaces a file whole, so that nobody reads half of it.
///
/// # Panics
/// When it cannot be written.
#[track_caller]
pub fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).expect("a test's file can be written");
    fs::rename(&next, path).expect("a test's file can be replaced");
}

/// A certificate as users of the ping pair make it: by `openssl req -x509`, signed by itself, CA:TRUE, on RSA. Without
/// openssl on this machine, the same on another kind of key.
///
/// # Panics
/// When openssl is there and fails.
#[must_use]
#[track_caller]
pub fn as_users_make_it(folder: &Path, name: &str) -> Pair {
    let (certificate, key) = (folder.join("made.pem"), folder.join("made.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stdin(Stdio::null())
        .output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let read = |path| fs::read_to_string(path).expect("openssl wrote what it was told to");
            Pair { certificate: read(certificate), key: read(key) }
        }
        Err(_) => self_signed(name),
    }
}

/// Signed by itself, CA:TRUE, and a server's leaf all the same.
fn self_signed(name: &str) -> Pair {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a test's names are ASCII");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("it signs itself");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}
