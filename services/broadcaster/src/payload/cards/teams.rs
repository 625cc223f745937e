//! An adaptive card for a workflow of Microsoft Teams.
//!
//! Teams reads Markdown in `TextBlock` and `FactSet`, including links. An event's text is put into the runs of
//! `RichTextBlock`, which have none; each line is one, as a line break within a run is not shown. The text for programs
//! that know no such card may be read as Markdown, and is escaped.

use super::{fit, foot, no_markdown, plain};
use crate::payload::{
    metadata::EventMetadata,
    notice::{Notice, Tone},
};
use serde_json::{Value, json};

/// Characters of a line.
const LINE: usize = 1600;

/// Makes the message.
pub fn message(notice: &Notice, about: EventMetadata<'_>) -> Value {
    let title = run(&notice.title, json!({ "size": "Large", "weight": "Bolder" }));
    let mut body = vec![json!({
        "type": "Container", "style": style(notice.tone), "bleed": true, "items": [rich(vec![title], "Default")],
    })];
    for text in &notice.texts {
        body.extend(text.lines().enumerate().map(|(n, line)| rich(vec![run(line, json!({}))], spacing(n))));
    }
    for (n, (name, value)) in notice.facts.iter().enumerate() {
        let mut lines = value.lines();
        let name = run(&format!("{name}: "), json!({ "weight": "Bolder" }));
        let first = run(lines.next().unwrap_or_default(), json!({}));
        body.push(rich(vec![name, first], spacing(n)));
        body.extend(lines.map(|line| rich(vec![run(line, json!({}))], "None")));
    }
    body.push(rich(vec![run(&foot(about), json!({ "isSubtle": true, "size": "Small" }))], "Medium"));
    let actions =
        notice.links.iter().map(|link| json!({ "type": "Action.OpenUrl", "title": link.label, "url": link.url }));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "fallbackText": fit(&notice.title, LINE, no_markdown),
                "msteams": { "width": "Full" },
                "body": body,
                "actions": actions.collect::<Vec<_>>(),
            },
        }],
    })
}

fn spacing(n: usize) -> &'static str {
    if n == 0 { "Medium" } else { "None" }
}

fn rich(inlines: Vec<Value>, spacing: &str) -> Value {
    json!({ "type": "RichTextBlock", "spacing": spacing, "inlines": inlines })
}

/// An empty line keeps its place.
fn run(text: &str, more: Value) -> Value {
    let text = if text.is_empty() { "\u{a0}" } else { text };
    let mut run = json!({ "type": "TextRun", "text": fit(text, LINE, plain) });
    if let (Some(run), Value::Object(more)) = (run.as_object_mut(), more) {
        run.extend(more);
    }
    run
}

fn style(tone: Tone) -> &'static str {
    match tone {
        Tone::Critical => "attention",
        Tone::Warning => "warning",
        Tone::Info => "accent",
        Tone::Good => "good",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ALERTMANAGER, body, of_alerts, of_hostile, texts};
    use crate::payload::render::Format;
    use serde_json::Value;

    /// The rules of the schema of version 1.4, for the elements that are used here, and of Teams.
    fn check(message: &Value) {
        assert_eq!(message["type"], "message");
        assert!(message.to_string().len() < 28 * 1024, "{} bytes", message.to_string().len());
        let attachment = &message["attachments"][0];
        assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
        let card = &attachment["content"];
        assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.4".into()));
        card["body"].as_array().unwrap().iter().for_each(element);
        let actions = card["actions"].as_array().unwrap();
        assert!(actions.len() <= 6);
        for action in actions {
            assert_eq!(action["type"], "Action.OpenUrl");
            let url = action["url"].as_str().unwrap();
            assert!(url.starts_with("https://") || url.starts_with("http://"), "{url}");
            assert!(!action["title"].as_str().unwrap().is_empty());
        }
    }

    fn element(element: &Value) {
        let one_of = |key: &str, words: &[&str]| {
            if let Some(word) = element.get(key) {
                assert!(words.contains(&word.as_str().unwrap()), "{key} {word}");
            }
        };
        one_of("spacing", &["Default", "None", "Small", "Medium", "Large", "ExtraLarge", "Padding"]);
        match element["type"].as_str().unwrap() {
            "Container" => {
                one_of("style", &["default", "emphasis", "good", "attention", "warning", "accent"]);
                element["items"].as_array().unwrap().iter().for_each(self::element);
            }
            "RichTextBlock" => {
                for run in element["inlines"].as_array().unwrap() {
                    assert_eq!(run["type"], "TextRun");
                    let text = run["text"].as_str().unwrap();
                    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
                    for (key, words) in [("size", &["Small", "Large"][..]), ("weight", &["Bolder"])] {
                        assert!(run.get(key).is_none_or(|word| words.contains(&word.as_str().unwrap())), "{run}");
                    }
                }
            }
            // TextBlock and FactSet would read Markdown.
            other => panic!("element {other}"),
        }
    }

    fn lines(message: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        for element in message["attachments"][0]["content"]["body"].as_array().unwrap() {
            let blocks =
                element.get("items").and_then(|items| items.as_array().cloned()).unwrap_or(vec![element.clone()]);
            for block in blocks {
                lines.push(
                    block["inlines"].as_array().unwrap().iter().map(|run| run["text"].as_str().unwrap()).collect(),
                );
            }
        }
        lines
    }

    #[test]
    fn an_alert_is_a_card_that_teams_takes() {
        let made = of_alerts(Format::Teams, ALERTMANAGER);
        made.iter().for_each(check);
        let [firing, resolved] = &made[..] else { panic!("{made:?}") };
        let shown = lines(firing);
        assert_eq!(
            shown[..6],
            [
                "Firing: HighErrorRate",
                "5% of requests fail",
                "First line",
                "Second line",
                "severity: critical",
                "since: 2026-01-02 03:04:05 UTC"
            ]
        );
        let card = |message: &Value| message["attachments"][0]["content"].clone();
        assert_eq!(card(firing)["body"][0]["style"], "attention");
        assert_eq!(card(resolved)["body"][0]["style"], "good");
        assert_eq!(lines(resolved)[0], "Resolved: HighErrorRate");
        assert_eq!(card(firing)["actions"][0]["title"], "Runbook");
        assert_eq!(card(firing)["actions"][1]["url"], "http://prom:9090/graph?g0.expr=x");
        for message in &made {
            let all = message.to_string();
            assert!(!all.contains("0001-01-01") && !all.contains("b2c4d"), "{all}");
        }
    }

    #[test]
    fn what_means_harm_is_shown_and_does_nothing() {
        let made = of_hostile(Format::Teams);
        check(&made);
        for (key, text) in texts(&made) {
            assert!(!text.contains('\u{202E}') && !text.contains('\u{1b}'), "{key}: {text}");
        }
        let card = &made["attachments"][0]["content"];
        assert_eq!(card["actions"].as_array().unwrap().len(), 1, "the link with a login and the script are no buttons");
        // Programs that know no card of this version may read this as Markdown.
        let fallback = card["fallbackText"].as_str().unwrap();
        assert!(fallback.contains("\\[click\\]\\(https\\:") && !fallback.contains("[click]("), "{fallback}");
    }

    #[test]
    fn other_events_are_cards_too() {
        let event = br#"{"specversion":"1.0","type":"agentforge.job.dead","id":"a","data":{"job_id":"j"}}"#;
        let made = body(Format::Teams, "agentforge.events.job.m.dead", event.to_vec());
        check(&made);
        assert_eq!(lines(&made)[..2], ["agentforge.job.dead", "job_id: j"]);
        check(&body(Format::Teams, "todos.events", b"[1]".to_vec()));
    }
}
