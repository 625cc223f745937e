//! The commands `bundle sum`, `sign`, `verify` and `keygen`.

use super::{
    signature::{FORMAT, Seen, Signature, SigningKey, newer, sign, trusted},
    sums::{Checksums, aggregate, compare, listed},
};
use crate::{
    artifact::{Artifacts, json, read, read_json, write},
    exit::{broken, gate},
    summary::badge,
};
use agentforge_terminal::{Failure, Output, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

/// What to do with the artifacts below status/.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write checksums.json and checksums-badge.json
    #[command(after_help = "\
Examples:
  agentforge governance bundle sum
  agentforge governance bundle sum --output build")]
    Sum,
    /// Sign the checksums: checksums-signature.json and checksums-pubkey.txt
    #[command(after_help = "\
Examples:
  agentforge governance bundle sign --key-file signing.key
  GOV_SIGNING_PRIVATE_KEY=… agentforge governance bundle sign --previous-key-file old.key")]
    Sign(SignArgs),
    /// Verify the artifacts and their signature against pinned keys; prints VERIFY_OK
    #[command(after_help = "\
Examples:
  agentforge governance bundle verify --pubkey trusted-keys.txt
  agentforge governance bundle verify --pubkey trusted-keys.txt --state newest.json")]
    Verify(VerifyArgs),
    /// Make a key to sign with
    #[command(after_help = "\
Examples:
  agentforge governance bundle keygen
  agentforge governance bundle keygen --key-file signing.key")]
    Keygen(KeygenArgs),
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// A file with the base64 of the 32-byte seed
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The base64 of the 32-byte seed
    #[arg(long, env = "GOV_SIGNING_PRIVATE_KEY", hide = true, hide_env_values = true)]
    key: Option<String>,
    /// A file with a seed that this key replaces: who pinned its public key can still verify
    #[arg(long, value_name = "FILE")]
    previous_key_file: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// A pinned public key, base64, or a file with one per line
    #[arg(long, required = true, value_name = "KEY|FILE")]
    pubkey: Vec<String>,
    /// Accept signatures of format 1, which cover only the aggregate and the count
    #[arg(long)]
    allow_v1: bool,
    /// Remember the newest signed state in this file, and refuse an older one
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct KeygenArgs {
    /// Write the private key to this new file instead of printing it; only its owner may read it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Runs one of the commands.
///
/// # Errors
/// What was tampered with, broken input, or a key that cannot be used.
pub fn run(args: &Args, artifacts: &Artifacts, out: Output) -> Result {
    match &args.command {
        Command::Sum => sum(artifacts, out),
        Command::Sign(args) => sign_all(args, artifacts, out),
        Command::Verify(args) => verify(args, artifacts, out),
        Command::Keygen(args) => keygen(args, out),
    }
}

/// The checksums of what is there now, written.
fn summed(artifacts: &Artifacts) -> Result<Checksums> {
    let sums = Checksums::of(listed(&artifacts.path(""))?);
    artifacts.write_json("checksums.json", &sums)?;
    let short = sums.aggregate_sha256.get(..12).unwrap_or_default();
    artifacts.write_json("checksums-badge.json", &badge("checksums", short, "blue"))?;
    Ok(sums)
}

fn sum(artifacts: &Artifacts, out: Output) -> Result {
    let sums = summed(artifacts)?;
    if out.json {
        return out.document(&sums);
    }
    out.line(format_args!("{} artifacts, SHA-256 {}", sums.count, sums.aggregate_sha256))
}

fn key_of(file: &Path) -> Result<SigningKey> {
    SigningKey::from_base64(&read(file)?).map_err(|e| broken(file, 0, e))
}

fn sign_all(args: &SignArgs, artifacts: &Artifacts, out: Output) -> Result {
    let key = match (&args.key_file, &args.key) {
        (Some(file), _) => key_of(file)?,
        (None, Some(text)) => {
            SigningKey::from_base64(text).map_err(|e| Failure::usage(format!("GOV_SIGNING_PRIVATE_KEY: {e}")))?
        }
        (None, None) => return Err(Failure::usage("no key: set GOV_SIGNING_PRIVATE_KEY or give --key-file")),
    };
    let previous = args.previous_key_file.iter().map(|file| key_of(file)).collect::<Result<Vec<_>>>()?;
    // What is signed is what is there now.
    let sums = summed(artifacts)?;
    let signature = sign(&sums, &key, &previous, artifacts.at().as_second());
    artifacts.write_json("checksums-signature.json", &signature)?;
    artifacts.write_text("checksums-pubkey.txt", &format!("{}\n", signature.public_key))?;
    if out.json { out.document(&signature) } else { out.line(format_args!("signed by {}", signature.public_key)) }
}

/// Keys that the user trusts: each word is a key, or a file with keys.
fn pinned(words: &[String]) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for word in words {
        let is_key = |text: &str| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32);
        if is_key(word) {
            keys.push(word.clone());
            continue;
        }
        let file = Path::new(word);
        for (n, line) in
            read(file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        {
            if !is_key(line.trim()) {
                return Err(broken(file, n + 1, "it is not the base64 of a public key of 32 bytes"));
            }
            keys.push(line.trim().to_owned());
        }
    }
    if keys.is_empty() { Err(Failure::usage("--pubkey names no key")) } else { Ok(keys) }
}

fn verify(args: &VerifyArgs, artifacts: &Artifacts, out: Output) -> Result {
    let keys = pinned(&args.pubkey)?;
    let (sums_file, signature_file) = (artifacts.path("checksums.json"), artifacts.path("checksums-signature.json"));
    let sums: Checksums = read_json(&sums_file)?;
    let signature: Signature = read_json(&signature_file)?;
    let mut wrong = Vec::new();
    let says = |file: &str, what: String| format!("{file}: {what}");
    if let Err(what) = trusted(&signature, &keys, args.allow_v1) {
        wrong.push(says("checksums-signature.json", what));
    }
    if aggregate(&sums.artifacts) != sums.aggregate_sha256 || sums.count != sums.artifacts.len() {
        wrong.push(says("checksums.json", "changed: its aggregate and count are not those of its list".to_owned()));
    }
    if (&sums.aggregate_sha256, sums.count) != (&signature.aggregate_sha256, signature.count) {
        wrong.push(says("checksums.json", "changed: its aggregate is not the one that was signed".to_owned()));
    }
    // Format 1 has no list, so what checksums.json lists is what its aggregate covers.
    let is_listed = signature.signature_format_version >= FORMAT;
    let signed = if is_listed { &signature.artifacts } else { &sums.artifacts };
    if is_listed && aggregate(signed) != signature.aggregate_sha256 {
        wrong.push(says("checksums-signature.json", "its aggregate is not that of its list".to_owned()));
    }
    wrong.extend(compare(signed, &listed(&artifacts.path(""))?));
    let seen: Option<Seen> = match &args.state {
        Some(file) if file.exists() => Some(read_json(file)?),
        _ => None,
    };
    let newest = args.state.as_ref().map(|file| (file, newer(&signature, seen.as_ref())));
    if let Some((_, Err(what))) = &newest {
        wrong.push(says("checksums-signature.json", what.clone()));
    }
    if !wrong.is_empty() {
        return Err(gate(format!("VERIFY_FAILED\n{}", wrong.join("\n"))));
    }
    if let Some((file, Ok(state))) = newest {
        write(file, &json(&state))?;
    }
    if out.json {
        return out.document(
            &json!({"status": "VERIFY_OK", "count": signature.count, "aggregate_sha256": signature.aggregate_sha256}),
        );
    }
    out.line("VERIFY_OK")
}

fn keygen(args: &KeygenArgs, out: Output) -> Result {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| Failure::new("the system gives no random bytes"))?;
    let key = SigningKey::from_seed(&seed).map_err(Failure::new)?;
    let private = STANDARD.encode(seed);
    let Some(file) = &args.key_file else {
        if out.json {
            return out.document(&json!({"private_key": private, "public_key": key.public()}));
        }
        out.line(format_args!("private key (GOV_SIGNING_PRIVATE_KEY): {private}"))?;
        return out.line(format_args!("public key: {}", key.public()));
    };
    let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", file.display()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut opened = options.open(file).map_err(failed)?;
    writeln!(opened, "{private}").and_then(|()| opened.sync_all()).map_err(failed)?;
    if out.json {
        out.document(&json!({"public_key": key.public()}))
    } else {
        out.line(format_args!("public key: {}", key.public()))
    }
}
