//! Client certificates as callers, over REST and gRPC: of the service's own TLS, and as a trusted proxy reports them.

use super::server::{DEADLINE, Server, problem};
use agentforge_harness::{ClientPem, Pki, eventually};
use reqwest::{Certificate, Client, Identity, Method};
use serde_json::Value;
use tempfile::TempDir;

const CI: &str = "ci.fleet.example";
const OPS: &str = "spiffe://fleet.example/ops";
const NAMED: &str = "x-client-cert-name";

/// The file of tokens, for a caller of one queue and one for everything.
fn tokens() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, format!("ci submitter cert:{CI} scope=queue:a\nops admin cert:{OPS}\n")).unwrap();
    let text = path.to_str().unwrap().to_owned();
    (dir, text)
}

fn client(pki: &Pki, with: &ClientPem) -> Client {
    let identity = Identity::from_pem(format!("{}{}", with.key, with.cert).as_bytes()).unwrap();
    let root = Certificate::from_pem(pki.ca().as_bytes()).unwrap();
    Client::builder().no_proxy().timeout(DEADLINE).tls_certs_only([root]).identity(identity).build().unwrap()
}

/// The status of a call with an empty message; 0 if it is not refused.
async fn call(client: &Client, server: &Server, rpc: &str, headers: &[(&str, &str)]) -> String {
    let mut request = client.post(format!("{}/agentforge.v1.{rpc}", server.grpc));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let answer = request.body(vec![0u8; 5]).send().await.unwrap();
    answer.headers().get("grpc-status").map_or("0", |status| status.to_str().unwrap()).to_owned()
}

async fn get(client: &Client, server: &Server, path: &str, headers: &[(&str, &str)]) -> u16 {
    let mut request = client.get(server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_certificate_of_our_tls_is_a_caller_with_role_and_scopes() {
    let pki = Pki::new();
    let (dir, file) = tokens();
    let [ci, ops, other] = [&[CI][..], &[OPS], &["other.fleet.example"]].map(|names| client(&pki, &pki.client(names)));
    let (cert, key, ca) = (pki.path("server.pem"), pki.path("server.key"), pki.path("ca.pem"));
    let settings = [
        ("TLS_CERT", &*cert),
        ("TLS_KEY", &*key),
        ("TLS_CLIENT_CA", &*ca),
        ("ACCESS_TOKENS_FILE", &*file),
        ("ACCESS_RELOAD_INTERVAL", "100ms"),
        ("ACCESS_CLIENT_CERT_HEADER", NAMED),
    ];
    let server = Server::start_for(ci.clone(), &settings).await;
    let job = server.submit(r#"{"tool":"echo","queue":"a","args":{}}"#).await;
    assert_eq!(job["submitted_by"], "ci");
    let refused = server.post("/v1/jobs", r#"{"tool":"echo","queue":"b","args":{}}"#).await;
    assert_eq!(refused.status(), 403);
    assert!(problem(refused).await["detail"].as_str().unwrap().contains("queue:a"));
    assert_eq!((get(&ci, &server, "/v1/audit", &[]).await, get(&ops, &server, "/v1/audit", &[]).await), (403, 200));
    assert_eq!(call(&ci, &server, "Audit/ListAuditChains", &[]).await, "7");
    assert_eq!(call(&ops, &server, "Audit/ListAuditChains", &[]).await, "0");
    // One of the same authority whose name the file does not have, and a header that says another.
    for lie in [&[][..], &[(NAMED, OPS)]] {
        assert_eq!(get(&other, &server, "/v1/jobs", lie).await, 401, "{lie:?}");
        assert_eq!(call(&other, &server, "Jobs/ListJobs", lie).await, "16", "{lie:?}");
    }
    // What is shown on purpose counts: a wrong token is not made good by a certificate.
    assert_eq!(get(&ops, &server, "/v1/audit", &[("authorization", "Bearer wrong-0123456789")]).await, 401);
    // A browser shows its certificate to pages of every origin.
    assert_eq!(get(&ops, &server, "/v1/audit", &[("origin", "https://evil.example")]).await, 401);
    let entries: Value = ops.get(server.url("/v1/audit?principal=ci")).send().await.unwrap().json().await.unwrap();
    assert_eq!(entries["entries"][0]["principal"], "ci", "{entries}");

    std::fs::write(dir.path().join("tokens"), format!("ops admin cert:{OPS}\n")).unwrap();
    eventually(DEADLINE, "the certificate is no caller", async || get(&ci, &server, "/v1/jobs", &[]).await == 401)
        .await;
    assert_eq!(call(&ci, &server, "Jobs/ListJobs", &[]).await, "16");
}

#[tokio::test]
async fn a_trusted_proxy_reports_the_certificate_and_nobody_else_does() {
    let (_dir, file) = tokens();
    let settings =
        [("ACCESS_TOKENS_FILE", &*file), ("ACCESS_CLIENT_CERT_HEADER", NAMED), ("ACCESS_LOCKOUT_AFTER", "0")];
    let trusted = [&settings[..], &[("ACCESS_TRUSTED_PROXIES", "127.0.0.0/8")]].concat();
    let server = Server::start(&trusted).await;
    let plain = Client::builder().no_proxy().build().unwrap();
    let multiplexed = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let verified = ("ssl-client-verify", "SUCCESS");
    for (given, rest, grpc) in [
        (&[(NAMED, OPS)][..], 200, "0"),
        (&[(NAMED, OPS), verified], 200, "0"),
        (&[(NAMED, "CN=spiffe://fleet.example/ops,O=Fleet"), verified], 200, "0"),
        (&[(NAMED, OPS), (NAMED, OPS)], 200, "0"),
        (&[(NAMED, CI)], 403, "7"),
        (&[(NAMED, "other.fleet.example")], 401, "16"),
        (&[], 401, "16"),
        // What does not agree is refused, whichever of the two the proxy wrote.
        (&[(NAMED, OPS), (NAMED, CI)], 401, "16"),
        (&[(NAMED, OPS), ("x-client-verify", "NONE")], 401, "16"),
        (&[(NAMED, OPS), verified, ("x-ssl-client-verify", "FAILED")], 401, "16"),
        (&[(NAMED, "O=Fleet")], 401, "16"),
    ] {
        assert_eq!(get(&plain, &server, "/v1/audit", given).await, rest, "{given:?}");
        assert_eq!(call(&multiplexed, &server, "Audit/ListAuditChains", given).await, grpc, "{given:?}");
    }
    let two = [(NAMED, OPS), (NAMED, CI)];
    let refused = problem(server.send(Method::GET, "/v1/audit", &two, "").await).await;
    assert!(refused["detail"].as_str().unwrap().contains("do not agree"), "{refused}");
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("agentforge_access_refused_total{reason=\"certificate\"}"), "{metrics}");

    let elsewhere = [&settings[..], &[("ACCESS_TRUSTED_PROXIES", "192.0.2.0/24")]].concat();
    let server = Server::start(&elsewhere).await;
    for given in [&[(NAMED, OPS)][..], &[(NAMED, OPS), verified, ("x-forwarded-for", "192.0.2.1")]] {
        assert_eq!(get(&plain, &server, "/v1/audit", given).await, 401, "{given:?}");
        assert_eq!(call(&multiplexed, &server, "Audit/ListAuditChains", given).await, "16", "{given:?}");
    }
}
