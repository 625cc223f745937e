//! jsz: JetStream's accounts, streams and consumers, read while the answer arrives.
//!
//! An answer is tens of megabytes where there are thousands of consumers. It is walked down to single
//! consumers, each becomes its rows at once, and no more of the document than one of them is in memory.
//! Relies on the server naming accounts and streams before what is in them, as all known versions do; an
//! answer in another order is an error, not a guess.

mod compact;
mod detail;
mod leaders;
mod plan;
mod stock;
pub mod wire;

pub use detail::Server;
pub use leaders::{Claims, settle};
pub use plan::{Level, MetaKey, PAGE, Plan};

use crate::{
    duration::moment,
    filter::Filter,
    json::{Document, Error},
    table::Table,
};
use bytes::Bytes;
use compact::Compact;
use detail::{Account, Head, StreamDetail};
use futures_util::Stream;
use jiff::Timestamp;
use stock::Stock;
use wire::Consumer;

/// How a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Accounts that it had.
    pub accounts: u64,
    /// Accounts that the server has; older servers do not say.
    pub total: Option<u64>,
}

/// Reads the answers of one server.
pub struct Reader<'a> {
    plan: &'a Plan,
    filter: &'a Filter,
    server: Server,
    head: Head,
    pages: u64,
    stock: Option<Stock>,
    compact: Option<Compact>,
}

impl<'a> Reader<'a> {
    /// Nothing was read yet.
    pub fn new(plan: &'a Plan, filter: &'a Filter, server: Server) -> Self {
        Self {
            plan,
            filter,
            server,
            head: Head::default(),
            pages: 0,
            stock: plan.stock.as_ref().map(|names| Stock::new(names, plan)),
            compact: plan.is_compact.then(|| Compact::new(plan)),
        }
    }

    /// Reads one page to its end.
    ///
    /// # Errors
    /// What of it could not be read; the reader is of no use then.
    pub async fn page<S, E>(&mut self, doc: &mut Document<S>) -> Result<Page, Error<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error + 'static,
    {
        let mut page = Page { accounts: 0, total: None };
        let mut head = Head::default();
        if !doc.object().await? {
            return Err(doc.unexpected());
        }
        while let Some(key) = doc.key().await? {
            match key.as_str() {
                "disabled" => head.is_disabled = doc.value().await?,
                "config" => head.config = doc.value::<Option<_>>().await?.unwrap_or_default(),
                "meta_cluster" => head.meta = doc.value().await?,
                "memory" => head.memory = doc.value().await?,
                "storage" => head.storage = doc.value().await?,
                "reserved_memory" => head.reserved_memory = doc.value().await?,
                "reserved_storage" => head.reserved_storage = doc.value().await?,
                "streams" => head.streams = doc.value().await?,
                "consumers" => head.consumers = doc.value().await?,
                "messages" => head.messages = doc.value().await?,
                "bytes" => head.bytes = doc.value().await?,
                "api" => head.api = doc.value().await?,
                "now" => head.now = moment(&doc.value::<String>().await?),
                "total" => page.total = Some(doc.value().await?),
                "account_details" => {
                    if doc.array().await? {
                        while doc.element().await? {
                            page.accounts += 1;
                            self.account(doc, head.now).await?;
                        }
                    }
                }
                _ => doc.skip().await?,
            }
        }
        doc.end().await?;
        if head.now.is_none() {
            // Every answer has its moment; without one it is another service's.
            return Err(doc.unexpected());
        }
        if self.pages == 0 {
            self.head = head;
        }
        self.pages += 1;
        Ok(page)
    }

    async fn account<S, E>(&mut self, doc: &mut Document<S>, now: Option<Timestamp>) -> Result<(), Error<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error + 'static,
    {
        let mut account = Account::default();
        if !doc.object().await? {
            return Err(doc.unexpected());
        }
        while let Some(key) = doc.key().await? {
            match key.as_str() {
                "name" => account.name = doc.value().await?,
                "id" => account.id = doc.value().await?,
                "memory" => account.memory = doc.value().await?,
                "storage" => account.storage = doc.value().await?,
                "reserved_memory" => account.reserved_memory = doc.value().await?,
                "reserved_storage" => account.reserved_storage = doc.value().await?,
                "stream_detail" => {
                    if doc.array().await? {
                        while doc.element().await? {
                            if account.name.is_empty() {
                                return Err(doc.unexpected());
                            }
                            self.stream(doc, &account, now).await?;
                        }
                    }
                }
                _ => doc.skip().await?,
            }
        }
        if self.filter.account.admits(&account.name)
            && let Some(stock) = &mut self.stock
        {
            stock.account(&account);
        }
        Ok(())
    }

    async fn stream<S, E>(
        &mut self,
        doc: &mut Document<S>,
        account: &Account,
        now: Option<Timestamp>,
    ) -> Result<(), Error<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error + 'static,
    {
        if self.plan.level == Level::Accounts || !self.filter.account.admits(&account.name) {
            return doc.skip().await;
        }
        let mut stream = StreamDetail::default();
        if !doc.object().await? {
            return Err(doc.unexpected());
        }
        while let Some(key) = doc.key().await? {
            match key.as_str() {
                "name" => stream.name = doc.value().await?,
                "cluster" => stream.cluster = doc.value().await?,
                "config" => stream.config = doc.value().await?,
                "state" => stream.state = doc.value().await?,
                "mirror" => stream.mirror = doc.value().await?,
                "sources" => stream.sources = doc.value().await?,
                "stream_raft_group" => stream.raft_group = doc.value().await?,
                "consumer_detail" if self.plan.level == Level::Consumers => {
                    if doc.array().await? {
                        while doc.element().await? {
                            if stream.name.is_empty() {
                                return Err(doc.unexpected());
                            }
                            self.consumer(doc, &stream, now).await?;
                        }
                    }
                }
                _ => doc.skip().await?,
            }
        }
        if self.filter.stream.admits(&stream.name) {
            if let Some(stock) = &mut self.stock {
                stock.stream(account, &stream, &self.server.name, self.plan);
            }
            if let Some(compact) = &mut self.compact {
                compact.stream(account, &stream, &self.server);
            }
        }
        Ok(())
    }

    async fn consumer<S, E>(
        &mut self,
        doc: &mut Document<S>,
        stream: &StreamDetail,
        now: Option<Timestamp>,
    ) -> Result<(), Error<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::error::Error + 'static,
    {
        if !self.filter.stream.admits(&stream.name) {
            return doc.skip().await;
        }
        doc.parse(|raw| {
            let consumer: Consumer<'_> = serde_json::from_slice(raw)?;
            if !self.filter.consumer.admits(&consumer.name) {
                return Ok(());
            }
            let now = moment(&consumer.ts).or(now);
            if let Some(stock) = &mut self.stock {
                stock.consumer(&consumer, &self.server.name, now, self.plan);
            }
            if let Some(compact) = &mut self.compact {
                compact.consumer(&consumer, stream, &self.server, now, self.plan);
            }
            Ok(())
        })
        .await
    }

    /// The tables, and who says to lead what.
    pub fn finish(self) -> (Vec<Table>, Option<Claims>) {
        let mut tables = Vec::new();
        if let Some(stock) = self.stock {
            tables.extend(stock.finish(&self.head, &self.server.id, &self.server.name));
        }
        let cluster = self.head.meta.as_ref().map(|meta| meta.name.clone()).unwrap_or_default();
        let claims = self.compact.map(|compact| compact.finish(&self.head, &self.server.name, cluster));
        (tables, claims)
    }
}

#[cfg(test)]
mod tests;
