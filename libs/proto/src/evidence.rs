//! How a file of evidence looks on the bus: the headers of its message, and the manifest that stands in
//! for a file too large for one message.
//!
//! A contract between versions, as `bus` is: unknown fields are ignored, new ones get a default.

use serde::{Deserialize, Serialize};

/// Header: the file's name below the replay directory, percent-encoded (RFC 3986: all bytes but letters,
/// digits, `-`, `.`, `_`, `~` and `/`), because a file name may have any byte and a header may not.
pub const HEADER_FILE: &str = "Agentforge-File";
/// Header: the file's size in bytes.
pub const HEADER_SIZE: &str = "Agentforge-Size";
/// Header: when the file was last changed, RFC 3339 in UTC.
pub const HEADER_MTIME: &str = "Agentforge-Mtime";
/// Header: the site that sent it.
pub const HEADER_SITE: &str = "Agentforge-Site";
/// Header: the media type, as given by its writer, or guessed from the file's name.
pub const HEADER_CONTENT_TYPE: &str = "Content-Type";
/// Header: `1` when the payload is a [`Manifest`] and not the file.
pub const HEADER_MANIFEST: &str = "Agentforge-Manifest";
/// Header: another name of the file, which markers may use. Given by its publisher.
pub const HEADER_EVIDENCE_ID: &str = "AF-Evidence-Id";
/// Header: when the file's content was created, RFC 3339 in UTC, as given by its writer.
pub const HEADER_CREATED: &str = "Agentforge-Created";
/// Header: when the file was last changed at its source, RFC 3339 in UTC, as given by its writer.
pub const HEADER_MODIFIED: &str = "Agentforge-Modified";
/// Header: SHA-256, in hex, of the newest line of the site's ledger when the message was sent.
pub const HEADER_LEDGER: &str = "Agentforge-Ledger";
/// Header of a [`ContentAlias`]: the subject of the message that has the content.
pub const HEADER_SAME_AS: &str = "Agentforge-Same-As";
/// Header of a chunk: its number, from 0.
pub const HEADER_CHUNK: &str = "Agentforge-Chunk";
/// Header of a chunk: SHA-256, in hex, of the file's bytes from its start to the end of this chunk.
pub const HEADER_PREFIX_SHA256: &str = "Agentforge-Prefix-Sha256";

/// The token between the site's subject and what tells aliases apart.
pub const ALIASES_TOKEN: &str = "names";

/// That a content which the stream has was delivered under another name, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentAlias {
    /// The name, percent-encoded.
    pub file: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the content, in hex; also the last token of the message's subject.
    pub sha256: String,
    /// The last modification of this file, RFC 3339 in UTC.
    pub mtime: String,
    /// The place of the content's message in the stream.
    pub seq: u64,
}

/// Where a large file is: an object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The object store's bucket.
    pub bucket: String,
    /// The object's name in it.
    pub object: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, in hex; also the last token of the message's subject.
    pub sha256: String,
    /// How many chunks it is stored in.
    pub chunks: u64,
    /// Bytes of a chunk except for the last. Given since chunks have the site in their subject; without it the object is
    /// described in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// Which upload of the content the chunks are of, where it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl Manifest {
    /// Whether a run is one that can be a token of a subject.
    pub fn is_run(run: &str) -> bool {
        (1..=32).contains(&run.len()) && run.bytes().all(|b| b.is_ascii_alphanumeric())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_a_later_version_is_read() {
        let text = r#"{"bucket":"b","object":"o","size":7,"sha256":"ab","chunks":1,"later":{"x":1}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!((manifest.size, manifest.object.as_str()), (7, "o"));
        assert_eq!((manifest.chunk_bytes, manifest.run), (None, None), "of the version before");
        assert!(Manifest::is_run("0a9") && !Manifest::is_run("a.b") && !Manifest::is_run("") && !Manifest::is_run(">"));
        let text = r#"{"file":"a%20b","size":7,"sha256":"ab","mtime":"2026-11-30T00:00:00Z","seq":3,"later":1}"#;
        let alias: ContentAlias = serde_json::from_str(text).unwrap();
        assert_eq!((alias.seq, alias.file.as_str()), (3, "a%20b"));
    }
}
