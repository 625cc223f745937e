//! Who may call what: every operation, every role, both protocols.

use super::server::{Server, problem};
use agentforge_orchestrator::api::Role;
use agentforge_orchestrator::api::operations::OPERATIONS;
use reqwest::Method;

const TOKENS: &str =
    "dash:read:read-0123456789abcdef,ci:submit:submit-0123456789abcdef,ops:admin:admin-0123456789abcdef";

fn token(role: Role) -> String {
    format!("Bearer {}-0123456789abcdef", role.as_str())
}

#[tokio::test]
async fn rest_lets_each_role_do_what_it_may_and_no_more() {
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
    for operation in OPERATIONS {
        let path = operation.route.replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057");
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let send = async |auth: Option<&str>| {
            let headers: Vec<_> = auth.map(|a| ("authorization", a)).into_iter().collect();
            // A body that no operation takes, so that nothing is stored.
            server.send(method.clone(), &path, &headers, "nonsense").await
        };
        let name = operation.name;
        for wrong in [None, Some("Bearer read-0123456789abcdeX"), Some("Basic cmVhZDp4"), Some("Bearer ")] {
            let answer = send(wrong).await;
            assert_eq!(answer.status(), 401, "{name} with {wrong:?}");
            assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{name}");
            assert_eq!(problem(answer).await["code"], "unauthenticated");
        }
        for role in Role::ALL {
            let answer = send(Some(&token(role))).await;
            let status = answer.status().as_u16();
            if role < operation.role {
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
    let server = Server::start(&[("API_TOKENS", TOKENS)]).await;
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
            if role < operation.role {
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
    let own = server.http.clone();
    let answer = server.send(Method::POST, "/v1/jobs", &[("origin", &own)], r#"{"tool":"echo"}"#).await;
    assert_eq!(answer.status(), 202);
}
