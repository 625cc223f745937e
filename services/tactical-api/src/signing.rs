//! The secrets that sign links to evidence: read with the settings, and again when their file changes.
//!
//! A new secret counts from the next link on, and no connection ends. What cannot be used changes nothing and is reported,
//! without the content.

use crate::{links::Signer, metrics};
use agentforge_access::TOKEN_CHARS_MIN;
use agentforge_config::{ExposeSecret, Reader, Secret, Setting, read_secret_file};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) const SIGNING_SECRET: Setting = Setting::new(
    "EVIDENCE_SIGNING_SECRET",
    Some(DEV_SECRET),
    "comma-separated list of at most 8: the first signs, all verify; each of 16 characters or more",
    "Signs links to evidence. A file is read again when it changes. The default is refused unless ENV is dev and BIND_ADDR is loopback.",
)
.secret();
pub(crate) const SIGNING_TTL: Setting = Setting::new(
    "EVIDENCE_SIGNING_TTL",
    Some("300"),
    "seconds 1-604800",
    "How long a link to evidence is valid. A link that would be valid for longer is refused.",
);

const DEV_SECRET: &str = "dev-secret-that-everybody-knows";
/// A rotation needs two, and a link is checked against each.
const SECRETS_MAX: usize = 8;
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Makes and checks links, with the file that its secrets come from.
#[derive(Clone, Debug)]
pub struct Signing {
    /// With the secrets that count now. Clones share them.
    pub signer: Signer,
    file: Option<PathBuf>,
    /// `ENV=dev` on a loopback listener: the public default will do.
    is_lenient: bool,
}

impl Signing {
    /// Reads the settings; faults stay in the reader.
    pub(crate) fn read(reader: &mut Reader<'_>, is_lenient: bool) -> Self {
        let given: Secret = reader.get(&SIGNING_SECRET);
        let ttl = Duration::from_secs(reader.get_in(&SIGNING_TTL, 1..=604_800));
        let signer = match check(given.expose_secret(), is_lenient) {
            Ok(secrets) => Signer::new(secrets, ttl),
            Err(problem) => {
                reader.fault(SIGNING_SECRET.key, problem);
                Signer::new([DEV_SECRET], ttl)
            }
        };
        Self { signer, file: reader.file_of(&SIGNING_SECRET), is_lenient }
    }

    /// Follows the file until the stop. Without one it only waits.
    pub async fn keep(self, stop: CancellationToken) {
        metrics::EVIDENCE_SECRETS.set(&[], self.signer.secrets() as f64);
        let Some(file) = self.file else { return stop.cancelled().await };
        let mut told = None;
        loop {
            let (path, signer, is_lenient) = (file.clone(), self.signer.clone(), self.is_lenient);
            let Ok(looked) = tokio::task::spawn_blocking(move || look(&path, &signer, is_lenient)).await else {
                return;
            };
            match &looked {
                Ok(None) => {}
                Ok(Some(secrets)) => {
                    info!(secrets, "links to evidence are signed with the secrets of the changed file");
                    metrics::EVIDENCE_SECRETS.set(&[], *secrets as f64);
                    metrics::EVIDENCE_SECRET_RELOADS.inc(&["applied"]);
                }
                // Once for each problem.
                Err(problem) if told.as_ref() == Some(problem) => {}
                Err(problem) => {
                    warn!(
                        problem,
                        "EVIDENCE_SIGNING_SECRET_FILE cannot be used; the secrets that were read before stay"
                    );
                    metrics::EVIDENCE_SECRET_RELOADS.inc(&["refused"]);
                }
            }
            told = looked.err();
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Takes up what the file has: how many secrets there are then, or none if they are those in use. Blocks.
fn look(path: &Path, signer: &Signer, is_lenient: bool) -> Result<Option<usize>, String> {
    let found = read_secret_file(path).map_err(|problem| format!("{} {problem}", path.display()))?;
    let secrets = check(&found.text, is_lenient)?;
    let count = secrets.len();
    Ok(signer.replace(secrets).then_some(count))
}

/// The secrets of a value, or what is wrong with it, as a half-sentence without the value.
fn check(text: &str, is_lenient: bool) -> Result<Vec<&str>, String> {
    let secrets: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if secrets.is_empty() {
        return Err("has no secret".to_owned());
    }
    if secrets.len() > SECRETS_MAX {
        return Err(format!("has {} secrets; the limit is {SECRETS_MAX}", secrets.len()));
    }
    if !is_lenient && secrets.contains(&DEV_SECRET) {
        return Err("is the public default; it is accepted only in ENV=dev on a loopback BIND_ADDR".to_owned());
    }
    if secrets.iter().any(|secret| secret.chars().count() < TOKEN_CHARS_MIN) {
        return Err(too_short());
    }
    Ok(secrets)
}

fn too_short() -> String {
    format!("has a secret of fewer than {TOKEN_CHARS_MIN} characters")
}

/// Reports a setting with a secret that is too short.
pub(crate) fn check_secrets(reader: &mut Reader<'_>, setting: &Setting, secrets: &[Secret]) {
    let is_short = |secret: &Secret| secret.expose_secret().chars().count() < TOKEN_CHARS_MIN;
    if secrets.iter().any(is_short) {
        reader.fault(setting.key, too_short());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Checked;

    #[test]
    fn a_file_that_changed_counts_and_one_that_is_broken_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let signer = Signer::new(["the-old-secret-of-links"], Duration::from_secs(60));
        let (shared, link) = (signer.clone(), signer.link("a", 0));
        let token = link.trim_start_matches("/v1/evidence/");
        let look = |text: &str| {
            std::fs::write(&path, text).unwrap();
            look(&path, &signer, false)
        };
        assert_eq!(look("the-old-secret-of-links\n"), Ok(None));
        assert_eq!(look("the-new-secret-of-links,the-old-secret-of-links"), Ok(Some(2)));
        assert_eq!(shared.check(token, 1), Checked::Valid("a".to_owned()));
        assert_ne!(shared.link("a", 0), link, "the first signs");
        for (broken, why) in [
            ("", "has no secret"),
            ("the-new-secret-of-links,hunter2", "16 characters"),
            (DEV_SECRET, "public default"),
            ("a,b,c,d,e,f,g,h,i", "limit is 8"),
        ] {
            let problem = look(broken).unwrap_err();
            assert!(problem.contains(why) && !problem.contains("hunter2"), "{problem}");
        }
        assert_eq!(shared.check(token, 1), Checked::Valid("a".to_owned()));
        assert_eq!(look("the-new-secret-of-links"), Ok(Some(1)));
        assert_eq!(shared.check(token, 1), Checked::Forged);
    }
}
