//! Who may call an operation: credentials, and the role of `x-required-role`.
//!
//! Credentials that sufficed before must suffice after.

use super::document::Document;
use crate::contract::{
    finding::Findings,
    rules::{self as r},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// From weak to strong, each with its other names; further roles are compared as texts.
const ROLES: [&[&str]; 4] = [&["viewer", "read"], &["submitter", "submit"], &["operator"], &["admin"]];

/// One of several ways to be let in: schemes, each with its scopes.
type Alternative = BTreeMap<String, BTreeSet<String>>;

/// Compares the credentials of one operation.
pub struct Credentials<'a> {
    /// Before.
    pub old: &'a Document,
    /// After.
    pub new: &'a Document,
    /// The operation.
    pub place: &'a str,
}

impl Credentials<'_> {
    /// Compares.
    pub fn compare(&self, was: &Value, is: &Value, findings: &mut Findings) {
        let (before, after) = (alternatives(self.old, was), alternatives(self.new, is));
        let suffices = |has: &Alternative, all: &[Alternative]| all.iter().any(|asks| covers(has, asks));
        let said = |one: &Alternative| if one.is_empty() { "no credentials".to_owned() } else { format!("{one:?}") };
        let mut is_tighter = false;
        for has in before.iter().filter(|has| !suffices(has, &after)) {
            is_tighter = true;
            findings.add(
                &r::SECURITY_TIGHTENED,
                self.place,
                "security",
                format!("{} do not suffice anymore", said(has)),
            );
        }
        if !is_tighter && after.iter().any(|has| !suffices(has, &before)) {
            findings.add(&r::SECURITY_LOOSENED, self.place, "security", "other or fewer credentials suffice");
        }
        let schemes: BTreeSet<&String> = before.iter().flat_map(BTreeMap::keys).collect();
        for name in schemes {
            let of = |document: &Document| {
                let scheme = document.meant(&document.at("/components/securitySchemes")[name]);
                ["type", "in", "name", "scheme", "openIdConnectUrl"].map(|key| scheme[key].clone())
            };
            let (old, new) = (of(self.old), of(self.new));
            if old != new && !new[0].is_null() {
                findings.add(
                    &r::SECURITY_SCHEME_CHANGED,
                    self.place,
                    "security",
                    format!("{name} is sent differently"),
                );
            }
        }
        self.role(was["x-required-role"].as_str(), is["x-required-role"].as_str(), findings);
    }

    fn role(&self, was: Option<&str>, is: Option<&str>, findings: &mut Findings) {
        let rank = |role: Option<&str>| {
            role.map_or(Some(0), |role| ROLES.iter().position(|names| names.contains(&role)).map(|n| n + 1))
        };
        let rule = match (rank(was), rank(is)) {
            _ if was == is => return,
            (Some(old), Some(new)) if new == old => return,
            (Some(old), Some(new)) if new < old => &r::ROLE_LOWERED,
            // An unknown role may be stronger.
            _ => &r::ROLE_RAISED,
        };
        let said = |role: Option<&str>| role.unwrap_or("none").to_owned();
        findings.add(rule, self.place, "security", format!("the role was {} and is {}", said(was), said(is)));
    }
}

fn alternatives(document: &Document, operation: &Value) -> Vec<Alternative> {
    let listed = operation.get("security").or_else(|| document.root().get("security"));
    let all: Vec<Alternative> = super::shape::list(listed)
        .iter()
        .filter_map(Value::as_object)
        .map(|schemes| {
            let scopes = |value: &Value| {
                super::shape::list(Some(value)).iter().filter_map(Value::as_str).map(str::to_owned).collect()
            };
            schemes.iter().map(|(name, value)| (name.clone(), scopes(value))).collect()
        })
        .collect();
    // Nothing is asked for.
    if all.is_empty() { vec![Alternative::new()] } else { all }
}

/// Whether who has these is let in by what is asked for.
fn covers(has: &Alternative, asks: &Alternative) -> bool {
    asks.iter().all(|(name, scopes)| has.get(name).is_some_and(|own| scopes.is_subset(own)))
}
