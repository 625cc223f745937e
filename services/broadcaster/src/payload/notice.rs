//! What people are shown of an event: a title, a colour, texts, facts and links. Pure.
//!
//! Alerts are known and put in order: name, state, summary, description, severity, labels. Any other event shows
//! its type and the scalars of its data. Texts come from strangers: line breaks stay, other characters that steer
//! a display do not, and each kind of card writes them so that they mean nothing but themselves.

use crate::payload::{event::Event, text::clean};
use jiff::Timestamp;
use serde_json::{Map, Value};
use url::Url;

/// Facts that are shown, at most: what Slack takes in one section.
pub const FACTS_MAX: usize = 10;
/// Links, at most.
const LINKS_MAX: usize = 5;
/// Characters of a fact's name and value, of a title and of a text, at most. A card of them all stays below the
/// 28 KiB that Teams takes.
const NAME_CHARS: usize = 60;
const VALUE_CHARS: usize = 200;
const TITLE_CHARS: usize = 140;
const TEXT_CHARS: usize = 1500;
/// Lines of a text, at most.
const LINES_MAX: usize = 20;
/// Bytes of a link, at most.
const LINK_BYTES: usize = 1000;
/// Annotations that are shown above the facts, in this order.
const TEXTS: [&str; 3] = ["summary", "description", "message"];
/// Where links are found, and what their buttons say. Names as Prometheus' and Grafana's rules have them.
const LINKS: [(&str, &str); 8] = [
    ("runbook_url", "Runbook"),
    ("runbook", "Runbook"),
    ("dashboard_url", "Dashboard"),
    ("dashboard", "Dashboard"),
    ("dashboardURL", "Dashboard"),
    ("panelURL", "Panel"),
    ("silenceURL", "Silence"),
    ("generatorURL", "Source"),
];

/// How it is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// An operator must act.
    Critical,
    /// Worth a check soon.
    Warning,
    /// Worth knowing, and nothing to do.
    Info,
    /// It is over, or went well.
    Good,
}

/// Something to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What the button says.
    pub label: &'static str,
    /// Where it leads: http or https, without credentials.
    pub url: String,
}

/// An event as people are shown it.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened, in one line.
    pub title: String,
    /// How the message is coloured.
    pub tone: Tone,
    /// Paragraphs, each of one or more lines.
    pub texts: Vec<String>,
    /// Names and values.
    pub facts: Vec<(String, String)>,
    /// Links that the message shows as buttons, where the format has these.
    pub links: Vec<Link>,
}

/// Makes the notice of an event; `subject` is where it was published.
pub fn notice(event: &Event<'_>, subject: &str, bytes: &[u8]) -> Notice {
    let kind = event.kind.as_deref().unwrap_or(subject);
    if let Some(state) = kind.strip_prefix("agentforge.alert.")
        && let Some(Value::Object(alert)) = event.content(bytes)
        && alert.get("labels").is_some_and(Value::is_object)
    {
        return of_alert(&alert, state == "resolved");
    }
    let facts = event.facts(bytes).into_iter().take(FACTS_MAX);
    Notice {
        title: line(kind, TITLE_CHARS),
        tone: tone_of_kind(kind),
        texts: Vec::new(),
        facts: facts.map(|(name, value)| (line(&name, NAME_CHARS), cut(&clean(&value), VALUE_CHARS))).collect(),
        links: Vec::new(),
    }
}

/// The last word of a type: `agentforge.job.dead`, `todo.created`.
fn tone_of_kind(kind: &str) -> Tone {
    match kind.rsplit('.').next().unwrap_or_default() {
        "dead" | "failed" | "error" | "critical" => Tone::Critical,
        "expired" | "retrying" | "cancelled" | "warning" => Tone::Warning,
        "succeeded" | "completed" | "resolved" => Tone::Good,
        _ => Tone::Info,
    }
}

fn of_alert(alert: &Map<String, Value>, is_resolved: bool) -> Notice {
    let none = Map::new();
    let part = |name: &str| alert.get(name).and_then(Value::as_object).unwrap_or(&none);
    let (labels, annotations) = (part("labels"), part("annotations"));
    let name = labels.get("alertname").and_then(text).unwrap_or_else(|| "alert without a name".to_owned());
    let severity = labels.get("severity").and_then(text);
    let tone = match severity.as_deref().map(str::to_ascii_lowercase).as_deref() {
        _ if is_resolved => Tone::Good,
        Some("critical" | "error" | "page" | "high" | "emergency" | "disaster") => Tone::Critical,
        Some("info" | "information" | "none" | "notice" | "low" | "debug") => Tone::Info,
        // What has no severity that is known is not taken lightly.
        _ => Tone::Warning,
    };
    let word = if is_resolved { "Resolved" } else { "Firing" };
    let texts = TEXTS.iter().filter_map(|name| annotations.get(*name).and_then(text));
    let mut texts: Vec<String> = texts.map(|words| paragraph(&words)).filter(|words| !words.is_empty()).collect();
    texts.dedup();
    let links = links(alert, annotations);

    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| facts.push((line(name, NAME_CHARS), cut(&clean(&value), VALUE_CHARS)));
    if let Some(severity) = severity {
        add("severity", severity);
    }
    if let Some(since) = alert.get("startsAt").and_then(moment) {
        add("since", since);
    }
    // While an alert fires its end is either not a time, or one that Alertmanager made up.
    if let Some(end) = alert.get("endsAt").and_then(moment).filter(|_| is_resolved) {
        add("until", end);
    }
    for (name, value) in labels.iter().filter(|(name, _)| !["alertname", "severity"].contains(&name.as_str())) {
        if let Some(value) = text(value).filter(|_| !name.starts_with("__")) {
            add(name, value);
        }
    }
    let is_shown = |name: &str| TEXTS.contains(&name) || LINKS.iter().any(|(link, _)| *link == name);
    for (name, value) in annotations.iter().filter(|(name, _)| !is_shown(name) && !name.starts_with("__")) {
        if let Some(value) = text(value) {
            add(name, value);
        }
    }
    facts.truncate(FACTS_MAX);
    Notice { title: line(&format!("{word}: {name}"), TITLE_CHARS), tone, texts, facts, links }
}

fn links(alert: &Map<String, Value>, annotations: &Map<String, Value>) -> Vec<Link> {
    let mut links = Vec::<Link>::new();
    for (name, label) in LINKS {
        let given = annotations.get(name).or_else(|| alert.get(name)).and_then(Value::as_str);
        if let Some(url) = given.and_then(link)
            && links.iter().all(|link| link.url != url && link.label != label)
            && links.len() < LINKS_MAX
        {
            links.push(Link { label, url });
        }
    }
    links
}

/// A place that can be opened and is what it looks like. Brackets, which end a link in Markdown, are encoded.
fn link(given: &str) -> Option<String> {
    let url = Url::parse(given.trim()).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let text = url.as_str().replace('(', "%28").replace(')', "%29").replace('[', "%5B").replace(']', "%5D");
    // An IPv6 address is in brackets, and is not encoded.
    let text = if url.host_str().is_some_and(|host| host.starts_with('[')) { url.as_str().to_owned() } else { text };
    (is_plain && url.has_host() && text.len() <= LINK_BYTES).then_some(text)
}

/// A moment for people; `None` for the zero time of Go.
fn moment(value: &Value) -> Option<String> {
    let at: Timestamp = value.as_str()?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then(|| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn paragraph(text: &str) -> String {
    let text = clean(text);
    let mut lines: Vec<&str> = text.trim().lines().map(str::trim_end).take(LINES_MAX + 1).collect();
    if lines.len() > LINES_MAX {
        lines[LINES_MAX] = "…";
    }
    cut(&lines.join("\n"), TEXT_CHARS)
}

fn line(text: &str, chars: usize) -> String {
    cut(&clean(text).replace('\n', " "), chars)
}

/// At most so many characters, with a sign when there were more.
fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::event::parse;

    fn of(event: &Value) -> Notice {
        let bytes = serde_json::to_vec(event).unwrap();
        notice(&parse(&bytes).unwrap(), "agentforge.events.x", &bytes)
    }

    fn alert(state: &str, alert: Value) -> Notice {
        let kind = format!("agentforge.alert.{state}");
        of(&serde_json::json!({ "specversion": "1.0", "type": kind, "id": "a", "source": "/a", "data": alert }))
    }

    #[test]
    fn an_alert_is_put_in_order() {
        let made = alert(
            "firing",
            serde_json::json!({
                "status": "firing",
                "labels": { "alertname": "DiskFull", "severity": "critical", "instance": "db-1:9100", "__x": "y" },
                "annotations": {
                    "description": "line1\r\nline2\tend", "summary": "Disk is full", "runbook_url": "https://r.example/d",
                    "team": "storage", "dashboard": "not a link",
                },
                "startsAt": "2026-01-02T03:04:05.678Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus:9090/graph?g0.expr=up%20%3D%3D(0)", "fingerprint": "ab12",
            }),
        );
        assert_eq!((&*made.title, made.tone), ("Firing: DiskFull", Tone::Critical));
        assert_eq!(made.texts, ["Disk is full", "line1\nline2 end"]);
        let facts: Vec<_> = made.facts.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            facts,
            [
                ("severity", "critical"),
                ("since", "2026-01-02 03:04:05 UTC"),
                ("instance", "db-1:9100"),
                ("team", "storage")
            ]
        );
        let links: Vec<_> = made.links.iter().map(|link| (link.label, &*link.url)).collect();
        assert_eq!(
            links,
            [("Runbook", "https://r.example/d"), ("Source", "http://prometheus:9090/graph?g0.expr=up%20%3D%3D%280%29")]
        );
    }

    #[test]
    fn a_resolved_alert_looks_resolved() {
        let made = alert(
            "resolved",
            serde_json::json!({
                "labels": { "alertname": "DiskFull", "severity": "critical" },
                "startsAt": "2026-01-02T03:04:05Z", "endsAt": "2026-01-02T04:04:05Z",
            }),
        );
        assert_eq!((&*made.title, made.tone), ("Resolved: DiskFull", Tone::Good));
        assert!(made.facts.contains(&("until".into(), "2026-01-02 04:04:05 UTC".into())));
    }

    #[test]
    fn severities_have_their_tones() {
        for (severity, tone) in [
            ("critical", Tone::Critical),
            ("PAGE", Tone::Critical),
            ("warning", Tone::Warning),
            ("odd", Tone::Warning),
            ("info", Tone::Info),
        ] {
            let made = alert("firing", serde_json::json!({ "labels": { "alertname": "A", "severity": severity } }));
            assert_eq!(made.tone, tone, "{severity}");
        }
        assert_eq!(alert("firing", serde_json::json!({ "labels": {} })).tone, Tone::Warning);
    }

    #[test]
    fn links_are_what_they_look_like() {
        for (given, expected) in [
            ("https://a.example/x", Some("https://a.example/x")),
            (" http://a.example:9090/[x](y) ", Some("http://a.example:9090/%5Bx%5D%28y%29")),
            ("http://[::1]:9090/", Some("http://[::1]:9090/")),
            ("javascript:alert(1)", None),
            ("data:text/html,x", None),
            ("file:///etc/passwd", None),
            ("https://good.example@evil.example/", None),
            ("/relative", None),
            ("", None),
        ] {
            assert_eq!(link(given).as_deref(), expected, "{given}");
        }
        assert_eq!(link(&format!("https://a.example/{}", "x".repeat(LINK_BYTES))), None);
    }

    #[test]
    fn lines_stay_words_stay_apart_and_nothing_steers_the_display() {
        assert_eq!(clean("a\nb\r\nc\rd\te\u{7}f\u{2028}g"), "a\nb\nc\nd e f\ng");
        assert_eq!(clean("safe\u{202E}txt.exe\u{200B}"), "safetxt.exe");
        assert_eq!(clean("می\u{200C}خواهم 👩\u{200D}🚒"), "می\u{200C}خواهم 👩\u{200D}🚒", "joiners belong to words");
        assert_eq!(line("a\nb", 9), "a b");
        assert_eq!((cut("abcd", 4), cut("abcde", 4)), ("abcd".to_owned(), "abc…".to_owned()));
        let many = paragraph(&"x\n".repeat(100));
        assert!(many.lines().count() == LINES_MAX + 1 && many.ends_with('…'));
    }

    #[test]
    fn other_events_show_their_type_and_facts() {
        let made = of(
            &serde_json::json!({ "specversion": "1.0", "type": "agentforge.job.dead", "data": { "job_id": "j", "error": "a\nb" } }),
        );
        assert_eq!((&*made.title, made.tone), ("agentforge.job.dead", Tone::Critical));
        assert!(made.facts.contains(&("job_id".into(), "j".into())));
        assert!(made.facts.contains(&("error".into(), "a\nb".into())));
        assert_eq!(of(&serde_json::json!([1])).title, "agentforge.events.x");
        // One that only says that it is an alert.
        let odd = of(&serde_json::json!({ "specversion": "1.0", "type": "agentforge.alert.firing", "data": [1] }));
        assert_eq!(odd.title, "agentforge.alert.firing");
    }
}
