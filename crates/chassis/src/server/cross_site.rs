//! Requests that a web page made a user's browser send: recognised by `Origin` and `Sec-Fetch-Site`, and on a loopback
//! listener by a `Host` that is no loopback name, as after DNS rebinding. They are refused on writing routes without a
//! credential, where a page needs only the browser's place in the network. Must not know any route or status.

use std::net::{IpAddr, SocketAddr};

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, header};

use crate::config::is_loopback;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Checks the requests of one listener.
#[derive(Clone, Copy, Debug)]
pub struct CrossSiteGuard {
    is_loopback: bool,
}

/// The header which shows that a request comes from another site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSite {
    /// `Origin` is not the origin of this service.
    Origin,
    /// `Sec-Fetch-Site` says that a page of another site sent the request.
    FetchSite,
    /// `Host` is no loopback name, and the listener is on loopback.
    Host,
}

impl CrossSite {
    /// What is wrong and what is allowed. Plain words only: a script in use runs the body of a legacy pay call as a
    /// shell command.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Origin => "the Origin header names another origin, and this route needs no credential",
            Self::FetchSite => {
                "Sec-Fetch-Site names a page of another site, and this route needs no credential"
            }
            Self::Host => {
                "the Host header is no loopback name, the listener is on loopback, and this route needs no credential"
            }
        }
    }
}

impl CrossSiteGuard {
    /// The guard of the listener at this address.
    #[must_use]
    pub fn new(listener: SocketAddr) -> Self {
        Self { is_loopback: is_loopback(listener) }
    }

    /// Whether a request that needs no credential may write. Requests without these headers, such as those of curl and
    /// of other services, pass.
    ///
    /// # Errors
    /// The header that shows that the request comes from another site.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossSite> {
        let host = host(uri, headers);
        let is_page = headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
        if self.is_loopback && host.as_ref().is_some_and(|host| is_rebound(host.host(), is_page)) {
            return Err(CrossSite::Host);
        }
        let is_foreign_site = |value: &HeaderValue| {
            let value = value.as_bytes();
            value.eq_ignore_ascii_case(b"cross-site") || value.eq_ignore_ascii_case(b"same-site")
        };
        if headers.get_all(SEC_FETCH_SITE).iter().any(is_foreign_site) {
            return Err(CrossSite::FetchSite);
        }
        let is_own = |origin: &HeaderValue| {
            host.as_ref().is_some_and(|host| origin.to_str().is_ok_and(|origin| is_same(origin, host)))
        };
        if headers.get_all(header::ORIGIN).iter().all(is_own) { Ok(()) } else { Err(CrossSite::Origin) }
    }
}

/// Whether a method is safe, that is, asks for no change (RFC 9110, 9.2.1).
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// The host that the request is for: the authority of its target has precedence over `Host` (RFC 9112, 3.2.2). HTTP/1.0
/// may have neither.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let named = headers.get(header::HOST).filter(|host| !host.is_empty());
    uri.authority().cloned().or_else(|| Authority::try_from(named?.as_bytes()).ok())
}

/// Whether a name leads to a loopback listener only after rebinding. A name without a dot is in no public DNS, and
/// scripts use such names; only a local name service could rebind it, so that a browser's headers decide.
fn is_rebound(host: &str, is_page: bool) -> bool {
    let is_plain_word = !host.is_empty() && !host.contains(['.', ':', '[']);
    !is_loopback_name(host) && (is_page || !is_plain_word)
}

fn is_loopback_name(host: &str) -> bool {
    let bare = host.strip_suffix('.').unwrap_or(host);
    let address = bare.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(bare);
    if let Ok(address) = address.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = bare.to_ascii_lowercase();
    // RFC 6761, 6.3: these names never leave the machine.
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a page of this origin was served under this host. A proxy may terminate TLS, so the schemes may differ.
fn is_same(origin: &str, host: &Authority) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (origin.scheme(), origin.authority()) else { return false };
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let port = authority.port_u16().unwrap_or(default);
    let is_port = host.port_u16().map_or(port == default, |ours| ours == port);
    is_port && authority.host().eq_ignore_ascii_case(host.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listener: &str, headers: &[(&str, &str)]) -> Result<(), CrossSite> {
        let request = http::Request::builder().method("POST").uri("/v1/runs");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).unwrap();
        CrossSiteGuard::new(listener.parse().unwrap()).check(request.uri(), request.headers())
    }

    const LOOPBACK: [&str; 3] = ["127.0.0.1:8000", "[::1]:8000", "[::ffff:127.0.0.1]:8000"];
    const ANYWHERE: [&str; 3] = ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:8000"];

    #[test]
    fn clients_that_are_no_browsers_pass_everywhere() {
        for listener in LOOPBACK.into_iter().chain(ANYWHERE) {
            for host in ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "billing.localhost:1"]
            {
                assert_eq!(check(listener, &[("host", host)]), Ok(()), "{listener} {host}");
            }
            assert_eq!(check(listener, &[]), Ok(()), "HTTP/1.0 has no Host");
            assert_eq!(check(listener, &[("host", "")]), Ok(()));
            assert_eq!(check(listener, &[("host", "localhost:1"), ("sec-fetch-site", "none")]), Ok(()));
        }
    }

    #[test]
    fn a_rebound_name_is_refused_on_loopback_and_served_elsewhere() {
        for host in
            ["evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "x."]
        {
            for listener in LOOPBACK {
                assert_eq!(check(listener, &[("host", host)]), Err(CrossSite::Host), "{listener} {host}");
            }
            for listener in ANYWHERE {
                assert_eq!(check(listener, &[("host", host)]), Ok(()), "{listener} {host}");
            }
        }
    }

    #[test]
    fn a_word_without_a_dot_is_served_on_loopback_unless_a_page_uses_it() {
        for listener in LOOPBACK.into_iter().chain(ANYWHERE) {
            assert_eq!(check(listener, &[("host", "x:8000")]), Ok(()), "{listener}");
        }
        for listener in LOOPBACK {
            let own = [("host", "x:8000"), ("origin", "http://x:8000")];
            assert_eq!(check(listener, &own), Err(CrossSite::Host), "{listener}");
            let own = [("host", "x:8000"), ("sec-fetch-site", "same-origin")];
            assert_eq!(check(listener, &own), Err(CrossSite::Host), "{listener}");
        }
    }

    #[test]
    fn the_request_target_beats_the_host_header() {
        let request = http::Request::builder().method("POST").uri("http://evil.example/v1/runs");
        let request = request.header("host", "localhost").body(()).unwrap();
        let guard = CrossSiteGuard::new("127.0.0.1:8000".parse().unwrap());
        assert_eq!(guard.check(request.uri(), request.headers()), Err(CrossSite::Host));
    }

    #[test]
    fn pages_of_other_origins_are_refused_everywhere_and_own_pages_pass() {
        for listener in LOOPBACK.into_iter().chain(ANYWHERE) {
            let with = |origin: &str| check(listener, &[("host", "localhost:8000"), ("origin", origin)]);
            for own in ["http://localhost:8000", "https://localhost:8000", "http://LOCALHOST:8000"] {
                assert_eq!(with(own), Ok(()), "{listener} {own}");
            }
            for foreign in [
                "null",
                "",
                "http://localhost",
                "http://localhost:3000",
                "http://evil.example",
                "localhost:8000",
            ] {
                assert_eq!(with(foreign), Err(CrossSite::Origin), "{listener} {foreign}");
            }
            assert_eq!(check(listener, &[("origin", "http://localhost:8000")]), Err(CrossSite::Origin));
            let twice = [("host", "localhost:1"), ("origin", "http://localhost:1"), ("origin", "http://a")];
            assert_eq!(check(listener, &twice), Err(CrossSite::Origin));
            for site in ["cross-site", "same-site", "Cross-Site"] {
                let page = [("host", "localhost:8000"), ("sec-fetch-site", site)];
                assert_eq!(check(listener, &page), Err(CrossSite::FetchSite), "{listener} {site}");
            }
        }
    }

    #[test]
    fn a_port_that_is_left_out_is_the_scheme_s() {
        let with = |host: &str, origin: &str| check("0.0.0.0:80", &[("host", host), ("origin", origin)]);
        assert_eq!(with("billing.example", "https://billing.example"), Ok(()));
        assert_eq!(with("billing.example:443", "https://billing.example"), Ok(()));
        assert_eq!(with("billing.example", "http://billing.example:8080"), Err(CrossSite::Origin));
    }

    #[test]
    fn reasons_are_harmless_words_to_a_shell() {
        for why in [CrossSite::Origin, CrossSite::FetchSite, CrossSite::Host] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || " -,".contains(c);
            assert!(why.reason().chars().all(is_plain), "{}", why.reason());
        }
    }
}
