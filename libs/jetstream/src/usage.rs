//! What is in a stream, by subject.

use crate::api::{self, ApiError};
use async_nats::jetstream::Context;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;

/// How full a stream is, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamUse {
    /// Its limit; `None` where it has none.
    pub max_bytes: Option<u64>,
    /// Bytes in it.
    pub bytes: u64,
    /// Messages in it.
    pub messages: u64,
    /// Messages by subject.
    pub subjects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Info {
    config: Config,
    state: State,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    max_bytes: i64,
}

#[derive(Deserialize)]
struct State {
    bytes: u64,
    messages: u64,
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

impl StreamUse {
    /// Asks the server, one request. `filter` narrows the subjects; if there are more than 100,000, only those are
    /// reported.
    ///
    /// # Errors
    /// When there is no such stream, or no answer.
    pub async fn of(js: &Context, stream: &str, filter: &str) -> Result<Self, ApiError> {
        let ask = json!({ "subjects_filter": filter });
        let Info { config, state } = api::call(js, format!("STREAM.INFO.{stream}"), &ask).await?;
        Ok(Self {
            max_bytes: u64::try_from(config.max_bytes).ok().filter(|max| *max > 0),
            bytes: state.bytes,
            messages: state.messages,
            subjects: state.subjects.unwrap_or_default(),
        })
    }
}
