//! A service reads all settings of its manifests: each rendered environment goes through the binary's own
//! `--check-config`, and the ports it names are those of the manifest.

use crate::manifests::{OVERLAYS, Object, containers, environment, jobs, list, overlay, workloads};
use agentforge_harness::{cargo_bin, require};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Variables that only serve to compose others.
const PARTS: [&str; 3] = ["POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD"];

/// The service that a container runs; `None` for images of somebody else, NATS and the command.
fn service(container: &Value) -> Option<&str> {
    let image = container["image"].as_str()?;
    let name = image.split("agentforge/").last()?.split([':', '@']).next()?;
    (image.contains("agentforge/") && !["nats-server", "cli"].contains(&name)).then_some(name)
}

/// Exit code, stdout and stderr of `--check-config` with exactly this environment.
fn check(service: &str, container: &Value, env: &BTreeMap<String, String>) -> (Option<i32>, String, String) {
    let mut command = Command::new(cargo_bin(&format!("agentforge-{service}")));
    let args = list(&container["args"]).iter().map(|arg| arg.as_str().unwrap());
    let out = command.args(args).arg("--check-config").env_clear().envs(env).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

fn services() -> Vec<(String, String, BTreeMap<String, String>, Value)> {
    let mut found = Vec::new();
    for name in OVERLAYS {
        let objects: Vec<Object> = overlay(name);
        for workload in workloads(&objects) {
            for container in containers(workload) {
                if let Some(service) = service(container) {
                    let env = environment(&objects, workload, container);
                    found.push((name.to_owned(), service.to_owned(), env, container.clone()));
                }
            }
        }
    }
    assert!(found.len() >= 6 * 4, "the services were not found");
    found
}

#[test]
fn every_rendered_environment_is_read_by_its_service() {
    let Some(()) = require("kubectl") else { return };
    for (overlay, service, env, container) in services() {
        let (code, told, fault) = check(&service, &container, &env);
        assert_eq!(code, Some(0), "{overlay} {service}: {fault}");
        let read: BTreeMap<&str, &str> =
            told.lines().filter_map(|line| line.split("  # ").next()?.split_once('=')).collect();
        // A secret's value, or the file that holds it.
        let is_read = |key: &str| {
            let of_file = key.strip_suffix("_FILE").and_then(|plain| read.get(plain));
            read.contains_key(key) || of_file == Some(&"[hidden]")
        };
        let unread: BTreeSet<_> =
            env.keys().filter(|key| !PARTS.contains(&key.as_str()) && !is_read(key.as_str())).collect();
        assert!(unread.is_empty(), "{overlay} {service} does not read {unread:?}");
        for secret in ["API_TOKENS", "DATABASE_URL", "EVIDENCE_SIGNING_SECRET"] {
            let value = env.get(secret).filter(|value| !value.starts_with("sqlite"));
            assert!(value.is_none_or(|value| !told.contains(value.as_str())), "{overlay} {service} shows {secret}");
        }
        for path in env.values().filter(|value| value.starts_with(std::env::temp_dir().to_str().unwrap())) {
            let held = std::fs::read_to_string(path).unwrap();
            assert!(!told.contains(held.as_str()), "{overlay} {service} shows what is in {path}");
        }
        for (port, key) in [("http", "HTTP_PORT"), ("grpc", "GRPC_PORT"), ("metrics", "METRICS_PORT")] {
            let given =
                list(&container["ports"]).iter().find(|p| p["name"] == port).map(|p| p["containerPort"].to_string());
            assert_eq!(given.as_deref(), read.get(key).copied(), "{overlay} {service} {port}");
        }
    }
}

#[test]
fn a_misspelt_variable_is_refused() {
    let Some(()) = require("kubectl") else { return };
    for (overlay, service, env, container) in
        services().into_iter().filter(|(overlay, ..)| ["staging", "edge"].contains(&overlay.as_str()))
    {
        let shared = ["ENV", "SITE"];
        for key in env.keys().filter(|key| !PARTS.contains(&key.as_str()) && !shared.contains(&key.as_str())) {
            let mut wrong = env.clone();
            let value = wrong.remove(key).unwrap();
            let misspelt = format!("{}X{}", &key[..key.len() - 1], &key[key.len() - 1..]);
            wrong.insert(misspelt.clone(), value);
            let (code, _, fault) = check(&service, &container, &wrong);
            assert_eq!(code, Some(64), "{overlay} {service}: {misspelt}");
            assert!(fault.contains(&misspelt), "{overlay} {service}: {fault}");
        }
    }
}

#[test]
fn the_checks_are_commands_that_there_are() {
    let Some(()) = require("kubectl") else { return };
    for job in jobs() {
        let container = &containers(&job)[0];
        let args: Vec<&str> = list(&container["args"]).iter().map(|a| a.as_str().unwrap()).collect();
        // No server is at this port: parsed, tried, failed; a wrong option would end with 2 and its usage.
        let mut command = Command::new(cargo_bin("agentforge"));
        command
            .args(&args)
            .env_clear()
            .env("AGENTFORGE_SERVER", "http://127.0.0.1:9")
            .env("AGENTFORGE_REQUEST_TIMEOUT", "1s");
        let out = command.output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && !told.contains("Usage:"), "{}: {told}", job.name());
        // Names without a value here are read by the command, according to its help.
        let words = args.iter().take_while(|arg| !arg.starts_with('-'));
        let help = Command::new(cargo_bin("agentforge")).args(words).arg("--help").output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for name in list(&container["env"]).iter().map(|e| e["name"].as_str().unwrap()) {
            assert!(help.contains(name), "{}: {name} is not read", job.name());
        }
    }
}
