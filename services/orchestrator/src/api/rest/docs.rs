//! The docs page: one HTML file that renders /openapi.json, without anything from elsewhere.
//!
//! Style and script are inside the page; the content security policy names their hashes, so that nothing else can run
//! there.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, header};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

const HTML: &str = include_str!("docs/page.html");
const STYLE: &str = include_str!("docs/page.css");
const SCRIPT: &str = include_str!("docs/page.js");

struct Page {
    body: Bytes,
    policy: HeaderValue,
}

fn built() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| {
        let body = HTML.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT);
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        Page { body: body.into(), policy: HeaderValue::from_str(&policy).expect("hashes and words are ASCII") }
    })
}

/// GET / and GET /docs
pub(crate) async fn page() -> Response {
    let page = built();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, page.policy.clone()),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, page.body.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_brings_nothing_from_elsewhere() {
        let html = std::str::from_utf8(&built().body).unwrap();
        assert!(html.contains(SCRIPT) && html.contains(STYLE));
        assert!(!html.contains("/*STYLE*/") && !html.contains("/*SCRIPT*/"));
        for outside in ["src=", "http://", "https://"] {
            assert!(!html.contains(outside), "the page has {outside}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        // Text from the document must never become markup, nor style that the policy forbids.
        for risky in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", ".style"] {
            assert!(!SCRIPT.contains(risky), "the script uses {risky}");
        }
        assert!(!HTML.contains("style=") && !HTML.contains("onclick"));
    }

    #[test]
    fn the_policy_allows_just_this_script() {
        let policy = built().policy.to_str().unwrap();
        let hash = STANDARD.encode(Sha256::digest(SCRIPT));
        assert!(policy.contains(&format!("script-src 'sha256-{hash}'")) && !policy.contains("unsafe"), "{policy}");
    }
}
