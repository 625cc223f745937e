//! The command `manifests check`: finds what is applied in a folder, renders it, and holds every rule against it.

use super::{
    object::{Object, parse},
    pods::{Images, faults, placeholders, scaled_with_replicas, unrestricted, wrong_images},
    policy, quota,
    sources::{self, Kustomization},
    together,
};
use crate::{
    artifact::{Artifacts, read},
    exit::{Fault, broken, gate},
};
use agentforge_terminal::{Failure, Output, Result};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command as Process,
};

/// Words that stand for something that was not filled in.
const PLACEHOLDERS: [&str; 6] = ["CHANGEME", "changeme", "REPLACE_ME", "TODO", "FIXME", "example.com"];

/// What to do with manifests.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a tree of kustomizations, or rendered files, against the rules
    #[command(after_help = "\
Examples:
  agentforge governance manifests check overlays
  agentforge governance manifests check deploy --pinned --image-prefix registry.internal/shop/ --image api --image web

Renders with kubectl: --kubectl or AGENTFORGE_KUBECTL names it. Writes status/manifests.json.")]
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// A folder of kustomizations, or of rendered .yaml files
    folder: PathBuf,
    /// The program that renders
    #[arg(long, env = "AGENTFORGE_KUBECTL", default_value = "kubectl", value_name = "PROGRAM")]
    kubectl: PathBuf,
    /// Each image must be a digest or have a commit as its tag
    #[arg(long)]
    pinned: bool,
    /// Where images of yours are; below it only those of --image may be
    #[arg(long, value_name = "PREFIX")]
    image_prefix: Option<String>,
    /// An image that is built
    #[arg(long, value_name = "NAME")]
    image: Vec<String>,
    /// A word that must not be in what is applied, in addition to the usual placeholders
    #[arg(long, value_name = "WORD")]
    placeholder: Vec<String>,
    /// A file that no kustomization names, and that is read by people or programs
    #[arg(long, value_name = "FILE")]
    apart: Vec<PathBuf>,
    /// Folders that are applied to a cluster of their own, separated by commas
    #[arg(long, value_name = "FOLDER,…")]
    cluster: Vec<String>,
    /// A rule that does not apply here
    #[arg(long, value_name = "RULE")]
    without: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// A rule that does not hold, or what cannot be rendered.
pub fn run(args: &Args, artifacts: &Artifacts, out: Output) -> Result {
    let Command::Check(args) = &args.command;
    let all = if args.folder.is_dir() { sources::kustomizations(&args.folder)? } else { Vec::new() };
    let (mut found, environments) = match all {
        all if all.is_empty() => (Vec::new(), rendered_files(&args.folder)?),
        all => of_kustomizations(args, &all)?,
    };
    for (name, objects) in &environments {
        found.extend(of_environment(args, Path::new(name), objects));
    }
    let mut clusters: BTreeMap<usize, Vec<(String, Vec<Object>)>> = BTreeMap::new();
    for (name, objects) in &environments {
        let is_in = |group: &String| group.split(',').any(|one| Path::new(name).ends_with(one.trim()));
        let cluster = args.cluster.iter().position(is_in).map_or(0, |n| n + 1);
        clusters.entry(cluster).or_default().push((name.clone(), objects.clone()));
    }
    for environments in clusters.values() {
        found.extend(faults(&args.folder, "shared-name", together::shared(environments)));
    }
    found.retain(|fault| !args.without.iter().any(|rule| rule == fault.rule));
    found.sort();
    let names: Vec<&String> = environments.iter().map(|(name, _)| name).collect();
    let report = json!({"schema_version": 1, "environments": names, "faults": found});
    artifacts.write_json("manifests.json", &report)?;
    if out.json {
        out.document(&report)?;
    } else {
        for fault in &found {
            out.line(fault)?;
        }
        out.line(format_args!("{} environments, {} faults", names.len(), found.len()))?;
    }
    if found.is_empty() { Ok(()) } else { Err(gate(format!("{} faults in manifests", found.len()))) }
}

type Environments = Vec<(String, Vec<Object>)>;

fn of_kustomizations(args: &CheckArgs, all: &[Kustomization]) -> Result<(Vec<Fault>, Environments)> {
    let files = sources::files(&args.folder)?;
    let apart: Vec<PathBuf> = args.apart.iter().filter_map(|file| file.canonicalize().ok()).collect();
    let mut found = sources::unreferenced(all, &files, &apart);
    found.extend(sources::patched_by_index(all)?);
    let mut environments = Vec::new();
    for root in sources::roots(all) {
        match render(&args.kubectl, &root.folder)? {
            Ok(objects) => environments.push((root.folder.display().to_string(), objects)),
            Err(told) => found.push(Fault::new(&root.file, 0, "does-not-build", told)),
        }
    }
    Ok((found, environments))
}

/// What kubectl makes of a folder; what it says when it fails.
fn render(kubectl: &Path, folder: &Path) -> Result<Result<Vec<Object>, String>> {
    let out = Process::new(kubectl).arg("kustomize").arg(folder).output();
    let hint = "install kubectl, or name it with --kubectl or AGENTFORGE_KUBECTL";
    let out = out.map_err(|e| Failure::new(format!("{} cannot be run: {e}", kubectl.display())).hint(hint))?;
    let told = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    if !out.status.success() || told.contains("Warning") {
        return Ok(Err(told));
    }
    Ok(parse(&String::from_utf8_lossy(&out.stdout)))
}

fn rendered_files(folder: &Path) -> Result<Environments> {
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let mut found = Vec::new();
    let files = if folder.is_file() { vec![folder.to_owned()] } else { sources::files(folder)? };
    for file in files.into_iter().filter(is_yaml) {
        let objects = parse(&read(&file)?).map_err(|e| broken(&file, 0, e))?;
        found.push((file.display().to_string(), objects));
    }
    if found.is_empty() { Err(broken(folder, 0, "there is no kustomization and no .yaml file")) } else { Ok(found) }
}

fn of_environment(args: &CheckArgs, place: &Path, objects: &[Object]) -> Vec<Fault> {
    let rule = Images { pinned: args.pinned, prefix: args.image_prefix.clone(), built: args.image.clone() };
    let words: Vec<&str> = PLACEHOLDERS.into_iter().chain(args.placeholder.iter().map(String::as_str)).collect();
    let quota = quota::exceeded(objects).unwrap_or_else(|unknown| vec![unknown]);
    [
        ("unrestricted", unrestricted(objects)),
        ("image", wrong_images(objects, &rule)),
        ("scaled-with-replicas", scaled_with_replicas(objects)),
        ("placeholder", placeholders(objects, &words)),
        ("quota", quota),
        ("network-policy", policy::gaps(objects)),
    ]
    .into_iter()
    .flat_map(|(rule, wrong)| faults(place, rule, wrong))
    .collect()
}
