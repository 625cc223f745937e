//! The known word that was probably meant by a wrong one.

/// The known word that is fewest slips away from a wrong one, and at most `slips_max`. A slip is a letter left out,
/// added, replaced, or two letters that changed places. Of several at one distance the first by the alphabet.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>, slips_max: usize) -> Option<&'a str> {
    let near = known.into_iter().map(|word| (edits(wrong, word), word)).filter(|(slips, _)| *slips <= slips_max);
    near.min().map(|(_, word)| word)
}

/// How many slips lie between two names: a letter left out, added, replaced, or two that changed places.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The row before the last one, the last one, and the one that is made.
    let (mut earlier, mut last) = (vec![], (0..=b.len()).collect::<Vec<usize>>());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(earlier[j - 2] + 1);
            }
            row.push(least);
        }
        earlier = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_within_its_distance() {
        let known = ["varz", "connz", "connz_detailed"];
        assert_eq!(nearest("varzz", known, 1), Some("varz"));
        assert_eq!(nearest("connz_details", known, 2), Some("connz_detailed"));
        assert_eq!(nearest("connz_details", known, 1), None);
        assert_eq!(nearest("qqq", known, 1), None);
    }

    #[test]
    fn distances() {
        for (a, b, wanted) in [
            ("", "", 0),
            ("a", "", 1),
            ("NATS_URL", "NATS_UR", 1),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
            ("NAST_URL", "NATS_URL", 1),
        ] {
            assert_eq!(edits(a, b), wanted, "{a} {b}");
        }
    }
}
