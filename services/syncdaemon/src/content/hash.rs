//! SHA-256 of several contents, two at a time.
//!
//! One SHA-256 waits for itself: each of its rounds needs the previous one, and the processor's instructions for it
//! have long latencies. The rounds of a second content fit into that waiting, so that two take hardly longer than one.
//! Contents need not have the same length: a finished one makes room for the next. If the processor has no such
//! instructions, they are hashed one after the other. Our own code, because no maintained library hashes contents of
//! different lengths in parallel; tested against one that hashes them one by one.

use ring::digest::{SHA256, digest};

/// Bytes of a block.
const BLOCK: usize = 64;
/// Bytes of the length at the end of the last block.
const LENGTH: usize = 8;
/// From the fractional parts of square roots, FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The SHA-256 of each content, in their order.
pub fn sha256_of_each(contents: &[&[u8]]) -> Vec<[u8; 32]> {
    match Processor::detect() {
        Some(processor) if contents.len() > 1 => in_two_lanes(processor, contents),
        _ => contents.iter().map(|content| one(content)).collect(),
    }
}

fn one(content: &[u8]) -> [u8; 32] {
    digest(&SHA256, content).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A content on its way.
struct Lane<'c> {
    /// Which of all.
    number: usize,
    state: [u32; 8],
    /// Whole blocks that are left.
    blocks: &'c [[u8; BLOCK]],
}

fn in_two_lanes(processor: Processor, contents: &[&[u8]]) -> Vec<[u8; 32]> {
    let mut hashes = vec![[0; 32]; contents.len()];
    // Each lane takes the whole blocks of its content from where they lie; only the last one or two blocks, with the
    // padding, are copied. `end` hashes these separately: they are few, and pairing them would need the lanes to wait.
    let mut waiting = contents.iter().enumerate().map(|(number, content)| Lane {
        number,
        state: INITIAL,
        blocks: content.as_chunks().0,
    });
    let mut end = |mut lane: Lane<'_>| {
        let (last, blocks) = padded(contents[lane.number]);
        processor.compress([&mut lane.state], [&last[..blocks]]);
        for (bytes, word) in hashes[lane.number].as_chunks_mut().0.iter_mut().zip(lane.state) {
            *bytes = word.to_be_bytes();
        }
    };
    let mut lanes: Vec<Lane<'_>> = waiting.by_ref().take(2).collect();
    while !lanes.is_empty() {
        // Both go as far as the shorter one has blocks; then that one ends and the next content takes its lane, while
        // the other keeps its state. So contents of any lengths keep both lanes busy until only one content is left.
        let taken = lanes.iter().map(|lane| lane.blocks.len()).min().unwrap_or(0);
        match &mut lanes[..] {
            [a, b] => processor.compress([&mut a.state, &mut b.state], [&a.blocks[..taken], &b.blocks[..taken]]),
            alone => alone.iter_mut().for_each(|a| processor.compress([&mut a.state], [&a.blocks[..taken]])),
        }
        lanes.iter_mut().for_each(|lane| lane.blocks = &lane.blocks[taken..]);
        lanes.extract_if(.., |lane| lane.blocks.is_empty()).for_each(&mut end);
        lanes.extend(waiting.by_ref().take(2 - lanes.len()));
    }
    hashes
}

/// What follows the whole blocks of a content: its rest, a bit, zeros and its length, in one block or two.
fn padded(content: &[u8]) -> ([[u8; BLOCK]; 2], usize) {
    let rest = content.as_chunks::<BLOCK>().1;
    let blocks = if rest.len() < BLOCK - LENGTH { 1 } else { 2 };
    let mut last = [[0; BLOCK]; 2];
    let bytes = last.as_flattened_mut();
    bytes[..rest.len()].copy_from_slice(rest);
    bytes[rest.len()] = 0x80;
    let bits = (content.len() as u64).wrapping_mul(8);
    bytes[blocks * BLOCK - LENGTH..blocks * BLOCK].copy_from_slice(&bits.to_be_bytes());
    (last, blocks)
}

#[cfg(target_arch = "x86_64")]
use x86_64::Processor;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::BLOCK;
    use std::arch::x86_64::{
        _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    /// From the fractional parts of cube roots, FIPS 180-4 section 4.2.2.
    #[rustfmt::skip]
    const K: [[i32; 4]; 16] = constants([
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    ]);

    const fn constants(words: [u32; 64]) -> [[i32; 4]; 16] {
        let (mut fours, mut n) = ([[0; 4]; 16], 0);
        while n < 64 {
            fours[n / 4][n % 4] = words[n].cast_signed();
            n += 1;
        }
        fours
    }

    /// Proof that this processor has the instructions.
    #[derive(Debug, Clone, Copy)]
    pub struct Processor(());

    impl Processor {
        /// Whether it has.
        pub fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("sse4.1")
                && is_x86_feature_detected!("ssse3");
            has.then_some(Self(()))
        }

        /// Takes as many blocks of each into its state as the shortest has.
        #[allow(unsafe_code)]
        pub fn compress<const N: usize>(self, states: [&mut [u32; 8]; N], blocks: [&[[u8; BLOCK]]; N]) {
            // SAFETY: the features exist, or there would be no `self`.
            unsafe { compress(states, blocks) }
        }
    }

    /// The instructions want the eight words as those named A, B, E, F and C, D, G, H in the standard. The
    /// lanes take turns, instruction by instruction, so that each works while another waits.
    // Loops and no closures: a closure with these features is not inlined into what calls it without.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn compress<const N: usize>(states: [&mut [u32; 8]; N], blocks: [&[[u8; BLOCK]]; N]) {
        let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (mut abef, mut cdgh) = ([_mm_setzero_si128(); N], [_mm_setzero_si128(); N]);
        let mut shortest = usize::MAX;
        for n in 0..N {
            let [a, b, c, d, e, f, g, h] = states[n].map(u32::cast_signed);
            abef[n] = _mm_set_epi32(a, b, e, f);
            cdgh[n] = _mm_set_epi32(c, d, g, h);
            shortest = shortest.min(blocks[n].len());
        }
        #[expect(clippy::needless_range_loop, reason = "of several slices at once")]
        for at in 0..shortest {
            let before = (abef, cdgh);
            let mut w = [[_mm_setzero_si128(); N]; 4];
            for n in 0..N {
                let halves = blocks[n][at].as_chunks::<8>().0;
                for i in 0..4 {
                    let (low, high) = (i64::from_le_bytes(halves[2 * i]), i64::from_le_bytes(halves[2 * i + 1]));
                    w[i][n] = _mm_shuffle_epi8(_mm_set_epi64x(high, low), big_endian);
                }
            }
            // Four rounds at a time, written out: `i` has to be a constant for the compiler to keep `w` in registers. From
            // the fifth group on, the schedule makes the next four words in place of those that are used no more.
            macro_rules! rounds {
                ($($i:literal)*) => {$({
                    if $i >= 4 {
                        for n in 0..N {
                            let (w0, w1, w2, w3) =
                                (w[$i % 4][n], w[($i + 1) % 4][n], w[($i + 2) % 4][n], w[($i + 3) % 4][n]);
                            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                            w[$i % 4][n] = _mm_sha256msg2_epu32(sum, w3);
                        }
                    }
                    let k = _mm_set_epi32(K[$i][3], K[$i][2], K[$i][1], K[$i][0]);
                    let mut wk = [_mm_setzero_si128(); N];
                    for n in 0..N {
                        wk[n] = _mm_add_epi32(w[$i % 4][n], k);
                        cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], wk[n]);
                    }
                    for n in 0..N {
                        wk[n] = _mm_shuffle_epi32::<0x0e>(wk[n]);
                        abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], wk[n]);
                    }
                })*};
            }
            rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for n in 0..N {
                abef[n] = _mm_add_epi32(abef[n], before.0[n]);
                cdgh[n] = _mm_add_epi32(cdgh[n], before.1[n]);
            }
        }
        for n in 0..N {
            let (abef, cdgh) = (abef[n], cdgh[n]);
            let (a, b) = (_mm_extract_epi32::<3>(abef), _mm_extract_epi32::<2>(abef));
            let (e, f) = (_mm_extract_epi32::<1>(abef), _mm_extract_epi32::<0>(abef));
            let (c, d) = (_mm_extract_epi32::<3>(cdgh), _mm_extract_epi32::<2>(cdgh));
            let (g, h) = (_mm_extract_epi32::<1>(cdgh), _mm_extract_epi32::<0>(cdgh));
            *states[n] = [a, b, c, d, e, f, g, h].map(i32::cast_unsigned);
        }
    }
}

/// No instructions that are known here.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Debug, Clone, Copy)]
enum Processor {}

#[cfg(not(target_arch = "x86_64"))]
impl Processor {
    fn detect() -> Option<Self> {
        None
    }

    fn compress<const N: usize>(self, _: [&mut [u32; 8]; N], _: [&[[u8; BLOCK]]; N]) {
        match self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 5) as u8).collect()
    }

    fn agrees(lengths: &[usize]) {
        let contents: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, len)| content(*len, n)).collect();
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let expected: Vec<[u8; 32]> = contents.iter().map(|content| one(content)).collect();
        assert_eq!(sha256_of_each(&contents), expected, "{lengths:?}");
    }

    #[test]
    fn each_hash_is_that_of_its_content_alone() {
        agrees(&[]);
        for a in 0..200 {
            agrees(&[a]);
            for b in [0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 128, 500] {
                agrees(&[a, b]);
                agrees(&[b, a, 64]);
            }
        }
    }

    #[test]
    fn a_lane_is_taken_by_the_next_content_when_one_is_done() {
        agrees(&[100_000, 1, 2, 300, 0, 64, 70_000, 128, 55, 56, 4096]);
        agrees(&[1, 100_000, 100_000, 1, 0, 0, 0]);
        agrees(&[(1 << 20) + 1, 1 << 20, 777_777]);
        let of_all_sizes: Vec<usize> = (0..300).map(|n| n * 7919 % 5000).collect();
        agrees(&of_all_sizes);
    }

    #[test]
    fn known_hashes_are_found() {
        let expected = [
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ];
        let hashes = sha256_of_each(&[b"abc", b"", &[b'a'; 1_000_000]]);
        assert_eq!(hashes.iter().map(hex::encode).collect::<Vec<_>>(), expected);
    }
}
