//! The pages of alerts: whole without a network, and texts are shown as texts.

use super::page::{asked, axe};
use super::support::run;
use serde_json::json;
use std::{fs, path::Path};

/// Pages with a runbook, without one, and with texts that look like HTML.
fn pages(home: &Path) {
    let entry = |alert: &str, runbook: &str| {
        json!({
            "id": alert, "alert": alert, "group": "g<b>", "severity": "warning", "description": "a | b\n<script>x</script>",
            "scope": "service", "category": "availability", "expr_summary": "up < 1", "for": "5m", "windows": [],
            "runbook": runbook, "created_at": "2026-01-01T00:00:00Z"
        })
    };
    let alerts =
        json!([entry("A", "javascript:alert(1)"), entry("B", "https://example.com/?a=1&b=\"2"), entry("C", "TODO")]);
    let taxonomy = json!({ "schema_version": 1, "last_updated": "2026-01-01T00:00:00Z", "alerts": alerts });
    fs::write(home.join("t.json"), taxonomy.to_string()).unwrap();
    for command in ["render", "metrics"] {
        assert_eq!(run(home, &["alerts", command, "--taxonomy", "t.json"]).code, 0, "{command}");
    }
}

#[test]
fn the_pages_need_nothing_else_and_show_texts_as_texts() {
    let home = tempfile::tempdir().unwrap();
    pages(home.path());
    for name in ["alerts_taxonomy.html", "severity_runbook_dashboard.html"] {
        let page = fs::read_to_string(home.path().join("status").join(name)).unwrap();
        for foreign in ["<script", "src=", "url(", "@import", "<link", "href=\"javascript"] {
            assert!(!page.contains(foreign), "{name}: {foreign}");
        }
    }
    let page = fs::read_to_string(home.path().join("status/alerts_taxonomy.html")).unwrap();
    assert!(page.contains("<a href=\"https://example.com/?a=1&amp;b=&quot;2\">"), "{page}");
    let page = fs::read_to_string(home.path().join("status/alerts_taxonomy.md")).unwrap();
    assert!(page.contains(r"a \| b \<script\>x\</script\>"), "{page}");
    let page = fs::read_to_string(home.path().join("status/alerts_taxonomy.jsonl")).unwrap();
    assert_eq!(page.lines().count(), 3, "one entry per line");
}

#[test]
fn axe_finds_nothing_on_the_pages_of_alerts_in_light_and_in_dark() {
    let Some(axe) = axe() else { return };
    let home = tempfile::tempdir().unwrap();
    pages(home.path());
    for name in ["alerts_taxonomy.html", "severity_runbook_dashboard.html"] {
        // Their policy allows no script, not even axe.
        let page = fs::read_to_string(home.path().join("status").join(name)).unwrap();
        let page = page.replace("Content-Security-Policy", "X-Unused");
        for (scheme, is_dark) in [(0, true), (1, false)] {
            let said = asked(&page, &axe, scheme);
            assert_eq!((&said["dark"], &said["violations"]), (&json!(is_dark), &json!([])), "{name}: {said}");
            assert!(said["passes"].as_u64() > Some(5), "{name}: {said}");
        }
    }
}
