//! Queries of requests as typed values, by the declarations that the OpenAPI document is made of.
//!
//! A parameter that the route does not have, or that is given twice, is refused with its name; an empty one is none.
//! A list is repeated or separated by commas, before anything is decoded: a comma inside a value is written `%2C`.

use super::problem::Problem;
use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{RefOr, Schema};

/// The query as `T` declares it.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        from_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// A route without parameters.
#[derive(Deserialize, IntoParams)]
pub(crate) struct NoParams {}

/// A page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// 1 to 1000; the default is 100.
    #[serde(default)]
    pub(crate) limit: u32,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

fn from_query<T: DeserializeOwned + IntoParams>(raw: &str) -> Result<T, Problem> {
    let known = if raw.is_empty() { Vec::new() } else { T::into_params(|| None) };
    // Each item of a list as a pair of its own.
    let (mut seen, mut pairs) = (Vec::new(), String::with_capacity(raw.len()));
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(parameter) = known.iter().find(|parameter| parameter.name == decoded(name)) else {
            return Err(unknown(&decoded(name), &known));
        };
        let is_list = matches!(parameter.schema, Some(RefOr::T(Schema::Array(_))));
        if !is_list && seen.contains(&&*parameter.name) {
            return Err(Problem::field(&parameter.name, format!("{} is given more than once", parameter.name)));
        }
        seen.push(&*parameter.name);
        for item in value.splitn(if is_list { usize::MAX } else { 1 }, ',').filter(|item| !item.is_empty()) {
            pairs.extend([&*parameter.name, "=", item, "&"]);
        }
    }
    let reader = serde_html_form::Deserializer::from_bytes(pairs.as_bytes());
    serde_path_to_error::deserialize(reader).map_err(|problem| {
        let name = problem.path().to_string();
        let given = url::form_urlencoded::parse(pairs.as_bytes()).find(|(key, _)| *key == name);
        let value = given.map(|(_, value)| format!(" is {value:?}")).unwrap_or_default();
        let detail = format!("{name}{value}: {}", problem.inner());
        Problem::field(name, detail)
    })
}

fn unknown(name: &str, known: &[Parameter]) -> Problem {
    let names: Vec<&str> = known.iter().map(|parameter| &*parameter.name).collect();
    let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Problem::field(name, format!("query parameter {name:?} does not exist; this route has {list}"))
}

/// Percent-decodes a name.
fn decoded(raw: &str) -> String {
    url::form_urlencoded::parse(raw.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Sample {
        #[serde(default)]
        state: Vec<String>,
        #[serde(default)]
        label: Vec<String>,
        #[serde(default)]
        limit: u32,
        #[serde(default)]
        is_all: bool,
        tool: Option<String>,
    }

    fn problem(raw: &str) -> Problem {
        from_query::<Sample>(raw).map(|sample| format!("{sample:?}")).unwrap_err()
    }

    #[test]
    fn queries_are_lists_and_single_values_of_known_names() {
        let raw = "state=queued,running&state=dead&label=team%3Dred%2Cblue&label=a=b,c=d&limit=5&tool=&is_all=true";
        let read: Sample = from_query(raw).ok().unwrap();
        assert_eq!(read.state, ["queued", "running", "dead"]);
        assert_eq!(read.label, ["team=red,blue", "a=b", "c=d"]);
        assert_eq!((read.limit, read.is_all, read.tool), (5, true, None));
        let read: Sample = from_query("tool=a,b%26c+d").ok().unwrap();
        assert_eq!(read.tool.as_deref(), Some("a,b&c d"), "a single value keeps its commas");
        assert!(from_query::<Sample>("").is_ok() && from_query::<NoParams>("").is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_name() {
        for (raw, field, detail) in [
            ("stat=queued", "stat", "query parameter \"stat\" does not exist; this route has state, label, limit"),
            ("st%61t", "stat", "query parameter \"stat\" does not exist"),
            ("tool=a&tool=b", "tool", "tool is given more than once"),
            ("limit=-1", "limit", "limit is \"-1\": invalid digit"),
            ("limit=4294967296", "limit", "limit is \"4294967296\": number too large"),
            ("is_all=perhaps", "is_all", "is_all is \"perhaps\": "),
        ] {
            let problem = problem(raw);
            assert_eq!((problem.code(), problem.field_name()), ("invalid_argument", Some(field)), "{raw}");
            assert!(problem.detail().contains(detail), "{raw}: {}", problem.detail());
        }
        let refused = from_query::<NoParams>("a=b").err().unwrap();
        assert!(refused.detail().ends_with("this route has none"), "{}", refused.detail());
    }
}
