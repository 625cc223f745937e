//! The page of the first hour, followed: its commands in their order, as far as they need no cluster. What they apply is
//! rendered here, and applied to a real Kubernetes API in `cluster`.

use crate::manifests::{Object, find, list, read, render, root, script, secrets, seek, workloads};
use agentforge_harness::{cargo_bin, require};
use std::collections::BTreeSet;
use std::process::Command;

const PAGE: &str = "docs/deploy/first-hour.md";
/// Programs that the page says are needed.
const PROGRAMS: [&str; 8] = ["kubectl", "helm", "git", "psql", "curl", "rm", "export", "agentforge"];

/// Lines of its shell blocks.
fn commands() -> Vec<String> {
    let page = read(PAGE);
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The words after the last `KEY=value` in front of a command.
fn words(command: &str) -> Vec<&str> {
    let is_setting =
        |word: &&str| word.split_once('=').is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_uppercase()));
    command.split(' ').skip_while(is_setting).collect()
}

#[test]
fn every_command_is_one_that_is_there() {
    let all = commands();
    assert!(all.len() > 20, "the commands were not found");
    for command in &all {
        let words = words(command);
        let program = words[0];
        if program.starts_with("scripts/") {
            let mut asked = Command::new(root().join(program));
            let out = asked.arg("--help").current_dir(root()).output().unwrap_or_else(|e| panic!("{command}: {e}"));
            assert!(out.status.success(), "{command}: {out:?}");
        } else {
            assert!(PROGRAMS.contains(&program), "{command}: what is {program}?");
        }
        if program == "agentforge" {
            let own: Vec<&str> = words[1..].iter().take_while(|word| !word.starts_with('\'')).copied().collect();
            let out = Command::new(cargo_bin("agentforge")).args(own).arg("--help").output().unwrap();
            assert!(out.status.success(), "{command}");
        }
        let shell = Command::new("bash").args(["-n", "-c", command]).status().unwrap();
        assert!(shell.success(), "{command}");
    }
}

#[test]
fn steps_come_in_the_order_that_they_need() {
    let all = commands();
    let place =
        |part: &str| all.iter().position(|c| c.contains(part)).unwrap_or_else(|| panic!("no command has {part}"));
    for order in [
        &["gateway-api/releases", "apply --server-side -k k8s/cluster"][..],
        &["create namespace monitoring", "create secret generic agentforge-receivers", "scripts/install_monitoring.sh"],
        &["scripts/build-images --push", "scripts/promote staging", "git push", "-k overlays/staging"],
        &[
            "create namespace agentforge-staging",
            "scripts/make-secrets",
            "apply -f secrets.yaml",
            "psql",
            "-k overlays/staging",
        ],
        &["-k overlays/staging", "verify_staging.sh", "job submit", "api/v2/alerts"],
    ] {
        let places: Vec<usize> = order.iter().map(|part| place(part)).collect();
        assert!(places.is_sorted(), "{order:?}: {places:?}");
    }
}

#[test]
fn what_the_steps_apply_is_whole() {
    let Some(()) = require("kubectl") else { return };
    let folders = commands().into_iter().filter_map(|c| Some(c.split_once(" -k ")?.1.split(' ').next()?.to_owned()));
    let objects: Vec<Object> = folders.flat_map(|folder| render(&folder)).collect();
    let made: BTreeSet<&str> = secrets().keys().map(String::as_str).collect();
    let text = objects.iter().map(|o| o.0.to_string()).collect::<String>();
    // Every Secret that a pod needs is one that `make-secrets` makes.
    for workload in workloads(&objects) {
        for volume in workload.list("/spec/template/spec/volumes") {
            let secret = &volume["secret"];
            let is_needed = secret["optional"] != true;
            if let (Some(name), true) = (secret["secretName"].as_str(), is_needed) {
                assert!(made.contains(name), "{}: nothing makes the Secret {name}", workload.name());
            }
        }
    }
    // From the first request to the answer: the route's Service, its selector, the port of the pod.
    for route in objects.iter().filter(|o| o.kind() == "HTTPRoute") {
        for backend in route.list("/spec/rules").iter().flat_map(|rule| list(&rule["backendRefs"])) {
            let service = find(&objects, "Service", backend["name"].as_str().unwrap());
            let port = service.list("/spec/ports").iter().find(|p| p["port"] == backend["port"]).expect("the port");
            let deployment = find(&objects, "Deployment", service.name());
            let ports = deployment.list("/spec/template/spec/containers").iter().flat_map(|c| list(&c["ports"]));
            let target = &port["targetPort"];
            assert!(
                ports.into_iter().any(|p| p["name"] == *target || p["containerPort"] == *target),
                "{}",
                route.name()
            );
        }
    }
    // From a metric to the alert: the monitor selects each Service with a page, under a name that rules know.
    let monitor = find(&objects, "ServiceMonitor", "agentforge");
    assert_eq!(monitor.list("/spec/endpoints")[0]["honorLabels"], true, "our own `service` and `endpoint`");
    assert_eq!(monitor.text("/spec/jobLabel"), "app.kubernetes.io/name");
    let rules = read("monitoring/alerts/availability.rules.yml") + &read("monitoring/alerts/jetstream.rules.yml");
    for service in objects.iter().filter(|o| o.kind() == "Service") {
        let has_page = service.list("/spec/ports").iter().any(|port| port["name"] == "metrics");
        let labels = service.labels();
        if has_page {
            assert_eq!(labels["app.kubernetes.io/part-of"], "agentforge", "{}", service.name());
            let job = &labels["app.kubernetes.io/name"];
            assert!(rules.contains(job.as_str()), "no alert tells that {job} is down");
        }
    }
    assert!(
        text.contains("todos.events,agentforge.events.job.>,agentforge.events.alert.>"),
        "alerts reach the webhook"
    );
}

/// From the alert to the receiver: the values of the chart have our routes, with files that the Secret of the page has.
#[test]
fn alertmanagers_values_have_our_routes_and_the_keys_of_its_secret() {
    let values: serde_json::Value =
        yaml_serde::from_str(&read("monitoring/kube-prometheus-stack/alertmanager.yaml")).unwrap();
    let config = &values["alertmanager"]["config"];
    assert_ne!(config["route"]["receiver"], "null");
    let page = commands().into_iter().find(|c| c.contains("create secret generic agentforge-receivers")).unwrap();
    let text = config.to_string();
    let files = text.split("/etc/alertmanager/secrets/").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut found = 0;
    for file in files {
        let key = file.strip_prefix("agentforge-receivers/").unwrap_or_else(|| panic!("{file}"));
        assert!(page.contains(key), "the page makes no {key}");
        found += 1;
    }
    assert_eq!(found, 3);
    // A name that holds in another namespace, and its environment's Service with that port.
    let url = config["receivers"].as_array().unwrap().iter().find(|r| r["name"] == "broadcaster").unwrap();
    let url = url["webhook_configs"][0]["url"].as_str().unwrap();
    assert_eq!(url, "http://broadcaster.agentforge.svc.cluster.local:8002/v1/alerts");
    let Some(()) = require("kubectl") else { return };
    let objects = render("overlays/production");
    let service = seek(&objects, "Service", "broadcaster").unwrap();
    assert!(
        service.list("/spec/ports").iter().any(|port| port["port"] == 8002)
            && service.namespace() == Some("agentforge")
    );
    let operator: serde_json::Value =
        yaml_serde::from_str(&read("monitoring/kube-prometheus-stack/values.yaml")).unwrap();
    assert_eq!(operator["alertmanager"]["alertmanagerSpec"]["secrets"][0], "agentforge-receivers");
    let spec = &operator["prometheus"]["prometheusSpec"];
    assert!(spec["externalLabels"]["repository"].as_str().unwrap().starts_with("https://"), "runbooks have addresses");
    assert!(spec["storageSpec"].is_object(), "windows of days outlive the pod");
}

/// The component of External Secrets has each Secret that `make-secrets` makes, below the environment's own path.
#[test]
fn the_platforms_store_has_a_place_for_every_secret() {
    let Some(()) = require("kubectl") else { return };
    std::fs::create_dir_all(root().join("target")).unwrap();
    let dir = tempfile::tempdir_in(root().join("target")).unwrap();
    // As the page has it for an overlay.
    let page = read("docs/howto/external-secrets.md");
    let snippet = page.split("   ```yaml\n").nth(1).unwrap().split("   ```").next().unwrap();
    let snippet: String = snippet.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap())).collect();
    let head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../k8s/base]\n";
    std::fs::write(dir.path().join("kustomization.yaml"), format!("{head}{snippet}")).unwrap();
    let objects = crate::manifests::build(dir.path()).unwrap();
    for name in secrets().keys() {
        let secret = find(&objects, "ExternalSecret", name);
        assert_eq!(secret.text("/spec/target/name"), name);
        let key = secret.list("/spec/dataFrom")[0]["extract"]["key"].as_str().unwrap().to_owned();
        assert_eq!(key, format!("agentforge/production/{name}"));
    }
}

/// What others make has one version on the page, in the scripts and in the tests; no command of the page takes any.
#[test]
fn versions_of_others_come_from_one_file() {
    script("scripts/versions", &["--check"]);
    let versions: serde_json::Value = serde_json::from_str(&read("deploy/versions.json")).unwrap();
    let numbers: Vec<&str> = versions.as_object().unwrap().values().map(|of| of.as_str().unwrap()).collect();
    let mut found = 0;
    for command in commands() {
        let words = words(&command);
        let given = words.windows(2).find(|pair| pair[0] == "--version").map(|pair| pair[1].trim_start_matches('v'));
        let from_a_repository = words.contains(&"--repo");
        assert!(!from_a_repository || given.is_some_and(|version| numbers.contains(&version)), "{command}");
        found += usize::from(from_a_repository);
    }
    assert!(found > 3, "the commands were not found");
    // Another number in the file is found, and is written everywhere.
    let dir = tempfile::tempdir().unwrap();
    for file in [
        "deploy/versions.json",
        "docs/deploy/first-hour.md",
        "scripts/control-plane",
        "scripts/install_monitoring.sh",
        "scripts/versions",
    ] {
        std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        std::fs::copy(root().join(file), dir.path().join(file)).unwrap();
    }
    let keda = versions["keda"].as_str().unwrap();
    std::fs::write(dir.path().join("deploy/versions.json"), read("deploy/versions.json").replace(keda, "9.8.7"))
        .unwrap();
    let run = |args: &[&str]| Command::new(dir.path().join("scripts/versions")).args(args).output().unwrap();
    assert_eq!(run(&["--check"]).status.code(), Some(1));
    assert!(run(&[]).status.success() && run(&["--check"]).status.success());
    let page = std::fs::read_to_string(dir.path().join("docs/deploy/first-hour.md")).unwrap();
    assert!(page.matches("9.8.7").count() == 2 && !page.contains(keda), "{page}");
}
