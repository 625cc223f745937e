//! The monitoring endpoints of a NATS server: how each is asked, and what series its answer becomes.
//!
//! One file per endpoint, pure: an answer in, tables out. Names, labels and values are those of
//! prometheus-nats-exporter, so that its dashboards keep working. Fetching is `client`'s.

pub mod accounts;
pub mod connz;
pub mod gatewayz;
pub mod healthz;
pub mod leafz;
mod name;
pub mod walk;

pub use name::Endpoint;

use crate::table::Column;

/// The names of the stock family. A prefix replaces both of its namespaces, as it does in the known exporter.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    /// In place of `gnatsd` and `jetstream`.
    pub prefix: Option<String>,
}

impl Namespace {
    /// The name of a stock metric outside of JetStream: `gnatsd_<subsystem>_<name>`.
    pub fn core(&self, subsystem: &str, name: &str) -> String {
        format!("{}_{subsystem}_{name}", self.prefix.as_deref().unwrap_or("gnatsd"))
    }

    /// The name of a stock metric of JetStream: `jetstream_<subsystem>_<name>`.
    pub fn jetstream(&self, subsystem: &str, name: &str) -> String {
        format!("{}_{subsystem}_{name}", self.prefix.as_deref().unwrap_or("jetstream"))
    }

    /// Gauges of an endpoint; their help is their short name, as it is in the known exporter.
    fn gauges(&self, subsystem: &str, names: &[&'static str]) -> Vec<Column> {
        names.iter().map(|name| Column::gauge(self.core(subsystem, name), *name)).collect()
    }
}

/// Numbers in the answers fit into 2^53 or are as inexact in Prometheus.
#[expect(clippy::cast_precision_loss, reason = "samples are floating point numbers in Prometheus")]
pub fn float(n: u64) -> f64 {
    n as f64
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_replaces_both_namespaces() {
        let stock = Namespace::default();
        assert_eq!(stock.core("varz", "mem"), "gnatsd_varz_mem");
        assert_eq!(stock.jetstream("consumer", "num_pending"), "jetstream_consumer_num_pending");
        let named = Namespace { prefix: Some("nats".into()) };
        assert_eq!(named.core("varz", "mem"), "nats_varz_mem");
        assert_eq!(named.jetstream("consumer", "num_pending"), "nats_consumer_num_pending");
    }
}
