//! Variables that look like settings of a service and are none: a misspelt one would silently do nothing.
//!
//! Decides only by names. An environment is shared: variables of other programs, and those that Kubernetes sets for
//! each service of a namespace, are not faults. Only a typing error is: a name one or two letters away from a setting
//! that is not set itself. Other names that begin like our settings are only reported.

use crate::nearest;
use std::collections::BTreeSet;

/// A declared name that is shorter has too many neighbours by chance.
const NEAR_FROM_CHARS: usize = 6;
/// Others' variables whose names begin like ours, and that every environment may have.
const COMMON_PREFIXES: [&str; 2] = ["OTEL_", "HTTP_PROXY"];
/// From this length on two slips are more likely than another program's name.
const LONG_FROM_CHARS: usize = 10;

/// What was found among the names of an environment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Misspelt settings, each with what is wrong: faults.
    pub misspelt: Vec<(String, String)>,
    /// Names that begin like our settings, but are not read here.
    pub unread: Vec<String>,
}

/// Those of `keys` that look like a setting of `declared` and are none.
pub fn unknown(keys: &[String], declared: &[&str]) -> Unknown {
    let families: BTreeSet<&str> = declared.iter().filter_map(|key| family(key)).collect();
    let set: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    let mut found = Unknown::default();
    for key in keys.iter().filter(|key| !declared.contains(&key.as_str()) && !is_foreign(key)) {
        // Where the right one is set as well, this is somebody else's.
        if let Some(near) = misspelt(key, declared).filter(|near| !set.contains(near)) {
            found.misspelt.push((key.clone(), format!("is not a setting of this service; did you mean {near}?")));
        } else if family(key).is_some_and(|family| families.contains(family)) && !is_common(key) {
            found.unread.push(key.clone());
        }
    }
    found
}

/// What a name begins with, up to the first underscore.
fn family(key: &str) -> Option<&str> {
    key.split_once('_').map(|(family, _)| family).filter(|family| family.len() > 1)
}

fn is_common(key: &str) -> bool {
    COMMON_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn misspelt<'a>(key: &str, declared: &[&'a str]) -> Option<&'a str> {
    let long_enough = declared.iter().copied().filter(|known| known.len() >= NEAR_FROM_CHARS);
    let (long, short): (Vec<_>, Vec<_>) = long_enough.partition(|known| known.len() >= LONG_FROM_CHARS);
    nearest::nearest(key, short, 1).or_else(|| nearest::nearest(key, long, 2))
}

/// What Kubernetes sets for each service of a namespace: `NATS_SERVICE_HOST`, `NATS_PORT`,
/// `NATS_PORT_4222_TCP_ADDR`, …
fn is_foreign(key: &str) -> bool {
    let is_link = key.contains("_SERVICE_HOST") || key.contains("_SERVICE_PORT");
    let is_port = key.split_once("_PORT_").is_some_and(|(_, rest)| {
        let number = rest.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    is_link || is_port || key.starts_with("KUBERNETES_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: [&str; 12] = [
        "ENV",
        "SITE",
        "HTTP_PORT",
        "GRPC_PORT",
        "NATS_URL",
        "WORKER_CONCURRENCY",
        "LOG_LEVEL",
        "DB_POOL",
        "JOB_TIMEOUT",
        "JOB_RETENTION",
        "METRICS_PORT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];

    fn found(keys: &[&str]) -> Unknown {
        unknown(&keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>(), &DECLARED)
    }

    #[test]
    fn what_every_program_with_tls_reads_is_nobodys_misspelling() {
        let declared: Vec<&str> = crate::Common::SETTINGS.iter().map(|setting| setting.key).collect();
        let keys = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(str::to_owned);
        assert_eq!(unknown(&keys, &declared), Unknown::default());
    }

    #[test]
    fn a_misspelt_setting_is_told_with_the_right_one() {
        for (key, right) in [
            ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
            ("NATS_URLS", "NATS_URL"),
            ("NAST_URL", "NATS_URL"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("LOG_LEVLE", "LOG_LEVEL"),
            ("DBPOOL", "DB_POOL"),
            ("JOBS_TIMEOUTS", "JOB_TIMEOUT"),
            ("METRICS_PROT", "METRICS_PORT"),
            ("OTEL_EXPORTER_OTLP_ENDPONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ] {
            let wanted = format!("is not a setting of this service; did you mean {right}?");
            assert_eq!(found(&[key]).misspelt, [(key.to_owned(), wanted)], "{key}");
            // If the right one is set as well, this is not a misspelling of it.
            assert_eq!(found(&[key, right]).misspelt, [], "{key}");
        }
    }

    #[test]
    fn what_begins_like_ours_and_is_none_is_told_and_no_fault() {
        for key in [
            "GRPC_VERBOSITY",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "GRPC_TRACE",
            "JOB_NAME",
            "JOB_URL",
            "DB_HOST",
            "DB_PORT",
            "DB_USER",
            "NATS_PORT",
            "NATS_HOST",
            "WORKER_TOOLS",
        ] {
            assert_eq!(found(&[key]), Unknown { misspelt: vec![], unread: vec![key.to_owned()] }, "{key}");
        }
    }

    #[test]
    fn what_others_read_is_left_alone() {
        for key in [
            "ENV",
            "WORKER_CONCURRENCY",
            "PATH",
            "HOME",
            "HOSTNAME",
            "SHELL",
            "TERM",
            "EDITOR",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "OTEL_TRACES_SAMPLER",
            "KUBERNETES_PORT_443_TCP",
            "NATS_SERVICE_HOST",
            "NATS_SERVICE_PORT",
            "NATS_SERVICE_PORT_CLIENT",
            "NATS_PORT_4222_TCP",
            "NATS_PORT_4222_TCP_ADDR",
            "HTTP_PORT_80_TCP_PROTO",
            "POSTGRES_USER",
            "RUST_LOG",
        ] {
            assert_eq!(found(&[key]), Unknown::default(), "{key}");
        }
    }
}
