//! The page as a browser shows it: whole without a network, without a finding of axe, in light and in dark, by keyboard.

use super::support::run;
use agentforge_harness::{program, require};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A page with every kind of state: breaking and compatible changes, stable and other runs, text that looks like HTML.
fn page(home: &Path) -> String {
    let document = |version: &str, paths: &str| {
        format!(r#"{{"openapi": "3.1.0", "info": {{"title": "T", "version": "{version}"}}, "paths": {{{paths}}}}}"#)
    };
    let operation = r#"{"get": {"operationId": "a<b>&\"", "responses": {"200": {"description": "ok"}}}}"#;
    fs::write(home.join("old.json"), document("1.0.0", &format!(r#""/a/<script>alert(1)</script>": {operation}"#)))
        .unwrap();
    fs::write(home.join("new.json"), document("1.1.0", &format!(r#""/b": {operation}"#))).unwrap();
    fs::write(home.join("broken.json"), "{").unwrap();
    for new in ["old.json", "broken.json", "new.json"] {
        run(home, &["contract", "check", "old.json", new, "--sha", "0123abc"]);
    }
    fs::read_to_string(home.join("status/index.html")).unwrap()
}

#[test]
fn the_page_needs_nothing_else_and_shows_texts_as_texts() {
    let home = tempfile::tempdir().unwrap();
    let page = page(home.path());
    assert_eq!(page.matches("<script").count(), 1, "its own, which loads it again");
    for foreign in ["src=", "url(", "href=\"http", "@import", "<link"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("const seconds = 300;"));
    for shown in ["operation-removed", "placeholder", "breaking", "semver_fail"] {
        assert!(page.contains(shown), "{shown}");
    }
}

const PROBE: &str = r#"
(async () => {
  const focusable = [...document.querySelectorAll('a[href], button, [tabindex]')];
  const reached = focusable.filter((one) => { one.focus(); return document.activeElement === one; });
  const found = await axe.run(document, {resultTypes: ['violations', 'incomplete']});
  const said = document.createElement('pre');
  said.id = 'said';
  said.textContent = JSON.stringify({
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    ground: getComputedStyle(document.body).backgroundColor,
    loaded: performance.getEntriesByType('resource').map((one) => one.name),
    focusable: focusable.length, reached: reached.length, positive: focusable.filter((one) => one.tabIndex > 0).length,
    passes: found.passes.length,
    violations: found.violations.map((one) => `${one.id}: ${one.nodes.map((n) => n.html).join(' ')}`),
    incomplete: found.incomplete.map((one) => `${one.id}: ${one.nodes.map((n) => n.html).join(' ')}`),
  });
  document.body.append(said);
})();
"#;

/// What the page says about itself in a browser with this preference: 0 is dark, 1 is light.
pub fn asked(page: &str, axe: &Path, scheme: u8) -> Value {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("probe.html");
    let axe = fs::read_to_string(axe).unwrap();
    fs::write(&file, page.replace("</body>", &format!("<script>{axe}</script><script>{PROBE}</script></body>")))
        .unwrap();
    let mut browser = Command::new("chromium");
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--dump-dom",
    ]);
    browser.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000"]);
    browser.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    browser.arg(format!("--user-data-dir={}", home.path().join("profile").display()));
    let out = browser.arg(format!("file://{}", file.display())).output().unwrap();
    let dom = String::from_utf8_lossy(&out.stdout);
    let said = dom.rsplit_once("<pre id=\"said\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let said = said.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr))).0;
    let text = said.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&text).unwrap()
}

/// Where axe is; `None` without it or a browser.
pub fn axe() -> Option<PathBuf> {
    require("chromium")?;
    match program("governance-programs") {
        Ok(path) => Some(path.join("node_modules/axe-core/axe.min.js")),
        Err(why) => {
            eprintln!("SKIPPED axe: {why}");
            None
        }
    }
}

#[test]
fn axe_finds_nothing_in_light_and_in_dark_and_everything_is_reached_by_keyboard() {
    let Some(axe) = axe() else { return };
    let home = tempfile::tempdir().unwrap();
    let page = page(home.path());
    let mut grounds = Vec::new();
    for (scheme, is_dark) in [(0, true), (1, false)] {
        let said = asked(&page, &axe, scheme);
        assert_eq!(said["dark"], is_dark, "{said}");
        assert_eq!(said["violations"], serde_json::json!([]), "{said}");
        assert_eq!(said["incomplete"], serde_json::json!([]), "{said}");
        assert_eq!(said["loaded"], serde_json::json!([]));
        assert!(said["passes"].as_u64() > Some(10), "{said}");
        assert_eq!((&said["focusable"], &said["positive"]), (&said["reached"], &serde_json::json!(0)), "{said}");
        assert!(said["reached"].as_u64() >= Some(4), "the link to the findings, two tables and the button: {said}");
        grounds.push(said["ground"].clone());
    }
    assert_ne!(grounds[0], grounds[1]);
}
