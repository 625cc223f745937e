//! The nightly copy of the database: the command of the CronJob, run here against a real PostgreSQL.

use crate::manifests::{Object, build, find, list, root};
use agentforge_harness::{Postgres, require};
use serde_json::json;
use std::process::Command;

/// The base with the component, as an overlay has it.
fn rendered() -> Vec<Object> {
    std::fs::create_dir_all(root().join("target")).unwrap();
    let dir = tempfile::tempdir_in(root().join("target")).unwrap();
    let text = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["../../k8s/base"], "components": ["../../k8s/components/backup"],
    });
    std::fs::write(dir.path().join("kustomization.yaml"), text.to_string()).unwrap();
    build(dir.path()).unwrap()
}

#[tokio::test]
async fn a_copy_is_whole_and_the_oldest_go() {
    let (Some(()), Some(())) = (require("kubectl"), require("postgres")) else { return };
    let objects = rendered();
    let job = find(&objects, "CronJob", "backup");
    let container = &job.list("/spec/jobTemplate/spec/template/spec/containers")[0];
    let words = |key: &str| list(&container[key]).iter().map(|w| w.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let (command, script) = (words("command"), words("args").remove(0));
    assert_eq!(command, ["bash", "-euo", "pipefail", "-c"]);

    let postgres = Postgres::start().await;
    let url = postgres.database("backed_up").await;
    let database = url.rsplit('/').next().unwrap();
    postgres.sql(database, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)").await;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    // What a run that was killed has left, and two older copies.
    for name in [".incoming-x", "agentforge-20200101T000000Z.dump", "agentforge-20200102T000000Z.dump"] {
        std::fs::write(dir.path().join(name), "old").unwrap();
    }
    let address = postgres.address();
    let port = address.rsplit(':').next().unwrap();
    let run = |database: &str| {
        let mut bash = Command::new("bash");
        bash.args(&command[1..]).arg(script.replace("/backups", place));
        bash.envs([("KEEP", "2"), ("PGHOST", "127.0.0.1"), ("PGPORT", port), ("PGUSER", "postgres")]);
        bash.env("PGDATABASE", database).output().unwrap()
    };
    let names = || {
        let files =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = files.collect();
        names.sort();
        names
    };
    let out = run(database);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let found = names();
    assert_eq!((found.len(), found[0].as_str()), (2, "agentforge-20200102T000000Z.dump"), "{found:?}");
    let listed = Command::new("pg_restore").arg("--list").arg(dir.path().join(&found[1])).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("TABLE DATA public kept"));

    // A database that cannot be read leaves no copy, and takes none away.
    let out = run("not_there");
    assert!(!out.status.success());
    let complete: Vec<String> = names().into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(complete, found);
}
