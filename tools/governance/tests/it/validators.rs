//! Artifacts and notices against their schemas, by a validator that is not ours.

use super::{bundles::python, support::run};
use agentforge_governance::schemas::SCHEMAS;
use std::{fs, path::Path, process::Command};

/// Validates pairs of documents and schemas; each line of a .jsonl file is a document.
const VALIDATE: &str = r#"
import json, pathlib, sys
from jsonschema import Draft202012Validator
wrong, count = [], 0
for document, schema in zip(sys.argv[1::2], sys.argv[2::2]):
    schema = json.loads(pathlib.Path(schema).read_text())
    Draft202012Validator.check_schema(schema)
    text = pathlib.Path(document).read_text()
    for line in text.splitlines() if document.endswith(".jsonl") else [text]:
        count += 1
        found = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors(json.loads(line))
        wrong += [f"{document}: {error.json_path}: {error.message}" for error in found]
print(f"{count} documents")
sys.exit("\n".join(wrong) or 0)
"#;

fn validate(pairs: &[(String, String)]) -> Option<(bool, String)> {
    let (python, packages) = python()?;
    let words = pairs.iter().flat_map(|(document, schema)| [document, schema]);
    let mut command = Command::new(python);
    command.args(["-c", VALIDATE]).args(words).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    let out = command.output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Some((out.status.success(), told))
}

fn schema(home: &Path, name: &str) -> String {
    let text = SCHEMAS.iter().find(|(file, _)| *file == format!("{name}.schema.json")).unwrap().1;
    let file = home.join(format!("{name}.schema.json"));
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn every_artifact_and_the_notice_keep_to_their_schemas() {
    let home = tempfile::tempdir().unwrap();
    let api = |version: &str, path: &str| {
        format!(
            r#"{{"openapi": "3.1.0", "info": {{"title": "T", "version": "{version}"}}, "paths": {{"{path}": {{"get": {{"responses": {{"200": {{"description": "ok"}}}}}}}}}}}}"#
        )
    };
    fs::write(home.path().join("old.json"), api("1.0.0", "/a")).unwrap();
    fs::write(home.path().join("new.json"), api("1.1.0", "/b")).unwrap();
    for new in ["old.json", "none.json", "new.json"] {
        run(home.path(), &["contract", "check", "old.json", new, "--sha", "0123abc"]);
    }
    fs::write(home.path().join("seed"), "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    assert_eq!(run(home.path(), &["bundle", "sign", "--key-file", "seed"]).code, 0);
    let status = home.path().join("status");
    let mut pairs = Vec::new();
    for entry in fs::read_dir(&status).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let of = match name.as_str() {
            "index.html" | "checksums-pubkey.txt" => continue,
            badge if badge.ends_with("-badge.json") => "badge",
            other => other.split('.').next().unwrap(),
        };
        pairs.push((entry.path().display().to_string(), schema(home.path(), of)));
    }
    assert_eq!(pairs.len(), 14, "{pairs:?}");
    let notice = r#"{"event": "governance_notice", "version": 1, "sha": "0123abc", "semver_status": "fail", "stability_ratio": 0.5,
        "reasons": ["semver_fail", "stability_recovered"], "operations": {"added": 1, "removed": 1}, "later": "unknown keys are allowed"}"#;
    let of_notice =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/governance_webhook.schema.json").display().to_string();
    let document = home.path().join("notice.json");
    fs::write(&document, notice).unwrap();
    pairs.push((document.display().to_string(), of_notice.clone()));
    let Some((is_valid, told)) = validate(&pairs) else { return };
    assert!(is_valid, "{told}");
    // The schema refuses what a notice is not.
    for (from, to) in [
        ("0123abc", "short"),
        ("\"fail\"", "\"bad\""),
        ("0.5", "-1"),
        ("\"semver_fail\", ", "\"stability_recovered\", "),
        ("\"removed\": 1", "\"removed\": 1, \"more\": 2"),
        ("governance_notice", "other"),
    ] {
        fs::write(&document, notice.replacen(from, to, 1)).unwrap();
        let (is_valid, _) = validate(&[(document.display().to_string(), of_notice.clone())]).unwrap();
        assert!(!is_valid, "{from} became {to}");
    }
}
