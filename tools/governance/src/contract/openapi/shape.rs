//! What a schema says, in one form for OpenAPI 3.0, 3.1 and JSON Schema.
//!
//! `nullable`, lists of types and `oneOf` with null all become "or null"; `allOf` is merged; `const` is an enum of one.

use super::document::Document;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Deeper nests of `allOf` are circles.
const NESTED_MAX: usize = 16;
/// The keys that bound from above.
pub const UPPER: [&str; 6] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"];
/// The keys that bound from below.
pub const LOWER: [&str; 6] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"];

/// A schema with its `allOf` merged and its references followed at the top.
#[derive(Debug, Default, Clone)]
pub struct Shape<'a> {
    /// The types without null; empty for any.
    pub types: BTreeSet<&'a str>,
    /// Whether null is among the values.
    pub is_nullable: bool,
    /// The format, such as `date-time`.
    pub format: Option<&'a str>,
    /// The only values; in canonical JSON.
    pub values: Option<BTreeSet<String>>,
    /// Bounds by their keys.
    pub bounds: BTreeMap<&'static str, f64>,
    /// A number that values are multiples of.
    pub multiple_of: Option<f64>,
    /// Patterns that texts match.
    pub patterns: BTreeSet<&'a str>,
    /// Whether items are different.
    pub is_unique: bool,
    /// Fields by their names.
    pub fields: BTreeMap<&'a str, &'a Value>,
    /// Fields that are always present.
    pub required: BTreeSet<&'a str>,
    /// What unknown fields are: absent, true, false or a schema.
    pub additional: Option<&'a Value>,
    /// What items are.
    pub items: Option<&'a Value>,
    /// The forms of `oneOf` and `anyOf`, without null.
    pub variants: Vec<&'a Value>,
    /// The discriminator, if there is one.
    pub discriminator: Option<&'a Value>,
    /// What is excluded.
    pub not: Option<&'a Value>,
    /// The default, if there is one.
    pub default: Option<&'a Value>,
    /// Only in responses.
    pub is_read_only: bool,
    /// Only in requests.
    pub is_write_only: bool,
}

impl<'a> Shape<'a> {
    /// What a schema of this document says.
    #[must_use]
    pub fn of(document: &'a Document, schema: &'a Value) -> Self {
        let mut shape = Self::default();
        shape.merge(document, schema, 0);
        if shape.types.is_empty() && !shape.fields.is_empty() {
            shape.types.insert("object");
        }
        shape
    }

    fn merge(&mut self, document: &'a Document, schema: &'a Value, depth: usize) {
        let is_reference = schema.get("$ref").is_some();
        if is_reference {
            // Siblings of a reference hold as well (3.1).
            self.merge_own(document, schema, depth);
        }
        let meant = document.meant(schema);
        self.merge_own(document, meant, depth);
    }

    fn merge_own(&mut self, document: &'a Document, schema: &'a Value, depth: usize) {
        let Value::Object(map) = schema else { return };
        self.take_types(map);
        self.take_bounds(map);
        self.take_fields(map);
        if let Some(values) = map.get("enum").and_then(Value::as_array) {
            let values: BTreeSet<String> = values.iter().filter(|v| !v.is_null()).map(Value::to_string).collect();
            self.values = Some(match self.values.take() {
                Some(earlier) => earlier.intersection(&values).cloned().collect(),
                None => values,
            });
        }
        if let Some(value) = map.get("const") {
            self.values = Some(BTreeSet::from([value.to_string()]));
        }
        self.discriminator = map.get("discriminator").or(self.discriminator);
        self.not = map.get("not").or(self.not);
        self.default = map.get("default").or(self.default);
        self.is_read_only |= map.get("readOnly") == Some(&Value::Bool(true));
        self.is_write_only |= map.get("writeOnly") == Some(&Value::Bool(true));
        if depth >= NESTED_MAX {
            return;
        }
        for part in list(map.get("allOf")) {
            self.merge(document, part, depth + 1);
        }
        for key in ["oneOf", "anyOf"] {
            let forms = list(map.get(key));
            let some: Vec<&Value> = forms.iter().filter(|form| !is_null(document, form)).collect();
            if some.len() < forms.len() {
                self.is_nullable = true;
            }
            // A form or null is that form.
            match some[..] {
                [only] if some.len() < forms.len() => self.merge(document, only, depth + 1),
                _ => self.variants.extend(some),
            }
        }
    }

    fn take_types(&mut self, map: &'a Map<String, Value>) {
        let named: Vec<&str> = match map.get("type") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        self.is_nullable |= named.contains(&"null") || map.get("nullable") == Some(&Value::Bool(true));
        self.types.extend(named.iter().filter(|name| **name != "null"));
        if let Some(format) = map.get("format").and_then(Value::as_str) {
            self.format = Some(format);
        }
    }

    fn take_bounds(&mut self, map: &'a Map<String, Value>) {
        for (keys, is_upper) in [(UPPER, true), (LOWER, false)] {
            for key in keys {
                let Some(bound) = map.get(key).and_then(Value::as_f64) else { continue };
                let tightest =
                    self.bounds.get(key).map_or(bound, |b| if is_upper { b.min(bound) } else { b.max(bound) });
                self.bounds.insert(key, tightest);
            }
        }
        self.multiple_of = map.get("multipleOf").and_then(Value::as_f64).or(self.multiple_of);
        self.patterns.extend(map.get("pattern").and_then(Value::as_str));
        self.is_unique |= map.get("uniqueItems") == Some(&Value::Bool(true));
    }

    fn take_fields(&mut self, map: &'a Map<String, Value>) {
        if let Some(fields) = map.get("properties").and_then(Value::as_object) {
            self.fields.extend(fields.iter().map(|(name, schema)| (name.as_str(), schema)));
        }
        self.required.extend(list(map.get("required")).iter().filter_map(Value::as_str));
        self.additional = map.get("additionalProperties").or(self.additional);
        self.items = map.get("items").or(self.items);
    }

    /// Whether it is closed to unknown fields.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.additional == Some(&Value::Bool(false))
    }
}

fn is_null(document: &Document, schema: &Value) -> bool {
    document.meant(schema).get("type").is_some_and(|name| name == "null")
}

/// The items of a list; none when there is no list.
pub fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ways_to_say_or_null_are_one() {
        let document = Document::new(json!({"T": {"type": "string"}, "all": [
            {"type": "string", "nullable": true}, {"type": ["string", "null"]},
            {"oneOf": [{"type": "null"}, {"$ref": "#/T"}]}, {"anyOf": [{"$ref": "#/T"}, {"type": "null"}]},
        ]}))
        .unwrap();
        for schema in list(document.root().get("all")) {
            let shape = Shape::of(&document, schema);
            assert!(shape.is_nullable && shape.variants.is_empty(), "{schema}");
            assert_eq!(shape.types, BTreeSet::from(["string"]), "{schema}");
        }
    }

    #[test]
    fn parts_of_all_of_hold_together() {
        let document = Document::new(json!({"P": {"type": "object", "properties": {"a": {}}, "required": ["a"]},
            "s": {"allOf": [{"$ref": "#/P"}, {"properties": {"b": {}}, "maxProperties": 4}], "maxProperties": 7}}))
        .unwrap();
        let shape = Shape::of(&document, document.at("/s"));
        assert_eq!(shape.fields.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((shape.required, shape.bounds["maxProperties"]), (BTreeSet::from(["a"]), 4.0));
    }
}
