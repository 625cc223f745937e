//! Postgres as it is met in the field: a failover that leaves connections on a standby, and a pooler.

use crate::api::Api;
use agentforge_harness::{Postgres, PostgresOptions, Proc, TcpProxy, cargo_bin, eventually, free_port, require};
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

fn orchestrator(dir: &TempDir, url: &str) -> Proc {
    Proc::builder(cargo_bin("agentforge-orchestrator"))
        .envs([("ENV", "dev"), ("METRICS_PORT", "0"), ("HTTP_PORT", "0"), ("GRPC_PORT", "0"), ("LOG_FORMAT", "text")])
        .envs([("DATABASE_URL", url), ("NATS_URL", "nats://127.0.0.1:1")])
        .env("DATA_DIR", dir.path().display().to_string())
        .start()
}

async fn api_of(p: &mut Proc) -> Api {
    let ready = p.ready(SOON).await;
    Api::new(ready["orchestrator"]["http"].as_str().unwrap())
}

async fn becomes(api: &Api, status: u16, part: &str) {
    eventually(SOON, &format!("/readyz is {status}"), || async {
        let answer = api.get("/readyz").await.map_err(|e| e.to_string())?;
        let detail = answer.body["checks"]["database"]["detail"].as_str().unwrap_or_default().to_owned();
        if answer.status == status && detail.contains(part) { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_a_failover_left_on_a_standby_are_left_within_seconds() {
    let Some(()) = require("postgres") else { return };
    let primary = Postgres::own(PostgresOptions { fsync: false, ..Default::default() }).await;
    let url = primary.database("jobs").await;
    let name = url.rsplit('/').next().unwrap().to_owned();
    let proxy = TcpProxy::start(primary.address()).await;
    let through = format!("postgres://postgres@{}/{name}", proxy.address());
    let dir = TempDir::new().unwrap();
    let mut p = orchestrator(&dir, &through);
    let api = api_of(&mut p).await;
    becomes(&api, 200, "postgres").await;
    let standby = Postgres::standby_of(&primary).await;
    let submit = || async { api.post("/v1/jobs", &json!({"tool": "echo", "args": {}})).await.unwrap() };
    assert_eq!(submit().await.status, 202);

    // The name leads to the standby now, and all that was open is cut.
    proxy.lead_to(standby.address());
    proxy.drop_connections();
    let refused = eventually(SOON, "a submission is refused with the cause", || async {
        let answer = submit().await;
        let detail = answer.body["detail"].as_str().unwrap_or_default().to_owned();
        if answer.status == 503 && detail.contains("read-only") { Ok(detail) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert!(refused.contains("standby"), "{refused}");
    becomes(&api, 503, "read-only transaction").await;
    assert!(p.full_log().contains("read-only transaction"), "{}", p.full_log());

    // Many sessions on it, so that one that is left is not the whole proof.
    let reads = (0..10).map(|_| api.get("/v1/jobs"));
    futures_util::future::join_all(reads).await;
    proxy.lead_to(primary.address());
    let back = std::time::Instant::now();
    becomes(&api, 200, "postgres").await;
    let ready_after = back.elapsed();
    for n in 0..30 {
        let answer = submit().await;
        assert_eq!(answer.status, 202, "submission {n} after {:?}: {answer:?}", back.elapsed());
    }
    assert!(ready_after < Duration::from_secs(15), "it took {ready_after:?} to leave the standby");
    assert_eq!(p.sigterm(SOON).await, 0);
}

/// PgBouncer before the server, as its own user.
struct Pooler {
    _process: Proc,
    _dir: TempDir,
    port: u16,
}

impl Pooler {
    async fn start(server: &Postgres, mode: &str, extra: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("agentforge-pgbouncer-").tempdir().unwrap();
        let port = free_port();
        let backend = server.address();
        let (host, server_port) = backend.split_once(':').unwrap();
        let config = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\npool_mode = {mode}\nunix_socket_dir =\n{extra}\n"
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        // It refuses to run as root, and takes another user by itself.
        let mut pooler = Proc::builder("pgbouncer");
        if rustix::process::geteuid().is_root() {
            pooler = pooler.args(["-u", "nobody"]);
        }
        let process = pooler.arg(file.display().to_string()).start();
        eventually(SOON, "the pooler listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
        Self { _process: process, _dir: dir, port }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, database.rsplit('/').next().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_serves() {
    let (Some(()), Some(())) = (require("postgres"), require("pgbouncer")) else { return };
    let server = Postgres::start().await;
    let database = server.database("pooled").await;
    for (mode, extra) in
        [("transaction", ""), ("transaction", "ignore_startup_parameters = extra_float_digits"), ("statement", "")]
    {
        let pooler = Pooler::start(server, mode, extra).await;
        let dir = TempDir::new().unwrap();
        let mut p = orchestrator(&dir, &pooler.url(&database));
        assert_eq!(p.wait(SOON).await, 1, "{mode} {extra}");
        for part in ["pooler in transaction mode", "pool_mode = session", "DATABASE_URL"] {
            assert!(p.full_log().contains(part), "{mode} {extra}: {part} missing in: {}", p.full_log());
        }
    }
    let pooler = Pooler::start(server, "session", "default_pool_size = 40").await;
    let dir = TempDir::new().unwrap();
    let mut p = orchestrator(&dir, &pooler.url(&database));
    let api = api_of(&mut p).await;
    becomes(&api, 200, "postgres").await;
    for _ in 0..20 {
        assert_eq!(api.post("/v1/jobs", &json!({"tool": "echo", "args": {}})).await.unwrap().status, 202);
    }
    assert_eq!(p.sigterm(SOON).await, 0);
}
