//! The key of the console: it signs who a caller is, for the services behind it, and seals what browsers keep.
//!
//! In `ENV=dev` it is made at the first start, in the data directory, with its public part next to it as a JWKS document,
//! which the services read as ACCESS_CONSOLE_KEYS. With several keys the first signs and all are accepted.

use agentforge_config::{ExposeSecret, Secret};
use agentforge_runtime::private;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::json;
use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::Path,
    sync::Arc,
};

/// In the data directory, in `ENV=dev`.
pub const DEV_PRIVATE: &str = "console-signing-key.pem";
/// Its public part, next to it.
pub const DEV_PUBLIC: &str = "console-keys.json";
/// `iss` of the tokens for services.
pub const ISSUER: &str = "agentforge-console";
/// `aud` of the tokens for services.
pub const AUDIENCE: &str = "agentforge";
/// Keys of one file.
const KEYS_MAX: usize = 4;
/// What separates the key of seals from every other use of the same bytes.
const SEAL_DOMAIN: &[u8] = b"agentforge:console:seal:v1";

/// The keys of the console. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Vec<Key>>);

struct Key {
    id: String,
    pair: Ed25519KeyPair,
    seal: hmac::Key,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Keys {
    /// The keys of a PEM text.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence. Never shows a part of it.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        const NONE: &str =
            "has no Ed25519 private key: lines between -----BEGIN PRIVATE KEY----- and -----END PRIVATE KEY-----";
        let mut keys = Vec::new();
        for block in text.split("-----BEGIN PRIVATE KEY-----").skip(1).take(KEYS_MAX) {
            let (body, _) = block.split_once("-----END PRIVATE KEY-----").ok_or(NONE)?;
            let body: String = body.split_whitespace().collect();
            let der = STANDARD.decode(body).map_err(|_| NONE)?;
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| NONE)?;
            let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &der), SEAL_DOMAIN);
            let id = hex::encode(&digest::digest(&digest::SHA256, pair.public_key().as_ref()).as_ref()[..8]);
            keys.push(Key { id, pair, seal: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) });
        }
        if keys.is_empty() { Err(NONE.to_owned()) } else { Ok(Self(Arc::new(keys))) }
    }

    /// The key of the data directory, made at the first start; its public part is written next to it.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub fn dev(folder: &Path) -> Result<Self, String> {
        let path = folder.join(DEV_PRIVATE);
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        private::create_dir_all(folder).map_err(|e| failed(&e))?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let text = new_private_pem().map_err(|e| failed(&e))?;
                replace(&path, text.as_bytes()).map_err(|e| failed(&e))?;
                text
            }
            Err(e) => return Err(failed(&e)),
        };
        let keys = Self::from_pem(&text).map_err(|problem| failed(&problem))?;
        replace(&folder.join(DEV_PUBLIC), keys.jwks().as_bytes()).map_err(|e| failed(&e))?;
        Ok(keys)
    }

    /// The public parts, as services read them.
    pub fn jwks(&self) -> String {
        let key = |key: &Key| {
            let x = URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x})
        };
        json!({"keys": self.0.iter().map(key).collect::<Vec<_>>()}).to_string()
    }

    /// A JSON Web Token with these claims.
    pub fn sign(&self, claims: &serde_json::Value) -> String {
        let key = self.first();
        // Without an id: services try the few keys that they have, under any name.
        let header = json!({"alg": "EdDSA", "typ": "JWT"});
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    /// What shows that a text of this kind is ours.
    pub fn seal(&self, kind: &str, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.first().seal, &sealed(kind, text)).as_ref())
    }

    /// Whether the seal is ours. Takes the same time for every wrong one.
    pub fn is_sealed(&self, kind: &str, text: &str, seal: &str) -> bool {
        let Ok(seal) = URL_SAFE_NO_PAD.decode(seal) else { return false };
        self.0.iter().any(|key| hmac::verify(&key.seal, &sealed(kind, text), &seal).is_ok())
    }

    fn first(&self) -> &Key {
        self.0.first().expect("there are no keys without one")
    }
}

/// Whether a setting has a key.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence.
pub fn check_key(key: &Secret) -> Result<(), String> {
    Keys::from_pem(key.expose_secret()).map(drop)
}

/// Random text that cannot be guessed: 256 bits.
///
/// # Errors
/// The system gives no random bytes.
pub fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn sealed(kind: &str, text: &str) -> Vec<u8> {
    [kind.as_bytes(), &[0], text.as_bytes()].concat()
}

fn new_private_pem() -> io::Result<String> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let der = document.map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref())))
}

/// Written whole or not at all: another process may read it meanwhile.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let mut file = private::options().write(true).create(true).truncate(true).open(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_one_kind_one_text_and_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::dev(dir.path()).unwrap();
        let seal = keys.seal("access", "a.1");
        assert!(keys.is_sealed("access", "a.1", &seal));
        for (kind, text, with) in [
            ("refresh", "a.1", seal.as_str()),
            ("access", "a.2", &seal),
            ("access", "a.1", ""),
            ("access", "a.1", &seal[1..]),
        ] {
            assert!(!keys.is_sealed(kind, text, with), "{kind} {text} {with}");
        }
        let again = Keys::dev(dir.path()).unwrap();
        assert!(again.is_sealed("access", "a.1", &seal), "the key is kept");
        assert_eq!(fs::read_to_string(dir.path().join(DEV_PUBLIC)).unwrap(), again.jwks());
        let other = Keys::from_pem(&new_private_pem().unwrap()).unwrap();
        assert!(!other.is_sealed("access", "a.1", &seal));
        let rotated =
            format!("{}{}", new_private_pem().unwrap(), fs::read_to_string(dir.path().join(DEV_PRIVATE)).unwrap());
        let rotated = Keys::from_pem(&rotated).unwrap();
        assert!(rotated.is_sealed("access", "a.1", &seal) && rotated.seal("access", "a.1") != seal);
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_shown() {
        for text in ["", "sesame", "-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----"] {
            assert!(!Keys::from_pem(text).unwrap_err().contains("sesame"));
        }
        assert!(Keys::from_pem(&agentforge_signing_pem()).is_ok(), "as `agentforge keys new` writes it");
    }

    /// PKCS#8 version 1, without the public part.
    fn agentforge_signing_pem() -> String {
        let der = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[7; 32]].concat();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }
}
