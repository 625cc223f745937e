//! What the relay publishes from: the interface that attempts of jobs and the outbox have in common.

use crate::app::Backlog;
use crate::store::{self, Owner, Store};
use agentforge_jetstream::publish::{self, Outgoing};
use agentforge_proto::time::Micros;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// What the loop publishes from. In metrics and logs its name is the label `lane`.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What is published.
    type Item: Send + Sync + 'static;
    /// `jobs` or `outbox`.
    const NAME: &'static str;
    /// How long an item may wait for company, so that one wake-up serves many.
    const LINGER: Duration;
    /// A claim older than this is given back instead of used, where the store's word may be newer.
    const FRESH: Option<Duration>;

    /// What it and the committer know of the backlog in the store.
    fn backlog(&self) -> &Backlog;

    /// Its place in the order.
    fn seq(item: &Self::Item) -> i64;
    /// The line that it leaves or waits with.
    fn line(item: &Self::Item) -> &str;
    /// The queue of a line, for metrics.
    fn queue_of(line: &str) -> &str;
    /// What one of its messages is called in the log.
    fn name(item: &Self::Item, part: usize) -> String;
    /// How many messages it is, one or more.
    fn parts(item: &Self::Item) -> usize;
    /// Its messages.
    fn messages(&self, item: &Self::Item) -> Vec<Outgoing>;
    /// Only these of its messages are left to publish, by their places in order.
    fn keep(item: &mut Self::Item, left: &[usize]);
    /// Adds to messages that are published together what shows where they come from.
    fn sign(&self, _: &mut [Outgoing]) {}
    /// Why this line is to wait although it could leave, such as that an operator paused it.
    fn waits(&self, _line: &str) -> Option<&'static str> {
        None
    }
    /// Reserves room in the stream for it; else the reason why its line waits, or why it can never leave.
    fn reserve(&self, item: &Self::Item) -> Result<(), publish::Error>;
    /// Whether a held line is worth a try: what is known here needs no claim and no message.
    fn may_try(&self, line: &str) -> bool;
    /// It was not published after all.
    fn cancel_reservation(&self, item: &Self::Item);
    /// Claims from the store, in order, of all lines but those held. None: there is no more.
    async fn claim(&self, limit: u32, held: Vec<String>) -> Result<Vec<Self::Item>, store::Error>;
    /// Claims the first of a line.
    async fn claim_of(&self, line: &str) -> Result<Option<Self::Item>, store::Error>;
    /// When the store should be asked next.
    async fn next_due(&self, held: Vec<String>) -> Result<Option<Micros>, store::Error>;
    /// One of its messages can never be published: it leaves the line, with the reason. Waits as [`Source::settled`] does.
    async fn refused(&self, item: &Self::Item, part: usize, error: &publish::Error);
    /// Nothing of it is left; with the last PubAck, unless all was refused. Waits while more publishes are settled than
    /// the store can note.
    async fn settled(&self, item: Self::Item, ack: Option<publish::Ack>);
    /// Gives claims back.
    async fn release(&self, items: Vec<Self::Item>) -> Result<(), store::Error>;
}

/// What both sources claim with.
#[derive(Clone)]
pub struct Shared {
    /// Where due items are claimed from.
    pub store: Arc<dyn Store>,
    /// In whose name they are claimed.
    pub owner: Owner,
    /// How long claims hold.
    pub claim_for: Duration,
}
