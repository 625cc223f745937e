//! Secrets that come as files: `NAME_FILE` instead of `NAME`, as container platforms and systemd hand them over.
//!
//! Reads one small file and judges who else may read it. Says nothing of its content.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// What follows a secret's key to name its file.
pub const SUFFIX: &str = "_FILE";
/// Largest file: a hundred tokens of the greatest length fit.
pub const BYTES_MAX: u64 = 64 << 10;
/// Kubernetes mounts a volume's files as links into this directory.
const KUBERNETES_DATA: &str = "..data";
/// The right to read of the group and of all others.
const READ_BY_OTHERS: u32 = 0o044;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Its text, without the end of the last line. Empty is as if nothing was set.
    pub text: String,
    /// Others on this machine may read it, as a half-sentence.
    pub concern: Option<String>,
}

/// Reads a secret's file.
///
/// # Errors
/// A half-sentence such as `cannot be read: …`, without the content.
pub fn read(path: &Path) -> Result<SecretFile, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if about.is_dir() {
        return Err("is a directory, not a file with the secret".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("has more than {BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    let mode = about.permissions().mode();
    let is_exposed = about.is_file() && mode & READ_BY_OTHERS != 0 && !is_of_kubernetes(path);
    let concern = is_exposed.then(|| {
        format!(
            "{} can be read by other users of this machine (mode {:04o}); chmod 0400 closes it",
            path.display(),
            mode & 0o7777
        )
    });
    Ok(SecretFile { text: text.to_owned(), concern })
}

/// Who may read a file of a Kubernetes volume is set by the pod; its directory is the pod's own.
fn is_of_kubernetes(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.starts_with(KUBERNETES_DATA))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_last_line_ends_where_the_secret_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (content, text) in
            [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a\nb\n\n", "a\nb\n"), ("", "")]
        {
            write(&path, content.as_bytes(), 0o400);
            assert_eq!(read(&path), Ok(SecretFile { text: text.into(), concern: None }), "{content:?}");
        }
        for (content, problem) in [(&b"\xff\xfe"[..], "UTF-8"), (&vec![b'x'; 64 << 10 | 1][..], "more than 65536")] {
            write(&path, content, 0o600);
            assert!(read(&path).unwrap_err().contains(problem), "{problem}");
        }
        assert!(read(&dir.path().join("none")).unwrap_err().starts_with("cannot be read: "));
        assert!(read(dir.path()).unwrap_err().contains("directory"));
    }

    #[test]
    fn a_file_that_others_read_is_a_concern_unless_kubernetes_mounted_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (mode, is_exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o444, true)] {
            write(&path, b"s3cret", mode);
            let concern = read(&path).unwrap().concern;
            assert_eq!(concern.is_some(), is_exposed, "{mode:o}");
            assert!(concern.is_none_or(|text| text.contains(&format!("{mode:04o}")) && !text.contains("s3cret")));
        }
        fs::create_dir_all(dir.path().join("..2026/x")).unwrap();
        symlink("..2026", dir.path().join("..data")).unwrap();
        write(&dir.path().join("..2026/key"), b"s3cret", 0o444);
        symlink("..data/key", dir.path().join("key")).unwrap();
        assert_eq!(read(&dir.path().join("key")).unwrap().concern, None);
    }
}
