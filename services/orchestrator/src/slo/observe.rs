//! From checks of a service to seconds that were observed. Pure: the caller has the clock.
//!
//! A second counts when there are checks close to it. A process that was stopped, or a clock that jumped, leaves
//! unobserved seconds; they are not made up for.

use super::Unit;
use super::window::merged;
use std::collections::BTreeMap;

/// At most this many seconds between two checks are assumed to be like the second check.
const GAP_MAX: i64 = 3;

/// What this process saw of one service and has not stored yet.
#[derive(Debug, Default)]
pub struct Observer {
    last: Option<i64>,
    pending: BTreeMap<i64, (i64, i64)>,
}

impl Observer {
    /// The result of a check at `second` (since 1970): up, down, or nothing to be said. Gives how many seconds it
    /// added to what is known.
    pub fn record(&mut self, second: i64, up: Option<bool>) -> i64 {
        let last = self.last.replace(second);
        let Some(up) = up else { return 0 };
        let from = match last {
            Some(last) if last >= second => return 0,
            Some(last) if second - last <= GAP_MAX => last + 1,
            _ => second,
        };
        for s in from..=second {
            let bit = 1 << s.rem_euclid(60);
            let known = self.pending.entry(s.div_euclid(60)).or_default();
            *known = merged(Unit::Seconds, *known, (bit, if up { bit } else { 0 }));
        }
        second - from + 1
    }

    /// The minutes that are not stored yet: minute, observed, up.
    pub fn pending(&self) -> Vec<(i64, i64, i64)> {
        self.pending.iter().map(|(minute, (seen, up))| (*minute, *seen, *up)).collect()
    }

    /// What was stored need not be kept; a minute that is still running is stored again with more.
    pub fn stored(&mut self, minute: i64, seen: i64, up: i64) {
        if self.pending.get(&minute) == Some(&(seen, up)) {
            self.pending.remove(&minute);
        }
    }

    /// Drops what is older than `minute`, so that a database that stays unavailable fills no memory.
    pub fn forget_before(&mut self, minute: i64) {
        self.pending = self.pending.split_off(&minute);
    }
}
