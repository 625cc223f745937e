//! A marker or a zone as it leaves: an RFC 7946 Feature with a closed set of properties. Values only.

use crate::{
    geometry::{Bounds, Geometry},
    links::Signer,
    reference,
};
use std::{fmt::Write, sync::Arc};

/// What a thing on the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A thing at one place.
    Marker,
    /// An area with an outline.
    Zone,
}

impl Kind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Zone => "zone",
        }
    }

    /// From the word on the wire.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Marker, Self::Zone].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// To be seen.
    Low,
    /// To be watched.
    Medium,
    /// To be acted on.
    High,
    /// To be acted on now.
    Critical,
}

impl Severity {
    /// All, from the least.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// From the word on the wire.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == word)
    }
}

/// Which thing it is: the parts of its subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Marker or zone.
    pub kind: Kind,
    /// Where it was reported.
    pub site: Arc<str>,
    /// Its name there.
    pub id: Arc<str>,
}

/// One state of a marker or a zone, everything checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Which marker or zone.
    pub key: Key,
    /// Its point or area.
    pub geometry: Geometry,
    /// Shown; at least one character.
    pub title: String,
    /// Text for people, cleaned.
    pub description: Option<String>,
    /// How grave it is.
    pub severity: Severity,
    /// RFC 3339 in UTC.
    pub observed_at: jiff::Timestamp,
    /// Evidence that belongs to it, and to its site.
    pub evidence_id: Option<Arc<str>>,
    /// It named evidence of another site, which is left out.
    pub names_foreign_evidence: bool,
    /// When it ends by itself.
    pub expires_at: Option<jiff::Timestamp>,
}

impl Feature {
    /// The box around it.
    pub fn bounds(&self) -> Bounds {
        self.geometry.bounds()
    }

    /// Writes it as JSON; `evidence_link` is made now, by the signer. Without one it is null.
    pub fn write(&self, signer: Option<&Signer>, out: &mut String) {
        out.push_str(r#"{"type":"Feature","geometry":"#);
        self.geometry.write(out);
        out.push_str(r#","properties":{"#);
        write_identity(&self.key, out);
        field("title", &self.title, out);
        match &self.description {
            Some(text) => field("description", text, out),
            None => out.push_str(r#","description":null"#),
        }
        // Neither has a character that JSON escapes. Writing to a String cannot fail.
        let _ = write!(out, r#","severity":"{}","observed_at":"{}""#, self.severity.as_str(), self.observed_at);
        match (&self.evidence_id, signer) {
            (Some(id), Some(signer)) => {
                let id = reference::of_site(&self.key.site, id);
                field("evidence_link", &signer.link(&id, jiff::Timestamp::now().as_second()), out);
            }
            _ => out.push_str(r#","evidence_link":null"#),
        }
        out.push_str("}}");
    }
}

/// Writes the Feature that says that a marker or zone is gone: its identity, and no place.
pub fn write_removed(key: &Key, out: &mut String) {
    out.push_str(r#"{"type":"Feature","geometry":null,"properties":{"#);
    write_identity(key, out);
    out.push_str("}}");
}

fn write_identity(key: &Key, out: &mut String) {
    out.push_str(r#""id":"#);
    string(&key.id, out);
    field("kind", key.kind.as_str(), out);
    field("site", &key.site, out);
}

fn field(name: &str, value: &str, out: &mut String) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    string(value, out);
}

/// A JSON string in which `<`, `>` and `&` are escaped, so that it stays text wherever it is pasted.
pub fn string(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' || matches!(c, '<' | '>' | '&' | '\u{7f}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_json_and_hold_no_markup() {
        for text in ["plain", "a\"b\\c", "</script><!--", "\u{1}\n\u{7f}", "Grüße 🚒", "\u{2028}"] {
            let mut out = String::new();
            string(text, &mut out);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            assert!(!out.contains(['<', '>', '&', '\n']), "{out}");
        }
    }
}
