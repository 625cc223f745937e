//! The JSON Schemas of every artifact, as files of this repository that the program carries.

use crate::artifact::{Artifacts, write};
use agentforge_terminal::{Output, Result};
use serde_json::Value;
use std::path::PathBuf;

/// Each schema's file name and text, sorted by name.
pub const SCHEMAS: &[(&str, &str)] = &[
    ("alerts-delta.schema.json", include_str!("../schemas/alerts-delta.schema.json")),
    ("alerts-drift.schema.json", include_str!("../schemas/alerts-drift.schema.json")),
    ("alerts-gates.schema.json", include_str!("../schemas/alerts-gates.schema.json")),
    ("alerts_taxonomy.schema.json", include_str!("../schemas/alerts_taxonomy.schema.json")),
    ("announced.schema.json", include_str!("../schemas/announced.schema.json")),
    ("badge.schema.json", include_str!("../schemas/badge.schema.json")),
    ("checksums-signature.schema.json", include_str!("../schemas/checksums-signature.schema.json")),
    ("checksums.schema.json", include_str!("../schemas/checksums.schema.json")),
    ("contract-diff.schema.json", include_str!("../schemas/contract-diff.schema.json")),
    ("governance-summary.schema.json", include_str!("../schemas/governance-summary.schema.json")),
    ("manifests.schema.json", include_str!("../schemas/manifests.schema.json")),
    ("operations-classification.schema.json", include_str!("../schemas/operations-classification.schema.json")),
    ("semver-validation.schema.json", include_str!("../schemas/semver-validation.schema.json")),
    ("stability-history.schema.json", include_str!("../schemas/stability-history.schema.json")),
    ("stability-metrics.schema.json", include_str!("../schemas/stability-metrics.schema.json")),
    ("taxonomy-metrics-history.schema.json", include_str!("../schemas/taxonomy-metrics-history.schema.json")),
    ("taxonomy-metrics.schema.json", include_str!("../schemas/taxonomy-metrics.schema.json")),
];

/// What to print or write.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write each schema to a file in this directory instead
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Prints or writes the schemas.
///
/// # Errors
/// A file cannot be written.
pub fn run(args: &Args, _: &Artifacts, out: Output) -> Result {
    for (name, text) in SCHEMAS {
        match &args.write {
            Some(folder) => {
                let path = folder.join(name);
                write(&path, text)?;
                out.line(path.display())?;
            }
            None if out.json => out.document(&schema(text))?,
            None => out.text(text)?,
        }
    }
    Ok(())
}

fn schema(text: &str) -> Value {
    serde_json::from_str(text).expect("a test reads every schema")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_listed_in_order_and_is_one() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut files: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, SCHEMAS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, text) in SCHEMAS {
            let schema = schema(text);
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
            assert!(schema["title"].is_string(), "{name}");
        }
    }
}
