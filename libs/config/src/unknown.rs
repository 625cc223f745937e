//! Variables that look like settings of a service and are none: a misspelt one would silently do nothing.
//!
//! Decides by name alone. Lenient towards what other programs read: an environment is shared, and only a name
//! that is close to a declared one, or begins like several of them, is held against anybody.

use std::collections::BTreeSet;

/// Others' variables whose names begin like ours.
const FOREIGN_PREFIXES: [&str; 3] = ["OTEL_", "KUBERNETES_", "HTTP_PROXY"];
/// A declared name that is shorter has too many neighbours by chance.
const NEAR_FROM_CHARS: usize = 6;
/// Edits that count as a slip: a letter left out, added or replaced.
const SLIP_EDITS: usize = 2;

/// Those of `keys` that look like a setting of `declared` and are none, each with what is wrong.
pub fn unknown(keys: &[String], declared: &[&str]) -> Vec<(String, String)> {
    let families: BTreeSet<&str> = declared.iter().filter_map(|key| family(key)).collect();
    keys.iter()
        .filter(|key| !declared.contains(&key.as_str()))
        .filter_map(|key| {
            let near = nearest(key, declared);
            let is_related = family(key).is_some_and(|family| families.contains(family)) && !is_foreign(key);
            let is_ours = near.is_some() || is_related;
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            is_ours.then(|| (key.clone(), format!("is no setting of this service{hint}")))
        })
        .collect()
}

/// What a name begins with, up to the first underscore.
fn family(key: &str) -> Option<&str> {
    key.split_once('_').map(|(family, _)| family).filter(|family| family.len() > 1)
}

fn nearest<'a>(key: &str, declared: &[&'a str]) -> Option<&'a str> {
    let near = declared.iter().filter(|known| known.len() >= NEAR_FROM_CHARS).map(|known| (edits(key, known), *known));
    near.filter(|(edits, _)| *edits <= SLIP_EDITS).min().map(|(_, known)| known)
}

/// Besides the prefixes: what Kubernetes sets for each service of a namespace (`NATS_SERVICE_HOST`,
/// `NATS_PORT_4222_TCP_ADDR`, …).
fn is_foreign(key: &str) -> bool {
    let is_link = key.contains("_SERVICE_HOST") || key.contains("_SERVICE_PORT");
    let is_port = key.split_once("_PORT").is_some_and(|(_, rest)| {
        let number = rest.trim_start_matches('_').split('_').next().unwrap_or_default();
        rest.starts_with('_') && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    is_link || is_port || FOREIGN_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: [&str; 7] =
        ["ENV", "SITE", "HTTP_PORT", "NATS_URL", "WORKER_CONCURRENCY", "LOG_LEVEL", "OTEL_EXPORTER_OTLP_ENDPOINT"];

    fn told(key: &str) -> Option<String> {
        unknown(&[key.to_owned()], &DECLARED).pop().map(|(_, problem)| problem)
    }

    #[test]
    fn a_misspelt_setting_is_told_with_the_right_one() {
        for (key, right) in [
            ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
            ("NATS_URLS", "NATS_URL"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("OTEL_EXPORTER_OTLP_ENDPONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ] {
            assert_eq!(told(key), Some(format!("is no setting of this service; did you mean {right}?")), "{key}");
        }
        assert_eq!(told("WORKER_TOOLS"), Some("is no setting of this service".to_owned()));
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
            "NATS_PORT_4222_TCP_ADDR",
            "POSTGRES_USER",
            "RUST_LOG",
        ] {
            assert_eq!(told(key), None, "{key}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, wanted) in [("", "", 0), ("a", "", 1), ("NATS_URL", "NATS_UR", 1), ("kitten", "sitting", 3)] {
            assert_eq!(edits(a, b), wanted, "{a} {b}");
        }
    }
}
