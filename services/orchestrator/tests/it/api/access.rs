//! Who may call what: every operation, every role, both protocols.

use super::server::{Server, problem};
use agentforge_orchestrator::api::Role;
use agentforge_orchestrator::api::operations::OPERATIONS;
use reqwest::Method;

const TOKENS: &str = "dash:viewer:viewer-0123456789abcdef,ci:submitter:submitter-0123456789abcdef,\
    oncall:operator:operator-0123456789abcdef,watch:alerts:alerts-0123456789abcdef,ops:admin:admin-0123456789abcdef";

fn token(role: Role) -> String {
    format!("Bearer {}-0123456789abcdef", role.as_str())
}

#[tokio::test]
async fn rest_lets_each_role_do_what_it_may_and_no_more() {
    let server = Server::start(&[("API_TOKENS", TOKENS), ("ACCESS_LOCKOUT_AFTER", "0")]).await;
    for operation in OPERATIONS {
        let path = operation.route.replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let send = async |auth: Option<&str>| {
            let headers: Vec<_> = auth.map(|a| ("authorization", a)).into_iter().collect();
            // A body that no operation takes, so that nothing is stored.
            server.send(method.clone(), &path, &headers, "nonsense").await
        };
        let name = operation.name;
        for wrong in [None, Some("Bearer viewer-0123456789abcdeX"), Some("Basic cmVhZDp4"), Some("Bearer ")] {
            let answer = send(wrong).await;
            assert_eq!(answer.status(), 401, "{name} with {wrong:?}");
            assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{name}");
            assert_eq!(problem(answer).await["code"], "unauthenticated");
        }
        for role in Role::ALL {
            let answer = send(Some(&token(role))).await;
            let status = answer.status().as_u16();
            if !role.includes(operation.role) {
                assert_eq!(status, 403, "{name} as {role:?}");
                let body = problem(answer).await;
                assert_eq!(body["code"], "permission_denied");
                assert!(
                    body["detail"].as_str().unwrap().contains(operation.role.as_str()),
                    "the needed role is named: {body}"
                );
            } else {
                assert!(status != 401 && status != 403, "{name} as {role:?} gave {status}");
            }
        }
    }
    for open in ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(open).await.status(), 200, "{open}");
    }
}

#[tokio::test]
async fn grpc_lets_each_role_do_what_it_may_and_no_more() {
    let server = Server::start(&[("API_TOKENS", TOKENS), ("ACCESS_LOCKOUT_AFTER", "0")]).await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    // The bare protocol, so that every RPC of the table can be called: an empty message.
    let status_of = async |rpc: &str, auth: Option<String>| -> Option<String> {
        let mut request = client
            .post(format!("{}{rpc}", server.grpc))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(auth) = auth {
            request = request.header("authorization", auth);
        }
        let answer = request.body(vec![0u8; 5]).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{rpc}");
        // A refusal of the guard has its status in the headers.
        answer.headers().get("grpc-status").map(|s| s.to_str().unwrap().to_owned())
    };
    let (unauthenticated, denied) = (Some("16".to_owned()), Some("7".to_owned()));
    for operation in OPERATIONS {
        let Some(rpc) = operation.rpc else { continue };
        assert_eq!(status_of(rpc, None).await, unauthenticated, "{rpc}");
        assert_eq!(status_of(rpc, Some("Bearer unknown-0123456789abcdef".into())).await, unauthenticated, "{rpc}");
        for role in Role::ALL {
            // What a role may do is proved by the refusals' absence; admin calls would change things.
            let status = status_of(rpc, Some(token(role))).await;
            if !role.includes(operation.role) {
                assert_eq!(status, denied, "{rpc} as {role:?}");
            } else {
                assert!(status != unauthenticated && status != denied, "{rpc} as {role:?}");
            }
        }
    }
    assert_eq!(status_of("/agentforge.v1.Jobs/Nothing", None).await, unauthenticated);
    assert_eq!(status_of("/agentforge.v1.Jobs/Nothing", Some(token(Role::Read))).await.as_deref(), Some("12"));
    assert_eq!(status_of("/grpc.health.v1.Health/Check", None).await, None);
}

#[tokio::test]
async fn after_failed_logins_an_address_has_to_wait() {
    let server = Server::start(&[("API_TOKENS", TOKENS), ("ACCESS_LOCKOUT_AFTER", "3")]).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        server.send(Method::GET, "/v1/jobs", &[("authorization", &bearer)], "").await
    };
    assert_eq!(ask("viewer-0123456789abcdef").await.status(), 200);
    for _ in 0..3 {
        assert_eq!(ask("viewer-0123456789abcdeX").await.status(), 401, "the first ones are only counted");
    }
    // A busy machine may take longer than the first pause. The next one is twice as long.
    let mut locked = None;
    for guess in ["submitter", "operator", "admin"] {
        ask("viewer-0123456789abcdeX").await;
        let answer = ask(&format!("{guess}-0123456789abcdef")).await;
        if answer.status() == 429 {
            locked = Some(answer);
            break;
        }
    }
    let locked = locked.expect("a right guess has to wait, too");
    assert!(locked.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let body = problem(locked).await;
    assert!(
        body["code"] == "too_many_requests" && body["detail"].as_str().unwrap().contains("ACCESS_LOCKOUT_AFTER"),
        "{body}"
    );
    assert_eq!(ask("viewer-0123456789abcdef").await.status(), 200, "who was let in before is not locked out");
}

#[tokio::test]
async fn a_token_of_the_file_ends_without_a_restart() {
    use agentforge_access::{Role, Scopes, TokenFile, digest, now};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    let write = |lines: &[String]| {
        std::fs::write(dir.path().join("next"), lines.join("\n")).unwrap();
        std::fs::rename(dir.path().join("next"), &path).unwrap();
    };
    let line = |name: &str, expires| {
        TokenFile::line(name, Role::Read, &digest(format!("{name}-0123456789abcdef")), expires, &Scopes::ALL)
    };
    write(&[line("one", None)]);
    let settings = [
        ("ACCESS_TOKENS_FILE", path.to_str().unwrap()),
        ("ACCESS_RELOAD_INTERVAL", "100ms"),
        ("ACCESS_LOCKOUT_AFTER", "0"),
    ];
    let server = Server::start(&settings).await;
    let ask = async |name: &str| {
        let bearer = format!("Bearer {name}-0123456789abcdef");
        let answer = server.send(Method::GET, "/v1/jobs", &[("authorization", &bearer)], "").await;
        let status = answer.status().as_u16();
        (
            status,
            if status == 200 { String::new() } else { problem(answer).await["detail"].as_str().unwrap().to_owned() },
        )
    };
    assert_eq!((ask("one").await.0, ask("two").await.0), (200, 401));
    let end = now() + 2;
    write(&[line("two", Some(end))]);
    let soon = std::time::Duration::from_secs(20);
    agentforge_harness::eventually(soon, "the new one counts", || async { ask("two").await.0 == 200 || now() >= end })
        .await;
    assert_eq!(ask("one").await, (401, "the bearer token is not known".to_owned()));
    agentforge_harness::eventually(soon, "it ends", || async { ask("two").await.0 == 401 }).await;
    assert!(ask("two").await.1.contains("two has expired"));
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served() {
    let server = Server::start(&[]).await;
    let refused = [("host", "evil.example", "origin", ""), ("host", "localhost", "origin", "http://evil.example")];
    for (host_name, host, origin_name, origin) in refused {
        let mut headers = vec![(host_name, host)];
        if !origin.is_empty() {
            headers.push((origin_name, origin));
        }
        let answer = server.send(Method::POST, "/v1/jobs", &headers, r#"{"tool":"echo"}"#).await;
        assert_eq!(answer.status(), 403, "{headers:?}");
        let body = problem(answer).await;
        assert!(body["detail"].as_str().unwrap().contains("API_TOKENS"), "{body}");
    }
    for proxy in ["x-forwarded-for", "forwarded", "x-forwarded-host"] {
        let answer = server.send(Method::POST, "/v1/jobs", &[(proxy, "203.0.113.9")], r#"{"tool":"echo"}"#).await;
        assert_eq!(answer.status(), 403, "{proxy}");
        assert!(problem(answer).await["detail"].as_str().unwrap().contains("proxy"), "{proxy}");
    }
    let own = server.http.clone();
    let answer = server.send(Method::POST, "/v1/jobs", &[("origin", &own)], r#"{"tool":"echo"}"#).await;
    assert_eq!(answer.status(), 202);
}
