//! Three NATS servers that are one cluster with JetStream, so that streams can have three replicas.
//!
//! Ports, names and stores stay the same over restarts of single servers. Depends on nothing of ours;
//! makes no stream.

use crate::{NatsOptions, NatsServer, eventually, free_port, http_get};
use std::time::Duration;

/// Three servers on a busy machine elect a leader in seconds.
const ELECTION: Duration = Duration::from_secs(60);

/// A cluster `C` of the servers `n1`, `n2` and `n3`. All end when it is dropped.
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts three servers with these options and waits until JetStream has a leader and all are current.
    ///
    /// # Panics
    /// When a server does not come up (ask [`crate::require`] first), or no leader is elected.
    pub async fn start(options: NatsOptions) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
        let mut servers = Vec::new();
        for (n, port) in (1..).zip(ports) {
            let own =
                format!("server_name: n{n}\ncluster {{ name: C, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}");
            servers.push(NatsServer::start(options.clone().extra(&own)).await);
        }
        let cluster = Self { servers };
        cluster.wait_for_leader().await;
        cluster
    }

    /// The servers, `n1` first.
    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }
    /// One of them, to stop and start it; 0 is `n1`.
    pub fn server(&mut self, index: usize) -> &mut NatsServer {
        &mut self.servers[index]
    }
    /// URLs of all servers with commas.
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// Waits until the running servers agree on the leader of JetStream, and gives its name.
    ///
    /// # Panics
    /// When they do not within 60 s.
    pub async fn wait_for_leader(&self) -> String {
        eventually(ELECTION, "the cluster has a JetStream leader", || async {
            let mut seen = Vec::new();
            for server in self.servers.iter().filter(|server| server.pid().is_some()) {
                seen.push(leader(server).await?);
            }
            seen.dedup();
            match seen.as_slice() {
                [one] if !one.is_empty() => Ok(one.clone()),
                _ => Err(format!("leaders {seen:?}")),
            }
        })
        .await
    }
}

/// Who leads JetStream, as this server says; an error until it answers and is healthy.
async fn leader(server: &NatsServer) -> Result<String, String> {
    let get = async |path: &str| {
        let url = format!("{}/{path}", server.monitor_url());
        http_get(&url, &[]).await.map_err(|e| format!("{url}: {e}"))
    };
    let (status, _) = get("healthz").await?;
    if status != 200 {
        return Err(format!("{} is not healthy: {status}", server.monitor_url()));
    }
    let (_, body) = get("jsz").await?;
    let jsz: serde_json::Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    Ok(jsz["meta_cluster"]["leader"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::jetstream::{self, stream};

    #[tokio::test]
    async fn three_replicas_survive_the_loss_of_one_server_and_its_return() {
        let Some(()) = crate::require("nats-server") else { return };
        let mut cluster = NatsCluster::start(NatsOptions::default()).await;
        let js = jetstream::new(async_nats::connect(cluster.url().split(',').collect::<Vec<_>>()).await.unwrap());
        let config = stream::Config { name: "S".into(), num_replicas: 3, ..Default::default() };
        js.create_stream(config).await.unwrap();
        js.publish("S", "one".into()).await.unwrap().await.unwrap();

        let url = cluster.servers()[0].url();
        cluster.server(0).kill9();
        cluster.wait_for_leader().await;
        eventually(Duration::from_secs(30), "two of three store a message", || async {
            js.publish("S", "two".into()).await.ok()?.await.ok()
        })
        .await;
        cluster.server(0).restart().await;
        cluster.wait_for_leader().await;
        assert_eq!(cluster.servers()[0].url(), url);
        let of_first = jetstream::new(async_nats::connect(url).await.unwrap());
        eventually(Duration::from_secs(30), "the stream has all three again", || async {
            let info = of_first.get_stream("S").await.ok()?.cached_info().cluster.clone()?;
            info.replicas.iter().all(|peer| peer.current && !peer.offline).then_some(())
        })
        .await;
    }
}
