//! The tools file: commands declared as tools, in TOML.
//!
//! Owns the file's format (`docs/samples/tools.toml` shows all of it) and reports every fault in it at once. Commands
//! are looked up when the file is read, so that a missing program stops the start and not the first job. Relies on the
//! worker's environment only for the variables that the file names.

use crate::tools::exec::{Files, Limits, Spec, User};
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
    #[serde(default)]
    files: Option<FilesKind>,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
    #[serde(default)]
    network: Option<bool>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    processes: Option<u32>,
    #[serde(default)]
    open_files: Option<u64>,
    #[serde(default)]
    file_max: Option<String>,
    #[serde(default)]
    temp_max: Option<String>,
    #[serde(default)]
    cpu: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum FilesKind {
    Any,
    Declared,
}

/// What holds for a tool that declares no limit of its own, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Longest output.
    pub output_max_bytes: usize,
    /// What the temporary directory may hold.
    pub temp_max_bytes: u64,
}

/// Most tools that one file may declare.
const TOOLS_MAX: usize = 256;
/// Less than this and no program starts; so it is a slip of the pen.
const MEMORY_MIN_BYTES: u64 = 1024 * 1024;

/// Most processes that one command may be allowed.
const PROCESSES_MAX: u32 = 65_536;
/// Fewer and no program starts; more and the kernel refuses.
const OPEN_FILES: std::ops::RangeInclusive<u64> = 16..=1_048_576;

/// Reads the file and checks everything in it; `taken` are names that other tools have.
///
/// # Errors
/// Every fault, each a sentence that names its tool.
pub fn load(
    path: &Path,
    defaults: Defaults,
    taken: &BTreeSet<ToolName>,
    around: &dyn Surroundings,
) -> Result<Vec<(ToolName, Spec)>, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("{} cannot be read: {e}", path.display())])?;
    parse(&text, defaults, taken, around)
}

/// [`load`] for text that is at hand.
///
/// # Errors
/// Every fault, each a sentence that names its tool.
pub fn parse(
    text: &str,
    defaults: Defaults,
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
                tools.extend(spec(declared, defaults, around, &mut fault).map(|spec| (name, spec)));
            }
            Err(e) => {
                fault(e.to_string());
                let _ = spec(declared, defaults, around, &mut fault);
            }
        }
    }
    if faults.is_empty() { Ok(tools) } else { Err(faults) }
}

/// The checked command; `None` after a fault.
fn spec(
    declared: Declared,
    defaults: Defaults,
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
    let limits = limits(&declared, defaults, &mut fault);
    let files = files(&declared, &mut fault);
    let user = declared.user.as_deref().and_then(|name| match find_user(name) {
        Ok(user) => Some(user),
        Err(problem) => {
            fault(problem);
            None
        }
    });
    let output_max =
        checked(declared.output_max.as_deref(), parse_byte_size, "output_max", &mut fault).map(|size| size.0);
    let output_max = output_max.map_or(defaults.output_max_bytes, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let env = declared.env.iter().filter_map(|name| Some((name.into(), around.variable(name)?))).collect();
    good.then_some(Spec {
        program,
        argv: declared.argv,
        working_dir: declared.working_dir,
        env,
        timeout,
        output_max_bytes: output_max,
        files,
        network: declared.network.unwrap_or(true),
        user,
        limits,
    })
}

fn limits(declared: &Declared, defaults: Defaults, fault: &mut dyn FnMut(String)) -> Limits {
    let default = Limits::default();
    let mut size =
        |text: &Option<String>, field: &str| checked(text.as_deref(), parse_byte_size, field, fault).map(|size| size.0);
    let memory = size(&declared.memory, "memory");
    let (file_max, temp_max) = (size(&declared.file_max, "file_max"), size(&declared.temp_max, "temp_max"));
    if memory.is_some_and(|m| m < MEMORY_MIN_BYTES) {
        fault("memory must be 1MiB or more".to_owned());
    }
    let cpu = checked(declared.cpu.as_deref(), parse_duration, "cpu", fault);
    if cpu.is_some_and(|time| time < Duration::from_secs(1)) {
        fault("cpu must be 1s or more".to_owned());
    }
    let (processes, open_files) = (declared.processes, declared.open_files);
    if processes.is_some_and(|n| !(1..=PROCESSES_MAX).contains(&n)) {
        fault(format!("processes must be 1 to {PROCESSES_MAX}"));
    }
    if open_files.is_some_and(|n| !OPEN_FILES.contains(&n)) {
        fault(format!("open_files must be {} to {}", OPEN_FILES.start(), OPEN_FILES.end()));
    }
    Limits {
        memory_max_bytes: memory,
        processes_max: processes.unwrap_or(default.processes_max),
        open_files_max: open_files.unwrap_or(default.open_files_max),
        file_max_bytes: file_max.unwrap_or(default.file_max_bytes),
        temp_max_bytes: temp_max.unwrap_or(defaults.temp_max_bytes),
        cpu_max: cpu,
    }
}

fn files(declared: &Declared, fault: &mut dyn FnMut(String)) -> Files {
    for path in declared.read.iter().chain(&declared.write) {
        if !Path::new(path).is_absolute() {
            fault(format!("{path:?} in read or write is not an absolute path"));
        } else if !Path::new(path).exists() {
            fault(format!("{path:?} in read or write does not exist"));
        }
    }
    match declared.files {
        Some(FilesKind::Any) => {
            if !declared.read.is_empty() || !declared.write.is_empty() {
                fault("read and write have no effect with files = \"any\"".to_owned());
            }
            Files::Any
        }
        Some(FilesKind::Declared) | None => Files::Only { read: declared.read.clone(), write: declared.write.clone() },
    }
}

/// The user of that name, if this process may become it.
fn find_user(name: &str) -> Result<User, String> {
    let found = nix::unistd::User::from_name(name).map_err(|e| format!("user {name:?} cannot be looked up: {e}"))?;
    let user = found.ok_or_else(|| format!("user {name:?} does not exist on this machine"))?;
    let user = User { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    if rustix::process::geteuid().is_root() || rustix::process::geteuid().as_raw() == user.uid {
        Ok(user)
    } else {
        Err(format!("user {name:?}: the worker must run as root to start commands as another user"))
    }
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
        parse(
            text,
            Defaults { output_max_bytes: 1000, temp_max_bytes: 2000 },
            &BTreeSet::from([ToolName::new("echo").unwrap()]),
            &around,
        )
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
            read = ["/etc"]
            write = ["/tmp"]
            network = false
            processes = 4
            open_files = 64
            file_max = "1MiB"
            temp_max = "2MiB"
            cpu = "3s"
            [[tool]]
            name = "any"
            argv = ["cat"]
            files = "any"
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
        assert_eq!(spec.output_max_bytes, 2048);
        let limits = Limits {
            memory_max_bytes: Some(64 << 20),
            processes_max: 4,
            open_files_max: 64,
            file_max_bytes: 1 << 20,
            temp_max_bytes: 2 << 20,
            cpu_max: Some(Duration::from_secs(3)),
        };
        assert_eq!((&spec.limits, spec.network, spec.user), (&limits, false, None));
        assert_eq!(spec.files, Files::Only { read: vec!["/etc".into()], write: vec!["/tmp".into()] });
        assert_eq!(tools[1].1.files, Files::Any);
        // A tool that declares nothing is confined, with bounds for everything.
        let cat = &tools[2].1;
        assert_eq!(
            (cat.output_max_bytes, &cat.limits, cat.network),
            (1000, &Limits { temp_max_bytes: 2000, ..Limits::default() }, true)
        );
        assert_eq!(cat.files, Files::Only { read: vec![], write: vec![] });
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
            read = ["etc"]
            write = ["/no/such/place"]
            user = "no-such-user"
            processes = 0
            open_files = 1
            file_max = "big"
            temp_max = "small"
            cpu = "1ms"
            [[tool]]
            name = "c"
            argv = ["cat"]
            shell = true
            [[tool]]
            name = "e"
            argv = ["cat"]
            files = "any"
            read = ["/etc"]
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
            "\"etc\"",
            "/no/such/place",
            "no-such-user",
            "processes",
            "open_files",
            "file_max",
            "temp_max",
            "cpu",
            "no effect",
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
