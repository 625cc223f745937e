//! The house rules, kept by reading the repository: who may depend on whom, and that the documents are true.
//!
//! Starts no server. Relies on `cargo metadata` for the edges and on the services' own declarations for
//! settings, metrics and error codes; never builds or changes anything.

mod bodies;
mod circles;
mod linked;
mod roster;
mod variables;

use agentforge_orchestrator::{api::rest::openapi_json, error::Code};
use agentforge_runtime::pages;
use agentforge_stack::{
    pages::declared,
    roster::{ORCHESTRATOR, SERVICES},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use variables::OTHER_VARIABLES;

/// Every crate and its layer; services are in one of their own. An edge must lead to a lower one.
const LAYERS: &[(&str, u8)] = &[
    ("agentforge-message-id", 0),
    ("agentforge-config", 1),
    ("agentforge-metrics", 1),
    ("agentforge-signing", 1),
    ("agentforge-proto", 1),
    ("agentforge-access", 2),
    ("agentforge-audit", 2),
    ("agentforge-runtime", 2),
    ("agentforge-jetstream", 2),
    ("agentforge-egress", 2),
    ("agentforge-client", 2),
    ("agentforge-door", 3),
    ("agentforge-ledger", 3),
    ("agentforge-terminal", 5),
    ("agentforge-governance", 6),
    ("agentforge-stack", 6),
    ("agentforge-cli", 6),
    ("agentforge-bench", 7),
    ("agentforge-end-to-end", 7),
    ("agentforge-deploy", 7),
    ("agentforge-observability", 7),
    ("agentforge-example-custom-tool", 7),
    ("agentforge-example-event-subscriber", 7),
    ("agentforge-example-grpc-client", 7),
    // Used only by tests, and itself uses no other.
    (HARNESS, 0),
];
const SERVICE: u8 = 4;
const HARNESS: &str = "agentforge-harness";

/// Every edge there is, test dependencies left out. A new one is a decision: add it here, in the commit
/// that needs it, and say why there.
const EDGES: &[(&str, &[&str])] = &[
    (
        "bench",
        &[
            "client",
            // The floor of `bench webhooks` is the same HTTP client without the rest.
            "egress",
            "jetstream",
            "ledger",
            "message-id",
            "proto",
            "stack",
            "terminal",
        ],
    ),
    // It speaks to an installation; those that start one or measure one are programs of their own.
    (
        "cli",
        &[
            "access",
            "audit",
            "client",
            "config",
            "jetstream",
            "ledger",
            "message-id",
            "proto",
            "runtime",
            "signing",
            "terminal",
        ],
    ),
    ("client", &["proto"]),
    ("access", &["config"]),
    ("audit", &["proto"]),
    ("broadcaster", &["access", "config", "door", "egress", "jetstream", "message-id", "metrics", "runtime"]),
    ("config", &[]),
    // Egress is for probes and for the calls that submit jobs.
    ("console", &["access", "config", "door", "egress", "jetstream", "message-id", "metrics", "runtime"]),
    // Uses egress for its address ranges, which trusted proxies are written as, and to fetch keys of issuers; records what is
    // asked of surfaces that have no database, in the stream of events.
    ("door", &["access", "audit", "config", "egress", "jetstream", "message-id", "metrics", "runtime"]),
    ("egress", &["config"]),
    ("deploy", &[]),
    ("end-to-end", &[]),
    ("example-custom-tool", &["runtime", "worker"]),
    // As a program outside of this repository would be: NATS and JSON only, or the generated types only.
    ("example-event-subscriber", &[]),
    ("example-grpc-client", &["proto"]),
    // The egress rules, jetstream and ids of messages are for its one notice; it reads no service.
    ("governance", &["egress", "jetstream", "message-id", "terminal"]),
    ("harness", &[]),
    ("jetstream", &["config", "message-id", "metrics"]),
    // A ledger is held against the stream that its files went to.
    ("ledger", &["jetstream", "proto"]),
    ("message-id", &[]),
    ("metrics", &[]),
    ("signing", &[]),
    (
        "orchestrator",
        &["access", "audit", "config", "door", "jetstream", "message-id", "metrics", "proto", "runtime", "signing"],
    ),
    ("nats-exporter", &["config", "metrics", "runtime"]),
    ("observability", &[]),
    ("proto", &["message-id"]),
    ("runtime", &["config", "metrics"]),
    // Every service: it starts them, in one process or each as its own, and prints what they declare.
    (
        "stack",
        &[
            "broadcaster",
            "client",
            "config",
            "console",
            "jetstream",
            "message-id",
            "metrics",
            "nats-exporter",
            "orchestrator",
            "proto",
            "runtime",
            "syncdaemon",
            "tactical-api",
            "terminal",
            "worker",
        ],
    ),
    ("syncdaemon", &["config", "jetstream", "ledger", "message-id", "metrics", "proto", "runtime"]),
    ("tactical-api", &["access", "config", "door", "jetstream", "message-id", "metrics", "proto", "runtime"]),
    // What goes wrong with a call is put into words in one place.
    ("terminal", &["client", "config", "proto"]),
    ("worker", &["config", "egress", "jetstream", "message-id", "metrics", "proto", "runtime", "signing"]),
];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    is_dev: bool,
}

#[test]
fn dependencies_lead_downwards_and_every_edge_is_known() {
    let (crates, edges) = workspace();
    let mut layers: BTreeMap<String, u8> = LAYERS.iter().map(|(name, layer)| ((*name).to_owned(), *layer)).collect();
    layers.extend(SERVICES.iter().map(|service| (service.binary(), SERVICE)));
    let unknown: Vec<_> = crates.iter().filter(|name| !layers.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "crates without a layer: give each one in LAYERS: {unknown:?}");

    let upwards: Vec<_> = edges
        .iter()
        .filter(|e| !e.is_dev && e.to != HARNESS && layers[&e.from] <= layers[&e.to])
        .map(|e| format!("{} -> {}", e.from, e.to))
        .collect();
    assert!(upwards.is_empty(), "edges against the direction (ARCHITECTURE.md): {upwards:?}");

    let known: BTreeSet<(String, String)> =
        EDGES.iter().flat_map(|(from, to)| to.iter().map(|to| (full(from), full(to)))).collect();
    let found: BTreeSet<(String, String)> =
        edges.iter().filter(|e| !e.is_dev).map(|e| (e.from.clone(), e.to.clone())).collect();
    let new: Vec<_> = found.difference(&known).map(|(from, to)| format!("{from} -> {to}")).collect();
    let gone: Vec<_> = known.difference(&found).map(|(from, to)| format!("{from} -> {to}")).collect();
    assert!(new.is_empty() && gone.is_empty(), "EDGES is not what Cargo.toml says; new: {new:?}, gone: {gone:?}");
}

#[test]
fn services_never_depend_on_each_other_and_the_harness_is_for_tests() {
    let (_, edges) = workspace();
    let services: BTreeSet<String> = SERVICES.iter().map(|service| service.binary()).collect();
    for e in &edges {
        let both = services.contains(&e.from) && services.contains(&e.to);
        assert!(!both, "{} -> {}: services meet on the bus or on a proto, also in tests", e.from, e.to);
        assert!(e.to != HARNESS || e.is_dev, "{} -> {}: the harness is a test dependency only", e.from, e.to);
        assert!(e.from != HARNESS, "{} -> {}: the harness depends on nothing of ours", e.from, e.to);
    }
}

fn full(name: &str) -> String {
    format!("agentforge-{name}")
}

/// The workspace's crates and the edges between them.
fn workspace() -> (Vec<String>, Vec<Edge>) {
    let out = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let crates: Vec<String> = packages.iter().map(|p| text(&p["name"])).collect();
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = text(&dependency["name"]);
            if crates.contains(&to) {
                edges.push(Edge { from: text(&package["name"]), to, is_dev: dependency["kind"] == "dev" });
            }
        }
    }
    assert!(edges.len() > EDGES.len(), "the metadata were not understood");
    (crates, edges)
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text) {
            if let Some(why) = broken_link(&file, &text, &link) {
                broken.push(format!("{}: {link}: {why}", shown(&file)));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn broken_link(file: &Path, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { file.to_owned() } else { file.parent()?.join(path) };
    if !target.exists() {
        return Some("there is no such file".to_owned());
    }
    if anchor.is_empty() || target.extension().is_none_or(|e| e != "md") {
        return None;
    }
    let text = if path.is_empty() { text.to_owned() } else { fs::read_to_string(&target).unwrap() };
    let found = prose(&text).any(|line| line.starts_with('#') && slug(line) == anchor);
    (!found).then(|| "there is no such heading".to_owned())
}

/// The targets of the links in a document, code left out.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("");
        for after in plain.split("](").skip(1) {
            found.extend(after.split(')').next().map(str::to_owned));
        }
    }
    found
}

/// Lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A heading's anchor, as forges make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn nothing_names_places_that_users_do_not_have() {
    // Put together here, so that this file does not name them.
    let forbidden = [["/wo", "rk/"].concat(), ["../sha", "red"].concat(), ["/tmp/br", "ief"].concat()];
    let mut found = Vec::new();
    for file in files() {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in forbidden.iter().filter(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", shown(&file), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_page_of_errors_has_every_code_with_its_statuses() {
    let openapi: Value = serde_json::from_str(&openapi_json()).unwrap();
    let declared: BTreeSet<[String; 3]> =
        openapi["x-problem-codes"].as_array().unwrap().iter().map(row_of_code).collect();
    for code in Code::ALL {
        assert!(declared.iter().any(|row| row[0] == code.as_str()), "{} is not in openapi", code.as_str());
    }
    let page = read("docs/errors.md");
    let written: BTreeSet<[String; 3]> = page.lines().filter_map(written_code).collect();
    let missing: Vec<_> = declared.difference(&written).collect();
    let wrong: Vec<_> = written.difference(&declared).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "docs/errors.md lacks {missing:?} and has {wrong:?}");
}

fn row_of_code(code: &Value) -> [String; 3] {
    let grpc = code["grpc"].as_str().map_or_else(|| "–".to_owned(), |name| format!("`{}`", upper_snake(name)));
    [code["code"].as_str().unwrap().to_owned(), code["status"].to_string(), grpc]
}

/// Rows such as ``| `not_found` | 404 | `NOT_FOUND` | … |``.
fn written_code(line: &str) -> Option<[String; 3]> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [_, code, status, grpc, ..] = cells.as_slice() else { return None };
    let code = code.strip_prefix('`')?.strip_suffix('`')?;
    status.parse::<u16>().ok().filter(|s| *s >= 400)?;
    Some([code.to_owned(), (*status).to_owned(), (*grpc).to_owned()])
}

fn upper_snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[test]
fn every_setting_that_a_document_names_exists() {
    let mut known: BTreeSet<String> = SERVICES
        .iter()
        .flat_map(|service| (service.program.settings)())
        .flat_map(|(_, list)| list.into_iter().flat_map(|s| [Some(s.key.to_owned()), s.file_key()]))
        .flatten()
        .collect();
    // Any of them.
    known.insert("NAME_FILE".to_owned());
    known.extend(OTHER_VARIABLES.iter().map(|s| (*s).to_owned()));
    known.extend(Code::ALL.iter().map(|code| upper_snake(&format!("{:?}", code.grpc()))));
    let mut unknown = BTreeSet::new();
    for file in documents_of_today() {
        let text = fs::read_to_string(&file).unwrap();
        for span in code_spans(&text) {
            let word = span.split('=').next().unwrap_or_default();
            if is_upper_snake(word) && !known.contains(word) {
                unknown.insert(format!("{}: {word}", shown(&file)));
            }
        }
    }
    assert!(unknown.is_empty(), "no service declares these:\n{}", unknown.into_iter().collect::<Vec<_>>().join("\n"));
}

/// Words with an underscore: `GET` or `INT` are not settings, and a wrong `ENV` would be noticed.
fn is_upper_snake(word: &str) -> bool {
    word.contains('_')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Code in the text, and the words of fenced code.
fn code_spans(text: &str) -> Vec<&str> {
    let inline = prose(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    let mut fenced = false;
    let blocks = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        fenced && !fence
    });
    // In a block only KEY=value is meant as a setting; JSON and SQL have other words in capitals.
    let assigned = blocks.flat_map(str::split_whitespace).filter(|word| word.contains('='));
    inline.chain(assigned).collect()
}

#[test]
fn pages_made_from_the_code_are_up_to_date() {
    let services = declared();
    let hint = "run scripts/generate-docs and commit what it wrote";
    assert!(
        read("docs/configuration.md") == pages::configuration_page(&services),
        "docs/configuration.md is out of date: {hint}"
    );
    assert!(read("docs/METRICS.md") == pages::metrics_page(&services), "docs/METRICS.md is out of date: {hint}");
    for service in SERVICES {
        let Some(made) = service.openapi else { continue };
        let page = match service.name {
            ORCHESTRATOR => "docs/openapi.json".to_owned(),
            name => format!("docs/openapi-{name}.json"),
        };
        let (written, made): (Value, Value) =
            (serde_json::from_str(&read(&page)).unwrap(), serde_json::from_str(&made()).unwrap());
        assert!(written == made, "{page} is out of date: {hint}");
    }
}

#[test]
fn files_and_tests_that_the_documents_name_exist() {
    let root = root();
    let tops: BTreeSet<String> = fs::read_dir(&root)
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| format!("{}/", e.file_name().to_string_lossy()))
        .collect();
    let known = functions_and_texts();
    let mut missing = BTreeSet::new();
    for file in documents_of_today() {
        let text = fs::read_to_string(&file).unwrap();
        for span in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let place = span.split([' ', ':']).next().unwrap_or_default();
            let is_path =
                tops.iter().any(|top| place.starts_with(top.as_str())) && !place.contains(['<', '*', '{', '…']);
            let exists = || root.join(place).exists() || file.with_file_name(place).exists();
            if is_path && !place.starts_with("target/") && !exists() {
                missing.insert(format!("{}: there is no {place}", shown(&file)));
            }
            // Tests have whole sentences as names; else only metrics have so many underscores, and those
            // are text in the code.
            let is_test = span.matches('_').count() >= 4
                && span.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if is_test
                && !["agentforge_", "resource_trend_"].iter().any(|prefix| span.starts_with(prefix))
                && !known.contains(span)
            {
                missing.insert(format!("{}: there is no test {span}", shown(&file)));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.into_iter().collect::<Vec<_>>().join("\n"));
}

/// The names of all functions, and all texts that are one word. Collected once: to search all sources for each of the
/// names that documents have takes a minute.
fn functions_and_texts() -> BTreeSet<String> {
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let mut known = BTreeSet::new();
    for file in files().iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let source = fs::read_to_string(file).unwrap();
        let functions = source.split("fn ").skip(1).filter_map(|after| after.split('(').next());
        known.extend(functions.chain(source.split('"')).filter(|text| is_word(text)).map(str::to_owned));
    }
    known
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn documents() -> Vec<PathBuf> {
    let found: Vec<_> = files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "md")).collect();
    assert!(found.len() > 10, "the documents were not found");
    found
}

/// Without the page of old names, whose new ones tests/deploy looks up.
fn documents_of_today() -> Vec<PathBuf> {
    documents().into_iter().filter(|file| !file.ends_with("docs/deploy/old-names.md")).collect()
}

/// Every file of the repository: build outputs and data are in `target` or in hidden folders.
fn files() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = !name.starts_with('.') || [".ci", ".config", ".gitignore"].contains(&name.as_str());
            match entry.file_type().unwrap() {
                kind if kind.is_dir()
                    && ours
                    && !["target", "dist", "node_modules", "agentforge-data"].contains(&&*name) =>
                {
                    folders.push(entry.path())
                }
                kind if kind.is_file() && ours => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}
