//! Programs that belong together: one finds another next to itself or on PATH, and becomes it.

use crate::error::{Failure, Result};
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The file of a program: in the folder of this one, else in a folder of PATH.
///
/// # Errors
/// It is in neither, with how to get it.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().ok().map(|here| here.with_file_name(name));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    here.into_iter().chain(on_path).find(|file| file.is_file()).ok_or_else(|| {
        Failure::new(format!("{name} is neither next to this program nor on PATH")).code("no_program").hint(format!(
            "in the repository `cargo build -p {name}` builds it; elsewhere put the {name} of this version next to agentforge"
        ))
    })
}

/// Becomes another program: same process, same terminal, same name for messages. Returns only when that fails.
pub fn become_program(file: &Path, called: &OsString, args: impl IntoIterator<Item = OsString>) -> Failure {
    let error = Command::new(file).arg0(called).args(args).exec();
    Failure::new(format!("{} cannot be started: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named_with_how_to_get_it() {
        let failure = find_program("agentforge-nothing").unwrap_err();
        assert!(failure.message.contains("agentforge-nothing") && failure.hint.unwrap().contains("cargo build -p"));
        assert!(find_program("sh").unwrap().is_absolute());
    }
}
