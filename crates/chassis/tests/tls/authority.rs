//! A certificate authority that signs anything that a test asks for. Its keys are on elliptic curves, which are quick
//! to make.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use std::net::{IpAddr, Ipv4Addr};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server on this machine.
    pub(crate) fn server(&self) -> Pair {
        self.sign(usage(Vec::new(), ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.subject_alt_names =
                vec![dns("localhost"), SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        }))
    }

    /// A valid certificate of a client with one name.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.client_but(name, |_| {})
    }

    /// A certificate of a client that is valid except for one change.
    pub(crate) fn client_but(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let san = if name.contains("://") { uri(name) } else { dns(name) };
        self.sign(usage(vec![san], ExtendedKeyUsagePurpose::ClientAuth, change))
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn usage(
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.extended_key_usages = vec![usage];
    change(&mut params);
    params
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(crate) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

pub(crate) fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

pub(crate) fn of_the_future(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2100, 1, 1);
}
