//! The state of a connection, and what of what was sent over it can still be answered. Pure.

/// The state of the connection. The epoch counts connections, so that a reader who missed a short
/// break still sees that there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) connected: bool,
    pub(crate) epoch: u64,
    pub(crate) closed: bool,
}

impl Link {
    /// Whether what went out on connection `epoch` can no longer be answered.
    pub(crate) fn has_lost(&self, epoch: u64) -> bool {
        epoch < self.epoch || (epoch == self.epoch && !self.connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_on_an_earlier_or_broken_connection_is_lost() {
        let link = |connected, epoch| Link { connected, epoch, closed: false };
        let cases = [
            (link(true, 3), 3, false),
            (link(true, 3), 2, true),
            (link(false, 3), 3, true),
            (link(false, 3), 4, false),
        ];
        for (link, epoch, lost) in cases {
            assert_eq!(link.has_lost(epoch), lost, "{link:?} {epoch}");
        }
    }
}
