//! From what anybody published to what everybody may see: one message in, one checked change out. Pure.
//!
//! Subject and payload are untrusted. Unknown fields are dropped, texts are cleaned, coordinates come into
//! range; what cannot be made sense of is refused with one of a few reasons. Never panics, never recurses
//! deeper than serde_json lets it.

use crate::{
    feature::{Feature, Key, Kind, Severity},
    geometry::{Fault, Geometry},
    links, reference, text,
};
use agentforge_jetstream::subjects::untoken;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Longest title, in characters.
pub const TITLE_MAX: usize = 256;
/// Longest description, in characters.
pub const DESCRIPTION_MAX: usize = 1024;
/// Longest id and site, in characters.
pub const NAME_MAX: usize = 128;
/// Largest payload, in bytes: what a server takes by default.
pub const PAYLOAD_MAX_BYTES: usize = 1 << 20;

/// What a message did to the picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new state.
    State(Box<Feature>),
    /// The marker or zone is gone.
    Removed(Key),
}

impl Change {
    /// Which marker or zone.
    pub fn key(&self) -> &Key {
        match self {
            Self::State(feature) => &feature.key,
            Self::Removed(key) => key,
        }
    }
}

/// Why a message changes nothing. The words are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The subject is not of the form that the API publishes to.
    #[error("the subject is not tactical.markers.<site>.<id> or tactical.zones.<site>.<id>")]
    Subject,
    /// Larger than any marker or zone.
    #[error("the payload has more than {PAYLOAD_MAX_BYTES} bytes")]
    TooLarge,
    /// No JSON object.
    #[error("the payload is not a JSON object")]
    Malformed,
    /// Missing, no string, or nothing of it can be shown.
    #[error("title is not a string with a printable character")]
    Title,
    /// Missing, no numbers, or absurd.
    #[error("coordinates are not [longitude, latitude] in degrees")]
    Coordinates,
    /// No polygon, or one that makes no zone.
    #[error("polygon is not a zone: {0}")]
    Polygon(Fault),
    /// Not one of the four words.
    #[error("severity is not low, medium, high or critical")]
    Severity,
    /// No RFC 3339 time.
    #[error("observed_at or expires_at is not an RFC 3339 time")]
    Time,
    /// No string, too long, or with characters that cannot be shown.
    #[error("evidence_id is not a string of 1 to 128 printable characters")]
    EvidenceId,
}

impl Rejection {
    /// All, for the metric.
    pub const ALL: [Self; 9] = [
        Self::Subject,
        Self::TooLarge,
        Self::Malformed,
        Self::Title,
        Self::Coordinates,
        Self::Polygon(Fault::Shape),
        Self::Severity,
        Self::Time,
        Self::EvidenceId,
    ];

    /// A stable short name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Title => "title",
            Self::Coordinates => "coordinates",
            Self::Polygon(_) => "polygon",
            Self::Severity => "severity",
            Self::Time => "time",
            Self::EvidenceId => "evidence_id",
        }
    }
}

/// A payload as it comes; each field is read by its own rule.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow, default)]
    title: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    coordinates: Option<&'a RawValue>,
    #[serde(borrow, default)]
    polygon: Option<&'a RawValue>,
    #[serde(borrow, default)]
    severity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    observed_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    expires_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    evidence_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    removed: Option<&'a RawValue>,
}

/// What a subject names.
///
/// # Errors
/// [`Rejection::Subject`].
pub fn key_of(subject: &str) -> Result<Key, Rejection> {
    let mut tokens = subject.split('.');
    let (Some("tactical"), Some(kind), Some(site), Some(id), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return Err(Rejection::Subject);
    };
    let kind = match kind {
        "markers" => Kind::Marker,
        "zones" => Kind::Zone,
        _ => return Err(Rejection::Subject),
    };
    let name = |token: &str| untoken(token).filter(|name| is_name(name)).ok_or(Rejection::Subject);
    Ok(Key { kind, site: name(site)?.into(), id: name(id)?.into() })
}

/// Whether a text may name a site or a marker.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.chars().count()) && name.chars().all(text::is_printable)
}

/// Reads a message. `stored_at` stands in for a missing `observed_at`.
///
/// # Errors
/// See [`Rejection`].
pub fn sanitise(subject: &str, payload: &[u8], stored_at: Timestamp) -> Result<Change, Rejection> {
    let key = key_of(subject)?;
    if payload.is_empty() {
        return Ok(Change::Removed(key));
    }
    if payload.len() > PAYLOAD_MAX_BYTES {
        return Err(Rejection::TooLarge);
    }
    // A list would be taken for the fields in their order.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(Rejection::Malformed);
    }
    let incoming: Incoming<'_> = serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)?;
    if incoming.removed.is_some_and(|raw| raw.get() == "true") {
        return Ok(Change::Removed(key));
    }
    let title: Cow<'_, str> = given(incoming.title).ok_or(Rejection::Title)?.map_err(|()| Rejection::Title)?;
    let title = text::clean(&title, TITLE_MAX);
    if title.is_empty() {
        return Err(Rejection::Title);
    }
    // A description that is not text is dropped; the rest of the event stays.
    let description = given::<Cow<'_, str>>(incoming.description).and_then(Result::ok);
    let description = description.map(|d| text::clean(&d, DESCRIPTION_MAX)).filter(|d| !d.is_empty());
    let named = match given::<Cow<'_, str>>(incoming.evidence_id) {
        None => None,
        Some(id) => Some(evidence_id(&id.map_err(|()| Rejection::EvidenceId)?)?),
    };
    let evidence_id = named.clone().filter(|id| reference::is_own(&key.site, id));
    Ok(Change::State(Box::new(Feature {
        geometry: geometry(key.kind, &incoming)?,
        title,
        description,
        severity: match given::<Cow<'_, str>>(incoming.severity) {
            None => Severity::Low,
            Some(word) => word.ok().and_then(|w| Severity::parse(&w)).ok_or(Rejection::Severity)?,
        },
        observed_at: time(incoming.observed_at)?.unwrap_or(stored_at),
        expires_at: time(incoming.expires_at)?,
        names_foreign_evidence: named.is_some() && evidence_id.is_none(),
        evidence_id,
        key,
    })))
}

/// A field: absent and null are the same; otherwise of the type, or not.
fn given<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<Result<T, ()>> {
    let raw = raw.filter(|raw| raw.get() != "null")?;
    Some(serde_json::from_str(raw.get()).map_err(|_| ()))
}

fn time(raw: Option<&RawValue>) -> Result<Option<Timestamp>, Rejection> {
    let text: Option<Result<Cow<'_, str>, ()>> = given(raw);
    let parsed = text.map(|text| text.ok().and_then(|t| t.parse().ok()).ok_or(Rejection::Time));
    parsed.transpose()
}

fn evidence_id(id: &str) -> Result<std::sync::Arc<str>, Rejection> {
    let fits = (1..=links::ID_MAX).contains(&id.chars().count()) && id.chars().all(text::is_printable);
    if fits { Ok(id.into()) } else { Err(Rejection::EvidenceId) }
}

fn geometry(kind: Kind, incoming: &Incoming<'_>) -> Result<Geometry, Rejection> {
    match kind {
        Kind::Marker => {
            let Place([lon, lat]) = given(incoming.coordinates).and_then(Result::ok).ok_or(Rejection::Coordinates)?;
            Geometry::point(lon, lat).map_err(|_| Rejection::Coordinates)
        }
        Kind::Zone => {
            let Rings(rings) = given(incoming.polygon).and_then(Result::ok).ok_or(Rejection::Polygon(Fault::Shape))?;
            Geometry::polygon(&rings).map_err(|fault| match fault {
                Fault::Coordinate => Rejection::Coordinates,
                fault => Rejection::Polygon(fault),
            })
        }
    }
}

/// Two numbers; a height behind them is dropped.
#[derive(Clone, Copy)]
struct Place([f64; 2]);

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Place;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[longitude, latitude]")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Place, A::Error> {
                let mut number = |n| seq.next_element::<f64>()?.ok_or_else(|| de::Error::invalid_length(n, &self));
                let place = [number(0)?, number(1)?];
                if seq.next_element::<f64>()?.is_some() && seq.next_element::<f64>()?.is_some() {
                    return Err(de::Error::invalid_length(4, &self));
                }
                Ok(Place(place))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

/// One ring, or a list of rings; the size of the payload bounds both.
struct Rings(Vec<Vec<[f64; 2]>>);

impl<'de> Deserialize<'de> for Rings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Ring(Vec<Place>),
            Rings(Vec<Vec<Place>>),
        }
        let plain = |ring: Vec<Place>| ring.into_iter().map(|p| p.0).collect();
        Ok(Self(match Given::deserialize(deserializer)? {
            Given::Ring(ring) => vec![plain(ring)],
            Given::Rings(rings) => rings.into_iter().map(plain).collect(),
        }))
    }
}

#[cfg(test)]
#[path = "sanitise_tests.rs"]
mod tests;
