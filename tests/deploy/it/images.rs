//! Images, built as `scripts/build-images` builds them without a registry: small, without a shell, not as root, and
//! the service runs from the image's root file system alone.
//!
//! The binary is the development build's, linked statically; those of `dist` are held to their size by the script.

use crate::manifests::{read, root};
use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, http_get, require};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

fn run(program: &str, args: &[&str], envs: &[(&str, &str)]) -> String {
    let out = Command::new(program).args(args).envs(envs.iter().copied()).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Every file below a folder, with its size, by its path inside.
fn files(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.metadata().unwrap() {
                data if data.is_dir() => folders.push(entry.path()),
                data => found.push((entry.path().strip_prefix(root).unwrap().to_owned(), data.len())),
            }
        }
    }
    found.sort();
    found
}

/// Links the development build of a service anew, statically: a build of its own would take minutes. Works for a service
/// whose `main` needs its library alone.
fn linked_statically(service: &str, to: &Path) {
    let name = format!("agentforge_{}", service.replace('-', "_"));
    let deps = cargo_bin(&format!("agentforge-{service}")).with_file_name("deps");
    let is_library = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
    };
    let built = std::fs::read_dir(&deps).unwrap().flatten().map(|entry| entry.path()).filter(is_library);
    let library =
        built.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).expect("built with the service");
    let mut link = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    link.args([
        "--edition",
        "2024",
        "--crate-name",
        "service",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=symbols",
    ]);
    link.arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--extern")
        .arg(format!("{name}={}", library.display()));
    let out = link.arg("-o").arg(to).arg(root().join("services").join(service).join("src/main.rs")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test]
async fn an_image_is_its_binary_and_nothing_else_and_runs_as_nobody() {
    let (Some(()), Some(())) = (require("buildah"), require("nats-server")) else { return };
    // The exporter: the smallest of the services.
    let service = "nats-exporter";
    let binaries = tempfile::tempdir().unwrap();
    let binary = binaries.path().join("service").display().to_string();
    linked_statically(service, Path::new(&binary));
    let registry = format!("localhost/agentforge-test-{}", std::process::id());
    let store = tempfile::tempdir().unwrap();
    let storage = store.path().display().to_string();
    let conf = store.path().join("storage.conf");
    std::fs::write(
        &conf,
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{storage}/graph\"\nrunroot = \"{storage}/run\"\n"),
    )
    .unwrap();
    let conf = conf.display().to_string();
    let engine = [
        ("CONTAINERS_STORAGE_CONF", conf.as_str()),
        ("ENGINE", "buildah"),
        ("PROFILE", "dev"),
        ("BINARY", binary.as_str()),
        ("TAG", "test"),
        ("REGISTRY", registry.as_str()),
    ];
    let built = run("scripts/build-images", &[service], &engine);
    let image = format!("{registry}/{service}:test");
    assert!(built.lines().any(|line| line == image), "{built}");

    let inspected: Value =
        serde_json::from_str(&run("buildah", &["inspect", "--type", "image", &image], &engine)).unwrap();
    let config = &inspected["OCIv1"]["config"];
    assert_eq!((config["User"].as_str(), &config["Entrypoint"]), (Some("1001:1001"), &serde_json::json!(["/service"])));
    assert!(config["Env"].as_array().unwrap().contains(&"ENV=production".into()), "{config}");
    let label = |name: &str| {
        config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default().to_owned()
    };
    assert!(
        label("revision").len() >= 40
            && label("source").starts_with("https://")
            && label("title") == format!("agentforge-{service}"),
        "{config}"
    );

    let container = run("buildah", &["from", &image], &engine).trim().to_owned();
    let mounted = PathBuf::from(run("buildah", &["mount", &container], &engine).trim());
    let found = files(&mounted);
    let names: Vec<_> = found.iter().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(names, ["etc/ssl/certs/ca-certificates.crt", "service"], "no shell, no package, nothing else");
    let beside: u64 = found.iter().filter(|(path, _)| !path.ends_with("service")).map(|(_, size)| size).sum();
    assert!(beside < 1 << 20, "{beside} bytes beside the binary");

    runs_alone(&mounted).await;
    run("buildah", &["rm", &container], &engine);
    run("buildah", &["rmi", &image], &engine);
}

/// Starts the binary with the image's root as its only file system, as user 1001 without any right.
async fn runs_alone(image: &Path) {
    let nats = NatsServer::start(NatsOptions::default()).await;
    let before = files(image);
    let port = agentforge_harness::free_port().to_string();
    let root = image.display().to_string();
    let mut service = Proc::builder("/usr/sbin/chroot")
        .args(["--userspec=1001:1001", &root, "/service"])
        .env("ENV", "production")
        .env("READY_FILE", "")
        .env("METRICS_PORT", &port)
        .env("SHUTDOWN_PAUSE", "0s")
        .env("NATS_EXPORTER_TARGETS", nats.monitor_url())
        .start();
    let url = format!("http://127.0.0.1:{port}/metrics");
    eventually(WAIT, "the service of the image serves", || async {
        let (status, body) = http_get(&url, &[]).await.map_err(|e| e.to_string())?;
        let page = String::from_utf8_lossy(&body).into_owned();
        if status == 200 && page.contains("gnatsd_varz_connections") { Ok(()) } else { Err(page) }
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let uid = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().skip(1).collect::<Vec<_>>(), ["1001"; 4]);
    assert_eq!(service.sigterm(WAIT).await, 0, "{}", service.log());
    assert_eq!(files(image), before, "it wrote nothing into the image");
}

#[test]
fn the_containerfile_ends_with_an_image_from_scratch() {
    let text = read("Containerfile");
    let stages: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(
        stages,
        [
            "scratch AS frame",
            "frame AS prebuilt",
            "docker.io/library/debian:bookworm-slim AS development",
            "docker.io/library/rust:1.95-bookworm AS build",
            "frame"
        ]
    );
    assert!(text.contains("USER 1001:1001\nENTRYPOINT [\"/service\"]"));
    // A build from source and one of a prebuilt binary say the same about themselves.
    let labels = |stage: &str| text.split(stage).nth(1).unwrap().split("COPY").next().unwrap().to_owned();
    assert_eq!(labels("FROM frame AS prebuilt"), labels("# The image of a build from source.\nFROM frame"));
    let compiler = format!("rust-version = \"{}\"", "1.95");
    assert!(read("Cargo.toml").contains(&compiler), "the compiler of the image is the workspace's");
}

#[test]
fn every_service_has_its_image() {
    let script = read("scripts/build-images");
    let listed = script.split_once("ALL=(").unwrap().1.split_once(')').unwrap().0;
    let mut listed: Vec<&str> = listed.split(' ').filter(|s| !["cli", "nats-server"].contains(s)).collect();
    listed.sort_unstable();
    let mut services: Vec<String> = std::fs::read_dir(root().join("services"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    services.sort_unstable();
    assert_eq!(listed, services);
}
