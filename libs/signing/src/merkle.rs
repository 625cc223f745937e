//! The tree over a group of messages, as RFC 6962 has it: leaves and nodes are hashed differently, so that neither can be
//! taken for the other. Pure.

use ring::digest::{Context, SHA256};

/// A hash of this tree.
pub(crate) type Hash = [u8; 32];

const LEAF: u8 = 0;
const NODE: u8 = 1;
/// So that no leaf is the hash of something else that is signed somewhere.
const DOMAIN: &[u8] = b"agentforge:message:v1";

/// A message of a group, as the tree holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf(pub(crate) Hash);

/// The leaf of a message: where it goes, its `Nats-Msg-Id`, and its bytes. Each is preceded by its length, so that no two
/// messages are the same sequence of bytes.
pub fn leaf(subject: &str, id: &str, body: &[u8]) -> Leaf {
    let mut context = Context::new(&SHA256);
    context.update(&[LEAF]);
    context.update(DOMAIN);
    for part in [subject.as_bytes(), id.as_bytes(), body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    Leaf(finish(context))
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[NODE]);
    context.update(left);
    context.update(right);
    finish(context)
}

fn finish(context: Context) -> Hash {
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The root over the leaves, and the path of each to it. `None` for no leaves.
pub(crate) fn tree(leaves: &[Leaf]) -> Option<(Hash, Vec<Vec<Hash>>)> {
    let mut paths = vec![Vec::new(); leaves.len()];
    let mut level: Vec<Hash> = leaves.iter().map(|leaf| leaf.0).collect();
    let mut height = 0;
    while level.len() > 1 {
        for (index, path) in paths.iter_mut().enumerate() {
            // The last of an odd number has no sibling and moves up as it is.
            path.extend(level.get((index >> height) ^ 1));
        }
        let pair = |pair: &[Hash]| match pair {
            [left, right] => node(left, right),
            single => single[0],
        };
        level = level.chunks(2).map(pair).collect();
        height += 1;
    }
    Some((*level.first()?, paths))
}

/// The root that a leaf at `index` of `size` leads to by this path; `None` where the path is not one of such a tree.
pub(crate) fn root(leaf: Leaf, index: usize, size: usize, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    // RFC 9162, 2.1.3.2.
    let (mut at, mut last, mut hash) = (index, size - 1, leaf.0);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(n: usize) -> Vec<Leaf> {
        (0..n).map(|i| leaf("s", &i.to_string(), b"body")).collect()
    }

    #[test]
    fn each_leaf_leads_to_the_root_from_its_own_place_only() {
        for size in 1..=40 {
            let all = leaves(size);
            let (top, paths) = tree(&all).unwrap();
            for (index, path) in paths.iter().enumerate() {
                assert_eq!(root(all[index], index, size, path), Some(top), "{index} of {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert_ne!(root(all[other], index, size, path), Some(top), "{other} as {index} of {size}");
                    assert_ne!(root(all[index], other, size, path), Some(top), "{index} at {other} of {size}");
                }
                let longer = [path.as_slice(), &[[7; 32]]].concat();
                assert_ne!(root(all[index], index, size, &longer), Some(top));
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(root(all[index], index, size, shorter), Some(top));
                }
            }
        }
        assert!(tree(&[]).is_none());
        assert_eq!(root(leaves(1)[0], 1, 1, &[]), None);
    }

    /// The example of RFC 6962, 2.1.3: the path of d0 in a tree of seven is [b, h, l].
    #[test]
    fn the_shape_is_that_of_the_rfc() {
        let d = leaves(7);
        let (top, paths) = tree(&d).unwrap();
        let (g, h, i, j) = (node(&d[0].0, &d[1].0), node(&d[2].0, &d[3].0), node(&d[4].0, &d[5].0), d[6].0);
        let (k, l) = (node(&g, &h), node(&i, &j));
        assert_eq!(top, node(&k, &l));
        assert_eq!(paths[0], [d[1].0, h, l]);
        assert_eq!(paths[3], [d[2].0, g, l]);
        assert_eq!(paths[6], [i, k]);
    }

    #[test]
    fn parts_of_a_message_do_not_run_into_each_other() {
        let all = [
            leaf("ab", "c", b"d"),
            leaf("a", "bc", b"d"),
            leaf("ab", "", b"cd"),
            leaf("ab", "cd", b""),
            leaf("", "abcd", b""),
        ];
        assert!(all.iter().enumerate().all(|(n, one)| !all[..n].contains(one)));
    }
}
