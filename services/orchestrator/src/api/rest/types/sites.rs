//! Links of sites as JSON.

use super::{Moment, moment};
use crate::links::{Link, REACH, Whose};
use agentforge_message_id::Site;
use agentforge_proto::time::Micros;
use serde::Serialize;
use utoipa::ToSchema;

/// A link that was up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LinkSpan)]
pub struct SpanView {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    from: Moment,
    /// Until when; null while it is up.
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Moment>,
}

/// A site's link.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Site)]
pub struct SiteView {
    /// The site.
    site: String,
    /// Whether it is the link of this very process; otherwise the site is heard by this hub.
    own: bool,
    /// Whether it is up.
    up: bool,
    /// When it was heard last, or seen up.
    #[schema(value_type = Option<String>, format = DateTime)]
    seen_at: Option<Moment>,
    /// Nothing is known of the time before.
    #[schema(value_type = String, format = DateTime)]
    known_since: Moment,
    /// When it was up since then, the oldest first, at most 256.
    spans: Vec<SpanView>,
}

/// All sites.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteList {
    /// The moment of this answer.
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
    /// How far back links are remembered, seconds.
    reach_seconds: u64,
    /// By name, the own first.
    sites: Vec<SiteView>,
}

impl SiteList {
    pub(crate) fn new(at: Micros, links: Vec<(Whose, Site, Link)>) -> Self {
        let sites = links.into_iter().map(|(whose, site, link)| SiteView {
            site: site.to_string(),
            own: whose == Whose::Own,
            up: link.is_up(),
            seen_at: moment(link.seen_at),
            known_since: link.known_since.into(),
            spans: link.up.iter().map(|(from, to)| SpanView { from: (*from).into(), to: moment(*to) }).collect(),
        });
        Self { at: at.into(), reach_seconds: REACH.as_secs(), sites: sites.collect() }
    }
}
