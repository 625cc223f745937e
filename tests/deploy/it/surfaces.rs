//! What strangers reach: the paths that the gateway's routes lead to, and what the services behind them answer when they
//! are started with the settings of the overlay.

use crate::manifests::{list, overlay, secrets};
use crate::services::environment_at;
use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, http_get, require};
use std::time::Duration;

/// A start or an answer on a busy machine.
const WAIT: Duration = Duration::from_secs(60);
/// The overlays that have a gateway in front.
const WITH_GATEWAY: [&str; 6] =
    ["feature", "azure-feature", "staging", "azure-staging", "production", "azure-production"];

#[test]
fn the_gateway_leads_to_streams_evidence_the_api_and_the_console() {
    let Some(()) = require("kubectl") else { return };
    for name in WITH_GATEWAY {
        let objects = overlay(name);
        let mut routed = Vec::new();
        for route in objects.iter().filter(|object| object.kind() == "HTTPRoute") {
            // What comes in clear is sent to the listener with TLS, and reaches no service.
            let is_led = |rule: &&serde_json::Value| rule["backendRefs"].is_array();
            for rule in route.list("/spec/rules").iter().filter(is_led) {
                let target = rule["backendRefs"][0]["name"].as_str().unwrap().to_owned();
                let rewritten = &rule["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"];
                for path in list(&rule["matches"]) {
                    let outside = path["path"]["value"].as_str().unwrap().to_owned();
                    let inside = rewritten.as_str().map_or(outside.clone(), str::to_owned);
                    routed.push((outside, target.clone(), inside));
                }
            }
        }
        routed.sort();
        let wanted = [
            ("/", "console", "/"),
            ("/tactical/events", "tactical-api", "/events"),
            ("/tactical/v1/evidence", "tactical-api", "/v1/evidence"),
            ("/v1", "orchestrator", "/v1"),
            ("/v1/evidence", "tactical-api", "/v1/evidence"),
        ];
        let routed: Vec<_> = routed.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(routed, wanted, "{name}");
    }
}

#[tokio::test]
async fn the_live_picture_of_every_overlay_asks_strangers_for_a_token() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    for name in WITH_GATEWAY {
        let objects = overlay(name);
        let dir = tempfile::tempdir().unwrap();
        let mut env = environment_at(&objects, "tactical-api", &nats, dir.path());
        assert!(!env["TACTICAL_TRUSTED_PROXIES"].is_empty() && env["TACTICAL_STREAM_MAX_PER_IP"] == "10", "{name}");
        // There is one server here.
        env.insert("TACTICAL_REPLICAS".to_owned(), "1".to_owned());
        let mut proc = Proc::builder(cargo_bin("agentforge-tactical-api")).envs(env).start();
        let base = proc.ready(WAIT).await["tactical-api"]["http"].as_str().unwrap().to_owned();
        eventually(WAIT, "it is ready", || async {
            http_get(&format!("{base}/readyz"), &[]).await.is_ok_and(|(status, _)| status == 200)
        })
        .await;
        for path in ["/events/stream", "/events/stream?snapshot=true", "/v1/rejected"] {
            let (status, _) = http_get(&format!("{base}{path}"), &[]).await.unwrap();
            assert_eq!(status, 401, "{name} {path}");
        }
        let (status, _) = http_get(&format!("{base}/v1/evidence/x.1.y"), &[]).await.unwrap();
        assert_eq!(status, 403, "{name}");
        let token = format!("Authorization: Bearer {}", secrets()["tactical-api-secret"]["TACTICAL_READ_TOKENS"]);
        let (status, _) = http_get(&format!("{base}/v1/rejected"), &[&token]).await.unwrap();
        assert_eq!(status, 200, "{name}");
    }
}
