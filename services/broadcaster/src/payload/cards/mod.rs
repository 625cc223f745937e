//! A notice as Slack, Teams and Discord take it. Pure.
//!
//! Each keeps to the limits that its service documents, and writes an event's text so that it cannot become a link, a
//! mention or markup.

pub mod discord;
pub mod slack;
pub mod teams;

use std::fmt::Write as _;

/// The text below a card: where the event was published, and when.
pub fn foot(about: crate::payload::metadata::EventMetadata<'_>) -> String {
    format!("{} · {}", crate::payload::text::clean(about.subject), about.at.strftime("%Y-%m-%d %H:%M:%S UTC"))
}

/// Writes each character, escaped, as long as it fits; services count in units of UTF-16.
fn fit(text: &str, units_max: usize, escape: impl Fn(char, &mut String)) -> String {
    let (mut out, mut piece, mut units) = (String::with_capacity(text.len()), String::new(), 0);
    for c in text.chars() {
        piece.clear();
        escape(c, &mut piece);
        let more = piece.encode_utf16().count();
        // The sign that says that there was more needs its place.
        if units + more >= units_max {
            let _ = write!(out, "…");
            return out;
        }
        units += more;
        out.push_str(&piece);
    }
    out
}

/// As it is, for a text that knows no markup.
fn plain(c: char, out: &mut String) {
    out.push(c);
}

/// For a text that is read as Markdown: everything that Discord's and Teams' is made of. A digit's full stop and a hyphen
/// make lists at the start of a line, a colon an emoji.
fn no_markdown(c: char, out: &mut String) {
    if "\\*_~`|>[]()<@#:-.!+".contains(c) {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
pub(super) mod testing {
    use crate::payload::{
        event::parse,
        metadata::EventMetadata,
        render::{Format, render},
    };
    use bytes::Bytes;
    use serde_json::{Value, json};

    /// As Alertmanager posts it, taken in as the API does.
    pub const ALERTMANAGER: &str = r#"{"receiver":"ops","status":"firing","version":"4","groupKey":"{}:{alertname=\"HighErrorRate\"}",
      "truncatedAlerts":0,"groupLabels":{"alertname":"HighErrorRate"},"commonLabels":{},"commonAnnotations":{},"externalURL":"http://am:9093",
      "alerts":[
       {"status":"firing","labels":{"alertname":"HighErrorRate","severity":"critical","instance":"api-1:8080","job":"api"},
        "annotations":{"summary":"5% of requests fail","description":"First line\nSecond line","runbook_url":"https://runbooks.example.com/high-error-rate"},
        "startsAt":"2026-01-02T03:04:05.678Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prom:9090/graph?g0.expr=x","fingerprint":"b2c4d6"},
       {"status":"resolved","labels":{"alertname":"HighErrorRate","severity":"critical","instance":"api-2:8080","job":"api"},
        "annotations":{"summary":"5% of requests fail"},
        "startsAt":"2026-01-02T03:04:05.678Z","endsAt":"2026-01-02T04:04:05Z","generatorURL":"http://prom:9090/graph?g0.expr=x","fingerprint":"b2c4d7"}]}"#;

    /// What an attacker might write, in every place, and far too much of it.
    pub fn hostile() -> Value {
        let evil = "*b* _i_ ~s~ `c` **x** [click](https://evil.example/a) <https://evil.example|ok> <!channel> <@U1> @everyone \
                    ||spoiler||\n# head\n> quote\n- item\n1. one\n```\ncode\n```\n![i](https://evil.example/i.png) &lt;b&gt; \\ \u{202E}gnp.exe\u{1b}[31m";
        let long = evil.repeat(200);
        let labels: serde_json::Map<String, Value> = (0..40)
            .map(|n| (format!("{n} {evil}"), json!(long)))
            .chain([("alertname".to_owned(), json!(long)), ("severity".to_owned(), json!(evil))])
            .collect();
        json!({
            "status": "firing", "labels": labels, "startsAt": "never", "endsAt": evil, "fingerprint": long,
            "generatorURL": format!("javascript:{evil}"),
            "annotations": {
                "summary": long, "description": "\"\\\n".repeat(3000), "message": "字".repeat(5000),
                "runbook_url": "https://ok.example/a_(b)_[c]|d>e", "dashboard_url": "https://user:pw@evil.example/",
            },
        })
    }

    /// The bodies of the alerts of a call of Alertmanager.
    pub fn of_alerts(format: Format, call: &str) -> Vec<Value> {
        let made = crate::payload::alerts::events(call.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        made.into_iter().map(|alert| body(format, &alert.subject, alert.body)).collect()
    }

    pub fn of_hostile(format: Format) -> Value {
        of_alerts(format, &json!({ "alerts": [hostile()] }).to_string()).remove(0)
    }

    pub fn body(format: Format, subject: &str, event: Vec<u8>) -> Value {
        let bytes = Bytes::from(event);
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let made = render(format, &parse(&bytes).unwrap(), EventMetadata { id: "msg_1", subject, at }, &bytes);
        serde_json::from_slice(&made).unwrap()
    }

    /// Every text in it, with the key that it belongs to.
    pub fn texts(value: &Value) -> Vec<(String, String)> {
        let mut found = Vec::new();
        reader("", value, &mut found);
        found
    }

    fn reader(key: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::String(text) => found.push((key.to_owned(), text.clone())),
            Value::Array(items) => items.iter().for_each(|item| reader(key, item, found)),
            Value::Object(fields) => fields.iter().for_each(|(name, value)| reader(name, value, found)),
            _ => {}
        }
    }

    /// Units of UTF-16, which the services count.
    pub fn units(text: &str) -> usize {
        text.encode_utf16().count()
    }

    #[test]
    fn a_text_is_cut_where_its_escaped_form_is_too_long_and_never_within_an_escape() {
        let escape = |c: char, out: &mut String| {
            if c == '*' {
                out.push('\\');
            }
            out.push(c);
        };
        assert_eq!(super::fit("a*b", 9, escape), "a\\*b");
        assert_eq!(super::fit("****", 6, escape), "\\*\\*…");
        assert_eq!(super::fit("😀😀😀", 6, super::plain), "😀😀…");
    }
}
