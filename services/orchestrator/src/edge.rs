//! A site and its hub: whether the hub answers, and when each site was last heard from.
//!
//! A site with a hub shows itself on `edge.site.<site>.seen`, which crosses the link and is stored
//! nowhere; the orchestrator of a hub listens and exports, because a site that is cut off cannot be
//! scraped. Nothing here holds work back: a link that is down is the normal case of an edge site.

use crate::links::Links;
use crate::metrics::{EDGE_BEATS_IGNORED, EDGE_LINK_STATUS, EDGE_SITE_LAST_SEEN};
use crate::reconcile::pause;
use agentforge_jetstream::{HubConfig, HubLink, Nats, subjects};
use agentforge_message_id::Site;
use agentforge_proto::time::Micros;
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two beats: a handful of bytes each, far below any alert about a silent site.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// Sites exported at most; each is a time series for as long as the process lives.
const SITES_MAX: usize = 512;

/// Shows the link as down, so that the first scrape has it.
pub fn declare(site: &Site) {
    EDGE_LINK_STATUS.set(&[site.as_str()], 0.0);
}

/// This orchestrator's place between hub and sites.
#[derive(Clone)]
pub struct Edge {
    /// The local server.
    pub nats: Nats,
    /// Where the hub is.
    pub hub: HubConfig,
    /// The site that this process runs at; it is the label of its series.
    pub site: Site,
    /// Where what it sees of links is noted.
    pub links: Links,
}

impl Edge {
    /// Exports whether the hub answers until `stop` fires.
    pub async fn link_loop(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let link = HubLink::start(self.nats, &self.hub);
        let mut up = link.up();
        loop {
            let is_up = *up.borrow_and_update();
            EDGE_LINK_STATUS.set(&[self.site.as_str()], if is_up { 1.0 } else { 0.0 });
            self.links.note_own(&self.site, is_up, Micros::now());
            tokio::select! {
                changed = up.changed() => changed?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Sends beats where there is a hub elsewhere, takes them where this is the hub.
    ///
    /// # Errors
    /// When the subscription ends without a stop.
    pub async fn sites_loop(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        match self.hub.domain {
            Some(_) => send_beats(self.nats, &self.site, &stop).await,
            None => take_beats(self.nats, &self.links, &stop).await,
        }
    }
}

async fn send_beats(nats: Nats, site: &Site, stop: &CancellationToken) -> Result<(), anyhow::Error> {
    let subject = subjects::site_seen(site);
    loop {
        // Sent without a connection it would be kept for later, and a beat says that the site is there now.
        let connected = tokio::select! {
            connected = nats.wait_connected(BEAT_EVERY) => connected,
            () = stop.cancelled() => return Ok(()),
        };
        if connected {
            let _ = nats.client().publish(subject.clone(), Bytes::new()).await;
        }
        if !pause(stop, BEAT_EVERY).await {
            return Ok(());
        }
    }
}

async fn take_beats(nats: Nats, links: &Links, stop: &CancellationToken) -> Result<(), anyhow::Error> {
    let mut beats = nats.client().subscribe(subjects::SITES_SEEN).await?;
    let (mut sites, mut reported) = (Sites::new(SITES_MAX), BTreeSet::new());
    loop {
        let beat = tokio::select! {
            beat = beats.next() => beat,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(beat) = beat else { anyhow::bail!("the subscription to the beats of sites has ended") };
        match sites.admit(&beat.subject) {
            Ok(site) => {
                let now = Micros::now();
                EDGE_SITE_LAST_SEEN.set(&[site.as_str()], now.0 as f64 / 1e6);
                links.note_heard(&site, now);
            }
            Err(ignored) => {
                EDGE_BEATS_IGNORED.inc(&[ignored.as_str()]);
                // Anything may be sent here: the counter says how often, the log what it was first.
                if reported.insert(ignored) {
                    warn!(reason = ignored.as_str(), subject = %beat.subject, "a site's heartbeat is ignored");
                }
            }
        }
    }
}

/// Why a beat is not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ignored {
    /// Its subject names no site.
    Name,
    /// There are [`SITES_MAX`] others.
    TooMany,
}

impl Ignored {
    fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::TooMany => "too_many",
        }
    }
}

/// The sites heard from, a bounded number.
struct Sites {
    known: BTreeSet<Site>,
    max: usize,
}

impl Sites {
    fn new(max: usize) -> Self {
        Self { known: BTreeSet::new(), max }
    }

    /// The site that a beat's subject names, if it may be exported.
    fn admit(&mut self, subject: &str) -> Result<Site, Ignored> {
        let name = subject.strip_prefix("edge.site.").and_then(|rest| rest.strip_suffix(".seen"));
        let name = name.ok_or(Ignored::Name)?;
        let site = Site::new(name).map_err(|_| Ignored::Name)?;
        if !self.known.contains(&site) {
            if self.known.len() >= self.max {
                return Err(Ignored::TooMany);
            }
            self.known.insert(site.clone());
        }
        Ok(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_few_and_their_names_fit() {
        let mut sites = Sites::new(2);
        let cases = [
            ("edge.site.pier-7.seen", Ok("pier-7")),
            ("edge.site.a_b.seen", Err(Ignored::Name)),
            ("edge.site..seen", Err(Ignored::Name)),
            ("edge.site.a.b.seen", Err(Ignored::Name)),
            ("edge.evidence.a.seen", Err(Ignored::Name)),
            ("edge.site.dock.seen", Ok("dock")),
            ("edge.site.third.seen", Err(Ignored::TooMany)),
            ("edge.site.pier-7.seen", Ok("pier-7")),
        ];
        for (subject, expected) in cases {
            assert_eq!(sites.admit(subject), expected.map(|name| Site::new(name).unwrap()), "{subject}");
        }
        let own = subjects::site_seen(&Site::new("dock").unwrap());
        assert_eq!(sites.admit(&own), Ok(Site::new("dock").unwrap()), "what is sent is what is taken");
    }
}
