//! What of a text may be shown: printable characters, cut where a reader sees a character end. Pure.

use crate::joiners;
use unicode_segmentation::UnicodeSegmentation;

/// Characters that show nothing, change the direction of others, or stand for nothing in Unicode: format
/// characters, fillers, separators of lines, private use and noncharacters. Sorted; both ends belong to it.
const UNSEEN: &[(u32, u32)] = &[
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xE000, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0D),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
    (0xF0000, 0x10_FFFF),
];

/// Whether a character may be shown. A space may.
pub fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    let last = UNSEEN.partition_point(|(first, _)| *first <= code).checked_sub(1);
    let is_unseen = last.is_some_and(|at| code <= UNSEEN[at].1);
    // The last two of every plane stand for nothing.
    !c.is_control() && !is_unseen && code & 0xFFFE != 0xFFFE
}

/// The printable part of a text, one line, at most `max` characters, cut where a character ends for a
/// reader. Line breaks and tabs become a space, everything else that cannot be shown goes.
pub fn clean(text: &str, max: usize) -> String {
    let mut last = ' ';
    let shown = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' | '\u{85}' => Some(' '),
        c if is_printable(c) || joiners::is_joiner(c) => Some(c),
        _ => None,
    });
    // Of several in a row no more than one can spell anything.
    let shown = shown.filter(move |c| !joiners::is_joiner(std::mem::replace(&mut last, *c)) || !joiners::is_joiner(*c));
    // What lies far behind the cut need not be looked at; a character for a reader can be long.
    let shown: Vec<char> = shown.take(max.saturating_mul(4)).collect();
    let shown = spelled(&shown);
    let shown = shown.trim();
    let (mut end, mut count) = (0, 0);
    for (at, grapheme) in shown.grapheme_indices(true) {
        count += grapheme.chars().count();
        if count > max {
            break;
        }
        end = at + grapheme.len();
    }
    let is_cut = end < shown.len();
    // What it would have joined or parted is gone.
    shown[..end].trim_end_matches(|c: char| is_cut && joiners::is_joiner(c)).trim_end().to_owned()
}

/// Without the joiners that spell nothing.
fn spelled(shown: &[char]) -> String {
    let mut kept = Vec::with_capacity(shown.len());
    for (at, c) in shown.iter().enumerate() {
        if !joiners::is_joiner(*c) || joiners::belongs(*c, &kept, &shown[at + 1..]) {
            kept.push(*c);
        }
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(UNSEEN.windows(2).all(|w| w[0].0 <= w[0].1 && w[0].1 < w[1].0));
    }

    #[test]
    fn only_what_can_be_shown_stays() {
        for (text, shown) in [
            ("plain", "plain"),
            ("two\nlines\r\n\tand a tab", "two lines   and a tab"),
            ("bell\u{7}null\0escape\u{1b}[31m", "bellnullescape[31m"),
            ("zero\u{200b}width\u{feff}\u{2060}", "zerowidth"),
            ("gpj.\u{202e}exe", "gpj.exe"),
            ("\u{2066}isolate\u{2069}", "isolate"),
            ("soft\u{ad}hyphen", "softhyphen"),
            ("tag\u{e0041}\u{e007f}", "tag"),
            ("private\u{e000}\u{10ffff}", "private"),
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
            ("  Grüße, 東京 🚒 ", "Grüße, 東京 🚒"),
            ("\u{3164}", ""),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("می\u{200c}\u{200c}\u{200d}خواهم", "می\u{200c}خواهم"),
            ("family 👩\u{200d}👩\u{200d}👧\u{200d}👦", "family 👩\u{200d}👩\u{200d}👧\u{200d}👦"),
            ("a\u{200c}d\u{200d}min", "admin"),
            ("\u{200d}👩\u{200d}", "👩"),
        ] {
            assert_eq!(clean(text, 256), shown, "{text:?}");
        }
    }

    #[test]
    fn a_cut_never_splits_what_a_reader_sees_as_one() {
        assert_eq!(clean(&"x".repeat(300), 256).chars().count(), 256);
        // A flag is two characters, an accent may be its own.
        assert_eq!(clean("ab🇩🇪", 3), "ab");
        assert_eq!(clean("ae\u{301}", 2), "a");
        // More marks than fit: the character goes as a whole.
        assert_eq!(clean(&format!("ab{}", "\u{301}".repeat(500)), 256), "a");
        assert_eq!(clean("word next", 5), "word");
        assert_eq!(clean("می\u{200c}خواهم", 3), "می");
        assert_eq!(clean("a👩\u{200d}👧", 3), "a");
    }
}
