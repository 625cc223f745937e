//! Client certificates as callers of the API: of the service's own TLS, and as a trusted proxy reports them.

use crate::stage::{SOON, Stage};
use agentforge_harness::{Pki, Proc, eventually, free_port, http_get, require};

const ONCALL: &str = "oncall.fleet.example";
const NAMED: &str = "x-client-cert-name";

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_a_caller_from_our_tls_or_by_a_trusted_proxy() {
    let Some(()) = require("nats-server") else { return };
    let (stage, pki) = (Stage::new().await, Pki::new());
    let file = stage.dir.path().join("tokens").to_string_lossy().into_owned();
    std::fs::write(&file, format!("oncall operator cert:{ONCALL}\nqueue viewer cert:queue.example scope=queue:a\n"))
        .unwrap();
    let port = free_port().to_string();
    let address = format!("127.0.0.1:{port}");
    let _tls = Proc::builder(env!("CARGO_BIN_EXE_agentforge-broadcaster"))
        .envs([
            ("ENV", "dev"),
            ("NATS_URL", &*stage.nats.url()),
            ("HTTP_PORT", &*port),
            ("METRICS_PORT", "0"),
            ("TLS_CERT", &*pki.path("server.pem")),
            ("TLS_KEY", &*pki.path("server.key")),
            ("TLS_CLIENT_CA", &*pki.path("ca.pem")),
            ("ACCESS_TOKENS_FILE", &*file),
        ])
        .start();
    let [oncall, queue, other] = [ONCALL, "queue.example", "other.example"].map(|name| pki.client(&[name]));
    eventually(SOON, "it listens", || async {
        pki.ask(&address, Some(&oncall), "GET /readyz", &[], "").await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    let ask =
        async |client, what: &str, headers: &[&str]| pki.ask(&address, client, what, headers, "").await.unwrap().0;
    assert_eq!(ask(Some(&oncall), "GET /v1/endpoints", &[]).await, 200);
    assert_eq!(ask(Some(&oncall), "DELETE /v1/endpoints/x", &[]).await, 403, "that needs an admin");
    assert_eq!(ask(Some(&queue), "GET /v1/endpoints", &[]).await, 403, "it is for one queue");
    assert_eq!(ask(Some(&other), "GET /v1/endpoints", &[]).await, 401);
    assert_eq!(ask(Some(&oncall), "GET /v1/endpoints", &["Sec-Fetch-Site: cross-site"]).await, 401);

    let settings =
        [("ACCESS_TOKENS_FILE", &*file), ("ACCESS_CLIENT_CERT_HEADER", NAMED), ("ACCESS_LOCKOUT_AFTER", "0")];
    for (proxies, status) in [("127.0.0.0/8", 200), ("192.0.2.0/24", 401)] {
        let broadcaster =
            stage.broadcaster_only(&[&settings[..], &[("ACCESS_TRUSTED_PROXIES", proxies)]].concat()).await;
        let get =
            async |headers: &[&str]| http_get(&format!("{}/v1/endpoints", broadcaster.http), headers).await.unwrap().0;
        let named = format!("{NAMED}: {ONCALL}");
        assert_eq!(get(&[&named]).await, status, "{proxies}");
        assert_eq!(get(&[&named, &format!("{NAMED}: queue.example")]).await, 401, "{proxies}");
        assert_eq!(get(&[&named, "ssl-client-verify: NONE"]).await, 401, "{proxies}");
    }
}
