//! Which texts are URLs that can be called. A part that would be dropped before the call, such as a fragment, is a mistake.
//! Calls nothing.

use http::Uri;

use super::parse_port;

/// A URL over http or https with a host, and with nothing that a call would leave out.
///
/// # Errors
/// What it must be, with `example`, and without a text that may hold a password.
pub fn http_url(text: &str, example: &str) -> Result<Uri, String> {
    if text.contains('#') {
        return Err("must not have a fragment: no call sends what begins with #".to_owned());
    }
    let no_url = || {
        let given = if text.contains('@') { String::new() } else { format!(", not {text:?}") };
        format!("must be a URL with a scheme and a host, as {example} is{given}")
    };
    let url: Uri = text.parse().map_err(|_| no_url())?;
    let authority = url.authority().ok_or_else(no_url)?;
    if authority.as_str().contains('@') {
        return Err("must not hold credentials: they have settings of their own".to_owned());
    }
    if authority.host().is_empty() {
        return Err(no_url());
    }
    parse_port(authority).map_err(|why| format!("{text:?} is no URL: {why}"))?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        Some(_) => Err(format!("{text:?} has a scheme that is not called; http:// and https:// are")),
        None => Err(no_url()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        http_url(text, "http://a:1").unwrap_err()
    }

    #[test]
    fn a_url_is_taken_as_it_stands() {
        for url in
            ["http://a/", "https://a:8000/b?c=d", "http://[::1]:80/", "http://a/b@c", "http://a:/?d=e@f"]
        {
            assert_eq!(http_url(url, "").unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_part_that_no_call_sends_is_a_mistake() {
        for url in ["http://a#x", "http://a/#", "http://a/b?c#d"] {
            assert!(mistake(url).contains("fragment"), "{url}");
        }
        for url in
            ["http://user:secret@a", "https://user:secret@a:1/b", "http://user:secret@a b", "user:secret@a"]
        {
            assert!(!mistake(url).contains("secret"), "{url}: {}", mistake(url));
        }
    }

    #[test]
    fn a_text_without_scheme_host_or_a_port_of_digits_is_no_url() {
        for url in ["", "a", "a:80", "/a", "http://", "http:/a", "http://:80", "http:///a"] {
            assert!(mistake(url).contains("as http://a:1 is"), "{url}: {}", mistake(url));
        }
        for url in ["http://a:+80", "http://a:0", "http://a:65536", "http://a:8 0"] {
            assert!(mistake(url).contains("URL"), "{url}: {}", mistake(url));
        }
        assert!(mistake("ftp://a").contains("http:// and https:// are"));
    }
}
