//! The command and services with TLS: gRPC, REST and streams under an authority of one's own, and what is said of others.

use super::support::{SOON, Said, are_built, command, said};
use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, require};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Certificates for 127.0.0.1, as the script makes them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.renew();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Another certificate of the same authority.
    fn renew(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/make-certificates");
        let mut script = Command::new(script);
        script.args(["test", "--name", "127.0.0.1", "--authority"]).arg(self.path("authority"));
        let out = script.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let secret: Value = serde_json::from_slice(&out.stdout).unwrap();
        for (name, text) in secret["stringData"].as_object().unwrap() {
            std::fs::write(self.path(&format!(".{name}")), text.as_str().unwrap()).unwrap();
            std::fs::rename(self.path(&format!(".{name}")), self.path(name)).unwrap();
        }
    }

    async fn start(&self, name: &str, nats: &NatsServer) -> (Proc, Value) {
        let data = self.path(name).display().to_string();
        let ports = ["HTTP_PORT", "GRPC_PORT", "METRICS_PORT"].map(|key| (key, "0"));
        let mut proc = Proc::builder(cargo_bin(&format!("agentforge-{name}")))
            .envs(ports)
            .envs([("NATS_URL", nats.url()), ("DATA_DIR", data)])
            .envs(
                [("TLS_CERT", "tls.crt"), ("TLS_KEY", "tls.key")]
                    .map(|(key, name)| (key, self.path(name).display().to_string())),
            )
            .start();
        let ready = proc.ready(SOON).await[name].clone();
        (proc, ready)
    }
}

fn run(server: &str, ca: Option<&Path>, args: &[&str]) -> Said {
    let mut command = command();
    command.args(["--json", "--server", server]).args(args);
    if let Some(ca) = ca {
        command.arg("--ca").arg(ca);
    }
    said(command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_services_with_tls_by_their_authority_and_through_a_renewal() {
    let Some(()) = require("nats-server") else { return };
    if !are_built(&["orchestrator", "broadcaster", "tactical-api"]) {
        return;
    }
    let (files, others) = (Files::new(), Files::new());
    let nats = NatsServer::start(NatsOptions::default().jetstream("")).await;
    let (orchestrator, ready) = files.start("orchestrator", &nats).await;
    let server = ready["grpc"].as_str().unwrap().to_owned();
    assert!(server.starts_with("https://") && ready["metrics"].as_str().unwrap().starts_with("https://"), "{ready}");
    let ca = files.path("ca.crt");
    let submit = || run(&server, Some(&ca), &["job", "submit", "echo", "{}"]);
    eventually(SOON, "a job is taken", || async {
        let answer = submit();
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    })
    .await;

    let stranger = run(&server, Some(&others.path("ca.crt")), &["job", "list"]);
    assert!(
        stranger.code == 1 && stranger.err.contains("certificate") && stranger.err.contains("--ca"),
        "{}",
        stranger.err
    );
    let system = run(&server, None, &["job", "list"]);
    assert!(system.code == 1 && system.err.contains("AGENTFORGE_CA_FILE"), "{}", system.err);
    let absent = run(&server, Some(Path::new("/nowhere/ca.pem")), &["job", "list"]);
    assert!(absent.code == 1 && absent.err.contains("/nowhere/ca.pem"), "{}", absent.err);
    let clear = run(&server.replace("https:", "http:"), None, &["job", "list"]);
    assert_eq!(clear.code, 1, "{}", clear.out);

    files.renew();
    let mut calls = 0;
    while orchestrator.full_log().matches("the renewed certificate is in use").count() < 3 {
        let answer = submit();
        assert_eq!(answer.code, 0, "call {calls}: {}", answer.err);
        calls += 1;
        assert!(calls < 10_000, "the renewed files were not taken up");
    }
    assert_eq!(submit().code, 0);
    assert!(calls > 0, "the renewal was not seen under load");

    let (_broadcaster, ready) = files.start("broadcaster", &nats).await;
    let at = ready["http"].as_str().unwrap();
    eventually(SOON, "endpoints are listed over TLS", || async {
        let answer = run(&server, Some(&ca), &["webhook", "list", "--url", at]);
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    })
    .await;
    let (_tactical, ready) = files.start("tactical-api", &nats).await;
    let at = ready["http"].as_str().unwrap();
    assert!(at.starts_with("https://"), "{ready}");
    eventually(SOON, "a marker is put over TLS", || async {
        let args = ["marker", "post", "here", "--id", "m1", "--at", "1,2", "--url", at];
        let answer = run(&server, Some(&ca), &args);
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    })
    .await;
}
