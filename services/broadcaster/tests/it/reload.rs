//! endpoints.toml changes while events flow.

use crate::stage::SECRET;
use crate::{
    sink::{OK, Sink},
    stage::{SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};
use std::{os::unix::fs::symlink, path::Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_effect_without_a_restart_and_a_broken_file_keeps_the_old_one_and_says_why() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (a, b, c) = (Sink::start(|_| OK).await, Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let file = stage.endpoints(&[endpoint("a", &a.url(), ""), endpoint("b", &b.url(), "")].concat());
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_RELOAD_INTERVAL", "100ms")];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..10).await;
    eventually(SOON, "both have theirs", || async { a.delivered().len() == 10 && b.delivered().len() == 10 }).await;

    // b moves, a goes, c comes.
    stage.endpoints(&[endpoint("b", &c.url(), "format = \"raw\""), endpoint("c", &c.url(), "")].concat());
    eventually(SOON, "the change is taken up", || async {
        let names: Vec<_> =
            broadcaster.endpoints().await.iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect();
        if names == ["b", "c"] { Ok(()) } else { Err(names) }
    })
    .await;
    broadcaster.active().await;
    stage.publish(10..20).await;
    eventually(SOON, "the new place has them in both forms", || async { c.count() == 20 }).await;
    assert_eq!((a.count(), b.count()), (10, 10), "the old places get nothing more");

    for (broken, why) in [
        ("", "is empty"),
        ("[[endpoint]\n", "not TOML"),
        ("[[endpoint]]\nname = \"b\"\nurl = \"nothing\"\n", "endpoint b: url is not an http or https URL"),
    ] {
        stage.endpoints(broken);
        eventually(SOON, "it says why", || async {
            let check = broadcaster.get("/readyz").await.1["checks"]["endpoints-file"].clone();
            let is_named = check["detail"].as_str().unwrap_or_default().contains(why);
            if is_named && check["ok"] == false { Ok(()) } else { Err(check) }
        })
        .await;
    }
    assert_eq!(broadcaster.get("/readyz").await.0, 200, "it continues");
    stage.publish(20..30).await;
    eventually(SOON, "the old endpoints go on", || async { c.count() == 40 }).await;
    assert!(broadcaster.metric("broadcaster_endpoint_reloads_total{outcome=\"refused\"}").await >= 2.0);

    // What was published while an endpoint was not declared waits for it: its consumer stays.
    stage.endpoints(&endpoint("a", &a.url(), ""));
    eventually(SOON, "a is back with what it missed", || async { a.delivered().len() == 30 }).await;
}

/// Writes a mounted Secret as Kubernetes does: files are links into a directory that a link names, which is swapped.
fn mount(dir: &Path, version: &str, files: &[(&str, &str)]) {
    let versioned = dir.join(format!("..{version}"));
    std::fs::create_dir(&versioned).unwrap();
    for (name, content) in files {
        std::fs::write(versioned.join(name), content).unwrap();
        if !dir.join(name).is_symlink() {
            symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
        }
    }
    symlink(format!("..{version}"), dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_values_name_is_read_again_when_it_changes() {
    let Some(()) = require("nats-server") else { return };
    const NEXT: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let stage = Stage::new().await;
    let (old, new, fixed) = (Sink::start(|_| OK).await, Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let mounted = stage.dir.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    mount(&mounted, "1", &[("secret", &format!("{SECRET}\n")), ("url", &old.url()), ("auth", "Bearer one\n")]);
    let named = |name: &str| format!("file:{}", mounted.join(name).display());
    let more = format!(
        "secret = \"{}\"\nheaders = {{ Authorization = \"{}\", X-Env = \"env:OF_THE_TEST\" }}",
        named("secret"),
        named("auth")
    );
    let file = stage.endpoints(&endpoint("a", &named("url"), &more));
    let envs = [
        ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()),
        ("BROADCASTER_RELOAD_INTERVAL", "100ms"),
        ("OF_THE_TEST", "from the environment"),
        ("WEBHOOK_URL", &fixed.url()),
        ("WEBHOOK_SECRET", &named("secret")),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    let verify = |secret: &str, sink: &Sink, n: usize| {
        let request = sink.requests()[n].clone();
        crate::delivery::verify(secret, &request).unwrap();
        request.headers.get("authorization").cloned().unwrap_or_default()
    };
    stage.publish(0..1).await;
    eventually(SOON, "both have it", || async { (old.count(), fixed.count()) == (1, 1) }).await;
    assert_eq!(verify(SECRET, &old, 0), "Bearer one");
    assert_eq!(old.requests()[0].headers["x-env"], "from the environment");
    verify(SECRET, &fixed, 0);

    // First both secrets, in one file, then only the new one.
    for (version, secret) in [("2", format!("{NEXT}\n{SECRET}\n")), ("3", NEXT.to_owned())] {
        let applied = "broadcaster_endpoint_reloads_total{outcome=\"applied\"}";
        let before = (broadcaster.metric(applied).await, new.count());
        mount(&mounted, version, &[("secret", &secret), ("url", &new.url()), ("auth", "Bearer two")]);
        eventually(SOON, "it is taken up", || async { broadcaster.metric(applied).await > before.0 }).await;
        broadcaster.active().await;
        stage.publish(before.1 + 1..before.1 + 2).await;
        eventually(SOON, "the new place has it", || async {
            new.count() == before.1 + 1 && fixed.count() == before.1 + 2
        })
        .await;
        assert_eq!(verify(NEXT, &new, before.1), "Bearer two");
        verify(NEXT, &fixed, before.1 + 1);
        let request = new.requests()[before.1].clone();
        assert_eq!(
            crate::delivery::verify(SECRET, &request).is_ok(),
            version == "2",
            "the old secret signs while it is listed"
        );
    }
    assert_eq!(old.count(), 1);

    // A failed rotation changes nothing and is reported, without the value.
    mount(&mounted, "4", &[("secret", "hunter2"), ("url", &new.url()), ("auth", "Bearer two")]);
    eventually(SOON, "it says why", || async {
        let check = broadcaster.get("/readyz").await.1["checks"]["endpoints-file"].clone();
        let is_named = check["detail"].as_str().unwrap_or_default().contains("secret 1 is neither");
        if is_named && check["ok"] == false { Ok(()) } else { Err(check) }
    })
    .await;
    stage.publish(9..10).await;
    eventually(SOON, "it continues with the old one", || async { new.count() == 3 }).await;
    verify(NEXT, &new, 2);
    assert!(!broadcaster.get("/readyz").await.1.to_string().contains("hunter2"));
}
