//! Values that are counted again at each scrape: gauges that a service reads from elsewhere, such as its database.
//!
//! Services register a refresher; a scrape runs all of them side by side within a limit and then renders. What
//! does not come in time keeps its last value, so that a database that hangs costs freshness and never the page.

use futures_util::future::{BoxFuture, join_all};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// A scrape waits so long for fresh values, well below any scraper's timeout.
const REFRESH_MAX: Duration = Duration::from_millis(250);
/// Values that are no older are fresh: many scrapers ask the database no more often than one.
const FRESH: Duration = Duration::from_secs(1);

/// Sets gauges to what they are now.
type Refresh = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The refreshers of a process. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Refreshers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    all: Mutex<Vec<Arc<Refresher>>>,
    /// When the last refresh began; held while one runs, so that scrapes at the same time share it.
    last: tokio::sync::Mutex<Option<Instant>>,
}

struct Refresher {
    refresh: Refresh,
    stop: CancellationToken,
}

impl std::fmt::Debug for Refreshers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refreshers")
    }
}

impl Refreshers {
    /// Runs `refresh` at each scrape until `stop` fires.
    pub(crate) fn add<F>(&self, stop: CancellationToken, refresh: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let refresh: Refresh = Box::new(move || Box::pin(refresh()));
        self.lock().push(Arc::new(Refresher { refresh, stop }));
    }

    /// Refreshes what is not fresh, for at most [`REFRESH_MAX`].
    pub(crate) async fn run(&self) {
        let all: Vec<Arc<Refresher>> = {
            let mut all = self.lock();
            all.retain(|refresher| !refresher.stop.is_cancelled());
            all.clone()
        };
        if all.is_empty() {
            return;
        }
        let refreshed = async {
            let mut last = self.0.last.lock().await;
            if last.is_none_or(|began| began.elapsed() >= FRESH) {
                *last = Some(Instant::now());
                join_all(all.iter().map(|refresher| (refresher.refresh)())).await;
            }
        };
        if timeout(REFRESH_MAX, refreshed).await.is_err() {
            tracing::debug!(
                limit_ms = REFRESH_MAX.as_millis(),
                "gauges were not counted in time; keeping their last values"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Refresher>>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counting(refreshers: &Refreshers, stop: &CancellationToken) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        refreshers.add(stop.clone(), move || {
            let counted = counted.clone();
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        count
    }

    /// As if the last refresh were a while ago.
    async fn let_values_age(refreshers: &Refreshers) {
        *refreshers.0.last.lock().await = Instant::now().checked_sub(FRESH);
    }

    #[tokio::test]
    async fn scrapes_within_a_second_share_a_refresh_and_a_stopped_service_has_none() {
        let (refreshers, stop) = (Refreshers::default(), CancellationToken::new());
        let count = counting(&refreshers, &stop);
        tokio::join!(refreshers.run(), refreshers.run());
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let_values_age(&refreshers).await;
        refreshers.run().await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
        stop.cancel();
        let_values_age(&refreshers).await;
        refreshers.run().await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn one_that_hangs_costs_the_limit_and_spares_the_others() {
        let (refreshers, stop) = (Refreshers::default(), CancellationToken::new());
        refreshers.add(stop.clone(), std::future::pending);
        let count = counting(&refreshers, &stop);
        let began = Instant::now();
        timeout(Duration::from_secs(30), refreshers.run()).await.expect("it ends");
        assert!(began.elapsed() >= REFRESH_MAX);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
