//! The tools file: commands declared as tools, in TOML.
//!
//! Owns the file's format (`docs/samples/tools.toml` shows all of it) and reports every fault in it at once. Commands
//! are looked up when the file is read, so that a missing program stops the start and not the first job. Relies on the
//! worker's environment only for the variables that the file names.

use crate::tools::exec::Spec;
use agentforge_config::{parse_byte_size, parse_duration};
use agentforge_message_id::ToolName;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where values come from that the file only names. Tests bring their own.
pub trait Surroundings {
    /// A variable of the worker's environment.
    fn variable(&self, name: &str) -> Option<OsString>;
}

/// The process's environment.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Surroundings for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    tool: Vec<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    name: String,
    argv: Vec<String>,
    #[serde(default)]
    working_dir: Option<PathBuf>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    memory: Option<String>,
    #[serde(default)]
    output_max: Option<String>,
}

/// Most tools that one file may declare.
const TOOLS_MAX: usize = 256;
/// Less than this and no program starts; so it is a slip of the pen.
const MEMORY_MIN_BYTES: u64 = 1024 * 1024;

/// Reads the file and checks everything in it; `taken` are names that other tools have.
///
/// # Errors
/// Every fault, each a sentence that names its tool.
pub fn load(
    path: &Path,
    output_max_bytes: usize,
    taken: &BTreeSet<ToolName>,
    around: &dyn Surroundings,
) -> Result<Vec<(ToolName, Spec)>, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("{} cannot be read: {e}", path.display())])?;
    parse(&text, output_max_bytes, taken, around)
}

/// [`load`] for text that is at hand.
///
/// # Errors
/// Every fault, each a sentence that names its tool.
pub fn parse(
    text: &str,
    output_max_bytes: usize,
    taken: &BTreeSet<ToolName>,
    around: &dyn Surroundings,
) -> Result<Vec<(ToolName, Spec)>, Vec<String>> {
    let document: Document =
        toml::from_str(text).map_err(|e| vec![format!("it is not a tools file: {}", e.to_string().trim())])?;
    let (mut tools, mut faults, mut names) = (Vec::new(), Vec::new(), taken.clone());
    if document.tool.len() > TOOLS_MAX {
        faults.push(format!("it declares {} tools; at most {TOOLS_MAX} are taken", document.tool.len()));
    }
    for (index, value) in document.tool.into_iter().take(TOOLS_MAX).enumerate() {
        let called =
            value.get("name").and_then(|n| n.as_str()).map_or(format!("number {}", index + 1), |n| format!("{n:?}"));
        let mut fault = |problem: String| faults.push(format!("tool {called}: {problem}"));
        let declared: Declared = match value.try_into() {
            Ok(declared) => declared,
            Err(e) => {
                fault(e.message().to_owned());
                continue;
            }
        };
        match ToolName::new(&declared.name) {
            Ok(name) if names.contains(&name) => fault("the name is taken by another tool".to_owned()),
            Ok(name) => {
                names.insert(name.clone());
                tools.extend(spec(declared, output_max_bytes, around, &mut fault).map(|spec| (name, spec)));
            }
            Err(e) => {
                fault(e.to_string());
                let _ = spec(declared, output_max_bytes, around, &mut fault);
            }
        }
    }
    if faults.is_empty() { Ok(tools) } else { Err(faults) }
}

/// The checked command; `None` after a fault.
fn spec(
    declared: Declared,
    output_max_bytes: usize,
    around: &dyn Surroundings,
    fault: &mut dyn FnMut(String),
) -> Option<Spec> {
    let mut good = true;
    let mut fault = |problem: String| {
        good = false;
        fault(problem);
    };
    let program = match declared.argv.first().map(|first| find_program(first, around)) {
        None => Err("argv is empty".to_owned()),
        Some(found) => found,
    };
    let program = program.unwrap_or_else(|problem| {
        fault(problem);
        PathBuf::new()
    });
    if declared.argv.iter().any(|a| a.contains('\0')) {
        fault("argv has a NUL".to_owned());
    }
    if let Some(dir) = declared.working_dir.as_deref().filter(|dir| !dir.is_dir()) {
        fault(format!("working_dir {} is not a directory", dir.display()));
    }
    for name in declared.env.iter().filter(|n| n.is_empty() || n.contains(['=', '\0'])) {
        fault(format!("env: {name:?} is not the name of a variable"));
    }
    let timeout: Option<Duration> = checked(declared.timeout.as_deref(), parse_duration, "timeout", &mut fault);
    if timeout.is_some_and(|t| t.is_zero()) {
        fault("timeout must not be 0".to_owned());
    }
    let memory = checked(declared.memory.as_deref(), parse_byte_size, "memory", &mut fault).map(|size| size.0);
    if memory.is_some_and(|m| m < MEMORY_MIN_BYTES) {
        fault("memory must be 1MiB or more".to_owned());
    }
    let output_max =
        checked(declared.output_max.as_deref(), parse_byte_size, "output_max", &mut fault).map(|size| size.0);
    let output_max = output_max.map_or(output_max_bytes, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let env = declared.env.iter().filter_map(|name| Some((name.into(), around.variable(name)?))).collect();
    good.then_some(Spec {
        program,
        argv: declared.argv,
        working_dir: declared.working_dir,
        env,
        timeout,
        memory_max_bytes: memory,
        output_max_bytes: output_max,
    })
}

fn checked<T>(
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
    field: &str,
    fault: &mut dyn FnMut(String),
) -> Option<T> {
    match parse(text?) {
        Ok(value) => Some(value),
        Err(problem) => {
            fault(format!("{field} {problem}"));
            None
        }
    }
}

/// The program's absolute path: as given, or from the worker's `PATH`.
fn find_program(first: &str, around: &dyn Surroundings) -> Result<PathBuf, String> {
    if first.contains('/') {
        let path = std::path::absolute(first).map_err(|e| format!("argv: {first:?}: {e}"))?;
        return if is_program(&path) {
            Ok(path)
        } else {
            Err(format!("argv: {first:?} is not a program that can be run"))
        };
    }
    let path = around.variable("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(first)).find(|p| is_program(p));
    found.filter(|_| !first.is_empty()).ok_or_else(|| format!("argv: {first:?} is not a program on PATH"))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Surroundings for BTreeMap<&str, &str> {
        fn variable(&self, name: &str) -> Option<OsString> {
            self.get(name).map(OsString::from)
        }
    }

    fn read(text: &str) -> Result<Vec<(ToolName, Spec)>, Vec<String>> {
        let around = BTreeMap::from([("PATH", "/usr/bin:/bin"), ("LANG", "C"), ("NATS_PASSWORD", "s3cret")]);
        parse(text, 1000, &BTreeSet::from([ToolName::new("echo").unwrap()]), &around)
    }

    #[test]
    fn the_sample_is_a_tools_file() {
        let sample = include_str!("../../../docs/samples/tools.toml");
        let tools = read(sample).unwrap();
        assert!(!tools.is_empty());
        assert!(tools.iter().all(|(_, spec)| spec.program.is_absolute()));
    }

    #[test]
    fn a_tool_has_what_it_declares_and_nothing_of_the_workers_secrets() {
        let text = r#"
            [[tool]]
            name = "sort"
            argv = ["sort", "-r"]
            working_dir = "/tmp"
            env = ["LANG", "UNSET"]
            timeout = "90s"
            memory = "64MiB"
            output_max = "2KiB"
            [[tool]]
            name = "cat"
            argv = ["/bin/cat"]
        "#;
        let tools = read(text).unwrap();
        let (name, spec) = &tools[0];
        assert_eq!(name.as_str(), "sort");
        assert_eq!(spec.argv, ["sort", "-r"]);
        assert_eq!(spec.env, [("LANG".into(), "C".into())]);
        assert_eq!(spec.timeout, Some(Duration::from_secs(90)));
        assert_eq!((spec.memory_max_bytes, spec.output_max_bytes), (Some(64 << 20), 2048));
        assert_eq!(tools[1].1.output_max_bytes, 1000);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = r#"
            [[tool]]
            name = "echo"
            argv = ["cat"]
            [[tool]]
            name = "bad name"
            argv = []
            [[tool]]
            name = "b"
            argv = ["no-such-program-anywhere"]
            working_dir = "/no/such/dir"
            timeout = "soon"
            memory = "1"
            env = ["A=B"]
            [[tool]]
            name = "c"
            argv = ["cat"]
            shell = true
            [[tool]]
            name = "d"
            argv = ["cat"]
            [[tool]]
            name = "d"
            argv = ["cat"]
        "#;
        let faults = read(text).unwrap_err();
        let expected = [
            "taken",
            "bad name",
            "argv is empty",
            "no-such-program",
            "working_dir",
            "timeout",
            "memory",
            "A=B",
            "shell",
            "\"d\"",
        ];
        for part in expected {
            assert!(faults.iter().any(|f| f.contains(part)), "{part} is missing in {faults:#?}");
        }
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    }

    #[test]
    fn what_is_no_toml_is_one_fault() {
        assert_eq!(read("[[tool").unwrap_err().len(), 1);
        assert_eq!(read("[tools]").unwrap_err().len(), 1);
    }
}
