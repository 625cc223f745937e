//! The keys that attempts are signed with: where they are, and how a new one takes over while the service runs.
//!
//! Outside of `ENV=dev` the file is required. In `ENV=dev` a key is made at the first start, in the data directory, and its
//! public part is written next to it, for workers that are started by hand.

use agentforge_config::{Common, Reader, Setting};
use agentforge_message_id::{Attempt, JobId, Mission, Queue};
use agentforge_runtime::private;
use agentforge_signing::{KeyFile, Signer, Task, new_private_pem, read_private};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const SIGNING_KEY_FILE: Setting = Setting::new(
    "SIGNING_KEY_FILE",
    None,
    "path of a PEM file with 1 to 16 Ed25519 private keys (PKCS#8) that other users may not read",
    "Signs attempts, so that workers run no other: the first key signs, results of all are accepted. Read again when it changes. Required unless ENV is dev.",
)
.default_note("in ENV=dev signing-key.pem in DATA_DIR, made at the first start");
const SIGNATURE_VALIDITY: Setting = Setting::new(
    "SIGNATURE_VALIDITY",
    Some("7d"),
    "duration 1m-365d",
    "How long a worker accepts an attempt after it was signed; a job that waited longer in the stream is published again.",
);

/// Settings of signatures.
pub const SETTINGS: &[Setting] = &[SIGNING_KEY_FILE, SIGNATURE_VALIDITY];

/// In the data directory, in `ENV=dev`.
const DEV_PRIVATE: &str = "signing-key.pem";
const DEV_PUBLIC: &str = "verify-keys.pem";
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the keys are, and how long their signatures are good.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The file of private keys.
    file: PathBuf,
    /// Whether it is made if it does not exist.
    is_made: bool,
    /// How long a signature is good.
    pub valid_for: Duration,
}

impl KeySettings {
    /// Reads the settings; a file that is named must be usable.
    pub fn read(r: &mut Reader<'_>, common: &Common) -> Self {
        let named = r.opt::<PathBuf>(&SIGNING_KEY_FILE);
        match &named {
            Some(file) => {
                if let Err(problem) = read_private(file) {
                    r.fault(SIGNING_KEY_FILE.key, problem);
                }
            }
            None if common.is_dev() => {}
            None => r.fault(
                SIGNING_KEY_FILE.key,
                "is required unless ENV is dev: workers run only attempts that are signed; `agentforge keys new` makes one",
            ),
        }
        let is_made = named.is_none();
        let file = named.unwrap_or_else(|| common.data_dir.join(DEV_PRIVATE));
        let valid_for = r.get_in(&SIGNATURE_VALIDITY, Duration::from_secs(60)..=Duration::from_secs(365 * 24 * 3600));
        Self { file, is_made, valid_for }
    }
}

/// The keys of now. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    signer: RwLock<Arc<Signer>>,
}

impl Keys {
    /// Reads the file; in `ENV=dev` makes it first, if there is none.
    ///
    /// # Errors
    /// It cannot be read, made or used.
    pub fn open(settings: &KeySettings) -> Result<Self, anyhow::Error> {
        if settings.is_made {
            make(&settings.file).map_err(|e| anyhow::anyhow!("{}: {e}", settings.file.display()))?;
        }
        let signer = read_private(&settings.file).map_err(anyhow::Error::msg)?;
        info!(file = %settings.file.display(), keys = ?signer, "attempts are signed with the first of these keys");
        Ok(Self(Arc::new(Shared { file: settings.file.clone(), signer: RwLock::new(Arc::new(signer)) })))
    }

    /// What signs now.
    pub fn now(&self) -> Arc<Signer> {
        self.0.signer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The task token of an attempt.
    pub fn token(&self, mission: &Mission, queue: &Queue, job: JobId, attempt: Attempt) -> String {
        let job = job.to_string();
        let task = Task { mission: mission.as_str(), queue: queue.as_str(), job: &job, attempt: attempt.get() };
        self.now().token(&task)
    }

    /// Whether it is the token of an attempt.
    pub fn is_token(&self, mission: &Mission, queue: &Queue, job: JobId, attempt: Attempt, token: &str) -> bool {
        let job = job.to_string();
        let task = Task { mission: mission.as_str(), queue: queue.as_str(), job: &job, attempt: attempt.get() };
        self.now().is_token_of(&task, token)
    }

    /// Takes over what the file has, whenever that changes, until `stop` fires. A file that cannot be used changes nothing.
    ///
    /// # Errors
    /// Never; the type is the supervisor's.
    pub async fn follow(self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut file = KeyFile::new(&self.0.file);
        let mut logged = String::new();
        // What it has now is known.
        let _ = file.changed();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let problem = match file.changed() {
                Ok(None) => continue,
                Ok(Some(_)) => match read_private(&self.0.file) {
                    Ok(signer) => {
                        info!(keys = ?signer, "attempts are signed with the first of these keys from now on");
                        *self.0.signer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signer);
                        logged.clear();
                        continue;
                    }
                    Err(problem) => problem,
                },
                Err(e) => format!("{}: {e}", self.0.file.display()),
            };
            if logged != problem {
                warn!(problem, "the signing keys cannot be read again; those of before are used");
                logged = problem;
            }
        }
    }
}

/// The public keys that belong to the signing key of a data directory in `ENV=dev`, as a setting of workers. The key is
/// made if there is none.
///
/// # Errors
/// It cannot be made or read.
pub fn dev_verify_keys(data_dir: &Path) -> Result<String, String> {
    let file = data_dir.join(DEV_PRIVATE);
    make(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(read_private(&file)?.public_keys().to_list())
}

/// Makes the file if there is none, whole from the first moment: of several processes one makes it.
fn make(file: &Path) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    if !file.exists() {
        private::create_dir_all(dir)?;
        let part = file.with_extension(format!("{}.part", std::process::id()));
        let mut out = private::options().write(true).create(true).truncate(true).open(&part)?;
        out.write_all(new_private_pem()?.as_bytes())?;
        out.sync_all()?;
        let linked = fs::hard_link(&part, file);
        fs::remove_file(&part)?;
        match linked {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    let public = read_private(file).map_err(io::Error::other)?.public_keys().to_pem();
    let beside = dir.join(DEV_PUBLIC);
    if fs::read_to_string(&beside).is_ok_and(|text| text == public) {
        return Ok(());
    }
    fs::write(&beside, public)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_signing::{Verifier, leaf, read_public};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = dev_verify_keys(&data).unwrap();
        assert_eq!(dev_verify_keys(&data).unwrap(), first);
        let private = data.join(DEV_PRIVATE);
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let one = leaf("s", "i", b"b");
        let header = read_private(&private).unwrap().sign(&[one], 0, 2).remove(0);
        let verifier = Verifier::new(read_public(&data.join(DEV_PUBLIC)).unwrap());
        assert!(verifier.verify(Some(&header), one, 1).is_ok());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn outside_of_dev_a_key_is_required_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let (open, kept) = (dir.path().join("open.pem"), dir.path().join("kept.pem"));
        for (file, mode) in [(&open, 0o644), (&kept, 0o440)] {
            fs::write(file, new_private_pem().unwrap()).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let faults = |pairs: &[(&str, &Path)]| {
            let source: std::collections::BTreeMap<String, String> =
                pairs.iter().map(|(k, v)| ((*k).to_owned(), v.display().to_string())).collect();
            let mut reader = Reader::new(&source);
            let common = Common::read(&mut reader);
            let _settings = KeySettings::read(&mut reader, &common);
            reader.finish().map(|_| ()).map_err(|faults| faults.to_string())
        };
        let production = ("ENV", Path::new("production"));
        assert!(faults(&[production]).unwrap_err().contains("required"));
        assert!(faults(&[production, (SIGNING_KEY_FILE.key, &open)]).unwrap_err().contains("0644"));
        assert!(faults(&[production, (SIGNING_KEY_FILE.key, &dir.path().join("none"))]).is_err());
        assert_eq!(faults(&[production, (SIGNING_KEY_FILE.key, &kept)]), Ok(()));
        assert_eq!(faults(&[]), Ok(()));
    }
}
