//! What a power loss can leave at the end of the newest file: a line without its end, or blocks of zeros
//! where a batch was to be. Pure: bytes in, a place to cut out.
//!
//! Only what was never synced can look so, and nothing was removed on its account. Whole lines are never
//! touched, also when they are wrong: that is for the verification to find.

/// How many of these last bytes of the ledger are whole lines. `tail` begins at the start of a line.
pub fn whole(tail: &[u8]) -> usize {
    let mut end = 0;
    for line in tail.split_inclusive(|b| *b == b'\n') {
        if line.last() != Some(&b'\n') || line.contains(&0) {
            break;
        }
        end += line.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_synced_is_cut_off() {
        let cases: [(&[u8], usize); 8] = [
            (b"", 0),
            (b"{}\n", 3),
            (b"{}\n{}\n", 6),
            (b"{}\n{\"ts\":", 3),
            (b"{\"ts", 0),
            (b"{}\n\0\0\0\0", 3),
            (b"{}\n\0\0\0\"}\n{}\n", 3),
            (b"{}\nwrong but whole\n", 19),
        ];
        for (tail, expected) in cases {
            assert_eq!(whole(tail), expected, "{}", String::from_utf8_lossy(tail));
        }
    }
}
