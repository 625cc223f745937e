//! The pages: the files of `web/dist`, which are part of the binary where they were built before it.
//!
//! Every GET that is neither a file nor of the API is the one page, which reads its address itself. Names with a hash never change
//! and are kept for good; the page is asked for again each time, by its ETag.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use rust_embed::RustEmbed;
use std::{collections::HashMap, io::Write, sync::LazyLock};

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Dist;

/// The page that all others are made of.
const INDEX: &str = "index.html";
/// Where files have a hash in their names.
const HASHED: &str = "assets/";
/// Smaller files gain nothing.
const COMPRESSED_BYTES_MIN: usize = 1024;
/// Paths that programs ask for: an unknown one is an error and no page.
const API: [&str; 6] = ["/api/", "/auth/", "/admin/", "/events/", "/todos", "/v1/"];
/// In place of the pages.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>AgentForge console</title></head>\n\
    <body><h1>The pages are not part of this binary</h1>\n<p>They are built with Node, before the binary:</p>\n\
    <pre>make ui\ncargo build -p agentforge-console</pre>\n<p><code>make dev</code> and the images do so. The API works without them.</p>\n\
    </body></html>\n";

struct File {
    plain: Bytes,
    gzip: Option<Bytes>,
    etag: HeaderValue,
    kind: HeaderValue,
    is_hashed: bool,
}

/// Made at the first request: their sizes are known, and they do not change.
static FILES: LazyLock<HashMap<String, File>> = LazyLock::new(|| {
    Dist::iter().filter_map(|path| Some((path.to_string(), File::of(&path, &Dist::get(&path)?)))).collect()
});

impl File {
    fn of(path: &str, file: &rust_embed::EmbeddedFile) -> Self {
        let plain = Bytes::from(file.data.to_vec());
        let kind = file.metadata.mimetype();
        let kind = if kind.starts_with("text/") { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
        let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
        Self {
            gzip: compressed(&plain),
            plain,
            etag: HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\"")),
            kind: HeaderValue::from_str(&kind).unwrap_or(HeaderValue::from_static("application/octet-stream")),
            is_hashed: path.starts_with(HASHED),
        }
    }
}

/// Smaller, where that is so.
pub(crate) fn compressed(plain: &[u8]) -> Option<Bytes> {
    if plain.len() < COMPRESSED_BYTES_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).ok()?;
    let packed = encoder.finish().ok()?;
    (packed.len() < plain.len() * 9 / 10).then(|| packed.into())
}

/// Whether the caller takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && parts.next() != Some("q=0")
    })
}

/// Whether the caller has this version already.
pub(crate) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    etag.to_str().is_ok_and(|tag| known.split(',').any(|one| one.trim() == "*" || bare(one) == bare(tag)))
}

/// A file, the page, or the reason why there is none.
pub(crate) async fn page(request: Request) -> Response {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) || API.iter().any(|api| path.starts_with(api)) {
        return crate::problem::missing("such address").into_response();
    }
    let name = path.trim_start_matches('/');
    let file = FILES.get(name).or_else(|| if is_name_of_file(name) { None } else { FILES.get(INDEX) });
    match file {
        Some(file) => answer(file, request.headers()),
        None if FILES.is_empty() && !is_name_of_file(name) => not_built(),
        None => crate::problem::missing("such file").into_response(),
    }
}

/// A missing file, and not a page: `/robots.txt`, `/assets/…`. Names of jobs, webhooks and sites come after the name
/// of their page, and may have dots.
fn is_name_of_file(name: &str) -> bool {
    name.starts_with(HASHED) || !name.contains('/') && name.contains('.')
}

fn not_built() -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    (StatusCode::OK, [(header::CONTENT_TYPE, html)], NOT_BUILT).into_response()
}

fn answer(file: &File, asked: &HeaderMap) -> Response {
    let kept = if file.is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    headers.insert(header::ETAG, file.etag.clone());
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_known(asked, &file.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(header::CONTENT_TYPE, file.kind.clone());
    let body = match &file.gzip {
        Some(packed) if takes_gzip(asked) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            packed.clone()
        }
        _ => file.plain.clone(),
    };
    *response.body_mut() = Body::from(body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_have_pages_and_missing_files_have_none() {
        for page in ["", "jobs", "jobs/a.b", "webhooks/site.north", "sites/v1.2/link"] {
            assert!(!is_name_of_file(page), "{page}");
        }
        for file in ["robots.txt", "favicon.ico", "assets/Jobs-1a2b.js", "assets/none"] {
            assert!(is_name_of_file(file), "{file}");
        }
    }

    #[test]
    fn conditions_and_codings_are_read_as_http_has_them() {
        let of = |name: header::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for (value, takes) in [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0, br", false), ("identity", false)] {
            assert_eq!(takes_gzip(&of(header::ACCEPT_ENCODING, value)), takes, "{value}");
        }
        let etag = HeaderValue::from_static("\"a\"");
        for (value, known) in [("\"a\"", true), ("W/\"a\", \"b\"", true), ("*", true), ("\"b\"", false), ("a", false)] {
            assert_eq!(is_known(&of(header::IF_NONE_MATCH, value), &etag), known, "{value}");
        }
        assert!(compressed(b"short").is_none() && compressed(&[b'a'; 4096]).is_some_and(|packed| packed.len() < 200));
    }
}
