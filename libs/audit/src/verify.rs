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
        let (chain, id) = (at.chain, || found.entry.id.clone());
        self.entries += 1;
        if found.place > at.place + 1 {
            self.find(Finding::Missing { chain, from: at.place + 1, to: found.place - 1 });
        } else if found.place <= at.place || found.previous != at.hash {
            self.find(Finding::Unlinked { chain, place: found.place, id: id() });
        }
        if found.chain != chain || found.computed() != found.hash {
            self.find(Finding::Changed { chain, place: found.place, id: id() });
        } else {
            self.note(found);
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
}
