//! Which programs link a service: those that start it in one process or run as one, and no other.

use super::{full, workspace};
use agentforge_stack::roster::SERVICES;
use std::collections::BTreeSet;
use std::fs;

/// Who may name a service in its dependencies, and why.
const MAY: [(&str, &str); 2] = [
    ("stack", "starts services in one process, and prints what each declares"),
    ("example-custom-tool", "a worker of one's own: the worker is a library, too"),
];

#[test]
fn the_command_and_the_libraries_link_no_service() {
    let (crates, edges) = workspace();
    let services: BTreeSet<String> = SERVICES.iter().map(|service| service.binary()).collect();
    let libraries: Vec<String> = fs::read_dir(super::root().join("libs"))
        .unwrap()
        .map(|entry| full(&entry.unwrap().file_name().to_string_lossy()))
        .collect();
    assert!(libraries.len() > 5 && libraries.iter().all(|library| crates.contains(library)), "{libraries:?}");
    for from in libraries.into_iter().chain([full("cli"), full("terminal")]) {
        // Also what only tests depend on: a library that is tested with a service cannot be understood without it.
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(name) = next.pop() {
            let is_first = name == from;
            let to = edges.iter().filter(|e| e.from == name && (is_first || !e.is_dev)).map(|e| e.to.clone());
            next.extend(to.filter(|to| reached.insert(to.clone())));
        }
        let linked: Vec<_> = reached.intersection(&services).collect();
        assert!(linked.is_empty(), "{from} links {linked:?}: what it needs belongs in libs");
    }
}

#[test]
fn a_service_is_named_in_the_dependencies_of_few() {
    let (_, edges) = workspace();
    let services: BTreeSet<String> = SERVICES.iter().map(|service| service.binary()).collect();
    let found: BTreeSet<String> =
        edges.iter().filter(|e| !e.is_dev && services.contains(&e.to)).map(|e| e.from.clone()).collect();
    let known: BTreeSet<String> = MAY.iter().map(|(name, _)| full(name)).collect();
    assert_eq!(found, known, "these depend on a service; MAY says which may, and why");
}
