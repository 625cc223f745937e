//! Text of strangers, made harmless for a display.

/// Line breaks stay. Other control characters become spaces, so that no words run together; those that turn the
/// direction of writing or show nothing go.
pub fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let keep = |c: char| match c {
        '\n' | '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => Some('\n'),
        '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}' => None,
        c if c.is_control() => Some(' '),
        c => Some(c),
    };
    text.chars().filter_map(keep).collect()
}
