//! Takes the worker's secrets out of its environment, which the kernel shows for as long as the process lives: to root,
//! and in core files and snapshots.
//!
//! A process cannot change what the kernel keeps of its start. So it starts its program again, in the same process,
//! with each secret in a pipe that `<key>_FILE` names: it is read once, and then it is nowhere but in memory. Secrets
//! that come as files are left alone.

use crate::service::{BuiltInOnly, WorkerWith};
use agentforge_config::Setting;
use agentforge_runtime::Service;
use rustix::io::{FdFlags, fcntl_setfd};
use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, PipeReader, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::Command,
};

/// Longest secret that is moved, bytes: what any pipe takes at once.
const BYTES_MAX: usize = 4096;
/// Where a process finds its descriptors.
const DESCRIPTORS: &str = "/proc/self/fd/";
/// The first descriptor behind the three that every process has.
const FIRST: RawFd = 3;

/// To be called first in `main`, before any thread. Returns if no secret is in the environment, or none could be taken
/// out of it; else it starts the program again without them.
pub fn shed_secrets() {
    let settings = <WorkerWith<BuiltInOnly> as Service>::settings();
    let settings = || settings.iter().flat_map(|(_, group)| group.iter());
    settings().filter_map(Setting::file_key).filter_map(env::var_os).for_each(|path| keep_from_children(&path));
    let held: Vec<(Held, PipeReader)> = settings()
        .filter_map(|setting| {
            let held = Held::of(setting.key, setting.file_key()?, |key| env::var_os(key))?;
            let pipe = held.pipe().ok()?;
            Some((held, pipe))
        })
        .collect();
    let Ok(program) = env::current_exe() else { return };
    if held.is_empty() {
        return;
    }
    let mut command = Command::new(program);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    for (held, pipe) in &held {
        command.env_remove(held.key).env(&held.file_key, format!("{DESCRIPTORS}{}", pipe.as_raw_fd()));
    }
    // It returns only when it fails; then the secrets are where they were.
    let _ = command.exec();
}

/// A secret of the environment.
struct Held {
    key: &'static str,
    file_key: String,
    value: OsString,
}

impl Held {
    /// `None` if it is not set, too long, or set twice, which is a fault that reading finds.
    fn of(key: &'static str, file_key: String, var: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let is_set = |value: &OsString| !value.as_bytes().trim_ascii().is_empty();
        let value = var(key).filter(is_set).filter(|value| value.len() <= BYTES_MAX)?;
        var(&file_key).filter(is_set).is_none().then_some(Self { key, file_key, value })
    }

    /// A pipe that holds it, which the program that is started next inherits. It is at its end once that has read it.
    fn pipe(&self) -> io::Result<PipeReader> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(self.value.as_bytes())?;
        fcntl_setfd(&reader, FdFlags::empty())?;
        Ok(reader)
    }
}

/// A descriptor that was inherited for this process is not for the commands that it starts.
fn keep_from_children(path: &OsStr) {
    let number = path.to_str().and_then(|path| path.strip_prefix(DESCRIPTORS)?.parse::<RawFd>().ok());
    let Some(number) = number.filter(|number| *number >= FIRST) else { return };
    // SAFETY: it is borrowed for this one call, and nothing here has been opened or closed by another thread yet. If it
    // is not open, the call fails.
    #[allow(unsafe_code)]
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    let _ = fcntl_setfd(inherited, FdFlags::CLOEXEC);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn held(pairs: &[(&str, &str)]) -> Option<Held> {
        let var = |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| OsString::from(value));
        Held::of("TOKEN", "TOKEN_FILE".into(), var)
    }

    #[test]
    fn only_what_is_set_and_not_in_a_file_is_taken_out() {
        assert!(held(&[("TOKEN", "s3cret")]).is_some_and(|held| held.value == "s3cret"));
        let long = "x".repeat(BYTES_MAX + 1);
        for pairs in [
            &[][..],
            &[("TOKEN", "")],
            &[("TOKEN", " \n")],
            &[("TOKEN_FILE", "/run/token")],
            &[("TOKEN", "s3cret"), ("TOKEN_FILE", "/run/token")],
            &[("TOKEN", &long)],
        ] {
            assert!(held(pairs).is_none(), "{pairs:?}");
        }
    }

    #[test]
    fn a_secret_is_in_its_pipe_once() {
        let pipe = held(&[("TOKEN", "s3cret")]).unwrap().pipe().unwrap();
        let path = format!("{DESCRIPTORS}{}", pipe.as_raw_fd());
        for expected in ["s3cret", ""] {
            let mut read = String::new();
            std::fs::File::open(&path).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, expected);
        }
    }
}
