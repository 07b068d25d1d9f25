//! The demo's own CA, for `--mtls`: fresh certificates for both services, the biller and the demo itself. They are
//! written like a mounted secret, and replaced all at once during a run. Knows settings, and no connection.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use chassis::clock::Clock;
use chassis::telemetry::Telemetry;
use chassis::tls::{ClientFiles, Source, TlsConnect, TlsMetrics};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The host name in every server certificate of the demo.
pub(super) const HOST: &str = "localhost";
/// The SAN allow-list of both services.
const CLIENT: &str = "spiffe://tinjis/demo";
const FILES: [&str; 5] = ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"];
/// The link that a change moves, as in Kubernetes.
const CURRENT: &str = "..data";

/// A CA and the folder with the certificates that it signed. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pki(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
    version: AtomicU32,
}

impl Pki {
    /// Makes a CA and the first certificates.
    pub(super) fn make(folder: PathBuf) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tinjis demo");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pki = Self(Arc::new(Inner { folder, authority, version: AtomicU32::new(0) }));
        pki.change().context("certificates for the demo")?;
        for file in FILES {
            symlink(Path::new(CURRENT).join(file), pki.path(file))?;
        }
        Ok(pki)
    }

    /// Replaces all certificates and keys at once.
    pub(super) fn change(&self) -> anyhow::Result<()> {
        let version = format!("..{}", self.0.version.fetch_add(1, Ordering::Relaxed));
        let folder = self.0.folder.join(&version);
        fs::create_dir(&folder)?;
        fs::write(folder.join("ca.pem"), self.0.authority.pem())?;
        let server = vec![SanType::DnsName(HOST.try_into()?)];
        self.sign(&folder, "server", server, ExtendedKeyUsagePurpose::ServerAuth)?;
        let client = vec![SanType::URI(CLIENT.try_into()?)];
        self.sign(&folder, "client", client, ExtendedKeyUsagePurpose::ClientAuth)?;
        let next = self.0.folder.join("..next");
        symlink(version, &next)?;
        Ok(fs::rename(next, self.path(CURRENT))?)
    }

    fn sign(
        &self,
        folder: &Path,
        name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.0.authority)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        Ok(fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?)
    }

    /// TLS settings of a service: certificate and SAN allow-list.
    pub(super) fn server_settings(&self) -> [(&'static str, String); 4] {
        [
            ("--tls-cert", self.text("server.pem")),
            ("--tls-key", self.text("server.key")),
            ("--tls-client-ca", self.text("ca.pem")),
            ("--tls-allowed-clients", CLIENT.to_owned()),
        ]
    }

    /// TLS settings of billing as a client of the provider.
    pub(super) fn provider_settings(&self) -> [(&'static str, String); 3] {
        [
            ("--provider-ca", self.text("ca.pem")),
            ("--provider-cert", self.text("client.pem")),
            ("--provider-key", self.text("client.key")),
        ]
    }

    /// The TLS arguments of curl.
    pub(super) fn curl_tls_args(&self) -> String {
        let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|file| self.text(file));
        format!("--cacert {ca} --cert {certificate} --key {key} ")
    }

    /// The folder with all certificates and keys.
    pub(super) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// TLS for connections of the demo itself.
    pub(super) fn connect(&self) -> anyhow::Result<TlsConnect> {
        connect(&self.0.folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.folder.join(file)
    }

    fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }
}

/// TLS with the certificates in such a folder.
pub(super) fn connect(folder: &Path) -> anyhow::Result<TlsConnect> {
    let source = |file: &str| Source { setting: "--pki".into(), path: folder.join(file) };
    let files = ClientFiles {
        trusted: Some(source("ca.pem")),
        system_too: false,
        identity: Some((source("client.pem"), source("client.key"))),
    };
    // The metrics of these connections are not exported.
    let unseen = Telemetry::new("demo", "", "");
    Ok(TlsConnect::open(files, Clock::system(), &TlsMetrics::new(&unseen.metrics))?)
}
