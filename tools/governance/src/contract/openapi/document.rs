//! A parsed OpenAPI document or JSON Schema, whose references are followed within the document.
//!
//! A reference that leads outside or nowhere is a fault of the input, found before anything is compared.

use serde_json::Value;

/// Deeper chains of references are circles.
const REFERENCES_MAX: usize = 64;
/// What stands in for absent parts.
static NOTHING: Value = Value::Null;

/// A document with what its references mean.
#[derive(Debug, Clone)]
pub struct Document(Value);

impl Document {
    /// Takes a document whose references all lead somewhere in it.
    ///
    /// # Errors
    /// Names the references that do not.
    pub fn new(root: Value) -> Result<Self, String> {
        let document = Self(root);
        let mut wrong = Vec::new();
        document.check(&document.0, &mut wrong);
        wrong.sort();
        wrong.dedup();
        if wrong.is_empty() { Ok(document) } else { Err(wrong.join("; ")) }
    }

    fn check(&self, node: &Value, wrong: &mut Vec<String>) {
        match node {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    match self.lookup(reference) {
                        Some(_) if self.ends(node) => {}
                        Some(_) => wrong.push(format!("$ref {reference:?} leads to itself")),
                        None => wrong.push(format!("$ref {reference:?} leads nowhere in this document")),
                    }
                }
                // Examples and constants are data.
                for (_, child) in
                    map.iter().filter(|(key, _)| !["example", "examples", "const", "default"].contains(&key.as_str()))
                {
                    self.check(child, wrong);
                }
            }
            Value::Array(list) => list.iter().for_each(|child| self.check(child, wrong)),
            _ => {}
        }
    }

    /// Whether the references from here end at something.
    fn ends<'a>(&'a self, mut node: &'a Value) -> bool {
        for _ in 0..REFERENCES_MAX {
            match node["$ref"].as_str().map(|reference| self.lookup(reference)) {
                None => return true,
                Some(Some(next)) => node = next,
                Some(None) => return false,
            }
        }
        false
    }

    fn lookup(&self, reference: &str) -> Option<&Value> {
        self.0.pointer(&decoded(reference.strip_prefix('#')?)?)
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Value {
        &self.0
    }

    /// What a node means: itself, or what its reference leads to.
    #[must_use]
    pub fn meant<'a>(&'a self, mut node: &'a Value) -> &'a Value {
        for _ in 0..REFERENCES_MAX {
            let Some(next) = node["$ref"].as_str().and_then(|reference| self.lookup(reference)) else { return node };
            node = next;
        }
        &NOTHING
    }

    /// The value below the root at a path of keys; `Null` when there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&NOTHING)
    }
}

/// A pointer in the fragment of an address, where `%7B` stands for `{`.
fn decoded(fragment: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::new(), fragment.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_followed_and_broken_ones_are_named() {
        let good = Document::new(json!({"a": {"$ref": "#/b"}, "b": {"$ref": "#/c~1d"}, "c/d": 7})).unwrap();
        assert_eq!(good.meant(good.at("/a")), &json!(7));
        for (broken, named) in [
            (json!({"a": {"$ref": "#/nothing"}}), "\"#/nothing\" leads nowhere"),
            (json!({"a": {"$ref": "other.yaml#/x"}}), "\"other.yaml#/x\" leads nowhere"),
            (json!({"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}), "leads to itself"),
        ] {
            assert!(Document::new(broken).unwrap_err().contains(named), "{named}");
        }
        assert!(Document::new(json!({"example": {"$ref": "data"}})).is_ok(), "an example is data");
    }
}
