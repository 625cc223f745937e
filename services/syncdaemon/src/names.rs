//! Names of files: which are taken, which come first, how they are written where bytes are not allowed.
//!
//! Pure. A name is the path below the replay directory as bytes, with `/` between its parts; it need not
//! be UTF-8.

/// Files below it are sent before all others.
pub const PRIORITY_DIR: &str = "priority";
/// Where files are moved that can never be sent.
pub const QUARANTINE_DIR: &str = "quarantine";
/// What the name of a sidecar ends with; before it is the name of its file.
const SIDECAR: &[u8] = b".meta.json";
/// Where sent files are on their way out.
pub const SENT_DIR: &str = ".sent";

/// A writer that is not done yet uses one of these.
const UNFINISHED: [&[u8]; 3] = [b".tmp", b".part", b".partial"];

/// Whether a part of a path, file or directory, is left alone: hidden, or unfinished by its name.
pub fn is_left_alone(part: &[u8]) -> bool {
    part.first() == Some(&b'.') || UNFINISHED.iter().any(|end| part.ends_with(end))
}

/// Whether a part of a path is that of a sidecar.
pub fn is_sidecar(part: &[u8]) -> bool {
    file_of(part).is_some()
}

/// The file that a sidecar belongs to.
pub fn file_of(sidecar: &[u8]) -> Option<&[u8]> {
    sidecar.strip_suffix(SIDECAR).filter(|file| !file.is_empty())
}

/// The sidecar of a file.
pub fn sidecar_of(file: &[u8]) -> Vec<u8> {
    [file, SIDECAR].concat()
}

/// Whether a directory is entered; `name` is its path below the replay directory.
pub fn is_entered(name: &[u8]) -> bool {
    name != QUARANTINE_DIR.as_bytes() && !is_left_alone(last_part(name))
}

/// Whether a name at the top of the replay directory is one that the daemon made itself.
pub fn is_ours(name: &[u8]) -> bool {
    [SENT_DIR, QUARANTINE_DIR, PRIORITY_DIR].iter().any(|ours| ours.as_bytes() == name)
}

/// Whether a file is taken, by its path below the replay directory.
pub fn is_taken(name: &[u8]) -> bool {
    let mut parts = name.split(|b| *b == b'/').peekable();
    let in_quarantine = name.strip_prefix(QUARANTINE_DIR.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'));
    !in_quarantine && parts.all(|part| !part.is_empty() && !is_left_alone(part))
}

/// Whether a file comes before the others.
pub fn is_priority(name: &[u8]) -> bool {
    name.strip_prefix(PRIORITY_DIR.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// The directory of a name, empty for the replay directory itself, and the last part.
pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'/') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (&[], name),
    }
}

fn last_part(name: &[u8]) -> &[u8] {
    split(name).1
}

/// The name in text that every header, log and JSON can hold: RFC 3986 percent-encoding of all bytes but
/// letters, digits, `-`, `.`, `_`, `~` and the `/` between parts. [`decode`] gives the bytes back.
pub fn encode(name: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // The usual name needs nothing.
    if name.iter().all(|byte| is_plain(*byte))
        && let Ok(plain) = str::from_utf8(name)
    {
        return plain.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    for byte in name {
        if is_plain(*byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/')
}

/// The bytes of an encoded name; `None` when it is not one.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2)?;
            let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
            out.push(digit(digits[0])? << 4 | digit(digits[1])?);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}

/// The media type by the end of the name; readers that need to be sure look at the bytes.
pub fn content_type(name: &[u8]) -> &'static str {
    const KNOWN: [(&[u8], &str); 18] = [
        (b"txt", "text/plain"),
        (b"log", "text/plain"),
        (b"csv", "text/csv"),
        (b"html", "text/html"),
        (b"xml", "application/xml"),
        (b"json", "application/json"),
        (b"jsonl", "application/jsonl"),
        (b"geojson", "application/geo+json"),
        (b"pdf", "application/pdf"),
        (b"zip", "application/zip"),
        (b"gz", "application/gzip"),
        (b"jpg", "image/jpeg"),
        (b"jpeg", "image/jpeg"),
        (b"png", "image/png"),
        (b"webp", "image/webp"),
        (b"wav", "audio/wav"),
        (b"mp4", "video/mp4"),
        (b"pcap", "application/vnd.tcpdump.pcap"),
    ];
    let last = last_part(name);
    let end = last.iter().rposition(|b| *b == b'.').map_or(&[][..], |at| &last[at + 1..]);
    KNOWN.iter().find(|(known, _)| known.eq_ignore_ascii_case(end)).map_or("application/octet-stream", |(_, t)| t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_taken_and_those_that_are_not() {
        let long = "x".repeat(255);
        let cases: [(&[u8], bool); 22] = [
            (b"a", true),
            (b"a b.txt", true),
            (b"a\nb", true),
            (b"\xff\xfe", true),
            (long.as_bytes(), true),
            (b"sub/dir/a.bin", true),
            (b"priority/a", true),
            (b"quarantine", true),
            (b"sub/quarantine/a", true),
            (b"a.tmp.bin", true),
            (b"tmp", true),
            (b".hidden", false),
            (b".sent/a", false),
            (b"sub/.hidden/a", false),
            (b"a.tmp", false),
            (b"a.part", false),
            (b"a.partial", false),
            (b".tmp", false),
            (b"batch.tmp/a", false),
            (b"quarantine/a", false),
            (b"a//b", false),
            (b"", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_taken(name), expected, "{}", encode(name));
        }
    }

    #[test]
    fn directories_that_are_entered() {
        let cases: [(&[u8], bool); 7] = [
            (b"a", true),
            (b"priority", true),
            (b"a/quarantine", true),
            (b"quarantine", false),
            (b".sent", false),
            (b"a/.git", false),
            (b"a/b.part", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_entered(name), expected, "{}", encode(name));
        }
    }

    #[test]
    fn priority_is_a_directory_at_the_top() {
        assert!(is_priority(b"priority/a") && is_priority(b"priority/b/c"));
        for other in [&b"priority"[..], b"priority2/a", b"a/priority/b"] {
            assert!(!is_priority(other));
        }
    }

    #[test]
    fn every_name_survives_encoding() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for name in [&b"plain/name-1.0_~.bin"[..], b"a b\r\nc%41", "Äther/文".as_bytes(), b"\xff\x00", &every_byte] {
            let text = encode(name);
            assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text}");
            assert_eq!(decode(&text).unwrap(), name, "{text}");
        }
        assert_eq!(encode(b"a b\n"), "a%20b%0A");
        assert_eq!(encode(b"sub/a.txt"), "sub/a.txt");
        for broken in ["%", "%4", "%zz"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn types_by_their_ends() {
        for (name, expected) in [
            (&b"a.JPG"[..], "image/jpeg"),
            (b"b/c.json", "application/json"),
            (b"json", "application/octet-stream"),
            (b"a.json/b", "application/octet-stream"),
            (b"a.", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected);
        }
    }
}
