//! Which bytes of a file a Range header asks for (RFC 9110, 14.2). Pure.

/// Some bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u64,
    /// How many bytes from there, at least 1.
    pub len: u64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    /// All of it: no range, several, or one that makes no sense.
    Whole,
    /// A part that the file has.
    Part(Span),
    /// A part that the file does not have.
    Nothing,
}

/// Reads the header's value.
pub fn asked(range: Option<&str>, size: u64) -> RequestedRange {
    let Some((first, last)) = range.and_then(|r| r.strip_prefix("bytes=")).and_then(|r| r.trim().split_once('-'))
    else {
        return RequestedRange::Whole;
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (first, last) {
        ("", last) => match number(last) {
            None => RequestedRange::Whole,
            Some(0) => RequestedRange::Nothing,
            Some(_) if size == 0 => RequestedRange::Nothing,
            Some(n) => RequestedRange::Part(Span { start: size - n.min(size), len: n.min(size) }),
        },
        (first, last) => {
            let end = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), end) {
                (Some(start), Some(end)) if start <= end => {
                    if start < size {
                        RequestedRange::Part(Span { start, len: end.min(size - 1) - start + 1 })
                    } else {
                        RequestedRange::Nothing
                    }
                }
                _ => RequestedRange::Whole,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        let part = |start, len| RequestedRange::Part(Span { start, len });
        for (range, size, expected) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=0-", 10, part(0, 10)),
            ("bytes=3-5", 10, part(3, 3)),
            ("bytes=3-500", 10, part(3, 7)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=9-", 10, part(9, 1)),
            ("bytes=10-", 10, RequestedRange::Nothing),
            ("bytes=-0", 10, RequestedRange::Nothing),
            ("bytes=0-", 0, RequestedRange::Nothing),
            ("bytes=-5", 0, RequestedRange::Nothing),
            ("bytes=5-3", 10, RequestedRange::Whole),
            ("bytes=a-3", 10, RequestedRange::Whole),
            ("bytes=1-2,4-5", 10, RequestedRange::Whole),
            ("bytes=+1-2", 10, RequestedRange::Whole),
            ("bytes=99999999999999999999-", 10, RequestedRange::Whole),
            ("items=0-1", 10, RequestedRange::Whole),
            ("bytes=", 10, RequestedRange::Whole),
        ] {
            assert_eq!(asked(Some(range), size), expected, "{range} of {size}");
        }
        assert_eq!(asked(None, 10), RequestedRange::Whole);
    }
}
