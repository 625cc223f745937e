//! Jobs that were cancelled before their publish: the relay forgets them.

use tokio::sync::mpsc;

/// Cancelled jobs that wait to be forgotten.
const WAITING_MAX: usize = 8_192;

/// Notifies the relay of cancelled jobs. A job that finds no room is published: its worker is asked to stop, or its
/// result ignored.
#[derive(Clone)]
pub struct Forgets(mpsc::Sender<i64>);

/// The handle, and what the relay receives from: row numbers.
pub(super) fn forgets() -> (Forgets, mpsc::Receiver<i64>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Forgets(sender), receiver)
}

impl Forgets {
    /// Has a row forgotten, if it waits in memory. Never waits.
    pub fn forget(&self, seq: i64) {
        let _ = self.0.try_send(seq);
    }
}
