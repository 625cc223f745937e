//! One server in one scrape: every endpoint asked, each within the deadline, each with its own outcome.
//!
//! An endpoint is whole or absent: what was read of an answer that broke off is dropped. Nothing is kept
//! from one scrape to the next.

use crate::{
    client::{Client, Reason, reason_of_document},
    config::{Config, ServerId},
    endpoint::{Endpoint, accounts, connz, gatewayz, healthz, leafz, walk},
    json::Document,
    jsz,
    table::Table,
    target::Target,
};
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Accounts that are asked for at once by accountz.
const ACCOUNTS_AT_ONCE: usize = 4;
/// Pages of connections or accounts; an answer that always promises more ends here.
const PAGES_MAX: u64 = 1_000;

/// What came of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The endpoint that was asked.
    pub endpoint: Endpoint,
    /// How long it took, or until it was given up.
    pub took: Duration,
    /// Whether it was read.
    pub result: Result<(), Reason>,
}

/// What came of one server.
#[derive(Default)]
pub struct Found {
    /// The stock family's server_id.
    pub server_id: String,
    /// Everything but JetStream.
    pub core: Vec<Table>,
    /// Tables of JetStream under the names of the known exporter.
    pub stock: Vec<Table>,
    /// What the server says to lead, for the compact family; boxed, as it is large and often absent.
    pub claims: Option<Box<jsz::Claims>>,
    /// One for each endpoint that was asked.
    pub outcomes: Vec<Outcome>,
}

/// What an endpoint gave.
enum Part {
    Core(Vec<Table>),
    JetStream(Vec<Table>, Option<Box<jsz::Claims>>),
}

/// Who a server says it is.
struct Identity {
    server_id: String,
    server_name: String,
    reports_since: bool,
}

/// Asks one server everything.
pub async fn server(client: &Client, config: &Config, target: &Target, deadline: Instant) -> Found {
    let asker = Asker { client, config, target };
    let mut found = Found { server_id: target.id.clone(), ..Found::default() };
    let identity = asker.introduce(&mut found, deadline).await;
    if let Ok(identity) = &identity {
        found.server_id.clone_from(&identity.server_id);
    }
    let others = config.endpoints.iter().copied().filter(|endpoint| *endpoint != Endpoint::Varz);
    let asked = others.map(|endpoint| {
        let (asker, server_id, identity) = (&asker, &found.server_id, &identity);
        async move {
            let began = Instant::now();
            let result = match identity {
                // Without its name the server's rows would have wrong labels.
                Err(reason) if config.server_id != ServerId::Configured || endpoint == Endpoint::Jsz => Err(*reason),
                _ => within(deadline, asker.endpoint(endpoint, server_id, identity.as_ref().ok())).await,
            };
            (endpoint, began.elapsed(), result)
        }
    });
    for (endpoint, took, result) in join_all(asked).await {
        found.outcomes.push(Outcome { endpoint, took, result: result.as_ref().map(|_| ()).map_err(|r| *r) });
        match result {
            Ok(Part::Core(tables)) => found.core.extend(tables),
            Ok(Part::JetStream(tables, claims)) => (found.stock, found.claims) = (tables, claims),
            Err(_) if is_health(endpoint) => {
                found.core.extend(healthz::tables(&config.names, endpoint, &found.server_id, None));
            }
            Err(_) => {}
        }
    }
    found
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, Reason>>) -> Result<T, Reason> {
    timeout_at(deadline, work).await.unwrap_or(Err(Reason::Timeout))
}

fn is_health(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::Healthz | Endpoint::HealthzJsEnabledOnly | Endpoint::HealthzJsServerOnly)
}

struct Asker<'a> {
    client: &'a Client,
    config: &'a Config,
    target: &'a Target,
}

impl Asker<'_> {
    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Reason> {
        self.client.read(self.target, path, false, self.config.response_max).await
    }

    /// Asks who the server is, where that is needed, and keeps varz where that is wanted.
    async fn introduce(&self, found: &mut Found, deadline: Instant) -> Result<Identity, Reason> {
        let config = self.config;
        let is_wanted = config.endpoints.contains(&Endpoint::Varz);
        if !is_wanted && !config.endpoints.contains(&Endpoint::Jsz) && config.server_id == ServerId::Configured {
            let (server_id, server_name) = (self.target.id.clone(), String::new());
            return Ok(Identity { server_id, server_name, reports_since: false });
        }
        let began = Instant::now();
        let answer = within(deadline, self.read::<Value>("varz")).await;
        // Every version names its server; an answer without is another service's.
        let varz = answer.and_then(|varz| if varz["server_id"].is_string() { Ok(varz) } else { Err(Reason::Invalid) });
        let introduced = varz.map(|varz| (self.identity(&varz), varz));
        if is_wanted {
            let result = introduced.as_ref().map(|_| ()).map_err(|reason| *reason);
            found.outcomes.push(Outcome { endpoint: Endpoint::Varz, took: began.elapsed(), result });
            if let Ok((Identity { server_id, .. }, varz)) = &introduced {
                found.core = walk::tables(&config.names, Endpoint::Varz, server_id, varz, config.typed_counters);
            }
        }
        introduced.map(|(identity, _)| identity)
    }

    fn identity(&self, varz: &Value) -> Identity {
        let text = |key: &str| varz[key].as_str().unwrap_or_default().to_owned();
        let server_id = match self.config.server_id {
            ServerId::Configured => self.target.id.clone(),
            ServerId::InternalId => text("server_id"),
            ServerId::InternalName => text("server_name"),
        };
        Identity { server_id, server_name: text("server_name"), reports_since: reports_since(&text("version")) }
    }

    async fn endpoint(&self, endpoint: Endpoint, id: &str, identity: Option<&Identity>) -> Result<Part, Reason> {
        let (config, names, rows_max) = (self.config, &self.config.names, self.config.jsz.rows_max);
        let filter = &config.filter;
        let tables = match endpoint {
            Endpoint::Jsz => return self.jsz(id, identity).await,
            Endpoint::Varz | Endpoint::Routez | Endpoint::Subsz => {
                let answer: Value = self.read(endpoint.path()).await?;
                if !answer["server_id"].is_string() {
                    return Err(Reason::Invalid);
                }
                walk::tables(names, endpoint, id, &answer, false)
            }
            Endpoint::Connz | Endpoint::ConnzDetailed => self.connz(endpoint, id).await?,
            Endpoint::Healthz | Endpoint::HealthzJsEnabledOnly | Endpoint::HealthzJsServerOnly => {
                let path = endpoint.path();
                let answer = self.client.read(self.target, path, true, config.response_max).await?;
                healthz::tables(names, endpoint, id, Some(&answer))
            }
            Endpoint::Accstatz => {
                let answer = self.read(endpoint.path()).await?;
                vec![accounts::traffic(names, id, &answer, filter, rows_max)]
            }
            Endpoint::Accountz => vec![self.accountz(id).await?],
            Endpoint::Gatewayz => gatewayz::tables(names, id, &self.read(endpoint.path()).await?, rows_max),
            Endpoint::Leafz => leafz::tables(names, id, &self.read(endpoint.path()).await?, filter, rows_max),
        };
        Ok(Part::Core(tables))
    }

    async fn connz(&self, endpoint: Endpoint, id: &str) -> Result<Vec<Table>, Reason> {
        let config = self.config;
        let mut sum = connz::Sum::new(&config.names, endpoint, config.connection_names, config.jsz.rows_max);
        let mut offset = 0;
        for _ in 0..PAGES_MAX {
            let page: connz::Page = self.read(&connz::path(endpoint, offset)).await?;
            sum.add(id, &page, &config.filter);
            offset += page.len();
            if page.len() == 0 || offset >= page.total {
                break;
            }
        }
        Ok(sum.tables(&config.names, id))
    }

    async fn accountz(&self, id: &str) -> Result<Table, Reason> {
        let list: accounts::List = self.read(Endpoint::Accountz.path()).await?;
        let filter = &self.config.filter.account;
        let wanted = list.accounts.unwrap_or_default().into_iter().filter(|account| filter.admits(account));
        let details = stream::iter(wanted.map(|account| async move {
            self.read::<accounts::Details>(&format!("accountz?acc={}", in_query(&account))).await
        }));
        let mut details = details.buffered(ACCOUNTS_AT_ONCE);
        let mut table = accounts::details_table(&self.config.names, self.config.jsz.rows_max);
        while let Some(answer) = details.next().await {
            accounts::add_details(&mut table, id, &answer?);
        }
        Ok(table)
    }

    async fn jsz(&self, id: &str, identity: Option<&Identity>) -> Result<Part, Reason> {
        let server = jsz::Server {
            id: id.to_owned(),
            name: identity.map(|identity| identity.server_name.clone()).unwrap_or_default(),
            reports_since: identity.is_some_and(|identity| identity.reports_since),
        };
        let mut reader = jsz::Reader::new(&self.config.jsz, &self.config.filter, server);
        let (mut offset, mut left) = (0, self.config.response_max);
        for _ in 0..PAGES_MAX {
            let body = self.client.open(self.target, &self.config.jsz.path(offset), false).await?;
            let mut document = Document::new(body, left);
            let page = reader.page(&mut document).await.map_err(|error| reason_of_document(&error))?;
            left = left.saturating_sub(document.received());
            offset += page.accounts;
            let is_last = page.total.map_or(page.accounts < jsz::PAGE, |total| offset >= total);
            if page.accounts == 0 || is_last {
                break;
            }
        }
        let (tables, claims) = reader.finish();
        Ok(Part::JetStream(tables, claims.map(Box::new)))
    }
}

/// Whether a server of this version reports since when it leads: 2.12 and newer. Late releases of 2.11 do as well; taken
/// for older ones they lose no series.
fn reports_since(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|part| part.parse::<u32>().ok());
    numbers.next().zip(numbers.next()) >= Some((2, 12))
}

/// As a value in a query: everything but letters, digits and a few marks percent-encoded.
fn in_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_report_since_when_they_lead_from_2_12_on() {
        for (version, expected) in
            [("2.12.0", true), ("2.15.1", true), ("2.12.0-preview.2", true), ("3.0.0", true), ("v2.14.6", true)]
                .into_iter()
                .chain([("2.11.17", false), ("2.9.0", false), ("2", false), ("", false), ("dev", false)])
        {
            assert_eq!(reports_since(version), expected, "{version}");
        }
    }

    #[test]
    fn accounts_are_quoted_in_queries() {
        assert_eq!(in_query("$G"), "%24G");
        assert_eq!(in_query("a&b=é"), "a%26b%3D%C3%A9");
    }
}
