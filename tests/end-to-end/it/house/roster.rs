//! The services are listed once, in the roster of `agentforge-stack`, and where a build or a cluster must name each.

use super::{files, shown};
use agentforge_stack::roster::SERVICES;
use std::collections::BTreeSet;
use std::fs;

/// Files that list the services besides the roster, manifests and documents, and why each must.
const LISTS: [(&str, &str); 11] = [
    ("Cargo.toml", "where each crate is, for the others"),
    ("Tiltfile", "ports to forward; Tilt reads no Rust"),
    ("services/console/src/config.rs", "the settings with the addresses of those behind it"),
    ("tests/deploy/it/nats/attacks.rs", "who may not get around its rights"),
    ("tests/deploy/it/nats/rights.rs", "what each may do with each stream"),
    ("tests/deploy/it/nats/users.rs", "what each may do with its own user"),
    ("tests/deploy/it/policies.rs", "who may reach whom"),
    ("tests/end-to-end/it/house.rs", "what each crate may depend on"),
    ("tests/observability/it/outages.rs", "what each exports while it is up, and while it is down"),
    ("tests/observability/it/site.rs", "what a site runs"),
    ("tools/stack/Cargo.toml", "dependencies of the roster"),
];
/// A file with this many names, all services but one, is a list, regardless of how far apart they are.
const NAMES: usize = 6;

#[test]
fn services_are_listed_in_the_roster_only() {
    let mut found = BTreeSet::new();
    for file in files() {
        let name = shown(&file);
        // Manifests name what they deploy; documents and lock files are prose and generated.
        let is_left_out =
            ["k8s/", "overlays/", "deploy/", "monitoring/", "docs/"].iter().any(|top| name.starts_with(top))
                || [".md", ".lock", ".baseline"].iter().any(|end| name.ends_with(end));
        let is_roster = name == "tools/stack/src/roster.rs";
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if !is_left_out && !is_roster && names(&text).len() >= NAMES {
            found.insert(name);
        }
    }
    let known: BTreeSet<String> = LISTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(new.is_empty(), "read the roster instead of listing services: {new:?}");
    assert!(gone.is_empty(), "these list no services any more, take them out: {gone:?}");
}

/// The services whose names appear in a text, as words of their own.
fn names(text: &str) -> BTreeSet<&'static str> {
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    let is_named = |name: &str| words.contains(name) || words.contains(format!("agentforge-{name}").as_str());
    SERVICES.iter().map(|service| service.name).filter(|name| is_named(name)).collect()
}
