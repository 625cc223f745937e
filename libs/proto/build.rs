//! Compiles proto/agentforge/v1 without a protoc, and keeps the descriptors for reflection.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());
    let files = ["queues", "jobs", "operations", "schedules", "agents", "audit"]
        .map(|f| root.join(format!("agentforge/v1/{f}.proto")));
    let descriptors = protox::compile(files, [&root])?;
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
