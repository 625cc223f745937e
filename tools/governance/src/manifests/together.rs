//! Environments of one cluster share no name of the cluster.

use super::object::Object;
use std::collections::BTreeMap;

/// Namespaces that belong to the cluster.
const OF_THE_CLUSTER: [&str; 1] = ["kube-system"];

/// Objects that two environments of a cluster would overwrite for each other.
#[must_use]
pub fn shared(environments: &[(String, Vec<Object>)]) -> Vec<String> {
    let mut owners: BTreeMap<(String, String, String), &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, objects) in environments {
        let is_shared = |o: &&Object| o.namespace().is_none_or(|n| OF_THE_CLUSTER.contains(&n));
        for object in objects.iter().filter(is_shared) {
            let within = object.namespace().unwrap_or_default().to_owned();
            let key = (object.kind().to_owned(), within, object.name().to_owned());
            match owners.insert(key, name) {
                Some(other) if other != name => {
                    wrong.push(format!("{} {} is in {other} and in {name}", object.kind(), object.name()));
                }
                _ => {}
            }
        }
    }
    wrong
}
