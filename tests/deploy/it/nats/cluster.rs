//! Three servers that are one, as production runs them.

use super::{Server, WAIT, login, monitored};
use crate::manifests::{containers, find, list, overlay};
use agentforge_harness::{eventually, free_port, require};
use async_nats::jetstream::{self, stream};
use std::time::Duration;

/// Production's three servers with routes between them.
pub(super) async fn production() -> Vec<Server> {
    let objects = overlay("production");
    let ports = [free_port(), free_port(), free_port()];
    let mut servers = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        let mut server =
            Server::new(&objects, &format!("nats-{n}"), &[("port: 6222", format!("listen: \"127.0.0.1:{port}\""))]);
        for (m, port) in ports.iter().enumerate() {
            let route = server.env.get_mut(&format!("NATS_ROUTE_{m}")).unwrap();
            let here = route.replace(&format!("nats-{m}.nats-headless:6222"), &format!("localhost:{port}"));
            assert_ne!(*route, here);
            *route = here;
        }
        server.env.insert("HUB_GATE_LISTEN".into(), format!("127.0.0.1:{}", free_port()));
        servers.push(server);
    }
    for server in &mut servers {
        server.start().await;
    }
    servers
}

#[tokio::test]
async fn production_loses_nothing_when_a_server_is_killed_under_load() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let mut servers = production().await;
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    let client = login("orchestrator").connect(&urls[..]).await.unwrap();
    let js = jetstream::new(client);
    let config = || stream::Config {
        name: "swarm_dlq".into(),
        subjects: vec!["swarm.dlq.>".into()],
        num_replicas: 3,
        max_bytes: 64 << 20,
        duplicate_window: Duration::from_secs(120),
        ..Default::default()
    };
    let topology = jetstream::new(login("topology").connect(&urls[..]).await.unwrap());
    eventually(WAIT, "a stream of three copies is made", || async {
        topology.create_stream(config()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let total = if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 20_000_u64 } else { 2_000 };
    let publisher = {
        let js = js.clone();
        tokio::spawn(async move {
            for n in 0..total {
                // The same id again until it is acknowledged: stored once.
                let end = tokio::time::Instant::now() + WAIT;
                loop {
                    let message = async_nats::HeaderMap::from_iter([(
                        "Nats-Msg-Id".parse().unwrap(),
                        n.to_string().parse().unwrap(),
                    )]);
                    let sent =
                        js.publish_with_headers("swarm.dlq.production.default", message, n.to_string().into()).await;
                    let ack = async { sent.ok()?.await.ok() };
                    if tokio::time::timeout(Duration::from_secs(5), ack).await.ok().flatten().is_some() {
                        break;
                    }
                    assert!(tokio::time::Instant::now() < end, "message {n} was never acknowledged");
                }
            }
        })
    };
    let messages = async || {
        js.get_stream("swarm_dlq").await.ok().map(|s| (s.cached_info().state.messages, s.cached_info().cluster.clone()))
    };
    let leader = eventually(WAIT, "the load runs", || async {
        let (count, cluster) = messages().await?;
        (count > total / 10).then(|| cluster?.leader).flatten()
    })
    .await;
    let index: usize = leader.rsplit('-').next().unwrap().parse().unwrap();
    servers[index].proc.as_mut().unwrap().kill9();
    publisher.await.unwrap();
    servers[index].start().await;
    eventually(WAIT, "all are stored once and the killed server has them, too", || async {
        let (count, cluster) = messages().await.ok_or("no answer")?;
        let replicas = cluster.map(|c| c.replicas).unwrap_or_default();
        let whole = replicas.len() == 2 && replicas.iter().all(|peer| peer.current && !peer.offline);
        if count == total && whole { Ok(()) } else { Err(format!("{count} of {total}, {replicas:?}")) }
    })
    .await;
    let objects = overlay("production");
    let container = &containers(find(&objects, "StatefulSet", "nats"))[0];
    for server in &servers {
        let varz = server.get("/varz").await;
        assert_eq!(varz["cluster"]["name"], "agentforge");
        // By these KEDA's scaler goes from one server to the one that leads the consumer.
        assert_eq!(list(&varz["connect_urls"]).len(), 3, "{varz}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let url = server.monitor_url(container[probe]["httpGet"]["path"].as_str().unwrap());
            eventually(WAIT, &format!("{probe} {url}"), || async {
                match monitored(&url).await {
                    Ok((200, _)) => Ok(()),
                    Ok((_, body)) => Err(String::from_utf8_lossy(&body).into_owned()),
                    Err(e) => Err(e.to_string()),
                }
            })
            .await;
        }
    }
}
