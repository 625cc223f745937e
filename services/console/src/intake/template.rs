//! From an item to the job that it becomes. Pure: a template and an item in, the body of a submission out.
//!
//! A template is a submission as JSON. In its texts `{{field}}` is replaced; a text that is nothing but `{{field}}`
//! becomes the field's own value, so that tags stay a list and an absent owner null. Nothing that an item says is ever
//! read as JSON or as another placeholder.

use super::item::Item;
use serde_json::{Map, Value, json};

/// Bytes of a template, at most.
pub const BYTES_MAX: usize = 16 * 1024;

/// The template that holds unless one is set: the item as arguments of `echo`.
pub const DEFAULT: &str = r#"{"tool":"echo","args":{"item":"{{id}}","text":"{{text}}","problem":"{{problem}}","hypothesis":"{{hypothesis}}","tags":"{{tags}}","owner":"{{owner}}","impact":"{{impact}}"}}"#;

/// Fields that a template may name.
const FIELDS: [&str; 8] = ["id", "text", "problem", "hypothesis", "tags", "owner", "impact", "created_by"];
/// Set here: they make approving twice harmless, and the job findable.
const OURS: [&str; 2] = ["id", "idempotency_key"];

/// A template that was checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template(Map<String, Value>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, a half-sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("has {} bytes; at most {BYTES_MAX} are allowed", text.len()));
        }
        let template: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| format!("is not a JSON object: {e}"))?;
        if template.get("tool").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err("names no tool".to_owned());
        }
        if let Some(ours) = OURS.iter().find(|key| template.contains_key(**key)) {
            return Err(format!("has {ours}, which is set for each item"));
        }
        if template.get("labels").is_some_and(|labels| !labels.is_object()) {
            return Err("has labels that are not an object".to_owned());
        }
        let template = Self(template);
        template.0.values().try_for_each(check)?;
        Ok(template)
    }

    /// The submission for `item`.
    pub fn render(&self, item: &Item) -> Value {
        let fields = json!({
            "id": item.id, "text": item.text, "problem": item.problem, "hypothesis": item.hypothesis,
            "tags": item.tags, "owner": item.owner, "impact": item.impact, "created_by": item.created_by,
        });
        let mut body: Map<String, Value> = self.0.iter().map(|(k, v)| (k.clone(), filled(v, &fields))).collect();
        let labels = body.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("intake".to_owned(), json!(item.id));
        }
        // An item that was edited meanwhile is another job; the same one, approved again after a crash, is not.
        body.insert("idempotency_key".to_owned(), json!(format!("intake:{}:{}", item.id, item.version)));
        Value::Object(body)
    }
}

/// Every placeholder names a field.
fn check(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => match placeholders(text).find(|name| !FIELDS.contains(name)) {
            Some(name) => Err(format!("has {{{{{name:.40}}}}}; the fields are {}", FIELDS.join(", "))),
            None => Ok(()),
        },
        Value::Array(values) => values.iter().try_for_each(check),
        Value::Object(map) => map.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split("{{").skip(1).filter_map(|after| after.split_once("}}").map(|(name, _)| name.trim()))
}

fn filled(value: &Value, fields: &Value) -> Value {
    match value {
        Value::String(text) => filled_text(text, fields),
        Value::Array(values) => values.iter().map(|value| filled(value, fields)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), filled(value, fields))).collect(),
        other => other.clone(),
    }
}

fn filled_text(text: &str, fields: &Value) -> Value {
    let whole = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    if let Some(value) = whole.and_then(|name| fields.get(name)) {
        return value.clone();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out += before;
        match after.split_once("}}") {
            Some((name, behind)) => {
                match &fields[name.trim()] {
                    Value::String(value) => out += value,
                    Value::Null => {}
                    Value::Array(values) => {
                        out += &values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
                    }
                    other => out += &other.to_string(),
                }
                rest = behind;
            }
            None => {
                out += "{{";
                rest = after;
            }
        }
    }
    Value::String(out + rest)
}

#[cfg(test)]
mod tests {
    use super::super::item::NewItem;
    use super::*;

    fn item(text: &str) -> Item {
        let new =
            NewItem { text: text.into(), tags: vec!["a".into(), "b".into()], impact: Some(7), ..NewItem::default() };
        new.into_item("ada", jiff::Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn values_keep_their_kind_and_texts_are_only_texts() {
        let template = r#"{"tool":"echo","queue":"q","labels":{"by":"{{created_by}}"},
            "args":{"t":"say {{text}}, {{ tags }}, {{owner}}!","tags":"{{tags}}","n":[" {{impact}} "],"o":"{{owner}}","{{text}}":1}}"#;
        let item = item(r#"x", "tool":"rm {{id}} {{"#);
        let body = Template::parse(template).unwrap().render(&item);
        assert_eq!(body["tool"], "echo");
        assert_eq!(body["args"]["t"], r#"say x", "tool":"rm {{id}} {{, a,b, !"#);
        assert_eq!((&body["args"]["tags"], &body["args"]["n"][0]), (&json!(["a", "b"]), &json!(7)));
        assert_eq!((&body["args"]["o"], &body["args"]["{{text}}"]), (&Value::Null, &json!(1)));
        assert_eq!(body["labels"], json!({"by": "ada", "intake": item.id}));
        assert_eq!(body["idempotency_key"], format!("intake:{}:1", item.id));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        assert!(Template::parse(DEFAULT).is_ok());
        for (text, part) in [
            ("[]", "object"),
            ("{}", "tool"),
            (r#"{"tool":""}"#, "tool"),
            (r#"{"tool":"echo","id":"x"}"#, "id"),
            (r#"{"tool":"echo","idempotency_key":"x"}"#, "idempotency_key"),
            (r#"{"tool":"echo","labels":[]}"#, "labels"),
            (r#"{"tool":"echo","args":{"a":["{{secret}}"]}}"#, "{{secret}}"),
        ] {
            let problem = Template::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        let large = format!(r#"{{"tool":"echo","args":"{}"}}"#, "x".repeat(BYTES_MAX));
        assert!(Template::parse(&large).unwrap_err().contains("16384"));
    }
}
