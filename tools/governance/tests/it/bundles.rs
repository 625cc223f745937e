//! The bundle as its readers verify it: every tampering is named, and PyNaCl agrees about signatures.

use super::support::{command, run, said};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The seed of the tests' key, base64, and another.
const SEED: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn sign_at(home: &Path, seed: &str, at: &str, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentforge-governance"));
    command.current_dir(home).args(["--at", at, "bundle", "sign"]).args(more).env("GOV_SIGNING_PRIVATE_KEY", seed);
    let ended = said(command.output().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
    fs::read_to_string(home.join("status/checksums-pubkey.txt")).unwrap().trim().to_owned()
}

fn sign(home: &Path, seed: &str) -> String {
    sign_at(home, seed, super::support::AT, &[])
}

/// A signed bundle of three artifacts, and its key.
fn signed() -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("status/deep")).unwrap();
    for (name, text) in [("a.json", "{}\n"), ("b.json", "[]\n"), ("deep/c.txt", "c\n")] {
        fs::write(home.path().join("status").join(name), text).unwrap();
    }
    let key = sign(home.path(), SEED);
    (home, key)
}

#[test]
fn an_untouched_bundle_verifies() {
    let (home, key) = signed();
    let ended = run(home.path(), &["bundle", "verify", "--pubkey", &key]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "VERIFY_OK\n"), "{ended:?}");
    fs::write(home.path().join("keys.txt"), format!("# pinned\n{key}\n")).unwrap();
    assert_eq!(run(home.path(), &["bundle", "verify", "--pubkey", "keys.txt"]).code, 0);
}

#[test]
fn every_tampering_is_named() {
    type Tampering = (&'static str, fn(&Path), &'static [&'static str]);
    let cases: [Tampering; 9] = [
        ("a changed byte", |s| fs::write(s.join("a.json"), "{}x").unwrap(), &["a.json: changed"]),
        ("a missing file", |s| fs::remove_file(s.join("b.json")).unwrap(), &["b.json: missing"]),
        ("an extra file", |s| fs::write(s.join("deep/extra"), "x").unwrap(), &["deep/extra: extra"]),
        (
            "swapped names",
            |s| {
                fs::rename(s.join("a.json"), s.join("t")).unwrap();
                fs::rename(s.join("b.json"), s.join("a.json")).unwrap();
                fs::rename(s.join("t"), s.join("b.json")).unwrap();
            },
            &["a.json: swapped: it has the content of b.json", "b.json: swapped: it has the content of a.json"],
        ),
        (
            "another name",
            |s| fs::rename(s.join("a.json"), s.join("z.json")).unwrap(),
            &["a.json: missing; z.json has its content", "z.json: extra"],
        ),
        ("another key", |s| drop(sign(s.parent().unwrap(), OTHER)), &["signed with another key"]),
        (
            "a changed signature",
            |s| edit(s, "checksums-signature.json", |v| v["count"] = json!(4)),
            &["the signature does not fit"],
        ),
        (
            "changed checksums",
            |s| edit(s, "checksums.json", |v| v["artifacts"][0]["sha256"] = json!("0".repeat(64))),
            &["checksums.json: changed"],
        ),
        (
            "the old format",
            |s| edit(s, "checksums-signature.json", |v| v["signature_format_version"] = json!(1)),
            &["--allow-v1"],
        ),
    ];
    for (what, tamper, named) in cases {
        let (home, key) = signed();
        tamper(&home.path().join("status"));
        let ended = run(home.path(), &["bundle", "verify", "--pubkey", &key]);
        assert_eq!(ended.code, 1, "{what}: {ended:?}");
        assert!(!ended.out.contains("VERIFY_OK"), "{what}");
        for text in named {
            assert!(ended.err.contains(text), "{what}: {}", ended.err);
        }
    }
}

fn edit(folder: &Path, name: &str, change: impl Fn(&mut Value)) {
    let file = folder.join(name);
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

#[test]
fn a_new_key_is_trusted_where_the_pinned_one_endorsed_it() {
    let (home, old) = signed();
    fs::write(home.path().join("old.seed"), format!("{SEED}\n")).unwrap();
    let new = sign_at(home.path(), OTHER, "2026-03-02T00:00:00Z", &["--previous-key-file", "old.seed"]);
    assert_ne!(old, new);
    for key in [&old, &new] {
        assert_eq!(run(home.path(), &["bundle", "verify", "--pubkey", key]).code, 0, "{key}");
    }
}

#[test]
fn an_older_signed_state_is_refused_where_a_newer_one_was_seen() {
    let (home, key) = signed();
    let status = home.path().join("status");
    let verify = || run(home.path(), &["bundle", "verify", "--pubkey", &key, "--state", "seen.json"]);
    let keep = |to: &str| {
        for name in ["checksums.json", "checksums-signature.json", "a.json", "checksums-badge.json"] {
            fs::create_dir_all(home.path().join(to)).unwrap();
            fs::copy(status.join(name), home.path().join(to).join(name)).unwrap();
        }
    };
    assert_eq!(verify().code, 0);
    keep("first");
    fs::write(status.join("a.json"), "{\"new\": 1}").unwrap();
    sign_at(home.path(), SEED, "2026-03-02T00:00:00Z", &[]);
    assert_eq!(verify().code, 0);
    for entry in fs::read_dir(home.path().join("first")).unwrap().flatten() {
        fs::copy(entry.path(), status.join(entry.file_name())).unwrap();
    }
    let ended = verify();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("rollback"), "{}", ended.err);
}

#[test]
fn a_made_key_signs_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (home, _) = signed();
    let ended = run(home.path(), &["bundle", "keygen", "--key-file", "seed", "--json"]);
    let public = serde_json::from_str::<Value>(&ended.out).unwrap()["public_key"].as_str().unwrap().to_owned();
    assert_eq!(fs::metadata(home.path().join("seed")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(run(home.path(), &["bundle", "keygen", "--key-file", "seed"]).code, 0, "no key is overwritten");
    assert_eq!(run(home.path(), &["bundle", "sign", "--key-file", "seed"]).code, 0);
    assert_eq!(run(home.path(), &["bundle", "verify", "--pubkey", &public]).code, 0);
}

#[test]
fn without_a_usable_key_nothing_is_signed_and_the_key_is_not_repeated() {
    let (home, _) = signed();
    let ended = said(command(home.path()).args(["bundle", "sign"]).output().unwrap());
    assert_eq!(ended.code, 2, "{ended:?}");
    let secret = "bm90LWEtc2VlZC1vZi0zMi1ieXRlcw==";
    let ended =
        said(command(home.path()).args(["bundle", "sign"]).env("GOV_SIGNING_PRIVATE_KEY", secret).output().unwrap());
    assert_eq!(ended.code, 2);
    assert!(!(ended.out + &ended.err).contains(secret));
}

/// Python with the pinned packages, if they are here.
pub fn python() -> Option<(PathBuf, PathBuf)> {
    let programs = match agentforge_harness::program("governance-programs") {
        Ok(path) => path,
        Err(why) => {
            eprintln!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("test"));
            return None;
        }
    };
    Some((PathBuf::from("python3"), programs.join("python")))
}

/// Verifies as the documentation says, knowing nothing of this crate.
const PYNACL: &str = r#"
import base64, hashlib, json, pathlib, sys
from nacl.signing import VerifyKey
status, pinned = pathlib.Path(sys.argv[1]), sys.argv[2]
signature = json.loads((status / "checksums-signature.json").read_text())
covered = {key: signature[key] for key in ("aggregate_sha256", "artifacts", "count", "signed_at")}
canonical = lambda value: json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
VerifyKey(base64.b64decode(pinned)).verify(canonical(covered), base64.b64decode(signature["signature"]))
assert hashlib.sha256(canonical(signature["artifacts"])).hexdigest() == signature["aggregate_sha256"]
for artifact in signature["artifacts"]:
    assert hashlib.sha256((status / artifact["path"]).read_bytes()).hexdigest() == artifact["sha256"], artifact
print("VERIFY_OK")
"#;

#[test]
fn pynacl_verifies_the_signature_and_refuses_a_changed_one() {
    let Some((python, packages)) = python() else { return };
    let (home, key) = signed();
    let verify = || {
        let mut command = Command::new(&python);
        command.args(["-c", PYNACL]).arg(home.path().join("status")).arg(&key).env("PYTHONPATH", &packages);
        command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
    };
    let out = verify();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "VERIFY_OK\n", "{}", String::from_utf8_lossy(&out.stderr));
    edit(&home.path().join("status"), "checksums-signature.json", |v| v["signed_at"] = json!(1));
    assert!(!verify().status.success());
}
