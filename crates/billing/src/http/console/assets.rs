//! The style file, the script and the icon of the console, all part of the binary. The URL of each changes with its
//! content.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

/// Hexadecimal digits of the content's hash in a URL.
const TAG_LEN: usize = 16;

/// A served file.
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
    tag: String,
}

impl Asset {
    fn new(path: &'static str, content_type: &'static str, text: &'static str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let mut tag: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        tag.truncate(TAG_LEN);
        Self { path, content_type, text, tag }
    }

    /// The URL of the file in pages.
    pub(super) fn url(&self) -> String {
        format!("{}?{}", self.path, self.tag)
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.tag);
        let is_known =
            headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
        let answer = [
            (header::ETAG, etag),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::CONTENT_TYPE, self.content_type.to_owned()),
        ];
        if is_known {
            return (StatusCode::NOT_MODIFIED, answer).into_response();
        }
        (answer, self.text).into_response()
    }
}

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("/console/style.css", "text/css; charset=utf-8", include_str!("style.css")));

pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("/console/script.js", "text/javascript; charset=utf-8", include_str!("script.js"))
});

static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("/console/icon.svg", "image/svg+xml", include_str!("icon.svg")));

pub(super) async fn style(headers: HeaderMap) -> Response {
    STYLE.answer(&headers)
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    SCRIPT.answer(&headers)
}

pub(super) async fn icon(headers: HeaderMap) -> Response {
    ICON.answer(&headers)
}
