//! The hub of an edge site: its JetStream domain, and whether it answers now.
//!
//! Relies on the connection for everything local. A leaf's server answers its clients while its link is cut, so only a
//! request to the hub shows its state. Reads one answer at a time, keeps no history, and never holds anything back:
//! what a link that is down means is its reader's decision.

use crate::nats::Nats;
use agentforge_config::{Parse, Reader, Setting};
use async_nats::{Message, StatusCode};
use bytes::Bytes;
use std::{fmt, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

/// Which JetStream is the hub's.
pub const EDGE_HUB_DOMAIN: Setting = Setting::new(
    "EDGE_HUB_DOMAIN",
    None,
    "JetStream domain: 1-63 letters, digits, hyphens or underscores",
    "JetStream domain of the hub, reached through the site's leaf node. Unset: the connected server is the hub.",
);
const SETTINGS: [Setting; 1] = [EDGE_HUB_DOMAIN];

/// An answer that takes longer is none.
const ANSWER: Duration = Duration::from_secs(2);
/// From one question to the next while the hub answers: a few hundred bytes each, on a narrow link.
const WHILE_UP: Duration = Duration::from_secs(5);
/// The same while it does not: the link's return is good news.
const WHILE_DOWN: Duration = Duration::from_secs(1);
/// Longest name of a domain.
const DOMAIN_MAX: usize = 63;

/// A JetStream domain: one subject token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the requests to its API begin with, such as `$JS.hub.API`.
    pub fn api_prefix(&self) -> String {
        format!("$JS.{self}.API")
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Parse for Domain {
    fn parse(s: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if (1..=DOMAIN_MAX).contains(&s.len()) && s.chars().all(fits) {
            Ok(Self(s.to_owned()))
        } else {
            Err(format!("is not 1 to {DOMAIN_MAX} letters, digits, hyphens or underscores"))
        }
    }
    fn placeholder() -> Self {
        Self("hub".to_owned())
    }
}

/// Where the hub is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubConfig {
    /// Its domain; `None` where the connected server is the hub.
    pub domain: Option<Domain>,
}

impl HubConfig {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the settings; faults are the reader's.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        Self { domain: reader.opt(&EDGE_HUB_DOMAIN) }
    }

    fn question(&self) -> String {
        let prefix = self.domain.as_ref().map_or_else(|| "$JS.API".to_owned(), Domain::api_prefix);
        format!("{prefix}.INFO")
    }
}

/// Watches the hub until it is dropped.
#[derive(Debug)]
pub struct HubLink {
    up: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl HubLink {
    /// Begins to ask. Until the first answer the link counts as down.
    pub fn start(nats: Nats, config: &HubConfig) -> Self {
        let (sender, up) = watch::channel(false);
        let task = tokio::spawn(ask(nats, config.clone(), sender));
        Self { up, _task: AbortOnDropHandle::new(task) }
    }

    /// Whether the hub's JetStream answered within 2 s when it was asked last.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }
}

async fn ask(nats: Nats, config: HubConfig, up: watch::Sender<bool>) {
    let question = config.question();
    let mut connected = nats.connected();
    loop {
        let began = Instant::now();
        let is_connected = *connected.borrow_and_update();
        // Without a connection no server can answer, so there is no need to wait for an answer.
        let answer =
            if is_connected { Some(nats.request(question.clone().into(), Bytes::new(), ANSWER).await) } else { None };
        let is_up = matches!(answer, Some(Ok(message)) if answers(&message));
        if up.send_replace(is_up) != is_up {
            let domain = config.domain.as_ref().map(Domain::as_str);
            if is_up { info!(domain, "the hub answers") } else { warn!(domain, "the hub does not answer") }
        }
        tokio::select! {
            () = sleep_until(began + pause(is_up)) => {}
            // A local connection that comes or goes changes the answer at once.
            changed = connected.changed() => if changed.is_err() { return },
        }
    }
}

fn pause(is_up: bool) -> Duration {
    if is_up { WHILE_UP } else { WHILE_DOWN }
}

/// Whether a reply came from a JetStream that can work: "no responders", "not enabled" and "no leader" do not.
fn answers(message: &Message) -> bool {
    #[derive(serde::Deserialize)]
    struct Info {
        error: Option<serde::de::IgnoredAny>,
    }
    message.status != Some(StatusCode::NO_RESPONDERS)
        && serde_json::from_slice::<Info>(&message.payload).is_ok_and(|info| info.error.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn only_a_jetstream_that_can_work_counts_as_an_answer() {
        let message = |status: Option<StatusCode>, payload: &str| Message {
            subject: "_INBOX.x.1".into(),
            reply: None,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            headers: None,
            status,
            description: None,
            length: 0,
        };
        let cases = [
            (None, r#"{"type":"io.nats.jetstream.api.v1.account_info_response","memory":0}"#, true),
            (
                None,
                r#"{"error":{"code":503,"err_code":10039,"description":"JetStream not enabled for account"}}"#,
                false,
            ),
            (None, r#"{"error":{"code":503,"err_code":10008,"description":"system temporarily unavailable"}}"#, false),
            (Some(StatusCode::NO_RESPONDERS), "", false),
            (None, "", false),
            (None, "no json", false),
        ];
        for (status, payload, expected) in cases {
            assert_eq!(answers(&message(status, payload)), expected, "{status:?} {payload}");
        }
    }

    #[test]
    fn the_hub_is_asked_by_its_domain_or_is_the_connected_server() {
        let read = |pairs: &[(&str, &str)]| {
            let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            let mut reader = Reader::new(&source);
            let config = HubConfig::read(&mut reader);
            reader.finish().map(|_| config).map_err(|f| f.to_string())
        };
        assert_eq!(read(&[]).unwrap().question(), "$JS.API.INFO");
        assert_eq!(read(&[("EDGE_HUB_DOMAIN", "hub")]).unwrap().question(), "$JS.hub.API.INFO");
        let long = "x".repeat(DOMAIN_MAX + 1);
        for wrong in ["a.b", "*", ">", "a b", "ü", &long] {
            assert!(read(&[("EDGE_HUB_DOMAIN", wrong)]).unwrap_err().contains("EDGE_HUB_DOMAIN"), "{wrong}");
        }
    }
}
