//! Where a character that joins or parts its neighbours belongs to the spelling (UAX #31, 2.3; RFC 5892,
//! appendix A): Persian and Indic words, and emoji that are made of several. Elsewhere it shows nothing and is
//! a way to make two equal texts differ. Pure.

/// Zero width non-joiner.
const ZWNJ: char = '\u{200C}';
/// Zero width joiner.
const ZWJ: char = '\u{200D}';

/// Letters that join to the next one (joining types D and L), by blocks; those in [`JOINS_BEFORE`] do not.
const CURSIVE: &[(u32, u32)] = &[
    (0x0620, 0x064A),
    (0x066E, 0x06D3),
    (0x06FA, 0x06FF),
    (0x0712, 0x072F),
    (0x074D, 0x077F),
    (0x07CA, 0x07EA),
    (0x0840, 0x0855),
    (0x08A0, 0x08C8),
    (0x1820, 0x1878),
    (0x1887, 0x18AA),
];
/// Of these, letters that join only to the previous one, or to none.
const JOINS_BEFORE: &[(u32, u32)] = &[
    (0x0621, 0x0625),
    (0x0627, 0x0627),
    (0x0629, 0x0629),
    (0x062F, 0x0632),
    (0x0648, 0x0648),
    (0x0671, 0x0677),
    (0x0688, 0x0699),
    (0x06C0, 0x06C0),
    (0x06C3, 0x06CB),
    (0x06CD, 0x06CD),
    (0x06CF, 0x06CF),
    (0x06D2, 0x06D3),
    (0x0715, 0x0719),
    (0x071E, 0x071E),
    (0x0728, 0x0728),
    (0x072A, 0x072A),
    (0x072C, 0x072C),
    (0x072F, 0x072F),
    (0x074D, 0x074D),
    (0x0759, 0x075B),
    (0x076B, 0x076C),
    (0x0771, 0x0771),
    (0x0773, 0x0774),
    (0x0778, 0x0779),
    (0x0840, 0x0840),
    (0x0846, 0x0847),
    (0x0849, 0x0849),
    (0x0854, 0x0855),
    (0x08AA, 0x08AE),
    (0x08B1, 0x08B2),
    (0x08B9, 0x08B9),
];
/// Of these, letters that join to none.
const JOINS_NOTHING: &[u32] = &[0x0621, 0x0674, 0x06D5];
/// Marks that lie over or under a cursive letter and let it join.
const TRANSPARENT: &[(u32, u32)] =
    &[(0x0300, 0x034E), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670), (0x06D6, 0x06ED), (0x0730, 0x074A)];
/// Signs that take a consonant's vowel (canonical combining class 9).
const VIRAMAS: &[u32] = &[
    0x094D, 0x09CD, 0x0A4D, 0x0ACD, 0x0B4D, 0x0BCD, 0x0C4D, 0x0CCD, 0x0D3B, 0x0D3C, 0x0D4D, 0x0DCA, 0x0E3A, 0x0EBA,
    0x0F84, 0x1039, 0x103A, 0x1714, 0x1734, 0x17D2, 0x1A60, 0x1B44, 0x1BAA, 0x1BAB, 0x1BF2, 0x1BF3, 0xA806, 0xA8C4,
    0xA953, 0xA9C0, 0xAAF6, 0xABED, 0x11046, 0x1107F, 0x110B9, 0x11133, 0x11134, 0x111C0, 0x11235, 0x112EA, 0x1134D,
    0x11442, 0x114C2, 0x115BF, 0x1163F, 0x116B6, 0x1172B, 0x11839,
];
/// Signs that can be part of a bigger one (Extended_Pictographic), by blocks.
const PICTOGRAPHS: &[(u32, u32)] = &[
    (0x00A9, 0x00A9),
    (0x00AE, 0x00AE),
    (0x203C, 0x203C),
    (0x2049, 0x2049),
    (0x2122, 0x2122),
    (0x2139, 0x2139),
    (0x2194, 0x21AA),
    (0x231A, 0x23FF),
    (0x24C2, 0x24C2),
    (0x25AA, 0x25FE),
    (0x2600, 0x27BF),
    (0x2934, 0x2935),
    (0x2B05, 0x2B55),
    (0x3030, 0x3030),
    (0x303D, 0x303D),
    (0x3297, 0x3299),
    (0x1F000, 0x1F1E5),
    (0x1F200, 0x1F3FA),
    (0x1F400, 0x1FAFF),
];
/// What may lie between a pictograph and a joiner: how it is drawn, and a colour of skin.
const PICTOGRAPH_ENDS: &[(u32, u32)] = &[(0xFE0F, 0xFE0F), (0x1F3FB, 0x1F3FF)];
/// Bengali ra, which a joiner keeps from becoming a mark over the next consonant.
const BENGALI_RA: char = '\u{09B0}';
const BENGALI_VIRAMA: char = '\u{09CD}';

/// Whether a character only joins or parts others.
pub fn is_joiner(c: char) -> bool {
    matches!(c, ZWNJ | ZWJ)
}

/// Whether a joiner belongs between what is before and what is behind it.
pub fn belongs(joiner: char, before: &[char], behind: &[char]) -> bool {
    let Some(next) = behind.first().copied() else { return joiner == ZWJ && ends_with_virama(before) };
    match joiner {
        ZWJ => {
            ends_with_virama(before)
                || ends_with_pictograph(before) && is_in(PICTOGRAPHS, next)
                || before.last() == Some(&BENGALI_RA) && next == BENGALI_VIRAMA
        }
        _ => ends_with_virama(before) && next.is_alphabetic() || parts_cursive(before, behind),
    }
}

/// Sorted blocks; both ends belong to them.
fn is_in(blocks: &[(u32, u32)], c: char) -> bool {
    let code = u32::from(c);
    let last = blocks.partition_point(|(first, _)| *first <= code).checked_sub(1);
    last.is_some_and(|at| code <= blocks[at].1)
}

/// A letter, and behind it, perhaps after marks, a virama.
fn ends_with_virama(before: &[char]) -> bool {
    match before {
        [.., letter, virama] => VIRAMAS.contains(&u32::from(*virama)) && !is_joiner(*letter) && *letter != ' ',
        _ => false,
    }
}

fn ends_with_pictograph(before: &[char]) -> bool {
    before.iter().rev().find(|c| !is_in(PICTOGRAPH_ENDS, **c)).is_some_and(|c| is_in(PICTOGRAPHS, *c))
}

/// Two letters that would join.
fn parts_cursive(before: &[char], behind: &[char]) -> bool {
    let letter = |c: &&char| !is_in(TRANSPARENT, **c);
    let (last, next) = (before.iter().rev().find(letter), behind.iter().find(letter));
    let (Some(last), Some(next)) = (last, next) else { return false };
    let joins_next = is_in(CURSIVE, *last) && !is_in(JOINS_BEFORE, *last);
    joins_next && is_in(CURSIVE, *next) && !JOINS_NOTHING.contains(&u32::from(*next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        for blocks in [CURSIVE, JOINS_BEFORE, TRANSPARENT, PICTOGRAPHS, PICTOGRAPH_ENDS] {
            assert!(blocks.windows(2).all(|w| w[0].0 <= w[0].1 && w[0].1 < w[1].0), "{blocks:x?}");
        }
    }

    #[test]
    fn joiners_stay_where_they_spell() {
        for (text, stays) in [
            ("می\u{200C}خواهم", true),
            ("خانه\u{200C}ها", true),
            ("نَ\u{200C}م", true),
            // After a letter that never joins it shows nothing.
            ("دا\u{200C}د", false),
            ("a\u{200C}b", false),
            ("a\u{200D}b", false),
            ("م\u{200D}م", false),
            ("क्\u{200C}ष", true),
            ("क्\u{200D}ष", true),
            ("ශ්\u{200D}රී", true),
            ("ന്\u{200D}", true),
            ("ന്\u{200C}", false),
            ("র\u{200D}্যাব", true),
            ("क\u{200D}ष", false),
            ("👩\u{200D}🚒", true),
            ("👩🏽\u{200D}🚒", true),
            ("❤\u{FE0F}\u{200D}🔥", true),
            ("👩\u{200D}a", false),
            ("👩\u{200C}🚒", false),
            ("🇩\u{200D}🇪", false),
        ] {
            let chars: Vec<char> = text.chars().collect();
            let at = chars.iter().position(|c| is_joiner(*c)).unwrap();
            assert_eq!(belongs(chars[at], &chars[..at], &chars[at + 1..]), stays, "{text:?}");
        }
    }
}
