//! What holds for every command: schemas, exit codes, wrong command lines.

use super::support::{faults_by_schema, run};
use agentforge_governance::schemas::SCHEMAS;
use agentforge_harness::require;

#[test]
fn schemas_are_printed_and_written() {
    let home = tempfile::tempdir().unwrap();
    let said = run(home.path(), &["schemas", "--write", "schemas"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let written = home.path().join("schemas").read_dir().unwrap().count();
    assert_eq!(said.out.lines().count(), written);
    let printed = run(home.path(), &["schemas", "--json"]);
    assert_eq!(printed.out.lines().count(), written, "one document per line");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    for words in [&["nothing"][..], &["schemas", "--at", "yesterday"], &[]] {
        let said = run(home.path(), words);
        assert_eq!(said.code, 2, "{words:?}: {}", said.err);
        assert_eq!(said.out, "", "{words:?}");
    }
}

#[test]
fn an_independent_validator_takes_every_schema_and_refuses_what_is_none() {
    let Some(()) = require("python3-jsonschema") else { return };
    for (name, _) in SCHEMAS {
        assert_ne!(faults_by_schema(name, "7"), "", "{name}: a number is no artifact");
    }
    assert_eq!(faults_by_schema("badge.schema.json", r#"{"schemaVersion":1,"label":"a","message":"b"}"#), "");
}
