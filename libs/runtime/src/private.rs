//! Files and directories that only the user of the service can read, regardless of the umask: they hold arguments, results,
//! hashes and settings of others.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Of files: read and written by their owner.
const FILE_MODE: u32 = 0o600;
/// Of directories: listed, entered and changed by their owner.
const DIR_MODE: u32 = 0o700;

/// Makes a directory of mode 0700, and its parents. What exists keeps its mode: it may be shared on purpose.
///
/// # Errors
/// Of the file system.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// Options whose new files have mode 0600.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Takes the rights of all others from a file that an earlier version made. A file that does not exist, or is another
/// user's, stays as it is.
pub fn tighten(path: &Path) {
    let _ = fs::metadata(path)
        .ok()
        .filter(|about| about.is_file() && about.permissions().mode() & 0o077 != 0)
        .map(|_| fs::set_permissions(path, Permissions::from_mode(FILE_MODE)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_ones_are_private_and_what_exists_is_not_opened_or_closed_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, nested) = (dir.path().join("shared"), dir.path().join("shared/a/b"));
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
        create_dir_all(&nested).unwrap();
        assert_eq!((mode(&shared), mode(&nested), mode(nested.parent().unwrap())), (0o755, 0o700, 0o700));
        let file = nested.join("file");
        options().create(true).append(true).open(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        tighten(&file);
        assert_eq!(mode(&file), 0o600);
        tighten(&nested.join("absent"));
    }
}
