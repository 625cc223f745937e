//! What describes the API: OpenAPI, the docs page, health and reflection.

use super::server::Server;
use agentforge_orchestrator::api::operations::OPERATIONS;
use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha;

#[tokio::test]
async fn each_route_is_documented_and_each_documented_route_is_served() {
    let server = Server::start(&[]).await;
    let document: Value = server.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for operation in OPERATIONS {
        let described = &document["paths"][operation.route][operation.method.to_lowercase()];
        assert_eq!(described["operationId"], operation.name, "{operation:?}");
        let path = operation.route.replace("{id}", "not-an-id");
        let method = reqwest::Method::from_bytes(operation.method.as_bytes()).unwrap();
        let status = server.send(method, &path, &[], "nonsense").await.status().as_u16();
        // An agent's id may be any word: then there is none of that name.
        let not_routed = status == 405 || (status == 404 && !matches!(operation.name, "GetAgent" | "GetDeadLetter"));
        assert!(!not_routed, "{} {path} gave {status}", operation.method);
    }
}

#[tokio::test]
async fn the_docs_page_is_whole_by_itself() {
    let server = Server::start(&[]).await;
    for path in ["/", "/docs"] {
        let answer = server.get(path).await;
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(answer.text().await.unwrap().contains("fetch(\"openapi.json\")"));
    }
    let head = server.client.head(server.url("/docs")).send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn health_follows_readiness_and_its_watches_do_not_hold_up_a_stop() {
    let server = Server::start(&[]).await;
    let mut health = HealthClient::new(server.channel().await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "agentforge.v1.Jobs", "agentforge.v1.Schedules", "agentforge.v1.Agents"] {
        let status = health.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(ask("agentforge.v2.Jobs")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let mut watch = health.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stop = tokio::spawn(server.stop());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none(), "the watch ends with the service");
    drop((watch, health));
    let took = stop.await.unwrap();
    assert!(took.as_secs() < 4, "the stop took {took:?} of 5 s of grace");
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let server = Server::start(&[]).await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    for name in [
        "agentforge.v1.Jobs",
        "agentforge.v1.Operations",
        "agentforge.v1.Schedules",
        "agentforge.v1.Agents",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

/// Many tools still ask in this version.
#[tokio::test]
async fn reflection_answers_in_its_older_version_too() {
    let server = Server::start(&[]).await;
    let channel = server.channel().await;
    let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("no list: {answer:?}");
    };
    assert!(list.service.iter().any(|s| s.name == "agentforge.v1.Jobs"), "{list:?}");
}

/// A client that keeps to the document is not refused for the form of what it sends, and the other way round.
#[tokio::test]
async fn the_document_is_as_strict_as_the_service() {
    let server = Server::start(&[]).await;
    let document: Value = server.get("/openapi.json").await.json().await.unwrap();
    let parameter = |method: &str, route: &str, name: &str| {
        let all = document["paths"][route][method]["parameters"].as_array().unwrap();
        all.iter().find(|p| p["name"] == name).unwrap()["schema"].clone()
    };
    for operation in OPERATIONS.iter().filter(|o| o.route.contains("{id}") && !o.route.contains("agents")) {
        let schema = parameter(&operation.method.to_lowercase(), operation.route, "id");
        assert_eq!(schema["format"], "uuid", "{operation:?}");
    }
    for route in ["/v1/jobs", "/v1/dead-letters", "/v1/agents", "/v1/schedules"] {
        let limit = parameter("get", route, "limit");
        assert_eq!((limit["minimum"].as_u64(), limit["maximum"].as_u64()), (Some(1), Some(1000)), "{route}");
        assert_eq!(server.get(&format!("{route}?limit=1000")).await.status(), 200, "{route}");
        assert_eq!(server.get(&format!("{route}?limit=1001")).await.status(), 400, "{route}");
    }
    assert!(parameter("get", "/v1/jobs/{id}", "wait")["pattern"].is_string());
    assert!(document["paths"]["/v1/jobs/{id}/output"]["get"]["responses"]["409"].is_object());
    let submit = &document["components"]["schemas"]["SubmitJobRequest"]["properties"];
    assert_eq!(
        (submit["max_attempts"]["minimum"].as_u64(), submit["max_attempts"]["maximum"].as_u64()),
        (Some(1), Some(100))
    );
    for (field, bound) in [
        ("tool", "pattern"),
        ("queue", "pattern"),
        ("mission", "pattern"),
        ("idempotency_key", "maxLength"),
        ("task", "maxLength"),
        ("labels", "maxProperties"),
        ("labels", "propertyNames"),
        ("timeout", "pattern"),
    ] {
        assert!(!submit[field][bound].is_null(), "{field} has no {bound}: {}", submit[field]);
    }
    // What the redrive's document allows, it takes.
    assert_eq!(server.post("/v1/dead-letters/redrive", "null").await.status(), 200);
}
