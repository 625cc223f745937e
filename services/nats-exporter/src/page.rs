//! The page: who may read it, how long it may take, and how it is sent.
//!
//! Written piece by piece as the reader takes it; compressed only for clients that accept it. In addition to the
//! servers' series it has those of the exporter's own process.

use crate::{
    auth::BasicAuth,
    collect::Collector,
    metrics,
    snapshot::{Pages, Snapshot},
};
use agentforge_runtime::Runtime;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use futures_util::stream;
use std::{io::Write, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Scrapes that are served at once; each may hold a page's numbers until its reader has taken them.
const SCRAPES_MAX: usize = 16;
/// Of the time that a scraper has, this part is kept for writing the page.
const RESERVE: f64 = 0.1;
/// At least this, and at most half of the time.
const RESERVE_MIN: Duration = Duration::from_millis(250);
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the handlers need.
pub struct Page {
    pub collector: Arc<Collector>,
    pub runtime: Runtime,
    pub auth: Option<BasicAuth>,
    pub timeout: Duration,
    pub gzip: bool,
    pub scrapes: Arc<Semaphore>,
}

impl Page {
    /// A page with room for its scrapes.
    pub fn new(collector: Arc<Collector>, runtime: Runtime, config: &crate::config::Config) -> Self {
        Self {
            collector,
            runtime,
            auth: config.auth.clone(),
            timeout: config.timeout,
            gzip: config.gzip,
            scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        }
    }

    /// Routes: the page, and health for probes, which show no series and ask for no password.
    pub fn router(self, path: &str) -> Router {
        let health = agentforge_runtime::health_router(&self.runtime);
        let asks_for_nothing = self.auth.is_none();
        let page = Router::new().route(path, get(scrape)).with_state(Arc::new(self));
        let page = if asks_for_nothing { agentforge_runtime::http::for_this_machine(page) } else { page };
        page.merge(health)
    }
}

async fn scrape(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    let in_flight = metrics::REQUESTS_IN_FLIGHT.gauge_handle(&[]);
    in_flight.increment(1.0);
    let response = answer(&page, &headers).await;
    in_flight.decrement(1.0);
    metrics::REQUESTS.inc(&[response.status().as_str()]);
    response
}

async fn answer(page: &Page, headers: &HeaderMap) -> Response {
    let began = Instant::now();
    if let Some(auth) = &page.auth
        && !auth.admits(headers.get(header::AUTHORIZATION).map(|value| value.as_bytes())).await
    {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"nats-exporter\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "user or password are not right\n").into_response();
    }
    let Ok(permit) = page.scrapes.clone().try_acquire_owned() else {
        let text = format!("{SCRAPES_MAX} scrapes are being served, and no more at once\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let announced = headers.get(TIMEOUT_HEADER).and_then(|value| announced_timeout(value.to_str().ok()?));
    let deadline = began + announced.map_or(page.timeout, |timeout| page.timeout.min(without_reserve(timeout)));
    let Some(snapshot) = page.collector.collect(deadline).await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the collection failed; the log has more\n").into_response();
    };
    let own = own_text(&page.runtime).await;
    let content_type = (header::CONTENT_TYPE, CONTENT_TYPE);
    if page.gzip && accepts_gzip(headers) {
        let headers = [content_type, (header::CONTENT_ENCODING, "gzip")];
        return (headers, body(Compressed::new(snapshot, own), permit)).into_response();
    }
    (([content_type]), body(Pages::new(snapshot).chain(Some(Bytes::from(own))), permit)).into_response()
}

/// A body that gives the scrape's place back at its end, or when its reader goes away.
fn body(pieces: impl Iterator<Item = Bytes> + Send + 'static, permit: OwnedSemaphorePermit) -> Body {
    let state = (pieces, permit);
    Body::from_stream(stream::unfold(state, |(mut pieces, permit)| async move {
        let piece = pieces.next()?;
        Some((Ok::<_, std::convert::Infallible>(piece), (pieces, permit)))
    }))
}

/// The metrics of the process. Where another listener of the process has them, only what belongs to
/// this service.
async fn own_text(runtime: &Runtime) -> String {
    let all = runtime.process().scrape().await;
    if runtime.serves_metrics() {
        return all;
    }
    let is_ours = |family: &&str| {
        let name = family.lines().find_map(|line| line.strip_prefix("# TYPE ")).unwrap_or_default();
        name.starts_with("nats_exporter_") || name.starts_with("promhttp_")
    };
    all.split_inclusive("\n\n").filter(is_ours).collect()
}

/// Compresses piece by piece.
struct Compressed {
    pages: Pages,
    own: Option<String>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Compressed {
    fn new(snapshot: Arc<Snapshot>, own: String) -> Self {
        // The fastest level: a page shrinks to a twentieth with it, and to little less with others.
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { pages: Pages::new(snapshot), own: Some(own), encoder: Some(encoder) }
    }
}

impl Iterator for Compressed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut encoder = self.encoder.take()?;
        // Writing into memory cannot fail.
        loop {
            let piece = self.pages.next().or_else(|| self.own.take().map(Bytes::from));
            let Some(piece) = piece else {
                return encoder.finish().ok().map(Bytes::from);
            };
            let _ = encoder.write_all(&piece);
            if !encoder.get_ref().is_empty() {
                let out = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Some(out.into());
            }
        }
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let (coding, quality) = item.split_once(';').unwrap_or((item, ""));
        let is_refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        matches!(coding.trim(), "gzip" | "*") && !is_refused
    })
}

/// The time that a scraper announces, such as `10` or `9.5` seconds.
fn announced_timeout(text: &str) -> Option<Duration> {
    const LONGEST: f64 = 3600.0;
    let seconds: f64 = text.trim().parse().ok()?;
    (seconds > 0.0 && seconds < LONGEST).then(|| Duration::from_secs_f64(seconds))
}

/// What of a scrape's time the servers may take.
fn without_reserve(timeout: Duration) -> Duration {
    timeout.saturating_sub(timeout.mul_f64(RESERVE).max(RESERVE_MIN)).max(timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_less_time_than_the_scrape() {
        let millis = |ms| Duration::from_millis(ms);
        for (timeout, left) in [(10_000, 9_000), (1_000, 750), (300, 150), (60_000, 54_000)] {
            assert_eq!(without_reserve(millis(timeout)), millis(left));
        }
        for (text, timeout) in [
            ("10", Some(10_000)),
            (" 0.5", Some(500)),
            ("0", None),
            ("-1", None),
            ("NaN", None),
            ("x", None),
            ("1e9", None),
        ] {
            assert_eq!(announced_timeout(text), timeout.map(millis), "{text}");
        }
    }

    #[test]
    fn only_who_accepts_it_gets_gzip() {
        for (value, accepts) in [
            ("gzip", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("*", true),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), accepts, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
