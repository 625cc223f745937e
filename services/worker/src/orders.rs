//! Whether a message is an order: signed by the orchestrator, and not changed since.
//!
//! Looked at before anything else of a message is. Keys come from settings; a file of keys is read again when it changes,
//! and at once when a message names a key that is not known. Without any key, which only `ENV=dev` allows, every message
//! is taken for an order.

use agentforge_config::{Common, Reader, Setting};
use agentforge_jetstream::Delivery;
use agentforge_proto::time::Micros;
use agentforge_signing::{HEADER, KeyFile, PublicKeys, Refused, Verifier, leaf, read_public};
use async_nats::header::NATS_MESSAGE_ID;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const VERIFY_KEYS_FILE: Setting = Setting::new(
    "VERIFY_KEYS_FILE",
    None,
    "path of a PEM file with 1 to 16 Ed25519 public keys",
    "Keys of the orchestrators whose attempts are run. Read again when it changes. This or VERIFY_KEYS is required unless ENV is dev.",
);
const VERIFY_KEYS: Setting = Setting::new(
    "VERIFY_KEYS",
    None,
    "Ed25519 public keys, comma separated, each as the line between the marks of its PEM file",
    "More keys of the same kind. Without any key, in ENV=dev, attempts are not verified.",
);

/// Settings of verification.
pub(crate) const SETTINGS: &[Setting] = &[VERIFY_KEYS_FILE, VERIFY_KEYS];

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Which keys verify.
#[derive(Clone, Debug, Default)]
pub struct VerifySettings {
    inline: Option<PublicKeys>,
    file: Option<PathBuf>,
}

impl VerifySettings {
    /// Reads the settings; a file that is named must be usable.
    pub(crate) fn read(reader: &mut Reader<'_>, common: &Common) -> Self {
        let file = reader.opt::<PathBuf>(&VERIFY_KEYS_FILE);
        if let Some(Err(problem)) = file.as_deref().map(read_public) {
            reader.fault(VERIFY_KEYS_FILE.key, problem);
        }
        let are_keys = |list: &String| PublicKeys::from_list(list).map(drop).map_err(|e| e.to_string());
        let inline = reader.opt_if(&VERIFY_KEYS, are_keys).and_then(|list| PublicKeys::from_list(&list).ok());
        if file.is_none() && !reader.is_set(&VERIFY_KEYS) && !common.is_dev() {
            reader.fault(
                VERIFY_KEYS_FILE.key,
                "or VERIFY_KEYS is required unless ENV is dev: an attempt is run only if the orchestrator signed it; \
                 `agentforge keys public` prints the keys for it",
            );
        }
        Self { inline, file }
    }
}

/// What verifies messages.
#[derive(Debug)]
pub(crate) struct Orders {
    /// `None`: every message is an order.
    verifier: Option<Verifier>,
    inline: PublicKeys,
    file: Option<Mutex<Watched>>,
}

#[derive(Debug)]
struct Watched {
    file: KeyFile,
    logged: String,
}

impl Orders {
    /// With the keys of now.
    pub(crate) fn new(settings: &VerifySettings) -> Arc<Self> {
        let inline = settings.inline.clone().unwrap_or_default();
        let has_keys = settings.inline.is_some() || settings.file.is_some();
        let watched = |path: &PathBuf| Mutex::new(Watched { file: KeyFile::new(path), logged: String::new() });
        let orders = Self {
            verifier: has_keys.then(|| Verifier::new(inline.clone())),
            inline,
            file: settings.file.as_ref().map(watched),
        };
        if has_keys {
            orders.look();
        } else {
            warn!(
                "attempts are run without a signature: every client that may publish to a job queue runs tools here; ENV is dev, \
                 and neither VERIFY_KEYS_FILE nor VERIFY_KEYS is set"
            );
        }
        Arc::new(orders)
    }

    /// Whether messages are verified.
    pub(crate) fn are_verified(&self) -> bool {
        self.verifier.is_some()
    }

    /// Whether a delivery is an order.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check(&self, delivery: &Delivery, now: Micros) -> Result<(), Refused> {
        let id = delivery.header(NATS_MESSAGE_ID.as_ref()).unwrap_or_default();
        self.check_value(delivery.header(HEADER), delivery.subject(), id, delivery.payload(), now)
    }

    /// Whether the orchestrator signed a value that is stored under a subject.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn check_value(
        &self,
        signature: Option<&str>,
        subject: &str,
        id: &str,
        body: &[u8],
        now: Micros,
    ) -> Result<(), Refused> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (leaf, now) = (leaf(subject, id, body), now.millis());
        let mut verified = verifier.verify(signature, leaf, now);
        if verified == Err(Refused::UnknownKey) {
            // The key may have come this moment, or another message may have had the file read meanwhile.
            self.look();
            verified = verifier.verify(signature, leaf, now);
        }
        verified.map(|_| ())
    }

    /// Takes over what the file has; whether the keys are others now.
    fn look(&self) -> bool {
        let (Some(verifier), Some(watched)) = (&self.verifier, &self.file) else { return false };
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let path = watched.file.path().to_owned();
        let found = match watched.file.changed() {
            Ok(None) => return false,
            Ok(Some(text)) => PublicKeys::from_pem(text).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        match found {
            Ok(keys) => {
                watched.logged.clear();
                let keys = keys.and(self.inline.clone());
                info!(keys = ?keys.ids().collect::<Vec<_>>(), "attempts signed with these keys are run");
                verifier.replace(keys);
                true
            }
            Err(problem) => {
                if watched.logged != problem {
                    warn!(file = %path.display(), problem, "the keys cannot be read again; those of before are used");
                    watched.logged = problem;
                }
                false
            }
        }
    }

    /// Takes over what the file has, whenever that changes, until `stop` fires.
    ///
    /// # Errors
    /// Never; the type is the supervisor's.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) -> Result<(), anyhow::Error> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return Ok(()),
            }
            self.look();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_signing::{Signer, new_private_pem};
    use std::{collections::BTreeMap, fs};

    fn read(pairs: &[(&str, &str)]) -> Result<VerifySettings, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let common = Common::read(&mut reader);
        let settings = VerifySettings::read(&mut reader, &common);
        reader.finish().map(|_| settings).map_err(|faults| faults.to_string())
    }

    fn signer() -> Signer {
        Signer::from_pem(&new_private_pem().unwrap()).unwrap()
    }

    fn check(orders: &Orders, signature: Option<&str>) -> Result<(), Refused> {
        orders.check_value(signature, "s", "i", b"b", Micros(1_000_000))
    }

    #[test]
    fn outside_of_dev_keys_are_required() {
        let key = signer().public_keys().to_list();
        assert!(read(&[("ENV", "production")]).unwrap_err().contains("VERIFY_KEYS_FILE"));
        assert!(read(&[("ENV", "production"), ("VERIFY_KEYS", &key)]).is_ok());
        assert!(read(&[("VERIFY_KEYS", "x")]).unwrap_err().contains("VERIFY_KEYS"));
        assert!(read(&[("VERIFY_KEYS_FILE", "/no/such")]).is_err());
        let orders = Orders::new(&read(&[]).unwrap());
        assert!(!orders.are_verified() && check(&orders, None).is_ok());
    }

    #[test]
    fn a_key_that_comes_is_known_at_once_and_one_that_goes_soon() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.pem");
        let (old, new) = (signer(), signer());
        let sign = |signer: &Signer| signer.sign(&[leaf("s", "i", b"b")], 0, 2_000).remove(0);
        fs::write(&file, old.public_keys().to_pem()).unwrap();
        let orders =
            Orders::new(&read(&[("ENV", "production"), ("VERIFY_KEYS_FILE", file.to_str().unwrap())]).unwrap());
        assert_eq!(check(&orders, Some(&sign(&old))), Ok(()));
        fs::write(&file, new.public_keys().and(old.public_keys()).to_pem()).unwrap();
        assert_eq!(check(&orders, Some(&sign(&new))), Ok(()), "an unknown key has the file read");
        assert_eq!(check(&orders, Some(&sign(&old))), Ok(()));
        fs::write(&file, "rubbish").unwrap();
        assert!(!orders.look());
        assert_eq!(check(&orders, Some(&sign(&old))), Ok(()), "a file that is no use changes nothing");
        fs::write(&file, new.public_keys().to_pem()).unwrap();
        assert!(orders.look());
        assert_eq!(check(&orders, Some(&sign(&old))), Err(Refused::UnknownKey));
        assert_eq!(check(&orders, None), Err(Refused::Unsigned));
    }
}
