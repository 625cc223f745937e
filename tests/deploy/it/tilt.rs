//! The Tiltfile and compose.yaml against the tree: paths, images, services and ports that they name exist.
//!
//! Tilt itself reads the Tiltfile where it is installed.

use crate::manifests::{containers, find, list, overlay, read, root, seek};
use agentforge_harness::require;
use agentforge_stack::roster;
use serde_json::Value;
use std::collections::BTreeSet;

/// Texts between single or double quotes.
fn quoted(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for quote in ['\'', '"'] {
            found.extend(line.split(quote).skip(1).step_by(2));
        }
    }
    found
}

#[test]
fn the_tiltfile_names_what_there_is() {
    let Some(()) = require("kubectl") else { return };
    let text = read("Tiltfile");
    let tops: BTreeSet<String> =
        std::fs::read_dir(root()).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let mut seen = 0;
    for place in quoted(&text).iter().flat_map(|t| t.split([' ', ';'])) {
        let top = place.split('/').next().unwrap();
        // What is made on the way is not in the tree.
        let made = ["target", "dist"].contains(&top) || place.ends_with('/') || place.contains('%');
        if tops.contains(top) && !made {
            assert!(root().join(place).exists(), "{place}");
            seen += 1;
        }
    }
    assert!(seen > 8, "the paths were not found");

    let objects = overlay("feature");
    let table = text.split_once("SERVICES = {").unwrap().1.split_once("\n}").unwrap().0;
    let mut services = BTreeSet::new();
    for line in table.lines().filter(|l| !l.trim().is_empty()) {
        let name = quoted(line)[0];
        services.insert(name.to_owned());
        assert!(root().join("services").join(name).is_dir(), "{name}");
        let deployment = find(&objects, "Deployment", name);
        let ports: Vec<u64> =
            list(&containers(deployment)[0]["ports"]).iter().map(|p| p["containerPort"].as_u64().unwrap()).collect();
        for forward in quoted(line).iter().filter_map(|t| t.split_once(':')?.1.parse::<u64>().ok()) {
            assert!(ports.contains(&forward), "{name} has no port {forward}, only {ports:?}");
        }
        let manifest = read(&format!("services/{name}/Cargo.toml"));
        for lib in ["access", "config", "egress", "jetstream", "message-id", "metrics", "proto", "runtime"] {
            let is_used = manifest.contains(&format!("agentforge-{lib}.workspace"));
            assert!(
                !is_used
                    || line.contains(&format!("libs/{lib}"))
                    || text.split("LIBS = ").nth(1).unwrap().lines().next().unwrap().contains(&format!("libs/{lib}'")),
                "{name} is not built anew when libs/{lib} changes"
            );
        }
    }
    let deployed: BTreeSet<String> = objects
        .iter()
        // The topology is the orchestrator's image.
        .filter(|o| o.kind() == "Deployment" && !["postgres", "topology"].contains(&o.name()))
        .map(|o| o.name().to_owned())
        .collect();
    assert_eq!(services, deployed);
    // Every image of ours is built by it, under the name that the manifests have.
    let registry = quoted(text.lines().find(|l| l.starts_with("REGISTRY")).unwrap())[0];
    for image in objects.iter().flat_map(crate::environments::images).filter(|i| i.starts_with(registry)) {
        let name = image[registry.len()..].split(':').next().unwrap();
        assert!(services.contains(name) || text.contains(&format!("REGISTRY + '{name}'")), "{image}");
    }
    for resource in quoted(&text).windows(1).map(|w| w[0]).filter(|t| ["nats", "postgres"].contains(t)) {
        assert!(seek(&objects, "StatefulSet", resource).or(seek(&objects, "Deployment", resource)).is_some());
    }
    for target in ["development", "prebuilt"] {
        assert!(
            text.contains(&format!("target='{target}'")) && read("Containerfile").contains(&format!(" AS {target}\n"))
        );
    }
}

#[test]
fn tilt_understands_the_tiltfile_where_it_is_installed() {
    let Ok(out) = std::process::Command::new("tilt").arg("version").output() else {
        println!("tilt is not installed: the Tiltfile is held against the tree alone");
        return;
    };
    assert!(out.status.success());
    let out =
        std::process::Command::new("tilt").args(["alpha", "tiltfile-result"]).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn compose_mounts_what_there_is_and_listens_on_loopback() {
    let compose: Value = yaml_serde::from_str(&read("compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    let names: Vec<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["alertmanager", "grafana", "nats", "postgres", "prometheus"]);
    for (name, service) in services {
        let image = service["image"].as_str().unwrap();
        assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{image}");
        for port in list(&service["ports"]) {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        // On Linux the loopback of this machine, where services listen, is reached from no other network; what shares it
        // says itself that it listens on loopback only.
        let monitors = ["prometheus", "alertmanager", "grafana"].contains(&name.as_str());
        assert_eq!(service["network_mode"] == "host", monitors, "{name}");
        let said = format!("{}{}", service["command"], service["environment"]);
        let is_local = said.contains("web.listen-address=127.0.0.1:")
            || service["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1";
        assert!(!monitors || (is_local && service.get("ports").is_none()), "{name}: {said}");
        for volume in list(&service["volumes"]) {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let is_there =
                source.strip_prefix("./").map_or(compose["volumes"].get(source).is_some(), |p| root().join(p).exists());
            assert!(is_there, "{name}: {volume}");
        }
    }
    let prometheus: Value = yaml_serde::from_str(&read("monitoring/local/prometheus.yml")).unwrap();
    let targets: Vec<&str> = list(&prometheus["scrape_configs"])
        .iter()
        .flat_map(|job| list(&job["static_configs"][0]["targets"]))
        .map(|target| target.as_str().unwrap())
        .collect();
    // Where `agentforge dev` listens without options, in one process.
    let ports = |name| roster::find(name).unwrap().ports.iter().filter(|port| port.key == "METRICS_PORT");
    let standard: Vec<String> = [roster::ORCHESTRATOR, roster::NATS_EXPORTER]
        .into_iter()
        .flat_map(ports)
        .map(|port| format!("127.0.0.1:{}", port.standard))
        .collect();
    assert_eq!(targets, standard);
}
