//! Spelling of legacy paths: any case, with or without a trailing slash, ids as 32-bit integers. Pure: knows no routes
//! and no requests.

use std::borrow::Cow;

use http::Uri;
use http::uri::{Parts, PathAndQuery};

/// The only prefix under which letter case and a trailing slash do not matter.
const FREE_SPELLING: &str = "/rest";

/// The path in the router table's spelling; `None` when it has that spelling already or is no legacy path.
pub(super) fn normalize_path(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let table = table_spelling(path)?;
    if table == path {
        return None;
    }
    let spelled = match uri.query() {
        Some(query) => format!("{table}?{query}"),
        None => table.into_owned(),
    };
    let mut parts: Parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(spelled).ok()?);
    Uri::from_parts(parts).ok()
}

fn table_spelling(path: &str) -> Option<Cow<'_, str>> {
    let bare = path.strip_suffix('/').unwrap_or(path);
    let (prefix, rest) = bare.split_at_checked(FREE_SPELLING.len())?;
    let free = prefix.eq_ignore_ascii_case(FREE_SPELLING) && (rest.is_empty() || rest.starts_with('/'));
    free.then(|| match bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(bare.to_ascii_lowercase()),
        false => Cow::Borrowed(bare),
    })
}

/// An id as existing clients write it: a 32-bit integer, optionally with a sign and leading zeros.
pub(super) fn parse_id(text: &str) -> Option<i64> {
    text.parse::<i32>().ok().map(i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling(uri: &'static str) -> Option<String> {
        normalize_path(&Uri::from_static(uri)).map(|uri| uri.to_string())
    }

    #[test]
    fn paths_under_rest_lose_their_case_and_one_slash_at_the_end() {
        assert_eq!(spelling("/Rest/V1/Customers/1/").unwrap(), "/rest/v1/customers/1");
        assert_eq!(spelling("/rest/health/?a=B").unwrap(), "/rest/health?a=B");
        assert_eq!(spelling("http://Host:1/REST/health").unwrap(), "http://Host:1/rest/health");
        assert_eq!(spelling("/rest/v1//").unwrap(), "/rest/v1/");
    }

    #[test]
    fn other_paths_keep_their_spelling() {
        for uri in ["/rest/health", "/V1/Runs", "/Invoices/", "/resting/A", "/RES", "/v1/invoices/Rest/", "/"]
        {
            assert_eq!(spelling(uri), None, "{uri}");
        }
    }

    #[test]
    fn an_id_is_a_32_bit_integer_with_sign_and_leading_zeros() {
        assert_eq!(parse_id("01"), Some(1));
        assert_eq!(parse_id("+7"), Some(7));
        assert_eq!(parse_id("-2147483648"), Some(-2_147_483_648));
        for text in ["", "2147483648", "1.0", " 1", "1e3", "0x1", "one", "+", "١"] {
            assert_eq!(parse_id(text), None, "{text:?}");
        }
    }
}
