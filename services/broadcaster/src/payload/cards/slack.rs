//! A message for an incoming webhook of Slack: Block Kit, with the colour of an attachment.
//!
//! An event's text is put into `plain_text` objects, in which Slack reads no markup. Only the text for notifications is
//! read as markup, and is escaped according to Slack's rules.

use super::{fit, foot, plain};
use crate::payload::{
    metadata::EventMetadata,
    notice::{Notice, Tone},
};
use serde_json::{Value, json};

/// Characters that Slack takes: of a header, of a section's text, of a field, of a notification.
const HEADER: usize = 150;
const SECTION: usize = 3000;
const FIELD: usize = 2000;
const TEXT: usize = 3000;

/// Makes the message.
pub fn message(notice: &Notice, about: EventMetadata<'_>) -> Value {
    let mut blocks: Vec<Value> =
        notice.texts.iter().map(|text| json!({ "type": "section", "text": words(text, SECTION) })).collect();
    if !notice.facts.is_empty() {
        let fields = notice.facts.iter().map(|(name, value)| words(&format!("{name}\n{value}"), FIELD));
        blocks.push(json!({ "type": "section", "fields": fields.collect::<Vec<_>>() }));
    }
    if !notice.links.is_empty() {
        let buttons =
            notice.links.iter().map(|link| json!({ "type": "button", "text": words(link.label, 75), "url": link.url }));
        blocks.push(json!({ "type": "actions", "elements": buttons.collect::<Vec<_>>() }));
    }
    blocks.push(json!({ "type": "context", "elements": [words(&foot(about), SECTION)] }));
    json!({
        "text": notification(notice),
        "blocks": [{ "type": "header", "text": words(&notice.title, HEADER) }],
        "attachments": [{ "color": colour(notice.tone), "blocks": blocks }],
    })
}

/// An empty text is refused.
fn words(text: &str, units: usize) -> Value {
    let text = if text.trim().is_empty() { "–" } else { text };
    json!({ "type": "plain_text", "text": fit(text, units, plain), "emoji": false })
}

/// What a notification shows, and programs that show no blocks.
fn notification(notice: &Notice) -> String {
    let mut text = format!("*{}*", fit(&notice.title, HEADER * 2, escaped));
    let facts = notice.facts.iter().map(|(name, value)| format!("{name}: {value}"));
    for line in notice.texts.iter().cloned().chain(facts) {
        let line = fit(&line, TEXT, escaped);
        if text.encode_utf16().count() + line.encode_utf16().count() + 1 > TEXT {
            break;
        }
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// Slack reads `<…>` and `&` only; what an event says must not become a link or a mention.
fn escaped(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

fn colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Critical => "#D92D20",
        Tone::Warning => "#F79009",
        Tone::Info => "#2E90FA",
        Tone::Good => "#12B76A",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ALERTMANAGER, of_alerts, of_hostile, texts, units};
    use crate::payload::render::Format;
    use serde_json::{Value, json};

    /// The rules of Block Kit's reference, for the blocks that are used here.
    fn check_block(block: &Value) {
        let text = |text: &Value, most: usize| {
            assert_eq!(text["type"], "plain_text", "{text}");
            let words = text["text"].as_str().unwrap();
            assert!((1..=most).contains(&units(words)), "{} of {most}: {words}", units(words));
        };
        match block["type"].as_str().unwrap() {
            "header" => text(&block["text"], 150),
            "section" if block.get("fields").is_some() => {
                let fields = block["fields"].as_array().unwrap();
                assert!((1..=10).contains(&fields.len()));
                fields.iter().for_each(|field| text(field, 2000));
            }
            "section" => text(&block["text"], 3000),
            "actions" => {
                let elements = block["elements"].as_array().unwrap();
                assert!((1..=25).contains(&elements.len()));
                for button in elements {
                    assert_eq!(button["type"], "button");
                    text(&button["text"], 75);
                    let url = button["url"].as_str().unwrap();
                    assert!(url.len() <= 3000 && (url.starts_with("https://") || url.starts_with("http://")), "{url}");
                }
            }
            "context" => {
                let elements = block["elements"].as_array().unwrap();
                assert!((1..=10).contains(&elements.len()));
                elements.iter().for_each(|element| text(element, 3000));
            }
            other => panic!("block {other}"),
        }
    }

    fn check(message: &Value) {
        assert!(units(message["text"].as_str().unwrap()) <= 4000);
        let attachment = &message["attachments"][0];
        let colour = attachment["color"].as_str().unwrap();
        assert!(colour.len() == 7 && colour.starts_with('#'), "{colour}");
        let blocks = [&message["blocks"], &attachment["blocks"]].map(|b| b.as_array().unwrap());
        assert!(blocks.iter().map(|b| b.len()).sum::<usize>() <= 50);
        blocks.into_iter().flatten().for_each(check_block);
    }

    #[test]
    fn an_alert_is_a_message_that_slack_takes() {
        let made = of_alerts(Format::Slack, ALERTMANAGER);
        made.iter().for_each(check);
        let [firing, resolved] = &made[..] else { panic!("{made:?}") };
        assert_eq!(firing["blocks"][0]["text"]["text"], "Firing: HighErrorRate");
        let blocks = firing["attachments"][0]["blocks"].as_array().unwrap();
        assert_eq!(blocks[0]["text"]["text"], "5% of requests fail");
        assert_eq!(blocks[1]["text"]["text"], "First line\nSecond line");
        assert_eq!(blocks[2]["fields"][0]["text"], "severity\ncritical");
        let urls: Vec<_> =
            blocks[3]["elements"].as_array().unwrap().iter().map(|b| (&b["text"]["text"], &b["url"])).collect();
        assert_eq!(
            urls,
            [
                (&json!("Runbook"), &json!("https://runbooks.example.com/high-error-rate")),
                (&json!("Source"), &json!("http://prom:9090/graph?g0.expr=x"))
            ]
        );
        assert_eq!(firing["attachments"][0]["color"], "#D92D20");
        assert_eq!(resolved["attachments"][0]["color"], "#12B76A");
        assert_eq!(resolved["blocks"][0]["text"]["text"], "Resolved: HighErrorRate");
        for message in &made {
            let all = message.to_string();
            assert!(!all.contains("0001-01-01") && !all.contains("b2c4d") && !all.contains("fingerprint"), "{all}");
        }
    }

    #[test]
    fn what_means_harm_is_shown_and_does_nothing() {
        let made = of_hostile(Format::Slack);
        check(&made);
        for (key, text) in texts(&made) {
            assert!(!text.contains('\u{202E}') && !text.contains('\u{1b}'), "{key}: {text}");
        }
        // The only text that is read as markup.
        let text = made["text"].as_str().unwrap();
        assert!(!text.contains('<') && !text.contains('>') && !text.contains("<!channel"), "{text}");
        assert!(
            !made.to_string().contains("javascript:")
                || made["attachments"][0]["blocks"].to_string().find("\"url\":\"javascript").is_none()
        );
    }
}
