//! What a writer says about its file: in a sidecar, `NAME.meta.json` next to `NAME`, or in
//! extended attributes of the file.
//!
//! All of it is checked before it is believed: it goes into headers that others read. What cannot be believed
//! holds no file up; the file is sent without, and the ledger says why.

use crate::{
    directory::{
        self, Parent,
        lease::{self, Writers},
        stamp::Stamp,
    },
    names,
};
use jiff::Timestamp;
use rustix::{
    fs::{fgetxattr, flistxattr},
    io::Errno,
};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read},
};

/// A longer sidecar is none.
const SIDECAR_MAX_BYTES: u64 = 16 << 10;
/// Longest media type and longest evidence id, in characters.
const MEDIA_TYPE_MAX: usize = 255;
const EVIDENCE_ID_MAX: usize = 128;
/// What the names of the attributes begin with.
const ATTRIBUTES: &str = "user.agentforge.";

/// What a writer says about a file, all of it checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its media type.
    pub media_type: Option<String>,
    /// Another name, by which markers speak of it.
    pub evidence_id: Option<String>,
    /// When what it shows was made.
    pub created: Option<Timestamp>,
    /// When it was changed last where it comes from.
    pub modified: Option<Timestamp>,
}

/// What was found with a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileMetadata {
    /// What its writer says about it.
    pub values: Metadata,
    /// The sidecar as it was read: it goes with its file.
    pub sidecar: Option<Stamp>,
    /// Why some of it is not believed.
    pub problem: Option<String>,
}

/// Both forms, as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetadata {
    media_type: Option<String>,
    evidence_id: Option<String>,
    created: Option<String>,
    modified: Option<String>,
}

/// The sidecar is being written.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfinished;

/// Reads what the writer says about an open file of a directory; `None` when that is nothing, which is usual.
///
/// # Errors
/// The sidecar is being written: the file waits.
pub fn read(
    parent: &Parent<'_>,
    last: &[u8],
    file: &File,
    reports_writers: bool,
) -> Result<Option<FileMetadata>, Unfinished> {
    let (mut found, mut is_present) = (FileMetadata::default(), false);
    match attributes(file) {
        Ok(None) => {}
        Ok(Some(raw)) => {
            is_present = true;
            found.take(raw.checked());
        }
        Err(e) => {
            is_present = true;
            found.problem = Some(format!("its attributes cannot be read: {e}"));
        }
    }
    match sidecar(parent, last, reports_writers)? {
        None => {}
        Some(Ok((raw, stamp))) => {
            is_present = true;
            match raw.and_then(RawMetadata::checked) {
                Ok(values) => {
                    found.values = values.or(found.values);
                    found.sidecar = Some(stamp);
                }
                Err(why) => found.problem = Some(format!("its sidecar is not believed: {why}")),
            }
        }
        Some(Err(e)) => {
            is_present = true;
            found.problem = Some(format!("its sidecar cannot be read: {e}"));
        }
    }
    Ok(is_present.then_some(found))
}

impl FileMetadata {
    fn take(&mut self, values: Result<Metadata, String>) {
        match values {
            Ok(values) => self.values = values,
            Err(why) => self.problem = Some(format!("its attributes are not believed: {why}")),
        }
    }
}

impl Metadata {
    fn or(self, other: Self) -> Self {
        Self {
            media_type: self.media_type.or(other.media_type),
            evidence_id: self.evidence_id.or(other.evidence_id),
            created: self.created.or(other.created),
            modified: self.modified.or(other.modified),
        }
    }
}

impl RawMetadata {
    fn checked(self) -> Result<Metadata, String> {
        let time = |field: &str, raw: Option<String>| match raw {
            None => Ok(None),
            Some(raw) => {
                raw.parse::<Timestamp>().map(Some).map_err(|e| format!("{field} is not an RFC 3339 time: {e}"))
            }
        };
        if let Some(kind) = &self.media_type
            && !is_media_type(kind)
        {
            return Err("media_type is not a media type such as image/jpeg".to_owned());
        }
        if let Some(id) = &self.evidence_id
            && !is_evidence_id(id)
        {
            return Err(format!("evidence_id is not 1 to {EVIDENCE_ID_MAX} characters without control characters"));
        }
        Ok(Metadata {
            created: time("created", self.created)?,
            modified: time("modified", self.modified)?,
            media_type: self.media_type,
            evidence_id: self.evidence_id,
        })
    }
}

fn is_media_type(text: &str) -> bool {
    let is_token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    let kind = kind.trim_end().split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    kind && text.len() <= MEDIA_TYPE_MAX && parameters.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn is_evidence_id(text: &str) -> bool {
    let is_shown = |c: char| !c.is_control();
    (1..=EVIDENCE_ID_MAX).contains(&text.chars().count()) && text.trim() == text && text.chars().all(is_shown)
}

/// The attributes of a file that are for us.
fn attributes(file: &File) -> io::Result<Option<RawMetadata>> {
    let mut names = [0u8; 4096];
    let names = match flistxattr(file, &mut names[..]) {
        Ok(len) => &names[..len],
        // More of them than are needed; or the file system has none.
        Err(Errno::RANGE | Errno::NOTSUP) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let ours = |name: &&[u8]| name.starts_with(ATTRIBUTES.as_bytes());
    if !names.split(|b| *b == 0).any(|name| ours(&name)) {
        return Ok(None);
    }
    let value = |field: &str| -> io::Result<Option<String>> {
        let mut value = [0u8; 1024];
        match fgetxattr(file, format!("{ATTRIBUTES}{field}"), &mut value[..]) {
            Ok(len) => String::from_utf8(value[..len].to_vec()).map(Some).map_err(io::Error::other),
            Err(Errno::NODATA) => Ok(None),
            Err(e) => Err(e.into()),
        }
    };
    Ok(Some(RawMetadata {
        media_type: value("media_type")?,
        evidence_id: value("evidence_id")?,
        created: value("created")?,
        modified: value("modified")?,
    }))
}

type Sidecar = io::Result<(Result<RawMetadata, String>, Stamp)>;

fn sidecar(parent: &Parent<'_>, last: &[u8], reports_writers: bool) -> Result<Option<Sidecar>, Unfinished> {
    // What is by itself for long enough to be sent has no sidecar of its own.
    if names::is_sidecar(last) {
        return Ok(None);
    }
    let file = match directory::open_in(parent, &names::sidecar_of(last)) {
        Ok(file) => File::from(file),
        Err(e) => {
            let none = matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NAMETOOLONG | Errno::LOOP));
            return Ok(if none { None } else { Some(Err(e)) });
        }
    };
    if reports_writers && lease::writers(&file) == Writers::Some {
        return Err(Unfinished);
    }
    Ok(Some(raw_of(&file)))
}

fn raw_of(file: &File) -> Sidecar {
    let stamp = directory::stamp_of(file)?;
    let mut bytes = Vec::new();
    file.take(SIDECAR_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    let raw = if bytes.len() as u64 > SIDECAR_MAX_BYTES {
        Err(format!("it is longer than {SIDECAR_MAX_BYTES} bytes"))
    } else {
        serde_json::from_slice(&bytes).map_err(|e| e.to_string())
    };
    Ok((raw, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Metadata, String> {
        serde_json::from_str::<RawMetadata>(json).map_err(|e| e.to_string()).and_then(RawMetadata::checked)
    }

    #[test]
    fn what_is_told_is_checked() {
        let all = r#"{"media_type":"video/mp4; codecs=\"avc1\"","evidence_id":"cam-7/Ä 1",
                      "created":"2026-11-30T04:05:06.789Z","modified":"2026-11-30T05:05:06+01:00"}"#;
        let values = checked(all).unwrap();
        assert_eq!(values.evidence_id.as_deref(), Some("cam-7/Ä 1"));
        assert_eq!(values.modified.unwrap().to_string(), "2026-11-30T04:05:06Z");
        assert_eq!(checked("{}"), Ok(Metadata::default()));
        for wrong in [
            r#"{"media_type":"video"}"#,
            r#"{"media_type":"a/b\r\nX: y"}"#,
            r#"{"media_type":"a/b; x=\u00e4"}"#,
            r#"{"evidence_id":""}"#,
            r#"{"evidence_id":" a"}"#,
            r#"{"evidence_id":"a\nb"}"#,
            r#"{"created":"yesterday"}"#,
            r#"{"evidence":"a"}"#,
            r#"{"evidence_id":7}"#,
            "[]",
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
        assert!(!is_evidence_id(&"x".repeat(EVIDENCE_ID_MAX + 1)) && is_evidence_id(&"ä".repeat(EVIDENCE_ID_MAX)));
    }

    #[test]
    fn a_sidecar_goes_before_attributes_and_what_it_leaves_out_is_theirs() {
        let one = Metadata { evidence_id: Some("a".into()), ..Metadata::default() };
        let other = Metadata { evidence_id: Some("b".into()), media_type: Some("a/b".into()), ..Metadata::default() };
        let both = one.or(other);
        assert_eq!((both.evidence_id.as_deref(), both.media_type.as_deref()), (Some("a"), Some("a/b")));
    }
}
