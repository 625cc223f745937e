//! Three NATS servers that are one cluster with JetStream, so that streams can have three replicas.
//!
//! Ports, names and stores stay the same over restarts of single servers. Depends on nothing of ours;
//! leaves no stream.

use crate::{NatsOptions, NatsServer, eventually, free_port, http_get};
use async_nats::jetstream::{self, stream};
use serde_json::Value;
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
        cluster.wait_for_places().await;
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

    /// A server counts as offline for placement until its first statistics have arrived, which is not reported: so a
    /// stream of three replicas is created in memory, and deleted.
    async fn wait_for_places(&self) {
        const PROBE: &str = "harness-probe";
        let client = async_nats::connect(self.servers[0].url()).await.expect("the first server serves");
        let js = jetstream::new(client);
        let config = || stream::Config {
            name: PROBE.into(),
            num_replicas: 3,
            storage: stream::StorageType::Memory,
            ..Default::default()
        };
        eventually(ELECTION, "a stream has places for three replicas", || js.create_stream(config())).await;
        eventually(ELECTION, "the probe is deleted", || js.delete_stream(PROBE)).await;
    }

    /// Waits until the running servers agree on the leader of JetStream and it sees them all, and gives its
    /// name.
    ///
    /// # Panics
    /// When they do not within 60 s.
    pub async fn wait_for_leader(&self) -> String {
        eventually(ELECTION, "the cluster has a JetStream leader", || async {
            let mut metas = Vec::new();
            for (n, server) in (1..).zip(&self.servers).filter(|(_, server)| server.pid().is_some()) {
                metas.push((format!("n{n}"), meta(server).await?));
            }
            agreed(&metas).ok_or_else(|| metas.into_iter().map(|(_, meta)| meta).collect::<Vec<_>>())
        })
        .await
    }
}

/// What a healthy server says about JetStream's leader and its followers.
async fn meta(server: &NatsServer) -> Result<Value, Vec<Value>> {
    let get = async |path: &str| {
        let url = format!("{}/{path}", server.monitor_url());
        http_get(&url, &[]).await.map_err(|e| vec![Value::from(format!("{url}: {e}"))])
    };
    let (status, body) = get("healthz").await?;
    if status != 200 {
        return Err(vec![Value::from(String::from_utf8_lossy(&body).into_owned())]);
    }
    let (_, body) = get("jsz").await?;
    let jsz: Value = serde_json::from_slice(&body).map_err(|e| vec![Value::from(e.to_string())])?;
    Ok(jsz["meta_cluster"].clone())
}

/// The leader's name, once all name the same one and it sees all the others: before, a stream finds no place. From 2.15
/// on followers report the others too, as each sees them; so only the leader's report counts.
fn agreed(metas: &[(String, Value)]) -> Option<String> {
    let leader = metas.first()?.1["leader"].as_str().filter(|name| !name.is_empty())?;
    let (_, of_leader) = metas.iter().find(|(name, _)| name == leader)?;
    let followers = of_leader["replicas"].as_array()?;
    let ready = followers.iter().filter(|peer| peer["current"] == true && peer["offline"] != true).count();
    let is_agreed = metas.iter().all(|(_, meta)| meta["leader"] == leader) && ready + 1 >= metas.len();
    is_agreed.then(|| leader.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
