//! What a run shows: governance-summary.json, badges and a page for people.
//!
//! The page is one file that loads nothing else: it is read from a disk, by a keyboard, in the dark.

use crate::{
    contract::finding::{Finding, Level},
    semver::Validation,
    stability::{Metrics, Outcome, Run, ratio_color, streak_color},
    webhook,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// More findings or runs than these are counted and not listed: the page stays small.
const LISTED_MAX: usize = 200;
/// How often the page is loaded again.
const REFRESH_SECONDS: u32 = 300;

/// Everything that is shown of a run.
#[derive(Debug)]
pub struct Shown<'a> {
    /// When, RFC 3339.
    pub at: &'a str,
    /// Of the history.
    pub metrics: &'a Metrics,
    /// Of the version.
    pub semver: &'a Validation,
    /// The history, the newest last.
    pub runs: &'a [Run],
    /// What differs, that was not announced.
    pub findings: &'a [Finding],
    /// Breaking changes that were announced.
    pub announced: usize,
    /// What is wrong.
    pub reasons: &'a [&'static str],
    /// New and removed operations.
    pub operations: (usize, usize),
    /// The lowest ratio that is fine.
    pub stability_threshold: f64,
}

impl Shown<'_> {
    /// status/governance-summary.json.
    #[must_use]
    pub fn summary(&self) -> Value {
        let count = |level| self.findings.iter().filter(|f| f.level == level).count();
        let last = self.runs.last();
        json!({
            "schema_version": 1,
            "last_updated": self.at,
            "sha": last.map(|run| run.sha.clone()),
            "stability_ratio": self.metrics.window_stability_ratio,
            "stability_threshold": self.stability_threshold,
            "placeholder": self.metrics.placeholder,
            "placeholder_streak": self.metrics.placeholder_streak,
            "semver_policy_status": self.semver.status,
            "operations": {"added": self.operations.0, "removed": self.operations.1},
            "changes": {
                "breaking": count(Level::Breaking), "announced": self.announced,
                "warning": count(Level::Warning), "compatible": count(Level::Compatible),
            },
            "reasons": self.reasons,
        })
    }

    /// The badges, by the names of their files.
    #[must_use]
    pub fn badges(&self) -> Vec<(&'static str, Value)> {
        let m = self.metrics;
        let percent = format!("{:.2} %", m.window_stability_ratio * 100.0);
        let semver = self.semver.status.word();
        let (stability, color) = if m.placeholder {
            ("unknown".to_owned(), "lightgrey")
        } else {
            (percent.clone(), ratio_color(m.window_stability_ratio))
        };
        let health = self.health();
        let combined = format!("{stability} · semver {semver}");
        vec![
            ("stability-badge.json", badge("API stability", &stability, color)),
            (
                "placeholder-streak-badge.json",
                badge("placeholder streak", &m.placeholder_streak.to_string(), streak_color(m.placeholder_streak)),
            ),
            ("governance-summary-badge.json", badge("governance", health.0, health.1)),
            ("governance-combined-badge.json", badge("governance", &combined, health.1)),
            ("payload-version-badge.json", badge("webhook payload", &format!("v{}", webhook::VERSION), "blue")),
        ]
    }

    /// One word for everything, and its color.
    fn health(&self) -> (&'static str, &'static str) {
        let is_wrong = self.reasons.iter().any(|reason| !reason.ends_with("_recovered"));
        let is_breaking = self.findings.iter().any(|f| f.level == Level::Breaking);
        match () {
            () if is_wrong || is_breaking => ("failing", "red"),
            () if self.metrics.placeholder => ("unknown", "lightgrey"),
            () => ("passing", "brightgreen"),
        }
    }

    /// status/index.html.
    #[must_use]
    pub fn page(&self) -> String {
        let m = self.metrics;
        let health = self.health().0;
        let mut page = String::with_capacity(16 << 10);
        page += &format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
                          <meta name=\"color-scheme\" content=\"light dark\">\n<title>Governance: {health}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the findings</a>\n\
             <header>\n<h1>Governance: <span class=\"{health}\">{health}</span></h1>\n\
             <p>Of <time datetime=\"{at}\">{at}</time>, commit <code>{sha}</code>.</p>\n</header>\n<main id=\"main\">\n",
            at = escaped(self.at),
            sha = escaped(self.runs.last().map_or("unknown", |run| &run.sha)),
        );
        page += "<section aria-labelledby=\"state\">\n<h2 id=\"state\">State</h2>\n<dl>\n";
        let ratio =
            if m.placeholder { "unknown".to_owned() } else { format!("{:.2} %", m.window_stability_ratio * 100.0) };
        let fact = |page: &mut String, name: &str, value: String| {
            let _ = writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
        };
        fact(&mut page, "API stability", ratio);
        fact(&mut page, "Stable runs", format!("{} of {}", m.window_stable_count, m.window_total_count));
        fact(&mut page, "Stable in a row", format!("{}, at most {}", m.current_stable_streak, m.longest_stable_streak));
        fact(
            &mut page,
            "Version",
            format!(
                "{}: {} to {}",
                self.semver.status.word(),
                said(&self.semver.previous_version),
                said(&self.semver.current_version)
            ),
        );
        fact(&mut page, "Placeholders in a row", m.placeholder_streak.to_string());
        fact(&mut page, "Operations", format!("{} added, {} removed", self.operations.0, self.operations.1));
        fact(&mut page, "Reasons", if self.reasons.is_empty() { "none".to_owned() } else { self.reasons.join(", ") });
        page += "</dl>\n";
        for text in self.semver.messages.iter().chain(&self.semver.recommendations) {
            let _ = writeln!(page, "<p>{}</p>", escaped(text));
        }
        page += "</section>\n";
        self.findings_table(&mut page);
        self.runs_table(&mut page);
        page += &format!(
            "</main>\n<footer>\n<p>Made by <code>agentforge governance</code>. \
             <button id=\"reload\" type=\"button\" hidden></button></p>\n</footer>\n<script>\n\
             const seconds = {REFRESH_SECONDS};\n{RELOAD}</script>\n</body>\n</html>\n"
        );
        page
    }

    fn findings_table(&self, page: &mut String) {
        *page += "<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">Changes</h2>\n";
        if self.findings.is_empty() {
            *page += "<p>The contract has not changed.</p>\n</section>\n";
            return;
        }
        *page += "<div class=\"wide\" role=\"group\" aria-labelledby=\"findings\" tabindex=\"0\">\n<table>\n<thead><tr>\
                  <th scope=\"col\">Level</th><th scope=\"col\">Rule</th><th scope=\"col\">Place</th><th scope=\"col\">Change</th></tr></thead>\n<tbody>\n";
        for f in self.findings.iter().take(LISTED_MAX) {
            let place = if f.at.is_empty() { f.place.clone() } else { format!("{}: {}", f.place, f.at) };
            let _ = writeln!(
                page,
                "<tr><td class=\"{level}\">{level}</td><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                f.rule,
                escaped(&place),
                escaped(&f.text),
                level = f.level
            );
        }
        *page += "</tbody>\n</table>\n</div>\n";
        if self.findings.len() > LISTED_MAX {
            let _ = writeln!(page, "<p>{} more are in contract-diff.json.</p>", self.findings.len() - LISTED_MAX);
        }
        *page += "</section>\n";
    }

    fn runs_table(&self, page: &mut String) {
        *page += "<section aria-labelledby=\"runs\">\n<h2 id=\"runs\">Runs</h2>\n\
                  <div class=\"wide\" role=\"group\" aria-labelledby=\"runs\" tabindex=\"0\">\n<table>\n<thead><tr>\
                  <th scope=\"col\">When</th><th scope=\"col\">Commit</th><th scope=\"col\">Outcome</th>\
                  <th scope=\"col\">Breaking</th><th scope=\"col\">Version</th></tr></thead>\n<tbody>\n";
        for run in self.runs.iter().rev().take(LISTED_MAX) {
            let (outcome, class) = match run.outcome {
                Outcome::Stable => ("stable", "passing"),
                Outcome::Breaking => ("breaking", "breaking"),
                Outcome::Placeholder => ("placeholder", "unknown"),
            };
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td><code>{}</code></td><td class=\"{class}\">{outcome}</td><td>{}</td><td>{}</td></tr>",
                escaped(&run.at),
                escaped(&run.sha),
                run.breaking,
                run.semver.word()
            );
        }
        *page += "</tbody>\n</table>\n</div>\n</section>\n";
    }
}

/// A badge as Shields' endpoint reads it.
#[must_use]
pub fn badge(label: &str, message: &str, color: &str) -> Value {
    json!({"schemaVersion": 1, "label": label, "message": message, "color": color})
}

fn said(version: &str) -> &str {
    if version.is_empty() { "unknown" } else { version }
}

/// Text in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Loads the page again, until the reader stops it: a page that changes under a screen reader cannot be read.
const RELOAD: &str = "const button = document.getElementById('reload');
let timer = 0;
const turn = () => {
  if (timer) { clearInterval(timer); timer = 0; } else { timer = setInterval(() => location.reload(), seconds * 1000); }
  button.textContent = timer ? 'Stop loading this page every five minutes' : 'Load this page every five minutes';
};
button.addEventListener('click', turn);
button.hidden = false;
turn();
";

/// Colors have a contrast of 4.5 or more with their ground, in light and in dark.
const STYLE: &str = ":root { color-scheme: light dark; --ground: #ffffff; --text: #1b1f24; --line: #c9d1d9; --soft: #f3f5f7;
  --good: #116329; --bad: #a40e26; --care: #7d4e00; --mute: #57606a; --link: #0550ae; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --text: #e6edf3; --line: #30363d; --soft: #161b22;
    --good: #56d364; --bad: #ff7b72; --care: #e3b341; --mute: #9ba4ae; --link: #79c0ff; }
}
body { background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; }
a { color: var(--link); } code { font-family: ui-monospace, monospace; font-size: .9em; }
.skip { left: -999rem; position: absolute; } .skip:focus { left: 1rem; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
dl { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); margin: 0; }
dl div { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .75rem; }
dt { color: var(--mute); font-size: .9rem; } dd { font-weight: 600; margin: 0; overflow-wrap: anywhere; }
button { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; color: var(--text); font: inherit; padding: .25rem .75rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); }
.passing, .compatible { color: var(--good); } .failing, .breaking { color: var(--bad); } .warning { color: var(--care); } .unknown { color: var(--mute); }
footer { color: var(--mute); margin-top: 2rem; }
";
