//! Reads large outputs from the object store where workers put them.

use crate::app::{OutputStream, Outputs};
use crate::error::{Code, Error};
use agentforge_jetstream::{Nats, subjects::BUCKET_JOB_OUTPUTS};
use agentforge_proto::bus::OutputRef;
use async_trait::async_trait;
use futures_util::StreamExt;
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// Outputs in JetStream's object store.
pub struct ObjectStoreOutputs(pub Nats);

#[async_trait]
impl Outputs for ObjectStoreOutputs {
    async fn open(&self, output: &OutputRef) -> Result<OutputStream, Error> {
        let unavailable = |_| {
            let message = "the object store that holds this output cannot be reached; try again";
            Error::new(Code::Unavailable, message).retry_after(Duration::from_secs(1))
        };
        // A worker says where an output is: what it may name is not all that we may read.
        if output.bucket != BUCKET_JOB_OUTPUTS {
            return Err(Error::new(Code::NotFound, format!("outputs are not kept in {}", output.bucket)));
        }
        if !self.0.is_connected() {
            return Err(unavailable(()));
        }
        let bucket = self.0.jetstream().get_object_store(&output.bucket).await.map_err(|_| unavailable(()))?;
        let object = bucket.get(&output.name).await.map_err(|e| {
            let message = format!("the output {}/{} cannot be read: {e}", output.bucket, output.name);
            Error::new(Code::NotFound, message)
        })?;
        Ok(ReaderStream::new(object).boxed())
    }
}
