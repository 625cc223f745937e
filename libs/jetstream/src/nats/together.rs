//! Requests that are sent together.

use super::{Nats, SendError};
use crate::replies::PendingMany;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use std::pin::pin;
use tokio::time::{Instant, timeout_at};

impl Nats {
    /// Sends many with a place for each reply, in order, and without waiting for the replies. Waits for the connection
    /// first; `Err` when there is none. What could not be sent is named by its place, with the reason.
    pub(crate) async fn send_requests(
        &self,
        messages: Vec<(Subject, HeaderMap, Bytes)>,
        deadline: Instant,
    ) -> Result<(PendingMany, Vec<(usize, SendError)>), SendError> {
        let epoch = self.epoch_by(deadline).await.ok_or(SendError::NotConnected)?;
        let (replies, client) = (&self.inner.replies, &self.inner.client);
        let pending = replies.expect_many(messages.len(), epoch, deadline);
        let mut failed = Vec::new();
        for (place, (subject, headers, payload)) in messages.into_iter().enumerate() {
            let reply = replies.subject_of(&pending, place);
            let mut sent = pin!(client.publish_with_reply_and_headers(subject, reply, headers, payload));
            // A timer only for what has to wait.
            let sent = match sent.as_mut().now_or_never() {
                Some(sent) => Ok(sent),
                None => timeout_at(deadline, sent).await,
            };
            let why = match sent {
                Ok(Ok(())) => continue,
                Ok(Err(refused)) => SendError::Refused(refused),
                Err(_) => SendError::NotConnected,
            };
            replies.forget_one_of(&pending, place);
            failed.push((place, why));
        }
        Ok((pending, failed))
    }
}
