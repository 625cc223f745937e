//! Where an endpoint's events come from: the streams that keep its subjects, and the subjects that none keeps.

use crate::{
    endpoints::declaration::Endpoint,
    topology::{
        error::{Error, api},
        names::{self, STREAM_RETRIES},
    },
};
use async_nats::jetstream::{Context, context::GetStreamErrorKind, response::Response, stream::Stream};

/// The streams of an endpoint's subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSources {
    /// Each stream with the subjects that are read from it.
    pub streams: Vec<(String, Vec<String>)>,
    /// Subjects that no stream keeps.
    pub unbound: Vec<String>,
}

/// Finds the streams of an endpoint's subjects.
///
/// # Errors
/// The server does not answer.
pub async fn sources(js: &Context, endpoint: &Endpoint) -> Result<EventSources, Error> {
    let mut sources = EventSources::default();
    for subject in &endpoint.subjects {
        match stream_of(js, subject).await? {
            None => sources.unbound.push(subject.clone()),
            Some(stream) => match sources.streams.iter_mut().find(|(name, _)| *name == stream) {
                Some((_, subjects)) => subjects.push(subject.clone()),
                None => sources.streams.push((stream, vec![subject.clone()])),
            },
        }
    }
    Ok(sources)
}

async fn stream_of(js: &Context, subject: &str) -> Result<Option<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    let attempt = || format!("find the stream of {subject}");
    let found = js.request("STREAM.NAMES", &serde_json::json!({ "subject": subject })).await;
    match found.map_err(|e| api(attempt())(e.into()))? {
        Response::Ok(Names { streams }) => {
            Ok(streams.unwrap_or_default().into_iter().find(|name| !name.starts_with("KV_")))
        }
        Response::Err { error } => Err(api(attempt())(error.to_string().into())),
    }
}

/// Deletes an endpoint's consumers.
///
/// # Errors
/// The server does not answer.
pub async fn delete_consumers(js: &Context, env: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let name = names::durable(env, &endpoint.name);
    let streams = sources(js, endpoint).await?.streams.into_iter().map(|(stream, _)| stream);
    for stream in streams.chain([STREAM_RETRIES.to_owned()]) {
        let stream = stream_handle(js, &stream).await?;
        // Another replica may have been first.
        let _ = stream.delete_consumer(&name).await;
    }
    Ok(())
}

/// A stream with its current configuration and state.
pub(crate) async fn stream_handle(js: &Context, name: &str) -> Result<Stream, Error> {
    js.get_stream(name).await.map_err(|e| {
        let attempt = match e.kind() {
            GetStreamErrorKind::JetStream(_) => format!("read stream {name}, which is gone"),
            _ => format!("read stream {name}"),
        };
        api(attempt)(e.into())
    })
}
