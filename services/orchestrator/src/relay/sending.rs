//! How items leave: in their order, some dozens of messages at a time.

use super::{COMPANY, Outcome, Relay, Source, UnderWay};
use agentforge_jetstream::publish::{self, Outgoing};
use agentforge_jetstream::{trace, trace::Operation};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{Span, info_span};

impl<S: Source> Relay<S> {
    /// Sends items in their order; what comes of them is in `under_way`.
    pub(super) async fn publish_all(&mut self, items: Vec<S::Item>, is_try: bool, under_way: &mut UnderWay<S::Item>) {
        let mut messages = Vec::with_capacity(items.len());
        let mut sized = Vec::with_capacity(items.len());
        for item in items {
            let mut own = self.source.messages(&item);
            if is_try {
                own.truncate(1);
            }
            sized.push((item, own.len()));
            messages.append(&mut own);
        }
        self.sent += messages.len();
        // Together: one signature covers all.
        self.source.sign(&mut messages);
        let mut messages = messages.into_iter();
        let mut sized = sized.into_iter().peekable();
        // One for all: without a connection each would wait for it.
        let deadline = Instant::now() + publish::TIMEOUT;
        while sized.peek().is_some() {
            let (mut together, mut n) = (Vec::new(), 0);
            while let Some((item, size)) = sized.next_if(|(_, size)| n == 0 || n + size <= COMPANY) {
                n += size;
                together.push((item, size));
            }
            let mut spans = Vec::new();
            let chunk = messages.by_ref().take(n).map(|message| self.traced(message, &mut spans)).collect();
            let acks = publish::send_all(&self.nats, chunk, deadline).await;
            let outcomes = async move {
                let mut results = acks.all().await.into_iter();
                drop(spans);
                let outcome = |(item, size)| Outcome { item, is_try, results: results.by_ref().take(size).collect() };
                together.into_iter().map(outcome).collect::<Vec<_>>()
            };
            under_way.push(outcomes.boxed());
        }
    }

    /// Carries a trace on, where it is recorded; the span ends with `spans`.
    fn traced(&self, mut message: Outgoing, spans: &mut Vec<Span>) -> Outgoing {
        let span = trace::carried_on(&mut message.headers, || {
            let subject = &*message.subject;
            let name = Operation::Publish.span_name(subject);
            info_span!("publish", subject, otel.name = name, otel.kind = "producer")
        });
        if !span.is_disabled() {
            trace::describe_message(&span, Operation::Publish, &message.subject, message.id.to_string());
            spans.push(span);
        }
        message
    }
}
