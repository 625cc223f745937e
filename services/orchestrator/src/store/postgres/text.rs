//! Values as Postgres takes them. It knows no NUL character in text, and one in an error message must not make a whole
//! group fail.

use agentforge_message_id::JobId;
use std::borrow::Cow;

/// Ids as bytes.
pub(super) fn bytes(ids: &[JobId]) -> Vec<&[u8]> {
    ids.iter().map(|id| id.as_bytes().as_slice()).collect()
}

/// `text` with each NUL replaced by U+FFFD.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// As [`clean`], for text that may be absent.
pub(super) fn maybe_clean(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nul_is_replaced() {
        assert!(matches!(clean("plain \u{1} text"), Cow::Borrowed(_)));
        assert_eq!(clean("a\0b"), "a\u{fffd}b");
    }
}
