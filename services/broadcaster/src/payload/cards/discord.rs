//! A message for a webhook of Discord: one embed.
//!
//! Discord reads Markdown in every part of an embed, so an event's text is escaped. A webhook that is not an
//! application's has no buttons: links are in the description, and the title opens the first.

use super::{fit, foot, no_markdown, plain};
use crate::payload::{
    metadata::EventMetadata,
    notice::{Notice, Tone},
};
use serde_json::{Value, json};

/// Characters that Discord takes: of a title, of a field's name and value, of a footer.
const TITLE: usize = 256;
const NAME: usize = 256;
const VALUE: usize = 1024;
const FOOTER: usize = 2048;
/// Of an embed in all 6,000 are taken, of a description 4,096. Facts and links have their share.
const TOTAL: usize = 6000;
const TEXTS: usize = 2500;

/// Makes the message.
pub fn message(notice: &Notice, about: EventMetadata<'_>) -> Value {
    let title = fit(&notice.title, TITLE, no_markdown);
    let footer = fit(&foot(about), FOOTER, plain);
    let links: Vec<String> = notice.links.iter().map(|link| format!("[{}](<{}>)", link.label, link.url)).collect();
    let mut description =
        fit(&notice.texts.join("\n\n"), TEXTS.saturating_sub(units(&links.join(" · "))).max(500), no_markdown);
    let mut used = units(&title) + units(&footer) + units(&description);
    for (n, link) in links.into_iter().enumerate() {
        let link = if n > 0 {
            format!(" · {link}")
        } else if description.is_empty() {
            link
        } else {
            format!("\n\n{link}")
        };
        if units(&description) + units(&link) > TEXTS + 1000 {
            break;
        }
        used += units(&link);
        description.push_str(&link);
    }
    let mut fields = Vec::new();
    for (name, value) in &notice.facts {
        let (name, value) = (filled(fit(name, NAME, no_markdown)), filled(fit(value, VALUE, no_markdown)));
        used += units(&name) + units(&value);
        if used > TOTAL {
            break;
        }
        let is_short = !value.contains('\n') && units(&value) <= 40;
        fields.push(json!({ "name": name, "value": value, "inline": is_short }));
    }
    let mut embed =
        json!({ "title": title, "color": colour(notice.tone), "fields": fields, "footer": { "text": footer } });
    if let Some(embed) = embed.as_object_mut() {
        if !description.is_empty() {
            embed.insert("description".to_owned(), description.into());
        }
        if let Some(link) = notice.links.first() {
            embed.insert("url".to_owned(), link.url.clone().into());
        }
    }
    // An event's text mentions no one.
    json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } })
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// An empty part is refused.
fn filled(text: String) -> String {
    if text.trim().is_empty() { "–".to_owned() } else { text }
}

fn colour(tone: Tone) -> u32 {
    match tone {
        Tone::Critical => 0x00D9_2D20,
        Tone::Warning => 0x00F7_9009,
        Tone::Info => 0x002E_90FA,
        Tone::Good => 0x0012_B76A,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ALERTMANAGER, body, of_alerts, of_hostile, texts, units};
    use crate::payload::render::Format;
    use serde_json::{Value, json};

    /// The limits of Discord's reference of embeds.
    fn check(message: &Value) {
        assert_eq!(message["allowed_mentions"], json!({ "parse": [] }));
        let [embed] = &message["embeds"].as_array().unwrap()[..] else { panic!("{message}") };
        let len = |value: &Value| value.as_str().map_or(0, units);
        assert!((1..=256).contains(&len(&embed["title"])));
        assert!(embed.get("description").is_none_or(|text| (1..=4096).contains(&len(text))));
        assert!((1..=2048).contains(&len(&embed["footer"]["text"])));
        assert!(embed["color"].as_u64().unwrap() <= 0x00FF_FFFF);
        let fields = embed["fields"].as_array().unwrap();
        assert!(fields.len() <= 25);
        let mut total = len(&embed["title"]) + len(&embed["description"]) + len(&embed["footer"]["text"]);
        for field in fields {
            assert!((1..=256).contains(&len(&field["name"])) && (1..=1024).contains(&len(&field["value"])), "{field}");
            total += len(&field["name"]) + len(&field["value"]);
        }
        assert!(total <= 6000, "{total}");
    }

    #[test]
    fn an_alert_is_an_embed_that_discord_takes() {
        let made = of_alerts(Format::Discord, ALERTMANAGER);
        made.iter().for_each(check);
        let [firing, resolved] = &made[..] else { panic!("{made:?}") };
        let embed = &firing["embeds"][0];
        assert_eq!((&embed["title"], &embed["color"]), (&json!("Firing\\: HighErrorRate"), &json!(0x00D9_2D20)));
        assert_eq!(
            embed["description"],
            "5% of requests fail\n\nFirst line\nSecond line\n\n[Runbook](<https://runbooks.example.com/high-error-rate>) · [Source](<http://prom:9090/graph?g0.expr=x>)"
        );
        assert_eq!(embed["url"], "https://runbooks.example.com/high-error-rate");
        assert_eq!(embed["fields"][0], json!({ "name": "severity", "value": "critical", "inline": true }));
        let over = &resolved["embeds"][0];
        assert_eq!((&over["title"], &over["color"]), (&json!("Resolved\\: HighErrorRate"), &json!(0x0012_B76A)));
        for message in &made {
            let all = message.to_string();
            assert!(!all.contains("0001") && !all.contains("b2c4d"), "{all}");
        }
    }

    #[test]
    fn what_means_harm_is_shown_and_does_nothing() {
        let made = of_hostile(Format::Discord);
        check(&made);
        for (key, text) in texts(&made) {
            assert!(!text.contains('\u{202E}') && !text.contains('\u{1b}'), "{key}: {text}");
            // Every sign of markup from the event is preceded by a backslash.
            let without: String = text.replace("\\\\", "");
            let bare = |sign: &str| without.match_indices(sign).any(|(at, _)| !without[..at].ends_with('\\'));
            if key != "url" {
                assert!(!bare("](https://evil") && !bare("@everyone") && !bare("**") && !bare("||"), "{key}: {text}");
            }
        }
        assert_eq!(made["embeds"][0]["url"], "https://ok.example/a_%28b%29_%5Bc%5D|d%3Ee");
    }

    #[test]
    fn other_events_are_embeds_too() {
        check(&body(Format::Discord, "todos.events", b"{}".to_vec()));
        let event = br#"{"specversion":"1.0","type":"agentforge.job.dead","id":"a","data":{"job_id":"j","empty":""}}"#;
        let made = body(Format::Discord, "agentforge.events.job.m.dead", event.to_vec());
        check(&made);
        assert_eq!(made["embeds"][0]["title"], "agentforge\\.job\\.dead");
    }
}
