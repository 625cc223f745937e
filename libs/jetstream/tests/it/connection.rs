//! Connecting, losing the connection, and closing it.

use super::{SOON, Setup, connect};
use agentforge_config::{Reader, Secret};
use agentforge_harness::{NatsOptions, NatsServer, TcpProxy, eventually, require};
use agentforge_jetstream::{Auth, Error, Nats, NatsConfig};
use futures_util::StreamExt;
use std::{collections::BTreeMap, time::Duration};

#[tokio::test]
async fn a_client_that_starts_before_its_server_connects_when_it_comes() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let proxy = TcpProxy::start(server.address()).await;
    proxy.cut();
    let nats = Nats::connect(&NatsConfig::for_url(&proxy.nats_url()).unwrap(), "early").await.unwrap();
    assert!(!nats.wait_connected(Duration::from_millis(500)).await);
    let mut connected = nats.connected();
    assert!(!*connected.borrow_and_update());
    proxy.restore();
    assert!(tokio::time::timeout(SOON, connected.wait_for(|up| *up)).await.is_ok(), "never connected");

    for _ in 0..3 {
        proxy.cut();
        eventually(SOON, "a cut is noticed", || async { !nats.is_connected() }).await;
        proxy.restore();
        assert!(nats.wait_connected(SOON).await);
        assert!(nats.barrier(SOON).await, "connected and not usable");
    }
}

#[tokio::test]
async fn draining_loses_nothing_that_was_sent_before() {
    let Some(Setup { server, nats }) = Setup::new().await else { return };
    let other = connect(&server.url()).await;
    let mut heard = other.client().subscribe("told").await.unwrap();
    assert!(other.barrier(SOON).await);
    for n in 0..5000 {
        nats.client().publish("told", n.to_string().into()).await.unwrap();
    }
    nats.drain().await.unwrap();
    assert!(!nats.is_connected());
    for n in 0..5000 {
        let message = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, n.to_string());
    }
}

#[tokio::test]
async fn logins_are_taken_from_the_settings_and_a_wrong_one_keeps_trying() {
    let Some(()) = require("nats-server") else { return };
    let options = NatsOptions::default().extra(r#"authorization { user: "worker", password: "right" }"#);
    let mut server = NatsServer::start(options).await;
    let read = |password: &str| {
        let source: BTreeMap<String, String> = [
            ("NATS_URL", server.url().as_str()),
            ("NATS_USER", "worker"),
            ("NATS_PASSWORD", password),
            ("NATS_MAX_RECONNECT_WAIT", "100ms"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let mut reader = Reader::new(&source);
        let config = NatsConfig::read(&mut reader);
        reader.finish().unwrap();
        config
    };
    let right = Nats::connect(&read("right"), "test").await.unwrap();
    assert!(right.wait_connected(SOON).await);
    let wrong = Nats::connect(&read("wrong"), "test").await.unwrap();
    assert!(!wrong.wait_connected(Duration::from_millis(700)).await);
    server.restart_with(NatsOptions::default().extra(r#"authorization { user: "worker", password: "wrong" }"#)).await;
    assert!(wrong.wait_connected(SOON).await, "gave up after refused logins");
}

#[tokio::test]
async fn files_that_are_not_there_are_named_and_secrets_are_not() {
    let config = NatsConfig::for_url("nats://localhost:4222").unwrap();
    let creds = NatsConfig { auth: Auth::Creds("/no/such.creds".into()), ..config.clone() };
    let error = Nats::connect(&creds, "test").await.unwrap_err();
    assert!(
        matches!(error, Error::File { key: "NATS_CREDS", .. }) && error.to_string().contains("/no/such.creds"),
        "{error}"
    );
    let nkey = NatsConfig { auth: Auth::NKey(Secret::from("SUmistyped")), ..config };
    let error = Nats::connect(&nkey, "test").await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("SUmistyped"), "{error:?}");
}

#[tokio::test]
async fn user_and_password_of_an_address_are_used() {
    let Some(()) = require("nats-server") else { return };
    let users = "authorization { users: [ { user: dev, password: \"SUword\" } ] }";
    let server = NatsServer::start(NatsOptions::default().extra(users)).await;
    let url = |login: &str| format!("nats://{login}{}", server.address());
    for (login, is_in) in [("dev:SUword@", true), ("dev:other@", false), ("", false)] {
        let nats = Nats::connect(&NatsConfig::for_url(&url(login)).unwrap(), "address").await.unwrap();
        let limit = if is_in { SOON } else { Duration::from_secs(1) };
        assert_eq!(nats.wait_connected(limit).await, is_in, "{login}");
    }
}
