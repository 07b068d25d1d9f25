//! Validates a request's host as RFC 9112 §3.2 requires of a server. Must not know the service's own names: a service
//! is reached under many.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version, header};

use crate::client::parse_port;

/// Requires exactly one `Host` line, with a host and optionally a port; only HTTP/1.0 may omit it.
///
/// # Errors
/// The mistake, for the client.
pub(super) fn check(head: &Parts) -> Result<(), &'static str> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    match (lines.next(), lines.next()) {
        (None, _) if head.version < Version::HTTP_11 => Ok(()),
        (None, _) => Err("the request has no Host"),
        (Some(_), Some(_)) => Err("the request has more than one Host"),
        (Some(host), None) if is_valid_host(host) => Ok(()),
        (Some(_), None) => Err("the request's Host is no host and port"),
    }
}

/// Empty is valid: a URL without a host gives an empty `Host`.
fn is_valid_host(host: &HeaderValue) -> bool {
    host.is_empty()
        || Authority::try_from(host.as_bytes())
            .is_ok_and(|host| !host.as_str().contains('@') && parse_port(&host).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, hosts: &[&[u8]]) -> Result<(), &'static str> {
        let mut request = http::Request::builder().version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn one_sound_host_is_needed_and_none_only_by_http_1_0() {
        for host in
            [&b"payments"[..], b"payments_api:9000", b"10.0.0.7:80", b"[::1]:8000", b"a.b-c.test:", b""]
        {
            assert_eq!(checked(Version::HTTP_11, &[host]), Ok(()), "{host:?}");
        }
        assert_eq!(checked(Version::HTTP_10, &[]), Ok(()));
        assert!(checked(Version::HTTP_11, &[]).is_err());
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(checked(version, &[b"a", b"a"]).is_err());
            for host in [&b"a b"[..], b"a/b", b"user@a", b"a:99999", b"http://a", b"\xff"] {
                assert!(checked(version, &[host]).is_err(), "{host:?}");
            }
        }
    }
}
