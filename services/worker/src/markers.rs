//! Markers and zones in a job's output: a list named `markers`, put on the live picture.
//!
//! The picture is for now and no part of the result: what cannot be published within its time is left out,
//! with a line in the log, and the job ends as it would have. A redelivery publishes the same states again,
//! which changes nothing.

use agentforge_jetstream::{HeaderMap, Nats, publish, subjects};
use agentforge_message_id::{MsgId, Site};
use agentforge_proto::bus::JobMessage;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

/// Most of one result.
const MARKERS_MAX: usize = 100;
/// For all of one result.
const PUBLISH_MAX: Duration = Duration::from_secs(2);
/// What an output with markers has.
const WORD: &str = "\"markers\"";

#[derive(Deserialize)]
struct Carrying<'a> {
    #[serde(borrow, default)]
    markers: Vec<&'a RawValue>,
}

/// What of a marker says where it goes.
#[derive(Deserialize)]
struct Named {
    id: String,
    site: Option<String>,
    #[serde(default)]
    polygon: Option<serde::de::IgnoredAny>,
}

/// Whether an output may have markers.
pub(crate) fn may_be_in(output: &RawValue) -> bool {
    output.get().contains(WORD)
}

/// Subject and payload of each marker and zone in an output; those without an id are none.
fn markers_of<'a>(output: &'a RawValue, site: &Site) -> Vec<(String, &'a str)> {
    // Nearly no output has them, and none is read twice for that.
    if !may_be_in(output) {
        return Vec::new();
    }
    let Ok(carrying) = serde_json::from_str::<Carrying<'_>>(output.get()) else { return Vec::new() };
    let place = |raw: &'a RawValue| {
        let named: Named = serde_json::from_str(raw.get()).ok()?;
        let site = named.site.as_deref().unwrap_or(site.as_str());
        let subject = match named.polygon {
            None => subjects::tactical_marker(site, &named.id),
            Some(_) => subjects::tactical_zone(site, &named.id),
        };
        Some((subject, raw.get()))
    };
    carrying.markers.into_iter().take(MARKERS_MAX).filter_map(place).collect()
}

/// Publishes what an output carries.
pub(crate) async fn publish_all(nats: &Nats, site: &Site, job: &JobMessage<'_>, output: &RawValue) {
    let deadline = Instant::now() + PUBLISH_MAX;
    for (n, (subject, payload)) in markers_of(output, site).into_iter().enumerate() {
        let id = MsgId::tactical_of_job(job.job, job.attempt, n);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        match timeout_at(deadline, publish(nats, subject, id, HeaderMap::new(), payload)).await {
            Ok(Ok(_)) => {}
            // This one never will be; the others may.
            Ok(Err(error)) if error.is_of_the_message() => warn!(%error, "a job's marker is not on the picture"),
            Ok(Err(error)) => return warn!(%error, "a job's markers are not in the picture"),
            Err(_) => return warn!("a job's markers are not in the picture: no answer in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects_of(output: &str) -> Vec<String> {
        let output = RawValue::from_string(output.to_owned()).unwrap();
        markers_of(&output, &Site::new("pier-7").unwrap()).into_iter().map(|(subject, _)| subject).collect()
    }

    #[test]
    fn a_list_of_markers_goes_where_its_members_say() {
        let output = r#"{"found":2,"markers":[{"id":"a b","title":"A","coordinates":[1,2]},
            {"id":"z","site":"dock","title":"Z","polygon":[[0,0],[1,0],[1,1]]},{"title":"no id"},7]}"#;
        assert_eq!(subjects_of(output), ["tactical.markers.pier-7.a%20b", "tactical.zones.dock.z"]);
    }

    #[test]
    fn other_outputs_carry_none() {
        for output in [
            "null",
            "7",
            "\"markers\"",
            "[]",
            r#"{"markers":7}"#,
            r#"{"markers":null}"#,
            r#"{"x":{"markers":[{"id":"a"}]}}"#,
        ] {
            assert_eq!(subjects_of(output), Vec::<String>::new(), "{output}");
        }
        let many = format!(r#"{{"markers":[{}]}}"#, vec![r#"{"id":"a"}"#; 500].join(","));
        assert_eq!(subjects_of(&many).len(), MARKERS_MAX);
    }
}
