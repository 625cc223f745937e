//! The image of every service, built as `scripts/build-images` builds it without a registry: one binary, the authorities and
//! what it is made of, no shell, not as root, and the service runs only from the image's root file system.
//!
//! The binaries are the development build's, linked statically. With `AGENTFORGE_SOAK=1` they are those of `dist`, as
//! they are shipped, and held to their size.

use crate::manifests::{Object, containers, find, list, overlay, read, root, seek};
use crate::services::{environment_at, probes_answer};
use agentforge_harness::{
    NatsOptions, NatsServer, Proc, Right, cargo_bin, eventually, nats_versions, require, require_right,
};
use agentforge_stack::roster::SERVICES;
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);
/// Where the service reports its ports to the test. A pod has no such folder.
const READY_DIR: &str = "ready";
/// Every engine gives its containers one; a static libc finds its random bytes there.
const DEV_DIR: &str = "dev";
/// What a program is made of, and the licences.
const DOCUMENTS: &str = "usr/share/doc/agentforge";
/// Far more than the seeds of a start.
const RANDOM_BYTES: u64 = 4 << 20;

fn is_soak() -> bool {
    std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1")
}

fn run(program: &str, args: &[&str], envs: &[(&str, &str)]) -> String {
    let out = Command::new(program).args(args).envs(envs.iter().copied()).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Every file below a folder with its size, by its path inside. Everything on the way belongs to root, and no other
/// user may write to it.
fn files(root: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, data) = (entry.path(), entry.metadata().unwrap());
            assert!(data.uid() == 0 && data.mode() & 0o022 == 0, "{}: {:o}", path.display(), data.mode());
            if data.is_dir() {
                folders.push(path)
            } else {
                found.push((path.strip_prefix(root).unwrap().display().to_string(), data.len()))
            }
        }
    }
    found.sort();
    found
}

/// Libraries of a crate among the development build's, the newest first.
fn libraries(deps: &Path, crate_name: &str) -> Vec<PathBuf> {
    let is_library = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.starts_with(&format!("lib{crate_name}-")) && file.ends_with(".rlib")
    };
    let mut found: Vec<_> =
        std::fs::read_dir(deps).unwrap().flatten().map(|entry| entry.path()).filter(is_library).collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
    found
}

/// Links the development build of a service again, statically: a build of its own would take minutes. Works for a
/// service whose `main` needs only its library, the runtime and the settings.
fn linked_statically(service: &str, to: &Path) {
    let name = format!("agentforge_{}", service.replace('-', "_"));
    let deps = cargo_bin(&format!("agentforge-{service}")).with_file_name("deps");
    let built = libraries(&deps, &name);
    let library = built.first().expect("built with the service");
    let mut told = String::new();
    // A used folder has libraries of earlier builds, too; only one of each is the one that the service knows.
    let runtimes = libraries(&deps, "agentforge_runtime").into_iter();
    let configs = libraries(&deps, "agentforge_config");
    for (runtime, config) in runtimes.flat_map(|runtime| configs.iter().map(move |config| (runtime.clone(), config))) {
        let mut link = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        link.args(["--edition=2024", "--crate-name=service", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
        link.arg("-L").arg(format!("dependency={}", deps.display()));
        link.arg("--extern").arg(format!("{name}={}", library.display()));
        link.arg("--extern").arg(format!("agentforge_runtime={}", runtime.display()));
        link.arg("--extern").arg(format!("agentforge_config={}", config.display()));
        link.arg("-o").arg(to).arg(root().join("services").join(service).join("src/main.rs"));
        let out = link.output().unwrap();
        if out.status.success() {
            return;
        }
        told = String::from_utf8_lossy(&out.stderr).into_owned();
    }
    panic!("{service} cannot be linked: {told}");
}

/// An overlay, and the server that its services meet on.
struct Place {
    objects: Vec<Object>,
    nats: NatsServer,
}

impl Place {
    async fn new(name: &str) -> Self {
        let nats = NatsServer::start(NatsOptions::default().jetstream("domain: hub")).await;
        Self { objects: overlay(name), nats }
    }
}

/// The services that there are.
fn services() -> Vec<String> {
    let folders = std::fs::read_dir(root().join("services")).unwrap().flatten();
    let mut services: Vec<String> = folders.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    services.sort_unstable();
    services
}

#[tokio::test]
async fn an_image_is_its_binary_and_nothing_else_and_runs_as_nobody() {
    let (Some(()), Some(()), Some(())) = (require("buildah"), require("nats-server"), require("kubectl")) else {
        return;
    };
    // Only root mounts the root file system of an image.
    let Some(()) = require_right(Right::Root) else { return };
    let site = Place::new("edge").await;
    let branch = Place::new("feature").await;
    for service in services() {
        let place = if seek(&site.objects, "Deployment", &service).is_some() { &site } else { &branch };
        // Each has its own store, which goes before the next one is built.
        let store = tempfile::tempdir().unwrap();
        is_small_and_runs_alone(&service, store.path(), place).await;
    }
}

async fn is_small_and_runs_alone(service: &str, store: &Path, place: &Place) {
    let binary = store.join("service").display().to_string();
    let registry = format!("localhost/agentforge-test-{}", std::process::id());
    let conf = store.join("storage.conf").display().to_string();
    let storage = store.display();
    let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{storage}/graph\"\nrunroot = \"{storage}/run\"\n");
    std::fs::write(&conf, text).unwrap();
    let mut engine = vec![
        ("CONTAINERS_STORAGE_CONF", conf.as_str()),
        ("ENGINE", "buildah"),
        ("TAG", "test"),
        ("REGISTRY", registry.as_str()),
    ];
    if !is_soak() {
        linked_statically(service, Path::new(&binary));
        engine.extend([("PROFILE", "dev"), ("BINARY", binary.as_str())]);
    }
    let built = run("scripts/build-images", &[service], &engine);
    let image = format!("{registry}/{service}:test");
    assert!(built.lines().any(|line| line == image), "{built}");
    says_what_it_is(service, &run("buildah", &["inspect", "--type", "image", &image], &engine));

    let container = run("buildah", &["from", &image], &engine).trim().to_owned();
    let mounted = PathBuf::from(run("buildah", &["mount", &container], &engine).trim());
    let found = files(&mounted);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    let documents = ["LICENSE", "THIRD-PARTY-LICENSES.txt", "sbom.cdx.json"].map(|name| format!("{DOCUMENTS}/{name}"));
    let mut wanted = vec!["etc/ssl/certs/ca-certificates.crt", "service"];
    wanted.extend(documents.iter().map(String::as_str));
    assert_eq!(names, wanted, "{service}: no shell, no package, nothing else");
    let beside: u64 = found.iter().filter(|(name, _)| name != "service").map(|(_, size)| size).sum();
    assert!(beside < 2 << 20, "{service}: {beside} bytes beside the binary");
    says_what_it_is_made_of(service, &mounted.join(DOCUMENTS));
    if is_soak() {
        let size: u64 = found.iter().map(|(_, size)| size).sum();
        println!("{service}: {:.1} MiB", size as f64 / f64::from(1 << 20));
        assert!(size <= 25 << 20, "{service}: {size} bytes");
    }
    runs_alone(service, &mounted, place).await;
    run("buildah", &["rm", &container], &engine);
    run("buildah", &["rmi", &image], &engine);
}

/// User, entry point and labels, as the engine reports them.
fn says_what_it_is(service: &str, inspected: &str) {
    let inspected: Value = serde_json::from_str(inspected).unwrap();
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
}

/// The list names the crates that are linked into the service and no others, each with its licence and, if it is of a
/// registry, the checksum in Cargo.lock; and every such crate is named next to its licence's text.
fn says_what_it_is_made_of(service: &str, documents: &Path) {
    let text = |name: &str| std::fs::read_to_string(documents.join(name)).unwrap();
    let bill: Value = serde_json::from_str(&text("sbom.cdx.json")).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    assert_eq!(bill["metadata"]["component"]["name"], format!("agentforge-{service}"));
    let (lock, terms) = (read("Cargo.lock"), text("THIRD-PARTY-LICENSES.txt"));
    let mut names = Vec::new();
    for part in list(&bill["components"]) {
        let (name, version) = (part["name"].as_str().unwrap(), part["version"].as_str().unwrap());
        assert!(part["licenses"][0]["expression"].is_string(), "{service}: {name} has no licence");
        if let Some(sum) = part["hashes"][0]["content"].as_str() {
            let entry = lock.split("[[package]]").find(|e| {
                e.contains(&format!("\nname = \"{name}\"\n")) && e.contains(&format!("\nversion = \"{version}\"\n"))
            });
            assert!(entry.is_some_and(|e| e.contains(sum)), "{service}: {name} {version} is not what is locked");
            assert!(terms.contains(&format!("{name} {version}")), "{service}: {name} {version} has no text");
        } else {
            assert!(["glibc", "rust-std"].contains(&name) || name.starts_with("agentforge-"), "{service}: {name}");
        }
        names.push(name);
    }
    for linked in ["async-nats", "rustls", "tokio", "glibc", "rust-std"] {
        assert!(names.contains(&linked) || linked == "async-nats" && service == "nats-exporter", "{service}: {linked}");
    }
    // Those of tests, those that run in the compiler, and other services are not part of it.
    for other in ["insta", "proptest", "rcgen", "serde_derive", "agentforge-harness", "agentforge-stack"] {
        assert!(!names.contains(&other), "{service}: {other}");
    }
    assert!(text("LICENSE").contains("Apache License"));
}

#[test]
fn the_image_of_nats_is_of_verified_source_and_not_of_what_is_on_path() {
    let newest = run("scripts/nats-server", &["--newest"], &[]);
    let newest = newest.split_whitespace().last().unwrap();
    if !nats_versions().iter().any(|version| version == newest) {
        println!(
            "SKIPPED the_image_of_nats_is_of_verified_source_and_not_of_what_is_on_path: there is no Go to build it"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let impostor = folder.path().join("nats-server");
    std::fs::write(&impostor, "#!/bin/sh\necho 'nats-server: v99.0.0'\n").unwrap();
    std::fs::set_permissions(&impostor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let image = folder.path().join("image");
    let (image_path, impostor) = (image.display().to_string(), impostor.display().to_string());
    let lied_to = [("PATH", path.as_str()), ("AGENTFORGE_NATS_SERVER", impostor.as_str())];
    assert_eq!(run("scripts/nats-server", &["--path"], &lied_to).trim(), impostor, "it would be taken");
    run("scripts/build-static", &["nats-server", &image_path], &lied_to);
    let service = image.join("service").display().to_string();
    assert_eq!(run(&service, &["--version"], &[]).trim(), format!("nats-server: v{newest}"));
    // Go notes in a binary which source it was built from.
    let built = run("go", &["version", "-m", &service], &[]);
    let sum = built.lines().find_map(|line| line.split_whitespace().find(|word| word.starts_with("h1:"))).unwrap();
    assert!(read("scripts/nats-server").contains(&format!("{newest:?}: {sum:?}")), "{sum} is pinned nowhere");
    let bill = std::fs::read_to_string(image.join(DOCUMENTS).join("sbom.cdx.json")).unwrap();
    assert!(bill.contains("github.com/nats-io/nats-server/v2") && bill.contains(newest), "{bill}");
}

/// Starts the binary with the image's root as its only file system, as user 1001 without any right, with the settings
/// of its Deployment and the folders that its pod mounts; it answers its probes and writes nowhere else.
async fn runs_alone(service: &str, image: &Path, place: &Place) {
    let before = files(image);
    let container = &containers(find(&place.objects, "Deployment", service))[0];
    let mounts = list(&container["volumeMounts"]).iter().map(|m| m["mountPath"].as_str().unwrap().trim_matches('/'));
    let mounts: Vec<PathBuf> = mounts.chain([READY_DIR, DEV_DIR]).map(|name| image.join(name)).collect();
    for folder in &mounts {
        std::fs::create_dir_all(folder).unwrap();
        chown(folder, Some(1001), Some(1001)).unwrap();
    }
    // A file of them, since a device may not be made everywhere.
    for name in ["random", "urandom"] {
        let mut bytes = std::fs::File::open("/dev/urandom").unwrap().take(RANDOM_BYTES);
        std::io::copy(&mut bytes, &mut std::fs::File::create(image.join(DEV_DIR).join(name)).unwrap()).unwrap();
    }
    // A worker is ready when its consumer exists, which an orchestrator creates.
    let folder = tempfile::tempdir().unwrap();
    let _orchestrator = (service == "worker").then(|| {
        let env = environment_at(&place.objects, "orchestrator", &place.nats, folder.path());
        Proc::builder(cargo_bin("agentforge-orchestrator")).envs(env).start()
    });
    let root = image.display().to_string();
    let mut env = environment_at(&place.objects, service, &place.nats, Path::new(""));
    for (name, value) in &mut env {
        // Files of Secrets, which a pod mounts, are outside of the image's root here.
        if Path::new(value.as_str()).is_absolute() && Path::new(value.as_str()).is_file() {
            let copy = image.join(READY_DIR).join(name);
            std::fs::copy(&value, &copy).unwrap();
            chown(&copy, Some(1001), Some(1001)).unwrap();
            *value = format!("/{READY_DIR}/{name}");
        }
    }
    let mut proc = Proc::builder("/usr/sbin/chroot")
        .args(["--userspec=1001:1001", &root, "/service"])
        .envs(env)
        .env("READY_FILE", format!("/{READY_DIR}/ready.json"))
        .start();
    let ready = eventually(WAIT, &format!("{service} of the image is ready"), || {
        assert!(proc.is_running(), "{service}: {}", proc.full_log());
        let told = std::fs::read(image.join(READY_DIR).join("ready.json")).map_err(|e| e.to_string());
        async move { serde_json::from_slice::<Value>(&told?).map_err(|e| e.to_string()) }
    })
    .await;
    probes_answer(service, container, &ready).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", proc.pid())).unwrap();
    let uid = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().skip(1).collect::<Vec<_>>(), ["1001"; 4], "{service}");
    assert_eq!(proc.sigterm(WAIT).await, 0, "{service}: {}", proc.log());
    for folder in &mounts {
        std::fs::remove_dir_all(folder).unwrap();
    }
    assert_eq!(files(image), before, "{service} wrote into its image");
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
            // The version that scripts/node brings.
            "docker.io/library/node:24.19.0-bookworm-slim AS pages",
            &format!("docker.io/library/rust:{}-bookworm AS build", pinned_compiler()),
            "frame"
        ]
    );
    assert!(read("scripts/node").contains("version=\"24.19.0\""));
    assert!(text.contains("USER 1001:1001\nENTRYPOINT [\"/service\"]"));
    // A build from source and one of a prebuilt binary say the same about themselves.
    let labels = |stage: &str| text.split(stage).nth(1).unwrap().split("COPY").next().unwrap().to_owned();
    assert_eq!(labels("FROM frame AS prebuilt"), labels("# The image of a build from source.\nFROM frame"));
}

#[test]
fn the_pinned_compiler_is_the_one_that_the_workspace_names() {
    let pinned = pinned_compiler();
    let (named, _patch) = pinned.rsplit_once('.').unwrap();
    assert!(read("Cargo.toml").contains(&format!("rust-version = \"{named}\"")), "{pinned}");
}

fn pinned_compiler() -> String {
    let text = read("rust-toolchain.toml");
    let channel = text.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    channel.trim_matches('"').to_owned()
}

#[test]
fn every_service_has_its_image() {
    assert!(read("scripts/build-images").contains("mapfile -t ALL < <(ls services)\n"), "it builds every folder");
    let mut listed: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
    listed.sort_unstable();
    assert_eq!(listed, services());
}
