//! Compares two schemas: does what was accepted still pass, is what was promised still so?
//!
//! A request may widen and a response may narrow. Circles of references are followed once.

use super::{
    document::Document,
    shape::{LOWER, Shape, UPPER},
};
use crate::contract::{
    finding::{Findings, Pair},
    rules::{self as r},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Which side writes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Users of the contract write it.
    Request,
    /// Users of the contract read it.
    Response,
}

/// Compares schemas of two documents.
pub struct Schemas<'a, 'f> {
    /// Before.
    pub old: &'a Document,
    /// After.
    pub new: &'a Document,
    /// Where findings go.
    pub findings: &'f mut Findings,
    /// What is compared, such as `GET /v1/jobs`.
    pub place: String,
    /// Pairs that are being compared, by their addresses: a circle ends here.
    open: BTreeSet<Pair>,
    /// All pairs since the outermost one.
    seen: Vec<Pair>,
}

impl<'a, 'f> Schemas<'a, 'f> {
    /// Compares for one place.
    pub fn new(old: &'a Document, new: &'a Document, findings: &'f mut Findings, place: &str) -> Self {
        Self { old, new, findings, place: place.to_owned(), open: BTreeSet::new(), seen: Vec::new() }
    }

    /// Compares two schemas of the same place.
    pub fn compare(&mut self, old: &'a Value, new: &'a Value, way: Way, at: &str) {
        // What is written next to a reference belongs to this place only.
        let is_bare = |node: &Value| node.as_object().is_none_or(|members| members.len() == 1);
        let address = |document: &'a Document, node: &'a Value| {
            std::ptr::from_ref(if is_bare(node) { document.meant(node) } else { node }).addr()
        };
        let pair = (address(self.old, old), address(self.new, new), way == Way::Request);
        if self.findings.is_clean(pair) || !self.open.insert(pair) {
            return;
        }
        let count = self.findings.count();
        self.seen.push(pair);
        let (before, after) = (Shape::of(self.old, old), Shape::of(self.new, new));
        self.types(&before, &after, way, at);
        self.values(&before, &after, way, at);
        self.bounds(&before, &after, way, at);
        self.patterns(&before, &after, way, at);
        self.fields(&before, &after, way, at);
        self.unknown_fields(&before, &after, way, at);
        self.variants(&before, &after, way, at);
        if let (Some(old), Some(new)) = (before.items, after.items) {
            self.compare(old, new, way, &format!("{at}[]"));
        }
        if before.not != after.not {
            self.findings.add(&r::NOT_CHANGED, &self.place, at, "`not` was changed");
        }
        self.open.remove(&pair);
        // Inside, a circle may have ended at a pair that is still being compared; outside of all, nothing is open.
        if self.open.is_empty() {
            let seen = std::mem::take(&mut self.seen);
            if self.findings.count() == count {
                self.findings.remember_clean(seen);
            }
        }
    }

    fn types(&mut self, before: &Shape<'_>, after: &Shape<'_>, way: Way, at: &str) {
        let text = format!("{} became {}", described(before), described(after));
        match (takes(after, before), takes(before, after), way) {
            (true, true, _) => {}
            (true, false, Way::Request) | (false, true, Way::Response) => {
                self.findings.add(&r::TYPE_CHANGED, &self.place, at, text);
            }
            (_, _, Way::Request) => self.findings.add(&r::REQUEST_TYPE_NARROWED, &self.place, at, text),
            (_, _, Way::Response) => self.findings.add(&r::RESPONSE_TYPE_WIDENED, &self.place, at, text),
        }
        match (before.is_nullable, after.is_nullable, way) {
            (true, false, Way::Request) => {
                self.findings.add(&r::REQUEST_NOT_NULLABLE, &self.place, at, "null is refused");
            }
            (false, true, Way::Response) => self.findings.add(&r::RESPONSE_NULLABLE, &self.place, at, "it may be null"),
            (was, is, _) if was != is => {
                self.findings.add(&r::NULLABLE_CHANGED, &self.place, at, "whether it may be null was changed");
            }
            _ => {}
        }
    }

    fn values(&mut self, before: &Shape<'_>, after: &Shape<'_>, way: Way, at: &str) {
        let any = "any value".to_owned();
        let (removed, added): (Vec<String>, Vec<String>) = match (&before.values, &after.values) {
            (None, None) => return,
            (None, Some(_)) => (vec![any], Vec::new()),
            (Some(_), None) => (Vec::new(), vec![any]),
            (Some(old), Some(new)) => (old.difference(new).cloned().collect(), new.difference(old).cloned().collect()),
        };
        let is_free = before.values.is_none();
        for value in removed {
            // A response that names its values from now on promises more.
            let rule = match way {
                Way::Request => &r::REQUEST_ENUM_NARROWED,
                Way::Response if is_free => &r::BOUND_CHANGED,
                Way::Response => &r::RESPONSE_ENUM_NARROWED,
            };
            self.findings.add(rule, &self.place, at, format!("{value} is gone"));
        }
        for value in added {
            let rule = if way == Way::Request { &r::REQUEST_ENUM_WIDENED } else { &r::RESPONSE_ENUM_WIDENED };
            self.findings.add(rule, &self.place, at, format!("{value} is new"));
        }
    }

    fn bounds(&mut self, before: &Shape<'_>, after: &Shape<'_>, way: Way, at: &str) {
        for (keys, is_upper) in [(UPPER, true), (LOWER, false)] {
            for key in keys {
                let free = if is_upper { f64::INFINITY } else { lowest(key) };
                let of = |shape: &Shape<'_>| shape.bounds.get(key).copied().unwrap_or(free);
                let (old, new) = (of(before), of(after));
                if old.total_cmp(&new).is_eq() {
                    continue;
                }
                let is_narrower = (new < old) == is_upper;
                let rule = match (way, is_narrower) {
                    (Way::Request, true) => &r::REQUEST_BOUND_NARROWED,
                    (Way::Response, false) => &r::RESPONSE_BOUND_WIDENED,
                    _ => &r::BOUND_CHANGED,
                };
                let said = |n: f64| if n.is_finite() { n.to_string() } else { "none".to_owned() };
                self.findings.add(rule, &self.place, at, format!("{key} was {} and is {}", said(old), said(new)));
            }
        }
        let divides = |by: Option<f64>, of: Option<f64>| match (by, of) {
            (None, _) => true,
            (Some(by), Some(of)) => (of / by).fract() == 0.0,
            (Some(_), None) => false,
        };
        let is_looser = divides(after.multiple_of, before.multiple_of);
        let is_tighter = divides(before.multiple_of, after.multiple_of);
        let is_unique = (before.is_unique, after.is_unique);
        for (changed, narrower, wider, key) in [
            (before.multiple_of != after.multiple_of, !is_looser, !is_tighter, "multipleOf"),
            (is_unique.0 != is_unique.1, is_unique.1, is_unique.0, "uniqueItems"),
        ] {
            let rule = match way {
                _ if !changed => continue,
                Way::Request if narrower => &r::REQUEST_BOUND_NARROWED,
                Way::Response if wider => &r::RESPONSE_BOUND_WIDENED,
                _ => &r::BOUND_CHANGED,
            };
            self.findings.add(rule, &self.place, at, format!("{key} was changed"));
        }
    }

    fn patterns(&mut self, before: &Shape<'_>, after: &Shape<'_>, way: Way, at: &str) {
        if before.patterns == after.patterns {
            return;
        }
        let rule = match way {
            Way::Request if before.patterns.is_empty() => &r::REQUEST_PATTERN_ADDED,
            Way::Request if !after.patterns.is_subset(&before.patterns) => &r::REQUEST_PATTERN_CHANGED,
            _ => &r::PATTERN_CHANGED,
        };
        let said = |shape: &Shape<'_>| {
            let all = shape.patterns.iter().copied().collect::<Vec<_>>().join(" and ");
            if all.is_empty() { "none".to_owned() } else { all }
        };
        self.findings.add(rule, &self.place, at, format!("pattern was {} and is {}", said(before), said(after)));
    }

    fn fields(&mut self, before: &Shape<'a>, after: &Shape<'a>, way: Way, at: &str) {
        let names: BTreeSet<&str> = before.fields.keys().chain(after.fields.keys()).copied().collect();
        for name in names {
            let inside = below(at, name);
            let seen = |document: &'a Document, schema: Option<&&'a Value>| {
                schema.copied().filter(|schema| {
                    let shape = Shape::of(document, schema);
                    !(if way == Way::Request { shape.is_read_only } else { shape.is_write_only })
                })
            };
            let (old, new) = (seen(self.old, before.fields.get(name)), seen(self.new, after.fields.get(name)));
            let (was_required, is_required) = (before.required.contains(name), after.required.contains(name));
            match (old, new) {
                (None, None) => {}
                (Some(_), None) if after.fields.contains_key(name) => {
                    let rule = if way == Way::Request { &r::READ_ONLY } else { &r::WRITE_ONLY };
                    self.findings.add(rule, &self.place, &inside, "it is left out");
                }
                (Some(_), None) => self.gone(after, way, &inside),
                (None, Some(new)) => self.come(new, is_required, way, &inside),
                (Some(old), Some(new)) => {
                    let has_default = Shape::of(self.new, new).default.is_some();
                    let rule = match (was_required, is_required, way) {
                        (false, true, Way::Request) if !has_default => Some(&r::REQUEST_FIELD_BECAME_REQUIRED),
                        (false, true, Way::Request) => Some(&r::REQUEST_FIELD_ADDED),
                        (true, false, Way::Request) => Some(&r::REQUEST_FIELD_BECAME_OPTIONAL),
                        (true, false, Way::Response) => Some(&r::RESPONSE_FIELD_BECAME_OPTIONAL),
                        (false, true, Way::Response) => Some(&r::RESPONSE_FIELD_BECAME_REQUIRED),
                        _ => None,
                    };
                    if let Some(rule) = rule {
                        self.findings.add(rule, &self.place, &inside, "whether it is required was changed");
                    }
                    let (of, to) = (Shape::of(self.old, old).default, Shape::of(self.new, new).default);
                    if of != to {
                        self.findings.add(&r::FIELD_DEFAULT_CHANGED, &self.place, &inside, "its default was changed");
                    }
                    self.compare(old, new, way, &inside);
                }
            }
        }
        // A name that is required without a schema of its own.
        for name in after.required.difference(&before.required).filter(|name| !after.fields.contains_key(*name)) {
            if way == Way::Request {
                let inside = below(at, name);
                self.findings.add(&r::REQUEST_FIELD_BECAME_REQUIRED, &self.place, &inside, "it is required");
            }
        }
    }

    fn gone(&mut self, after: &Shape<'_>, way: Way, inside: &str) {
        let rule = match way {
            Way::Request if after.is_closed() => &r::REQUEST_FIELD_REFUSED,
            Way::Request => &r::REQUEST_FIELD_REMOVED,
            Way::Response => &r::RESPONSE_FIELD_REMOVED,
        };
        self.findings.add(rule, &self.place, inside, "it is gone");
    }

    fn come(&mut self, new: &'a Value, is_required: bool, way: Way, inside: &str) {
        let has_default = Shape::of(self.new, new).default.is_some();
        let rule = match way {
            Way::Request if is_required && !has_default => &r::REQUEST_FIELD_ADDED_REQUIRED,
            Way::Request => &r::REQUEST_FIELD_ADDED,
            Way::Response => &r::RESPONSE_FIELD_ADDED,
        };
        self.findings.add(rule, &self.place, inside, "it is new");
    }

    fn unknown_fields(&mut self, before: &Shape<'a>, after: &Shape<'a>, way: Way, at: &str) {
        if let (Some(old @ Value::Object(_)), Some(new @ Value::Object(_))) = (before.additional, after.additional) {
            return self.compare(old, new, way, &below(at, "*"));
        }
        let rule = match (before.is_closed(), after.is_closed(), way) {
            (false, true, Way::Request) => &r::REQUEST_CLOSED,
            (true, false, Way::Response) => &r::RESPONSE_OPENED,
            (was, is, _) if was != is => &r::ADDITIONAL_CHANGED,
            _ => return self.unknown_typed(before, after, way, at),
        };
        self.findings.add(rule, &self.place, at, "whether unknown fields are accepted was changed");
    }

    /// Unknown fields that were of any type and have one, or the reverse.
    fn unknown_typed(&mut self, before: &Shape<'_>, after: &Shape<'_>, way: Way, at: &str) {
        let has_type =
            |shape: &Shape<'_>| shape.additional.is_some_and(|a| a.as_object().is_some_and(|o| !o.is_empty()));
        let rule = match (has_type(before), has_type(after), way) {
            (false, true, Way::Request) => &r::REQUEST_TYPE_NARROWED,
            (true, false, Way::Response) => &r::RESPONSE_TYPE_WIDENED,
            (was, is, _) if was != is => &r::ADDITIONAL_CHANGED,
            _ => return,
        };
        self.findings.add(rule, &self.place, &below(at, "*"), "the type of unknown fields was changed");
    }

    fn variants(&mut self, before: &Shape<'a>, after: &Shape<'a>, way: Way, at: &str) {
        let keyed = |forms: &[&'a Value]| -> BTreeMap<String, &'a Value> {
            forms.iter().map(|form| (key(form), *form)).collect()
        };
        let (mut old, mut new) = (keyed(&before.variants), keyed(&after.variants));
        let both: Vec<String> = old.keys().filter(|name| new.contains_key(*name)).cloned().collect();
        for name in both {
            if let (Some(from), Some(to)) = (old.remove(&name), new.remove(&name)) {
                self.compare(from, to, way, &format!("{at}({name})"));
            }
        }
        // Inline forms have no names: as many before as after are the same ones, changed.
        if old.len() == new.len() && old.keys().chain(new.keys()).all(|name| !name.starts_with('#')) {
            for (from, to) in old.into_values().zip(new.into_values()) {
                self.compare(from, to, way, &format!("{at}(form)"));
            }
        } else {
            for name in old.keys() {
                let rule = if way == Way::Request { &r::REQUEST_VARIANT_REMOVED } else { &r::VARIANT_CHANGED };
                self.findings.add(rule, &self.place, at, format!("{name} is gone"));
            }
            for name in new.keys() {
                let rule = match way {
                    // Any form was accepted.
                    Way::Request if before.variants.is_empty() => &r::REQUEST_TYPE_NARROWED,
                    Way::Request => &r::VARIANT_CHANGED,
                    Way::Response => &r::RESPONSE_VARIANT_ADDED,
                };
                self.findings.add(rule, &self.place, at, format!("{name} is new"));
            }
        }
        self.discriminator(before.discriminator, after.discriminator, way, at);
    }

    fn discriminator(&mut self, old: Option<&Value>, new: Option<&Value>, way: Way, at: &str) {
        let (Some(old), Some(new)) = (old, new) else {
            if old.is_some() != new.is_some() {
                self.findings.add(&r::DISCRIMINATOR_CHANGED, &self.place, at, "there was one, or there is one now");
            }
            return;
        };
        if old["propertyName"] != new["propertyName"] {
            self.findings.add(&r::DISCRIMINATOR_CHANGED, &self.place, at, "another field names the form");
        }
        let empty = serde_json::Map::new();
        let mapping = |of: &Value| of["mapping"].as_object().unwrap_or(&empty).clone();
        let (from, to) = (mapping(old), mapping(new));
        for (name, target) in &from {
            if to.get(name).is_some_and(|now| now != target) || (way == Way::Request && !to.contains_key(name)) {
                self.findings.add(&r::DISCRIMINATOR_CHANGED, &self.place, at, format!("{name:?} leads elsewhere"));
            }
        }
    }
}

/// What a bound from below is where there is none: a length is never negative.
fn lowest(key: &str) -> f64 {
    if ["minLength", "minItems", "minProperties"].contains(&key) { 0.0 } else { f64::NEG_INFINITY }
}

/// Whether everything of `other`'s types and format is among `wide`'s.
fn takes(wide: &Shape<'_>, other: &Shape<'_>) -> bool {
    if wide.types.is_empty() {
        return true;
    }
    let has = |name: &&str| wide.types.contains(name) || (*name == "integer" && wide.types.contains("number"));
    let is_untyped = other.types.is_empty() && (other.values.is_none() || wide.types != value_types(other));
    if is_untyped || !other.types.iter().all(has) {
        return false;
    }
    match (wide.format, other.format) {
        (None, _) => true,
        (Some("int64"), Some("int32")) | (Some("double"), Some("float" | "int32")) => true,
        (Some(wide), Some(other)) => wide == other,
        (Some(_), None) => false,
    }
}

/// The types that listed values have.
fn value_types<'a>(shape: &Shape<'_>) -> BTreeSet<&'a str> {
    let of = |text: &String| match text.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "boolean",
        _ if text.contains(['.', 'e', 'E']) => "number",
        _ => "integer",
    };
    shape.values.iter().flatten().map(of).collect()
}

fn described(shape: &Shape<'_>) -> String {
    let types = shape.types.iter().copied().collect::<Vec<_>>().join(" or ");
    let types = if types.is_empty() { "any type".to_owned() } else { types };
    shape.format.map_or(types.clone(), |format| format!("{types} ({format})"))
}

/// What a form is known by: the schema that it refers to, the values of its fields that have only one, its title, or
/// what it says.
fn key(form: &Value) -> String {
    if let Some(reference) = form["$ref"].as_str() {
        return reference.to_owned();
    }
    let fields = form["properties"].as_object();
    let tags: Vec<String> = fields
        .into_iter()
        .flatten()
        .filter_map(|(name, schema)| {
            let one = schema.get("const").or_else(|| schema["enum"].as_array().filter(|e| e.len() == 1)?.first())?;
            Some(format!("{name}={one}"))
        })
        .collect();
    match (tags.is_empty(), form["title"].as_str()) {
        (false, _) => format!("#{}", tags.join(",")),
        (true, Some(title)) => format!("#{title}"),
        (true, None) => form.to_string(),
    }
}

fn below(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
