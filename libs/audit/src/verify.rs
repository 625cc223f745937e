//! The check of a whole chain: every entry's own hash, its link to the one before, and that none is missing.
//!
//! Sees a change of any stored field, an entry that was removed, moved or added, and a chain that was cut at either end.
//! It does not see a chain that was computed again from some entry on: that needs an anchor, the hash of a later entry
//! that was kept elsewhere.

use crate::chain::{Chained, Hash, Head};
use crate::entry::{CHECKPOINT, PRUNE};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;

/// Findings that are kept; the rest is only counted.
const FINDINGS_MAX: usize = 100;

/// Where a chain begins: the last entry that was pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its place; 0 when nothing was pruned.
    pub place: i64,
    /// Its hash.
    pub hash: Hash,
}

/// A chain, as the database describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its last entry.
    #[serde(flatten)]
    pub head: Head,
    /// What was pruned.
    pub base: Base,
}

/// The detail of an entry of pruning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Which chain.
    pub chain: i64,
    /// Up to this place.
    pub place: i64,
    /// The hash of the entry there.
    pub hash: Hash,
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The content of an entry is not what was hashed.
    Changed {
        /// Which chain.
        chain: i64,
        /// Where.
        place: i64,
        /// The entry's id, as it is stored now.
        id: String,
    },
    /// An entry does not follow the one before it.
    Unlinked {
        /// Which chain.
        chain: i64,
        /// Where.
        place: i64,
        /// The entry's id.
        id: String,
    },
    /// Entries are gone.
    Missing {
        /// Which chain.
        chain: i64,
        /// The first.
        from: i64,
        /// The last.
        to: i64,
    },
    /// The chain does not end as the database says that it does.
    OtherHead {
        /// Which chain.
        chain: i64,
        /// The last place found.
        place: i64,
    },
    /// The beginning is gone, and no entry says that it was pruned.
    Unattested {
        /// Which chain.
        chain: i64,
        /// The last place that is gone.
        place: i64,
    },
    /// An anchor is not the hash of any entry.
    NoAnchor {
        /// The hash that was kept elsewhere.
        hash: Hash,
    },
    /// A checkpoint names another hash than the one found.
    OtherCheckpoint {
        /// Which chain.
        chain: i64,
        /// Where.
        place: i64,
        /// The id of the checkpoint.
        id: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { chain, place, id } => {
                write!(f, "chain {chain}, place {place}: entry {id} was changed or moved: its content has another hash")
            }
            Self::Unlinked { chain, place, id } => {
                write!(f, "chain {chain}, place {place}: entry {id} does not follow the entry before it")
            }
            Self::Missing { chain, from, to } if from == to => {
                write!(f, "chain {chain}, place {from}: the entry was removed")
            }
            Self::Missing { chain, from, to } => {
                write!(f, "chain {chain}, places {from} to {to}: entries were removed")
            }
            Self::OtherHead { chain, place } => {
                write!(f, "chain {chain} ends at place {place}, and its recorded head is another")
            }
            Self::Unattested { chain, place } => {
                write!(
                    f,
                    "chain {chain}: entries up to place {place} are gone, and no entry says that they were pruned"
                )
            }
            Self::NoAnchor { hash } => write!(
                f,
                "no entry has the hash {hash}: the log was rewritten since, or the entry was pruned, or the hash is of \
                 another database"
            ),
            Self::OtherCheckpoint { chain, place, id } => {
                write!(f, "chain {chain}, place {place}: checkpoint {id} names another hash: the chain was rewritten")
            }
        }
    }
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many entries were read.
    pub entries: u64,
    /// What is wrong, at most a hundred.
    pub findings: Vec<Finding>,
    /// How much more is wrong.
    pub more: u64,
}

/// What is wrong with an entry that comes after `at`: with its place, and with its content.
fn faults(at: &Head, found: &Chained) -> [Option<Finding>; 2] {
    let (chain, place, id) = (at.chain, found.place, || found.entry.id.clone());
    let of_place = if place > at.place + 1 {
        Some(Finding::Missing { chain, from: at.place + 1, to: place - 1 })
    } else if place <= at.place || found.previous != at.hash {
        Some(Finding::Unlinked { chain, place, id: id() })
    } else {
        None
    };
    let is_changed = found.chain != chain || found.computed() != found.hash;
    [of_place, is_changed.then(|| Finding::Changed { chain, place, id: id() })]
}

/// Follows one chain while it grows, a few entries at a time, and remembers only where it is.
///
/// What it has read is an anchor: a chain that is computed again later, from an earlier entry on, does not continue there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    at: Head,
    /// Where it was when it began again at the start.
    anchor: Head,
}

impl Follower {
    /// Begins with the first entry that was not pruned.
    pub fn new(chain: &Chain) -> Self {
        let at = Head { chain: chain.head.chain, place: chain.base.place, hash: chain.base.hash };
        Self { at, anchor: at }
    }

    /// The last entry that it has read.
    pub fn at(&self) -> Head {
        self.at
    }

    /// Begins again at the start; where it is now stays in mind.
    pub fn again(&mut self, chain: &Chain) {
        *self = Self { anchor: self.at, ..Self::new(chain) };
    }

    /// Continues with a chain that is described like this now: skips what was pruned meanwhile; what is wrong. Its end
    /// cannot be before the last entry that was read.
    pub fn resume(&mut self, chain: &Chain) -> Option<Finding> {
        let (base, head) = (chain.base, chain.head);
        if base.place > self.at.place {
            (self.at.place, self.at.hash) = (base.place, base.hash);
        }
        if head.place >= self.at.place {
            return None;
        }
        let gone = Finding::Missing { chain: head.chain, from: head.place + 1, to: self.at.place };
        self.at = head;
        Some(gone)
    }

    /// Takes the next entry, in order of places; what is wrong.
    pub fn take(&mut self, found: &Chained) -> Vec<Finding> {
        let mut findings: Vec<Finding> = faults(&self.at, found).into_iter().flatten().collect();
        if found.place == self.anchor.place && found.hash != self.anchor.hash {
            findings.push(Finding::NoAnchor { hash: self.anchor.hash });
        }
        (self.at.place, self.at.hash) = (found.place, found.hash);
        findings
    }

    /// After the last entry, of a chain whose head was this one before they were read; what is wrong.
    pub fn end(&mut self, head: &Head) -> Option<Finding> {
        let Head { chain, place, .. } = self.at;
        if place < head.place {
            self.at = *head;
            Some(Finding::Missing { chain, from: place + 1, to: head.place })
        } else if place == head.place && self.at != *head {
            self.at = *head;
            Some(Finding::OtherHead { chain, place })
        } else {
            None
        }
    }
}

/// Reads chains one after the other, each from its base on.
#[derive(Debug, Default)]
pub struct Verifier {
    entries: u64,
    findings: Vec<Finding>,
    more: u64,
    hashes: HashMap<i64, (i64, Vec<Hash>)>,
    bases: Vec<(i64, Base)>,
    pruned: Vec<Pruned>,
    checkpoints: Vec<(String, Vec<Head>)>,
    at: Option<Head>,
}

#[derive(Deserialize)]
struct Heads {
    heads: Vec<Head>,
}

impl Verifier {
    /// Begins with the next chain.
    pub fn begin(&mut self, chain: &Chain) {
        self.at = Some(Head { chain: chain.head.chain, place: chain.base.place, hash: chain.base.hash });
        self.bases.push((chain.head.chain, chain.base));
        self.hashes.insert(chain.head.chain, (chain.base.place, Vec::new()));
    }

    /// Takes the next entry, in order of places.
    pub fn take(&mut self, found: &Chained) {
        let Some(mut at) = self.at else { return };
        let chain = at.chain;
        self.entries += 1;
        let [place, content] = faults(&at, found);
        if content.is_none() {
            self.note(found);
        }
        for finding in [place, content].into_iter().flatten() {
            self.find(finding);
        }
        let (base, hashes) = self.hashes.entry(chain).or_default();
        while (*base + i64::try_from(hashes.len()).unwrap_or(i64::MAX)) + 1 < found.place {
            hashes.push(Hash::default());
        }
        hashes.push(found.hash);
        (at.place, at.hash) = (found.place, found.hash);
        self.at = Some(at);
    }

    fn note(&mut self, found: &Chained) {
        let detail = || found.entry.detail.as_deref().unwrap_or_default();
        match found.entry.operation.as_str() {
            PRUNE => self.pruned.extend(serde_json::from_str::<Pruned>(detail())),
            CHECKPOINT => {
                let heads = serde_json::from_str::<Heads>(detail()).map(|heads| heads.heads).unwrap_or_default();
                self.checkpoints.push((found.entry.id.clone(), heads));
            }
            _ => {}
        }
    }

    /// Ends the chain, which the database says ends at `head`.
    pub fn end(&mut self, head: &Head) {
        let Some(at) = self.at.take() else { return };
        if at.place < head.place {
            self.find(Finding::Missing { chain: at.chain, from: at.place + 1, to: head.place });
        } else if at != *head {
            self.find(Finding::OtherHead { chain: at.chain, place: at.place });
        }
    }

    /// After all chains: what they say of each other, and whether these anchors are in them.
    pub fn finish(mut self, anchors: &[Hash]) -> Verified {
        for (chain, base) in std::mem::take(&mut self.bases) {
            let said = Pruned { chain, place: base.place, hash: base.hash };
            if base.place > 0 && !self.pruned.contains(&said) {
                self.find(Finding::Unattested { chain, place: base.place });
            }
        }
        for (id, heads) in std::mem::take(&mut self.checkpoints) {
            for head in heads {
                if self.has(&head) == Some(false) {
                    self.find(Finding::OtherCheckpoint { chain: head.chain, place: head.place, id: id.clone() });
                }
            }
        }
        for anchor in anchors {
            if !self.hashes.values().any(|(_, hashes)| hashes.contains(anchor)) {
                self.find(Finding::NoAnchor { hash: *anchor });
            }
        }
        Verified { entries: self.entries, findings: self.findings, more: self.more }
    }

    /// Whether the chain has this hash there; `None` for a place that was pruned.
    fn has(&self, head: &Head) -> Option<bool> {
        let (base, hashes) = self.hashes.get(&head.chain)?;
        if head.place <= *base {
            return None;
        }
        let index = usize::try_from(head.place - base - 1).ok()?;
        Some(hashes.get(index) == Some(&head.hash))
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX { self.findings.push(finding) } else { self.more += 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use agentforge_proto::time::Micros;
    use serde_json::json;

    fn chain(n: i64) -> (Vec<Chained>, Head) {
        let mut head = Head::first(0);
        let entries = (1..=n).map(|at| head.append(Entry::own("A", &json!({"n": at}), Micros(at)))).collect();
        (entries, head)
    }

    fn check(entries: &[Chained], head: Head, base: Base, anchors: &[Hash]) -> Vec<Finding> {
        let mut verifier = Verifier::default();
        verifier.begin(&Chain { head, base });
        entries.iter().for_each(|e| verifier.take(e));
        verifier.end(&head);
        verifier.finish(anchors).findings
    }

    const WHOLE: Base = Base { place: 0, hash: Hash([0; 32]) };

    #[test]
    fn a_chain_that_nobody_touched_is_right_and_has_its_anchors() {
        let (entries, head) = chain(5);
        assert_eq!(check(&entries, head, WHOLE, &[entries[2].hash, head.hash]), []);
        let hash = Hash([9; 32]);
        assert_eq!(check(&entries, head, WHOLE, &[hash]), [Finding::NoAnchor { hash }]);
    }

    #[test]
    fn what_was_changed_removed_moved_or_cut_is_named() {
        let (good, head) = chain(5);
        let mut changed = good.clone();
        changed[2].entry.principal = "somebody else".into();
        let id = good[2].entry.id.clone();
        assert_eq!(check(&changed, head, WHOLE, &[]), [Finding::Changed { chain: 0, place: 3, id: id.clone() }]);
        changed[2].hash = changed[2].computed();
        let next = good[3].entry.id.clone();
        assert_eq!(check(&changed, head, WHOLE, &[]), [Finding::Unlinked { chain: 0, place: 4, id: next }]);
        let mut removed = good.clone();
        removed.remove(2);
        assert_eq!(check(&removed, head, WHOLE, &[]), [Finding::Missing { chain: 0, from: 3, to: 3 }]);
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        (swapped[1].place, swapped[2].place) = (2, 3);
        assert!(check(&swapped, head, WHOLE, &[]).contains(&Finding::Changed { chain: 0, place: 2, id }));
        assert_eq!(check(&good[..3], head, WHOLE, &[]), [Finding::Missing { chain: 0, from: 4, to: 5 }]);
        let cut = Base { place: 2, hash: good[1].hash };
        assert_eq!(check(&good[2..], head, cut, &[]), [Finding::Unattested { chain: 0, place: 2 }]);
    }

    #[test]
    fn a_pruned_chain_is_right_when_an_entry_says_so() {
        let (mut entries, mut head) = chain(3);
        let pruned = Pruned { chain: 0, place: 2, hash: entries[1].hash };
        entries.push(head.append(Entry::own(PRUNE, &serde_json::to_value(pruned).unwrap(), Micros(9))));
        let base = Base { place: 2, hash: entries[1].hash };
        assert_eq!(check(&entries[2..], head, base, &[]), []);
    }

    #[test]
    fn a_chain_that_was_computed_again_is_seen_against_a_checkpoint_in_another() {
        let (entries, head) = chain(3);
        let mut other = Head::first(1);
        let point = other.append(Entry::own(CHECKPOINT, &json!({"heads": [head]}), Micros(9)));
        let mut verifier = Verifier::default();
        let mut again = Head::first(0);
        let forged: Vec<_> =
            entries.iter().map(|e| again.append(Entry { role: "x".into(), ..e.entry.clone() })).collect();
        verifier.begin(&Chain { head: again, base: WHOLE });
        forged.iter().for_each(|e| verifier.take(e));
        verifier.end(&again);
        verifier.begin(&Chain { head: other, base: WHOLE });
        verifier.take(&point);
        verifier.end(&other);
        let id = point.entry.id;
        assert_eq!(verifier.finish(&[]).findings, [Finding::OtherCheckpoint { chain: 0, place: 3, id }]);
    }

    fn follow(follower: &mut Follower, entries: &[Chained], head: &Head) -> Vec<Finding> {
        let mut findings: Vec<Finding> = entries.iter().flat_map(|entry| follower.take(entry)).collect();
        findings.extend(follower.end(head));
        findings
    }

    #[test]
    fn a_chain_is_followed_while_it_grows_and_what_was_read_is_an_anchor() {
        let (good, head) = chain(6);
        let third = Head { chain: 0, place: 3, hash: good[2].hash };
        let begin = || Follower::new(&Chain { head: third, base: WHOLE });
        let mut follower = begin();
        assert_eq!(follow(&mut follower, &good[..3], &third), []);
        assert_eq!(follow(&mut follower, &good[3..], &head), []);
        assert_eq!(follower.at(), head);
        // A change, a removal, and an end that was cut off.
        let mut changed = good.clone();
        changed[4].entry.outcome = "ok?".into();
        let id = good[4].entry.id.clone();
        assert_eq!(follow(&mut begin(), &changed, &head), [Finding::Changed { chain: 0, place: 5, id }]);
        assert_eq!(follow(&mut begin(), &good[..4], &head), [Finding::Missing { chain: 0, from: 5, to: 6 }]);
        let gone = [&good[..1], &good[2..]].concat();
        assert_eq!(follow(&mut begin(), &gone, &head), [Finding::Missing { chain: 0, from: 2, to: 2 }]);
        // Computed again from the third on, when the third was read: by the next entry, and in the next round.
        let mut forged_head = Head { chain: 0, place: 2, hash: good[1].hash };
        let forged: Vec<_> = good[2..].iter().map(|c| Entry { role: "x".into(), ..c.entry.clone() }).collect();
        let forged: Vec<_> = forged.into_iter().map(|entry| forged_head.append(entry)).collect();
        let mut follower = begin();
        follow(&mut follower, &good[..3], &third);
        let mut again = follower;
        let id = forged[1].entry.id.clone();
        assert_eq!(follow(&mut follower, &forged[1..], &forged_head), [Finding::Unlinked { chain: 0, place: 4, id }]);
        again.again(&Chain { head: forged_head, base: WHOLE });
        let all = [&good[..2], &forged].concat();
        assert_eq!(follow(&mut again, &all, &forged_head), [Finding::NoAnchor { hash: third.hash }]);
    }

    #[test]
    fn what_is_pruned_ahead_of_a_follower_is_skipped() {
        let (entries, head) = chain(5);
        let mut follower = Follower::new(&Chain { head, base: WHOLE });
        follower.take(&entries[0]);
        let pruned = Chain { head, base: Base { place: 3, hash: entries[2].hash } };
        assert_eq!(follower.resume(&pruned), None);
        assert_eq!(follow(&mut follower, &entries[3..], &head), []);
        assert_eq!((follower.resume(&pruned), follower.at()), (None, head));
        // Cut at its end, with the head that belongs to what is left.
        let cut = Chain { head: Head { chain: 0, place: 4, hash: entries[3].hash }, ..pruned };
        assert_eq!(follower.resume(&cut), Some(Finding::Missing { chain: 0, from: 5, to: 5 }));
        assert_eq!((follower.resume(&cut), follower.at()), (None, cut.head));
    }
}
