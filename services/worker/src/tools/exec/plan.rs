//! What a launcher is asked to do: one argument of JSON, written by the worker and read by the launcher.
//!
//! It is visible to everybody in the list of processes, so it holds no secret.

use super::spec::{Files, Spec, User};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What every program may read and execute: where programs, libraries and their public configuration are. No directory
/// in which secrets are kept, so of `/etc` only what libraries look for.
const SYSTEM: &[&str] = &[
    "/bin",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/etc/wgetrc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/proc",
    "/run/NetworkManager/resolv.conf",
    "/run/systemd/resolve",
    "/sbin",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/usr",
    "/var/lib/ca-certificates",
];
/// Names in `/etc` that begin so are of language runtimes.
const RUNTIMES: &[&str] = &["java-", "perl", "python"];
/// What every program may also write to.
const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// The launcher's task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) memory_max_bytes: Option<u64>,
    pub(super) processes_max: u32,
    /// Processes and threads that the user may have, those of other commands and of the worker included.
    pub(super) user_processes_max: u64,
    pub(super) open_files_max: u64,
    pub(super) file_max_bytes: u64,
    pub(super) temp_max_bytes: u64,
    pub(super) cpu_max_seconds: Option<u64>,
    /// Absent: all files.
    pub(super) paths: Option<Paths>,
    pub(super) network: bool,
    pub(super) user: Option<User>,
    /// The temporary directory, which the launcher makes and removes; absent: the command gets none. Its name is never
    /// used again, unlike a process id.
    pub(super) temp_dir: Option<String>,
    /// The command's cgroup, which the launcher makes and removes; absent: it is in the launcher's.
    pub(super) cgroup: Option<String>,
    /// Whether it has System V shared memory, semaphores and queues of its own; else those of the worker's user.
    pub(super) own_ipc: bool,
}

/// What may be opened below which paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paths {
    pub(super) read: Vec<String>,
    pub(super) write: Vec<String>,
}

impl Plan {
    /// What `spec` asks for. `commands_max` is how many commands the worker runs at once.
    pub(super) fn of(spec: &Spec, temp_dir: Option<&Path>, cgroup: Option<&Path>, commands_max: usize) -> Self {
        let limits = &spec.limits;
        // The worker's own threads and those of each command's processes.
        let user_processes_max = 1024 + 4 * commands_max as u64 * u64::from(limits.processes_max);
        Self {
            memory_max_bytes: limits.memory_max_bytes,
            processes_max: limits.processes_max,
            user_processes_max,
            open_files_max: limits.open_files_max,
            file_max_bytes: limits.file_max_bytes,
            temp_max_bytes: limits.temp_max_bytes,
            cpu_max_seconds: limits.cpu_max.map(|time| time.as_secs().max(1)),
            paths: paths(spec),
            network: spec.network,
            user: spec.user,
            temp_dir: temp_dir.and_then(Path::to_str).map(str::to_owned),
            cgroup: cgroup.and_then(Path::to_str).map(str::to_owned),
            own_ipc: spec.files != Files::Any,
        }
    }
}

fn paths(spec: &Spec) -> Option<Paths> {
    let Files::Only { read, write } = &spec.files else { return None };
    let mut paths = Paths {
        read: SYSTEM.iter().map(|path| (*path).to_owned()).chain(read.iter().cloned()).collect(),
        write: DEVICES.iter().map(|path| (*path).to_owned()).chain(write.iter().cloned()).collect(),
    };
    let configured =
        fs::read_dir("/etc").into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let configured = configured.filter(|name| RUNTIMES.iter().any(|start| name.starts_with(start)));
    paths.read.extend(configured.map(|name| format!("/etc/{name}")));
    paths.read.extend(spec.program.to_str().map(str::to_owned));
    paths.read.extend(spec.working_dir.as_deref().and_then(Path::to_str).map(str::to_owned));
    let installations = [spec.program.clone()].into_iter().chain(fs::canonicalize(&spec.program).ok());
    paths.read.extend(installations.filter_map(|program| installation(&program, home().as_deref())));
    // The operator wrote them, so that a script may be named without being opened a second time. Files only.
    let start = spec.working_dir.as_deref().unwrap_or_else(|| Path::new("."));
    let named = spec.argv.iter().skip(1).map(|argument| start.join(argument));
    paths.read.extend(named.filter(|path| path.is_file()).filter_map(|path| {
        let whole = fs::canonicalize(path).ok()?;
        whole.to_str().map(str::to_owned)
    }));
    Some(paths)
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

/// The folder of an installation whose `bin` the program is in, such as a virtual environment or `/opt/NAME`: it
/// holds what the program needs to run. Never a user's home or a folder in which users keep other things.
fn installation(program: &Path, home: Option<&Path>) -> Option<String> {
    let folder = program.parent()?;
    let is_bin = folder.file_name().is_some_and(|name| ["bin", "sbin", "shims"].iter().any(|known| name == *known));
    let whole = folder.parent().filter(|_| is_bin)?;
    let above = whole.parent()?;
    let is_shared = above.parent().is_none() || ["home", "Users"].iter().any(|homes| above.ends_with(homes));
    let is_home = home == Some(whole) || whole.file_name().is_some_and(|name| name == ".local");
    // The worker's own settings may be in it.
    let is_ours = std::env::current_exe().is_ok_and(|own| own.starts_with(whole));
    whole.to_str().filter(|_| !is_shared && !is_home && !is_ours).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::exec::spec::Limits;

    fn spec(argv: &[&str], files: Files) -> Spec {
        Spec {
            program: "/opt/x/prog".into(),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            working_dir: None,
            env: Vec::new(),
            timeout: None,
            output_max_bytes: 1,
            files,
            network: true,
            user: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_files_that_argv_names_can_be_read_and_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().canonicalize().unwrap().join("script.py");
        std::fs::write(&script, "").unwrap();
        let (script, folder) = (script.to_str().unwrap(), dir.path().to_str().unwrap());
        let only = Files::Only { read: vec!["/srv/a".into()], write: vec!["/srv/b".into()] };
        let plan = Plan::of(&spec(&["prog", script, folder, "/", "text"], only), None, None, 4);
        let paths = plan.paths.unwrap();
        for expected in [script, "/opt/x/prog", "/srv/a", "/usr"] {
            assert!(paths.read.iter().any(|path| path == expected), "{expected}: {:?}", paths.read);
        }
        assert!(!paths.read.iter().any(|path| path == folder || path == "/" || path == "/etc"), "{:?}", paths.read);
        assert!(paths.write.iter().any(|path| path == "/srv/b") && !paths.write.iter().any(|path| path == "/srv/a"));
        assert_eq!(Plan::of(&spec(&["prog"], Files::Any), None, None, 4).paths, None);
    }

    #[test]
    fn an_installation_is_opened_with_its_program_and_no_home_is() {
        for (program, expected) in [
            ("/opt/app/bin/prog", Some("/opt/app")),
            ("/app/venv/bin/python3", Some("/app/venv")),
            ("/home/ada/.pyenv/shims/python3", Some("/home/ada/.pyenv")),
            ("/srv/ada/.pyenv/shims/python3", Some("/srv/ada/.pyenv")),
            ("/srv/ada/bin/prog", None),
            ("/home/ada/bin/prog", None),
            ("/var/home/ada/bin/prog", None),
            ("/home/ada/.local/bin/prog", None),
            ("/root/bin/prog", None),
            ("/opt/bin/prog", None),
            ("/opt/app/prog", None),
            ("/bin/prog", None),
        ] {
            let found = installation(Path::new(program), Some(Path::new("/srv/ada")));
            assert_eq!(found.as_deref(), expected, "{program}");
        }
    }

    #[test]
    fn a_launcher_reads_what_the_worker_wrote() {
        let plan =
            Plan::of(&spec(&["prog"], Files::Any), Some(Path::new("/tmp/x")), Some(Path::new("/sys/fs/cgroup/x")), 4);
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    }
}
