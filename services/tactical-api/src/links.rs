//! Signed links to evidence: made, and told apart from any other text.
//!
//! A link says which evidence and until when; anyone who has it may open it. The signature covers the decoded id and
//! the literal digits of the expiry, so that changing any character makes another text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// Where links lead.
pub const PREFIX: &str = "/v1/evidence/";
/// Longest id, in characters.
pub const ID_MAX: usize = 128;
/// How far the clocks of replicas may differ, seconds: a link of another one may end this much later than one made here.
const SKEW_MAX_SECS: i64 = 60;
/// Digits of an expiry: enough for 300 million years.
const EXPIRY_DIGITS_MAX: usize = 16;

/// Everything but what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Makes and checks links. The first key signs, every key verifies. Clones share the keys.
#[derive(Clone)]
pub struct Signer {
    keys: Arc<RwLock<Arc<Keys>>>,
    ttl: Duration,
}

/// The keys, and what they were made from: a hash that shows whether other secrets make the same.
struct Keys {
    all: Vec<hmac::Key>,
    digest: [u8; 32],
}

impl Keys {
    fn of(secrets: &[&str]) -> Self {
        let mut sum = digest::Context::new(&digest::SHA256);
        for secret in secrets {
            sum.update(&(secret.len() as u64).to_be_bytes());
            sum.update(secret.as_bytes());
        }
        let digest = sum.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        let key = |secret: &&str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { all: secrets.iter().map(key).collect(), digest }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("keys", &self.secrets()).field("ttl", &self.ttl).finish()
    }
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Signed by us and in time: the evidence's id.
    Valid(String),
    /// Signed by us, and over.
    Expired,
    /// Signed with our secret, for longer than links last: not made here, or before the time was shortened.
    TooLong,
    /// Not signed by us.
    Forged,
}

impl Signer {
    /// With at least one secret; links last for `ttl`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>, ttl: Duration) -> Self {
        let secrets: Vec<&str> = secrets.into_iter().collect();
        Self { keys: Arc::new(RwLock::new(Arc::new(Keys::of(&secrets)))), ttl }
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many secrets verify.
    pub fn secrets(&self) -> usize {
        self.keys().all.len()
    }

    /// Uses at least one secret instead of the earlier ones, in all clones. Says whether they are others.
    pub fn replace<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) -> bool {
        let secrets: Vec<&str> = secrets.into_iter().collect();
        let keys = Keys::of(&secrets);
        let is_news = keys.digest != self.keys().digest;
        if is_news {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
        is_news
    }

    /// How long a link lasts.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The path of a link that is made at `now`, in unix seconds.
    pub fn link(&self, id: &str, now: i64) -> String {
        let expiry = now.saturating_add(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX));
        let signature = hmac::sign(&self.keys().all[0], format!("{id}.{expiry}").as_bytes());
        let id = utf8_percent_encode(id, ESCAPED);
        format!("{PREFIX}{id}.{expiry}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The newest expiry that a link may have at `now`.
    fn latest(&self, now: i64) -> i64 {
        let ttl = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        now.saturating_add(ttl).saturating_add(SKEW_MAX_SECS)
    }

    /// Checks what follows [`PREFIX`], percent-decoded, at `now`, in unix seconds. Takes the same time regardless of
    /// what is wrong with the signature.
    pub fn check(&self, token: &str, now: i64) -> Checked {
        let Some((signed, signature)) = token.rsplit_once('.') else { return Checked::Forged };
        let Some((id, expiry)) = signed.rsplit_once('.') else { return Checked::Forged };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return Checked::Forged };
        let is_number = expiry.len() <= EXPIRY_DIGITS_MAX && expiry.bytes().all(|b| b.is_ascii_digit());
        let verifies = |key: &hmac::Key| hmac::verify(key, signed.as_bytes(), &signature).is_ok();
        let is_ours = self.keys().all.iter().fold(false, |ours, key| ours | verifies(key));
        match expiry.parse::<i64>() {
            Ok(expiry) if is_ours && is_number => {
                if expiry <= now {
                    Checked::Expired
                } else if expiry > self.latest(now) {
                    Checked::TooLong
                } else {
                    Checked::Valid(id.to_owned())
                }
            }
            _ => Checked::Forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;

    const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn signer() -> Signer {
        Signer::new(["dev-secret"], Duration::from_secs(300))
    }

    fn token(link: &str) -> String {
        percent_decode_str(link.strip_prefix(PREFIX).unwrap()).decode_utf8().unwrap().into_owned()
    }

    /// Made with Python's hmac and base64 modules.
    #[test]
    fn links_are_those_of_the_golden_vectors() {
        let at = 1_700_000_000;
        for (id, path) in [
            (format!("pier-7/{SHA}"), format!("pier-7%2F{SHA}.1700000300.qzRlu1pvxTGuk-VEw1CHfChpmClWdy3VJucFhzM7udo")),
            (
                "report.v1.pdf".to_owned(),
                "report.v1.pdf.1700000300.0YjhVn8ViL85FpQ1KWTKNFVQ3Sn-rX-rn8Fyr74hg7w".to_owned(),
            ),
            (
                "ü x/y.z".to_owned(),
                "%C3%BC%20x%2Fy.z.1700000300.gZfsbthdBZD3Jg1TohIeuuDOHCVu4l-VZ_5gIJK3onM".to_owned(),
            ),
        ] {
            let link = signer().link(&id, at);
            assert_eq!(link, format!("{PREFIX}{path}"));
            assert_eq!(signer().check(&token(&link), at + 299), Checked::Valid(id));
            assert_eq!(signer().check(&token(&link), at + 300), Checked::Expired);
        }
    }

    #[test]
    fn one_changed_character_anywhere_is_no_link() {
        let link = token(&signer().link("a.b/c", 1_700_000_000));
        let alphabet: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').chain("-_./=+%".chars()).collect();
        for at in 0..link.len() {
            for c in &alphabet {
                let mut changed = link.clone();
                changed.replace_range(at..=at, &c.to_string());
                if changed != link {
                    assert_eq!(signer().check(&changed, 1_700_000_001), Checked::Forged, "{changed}");
                }
            }
            let mut shorter = link.clone();
            shorter.remove(at);
            assert_eq!(signer().check(&shorter, 1_700_000_001), Checked::Forged, "{shorter}");
        }
        for text in ["", ".", "..", "a", "a.1", &format!("{link}="), &format!("{link} "), &format!("{link}.")] {
            assert_eq!(signer().check(text, 0), Checked::Forged, "{text}");
        }
    }

    #[test]
    fn a_rotated_secret_verifies_until_it_is_taken_out() {
        let old = token(&Signer::new(["old"], Duration::from_secs(300)).link("x", 0));
        let both = Signer::new(["new", "old"], Duration::from_secs(300));
        assert_eq!(both.check(&old, 1), Checked::Valid("x".into()));
        let new = Signer::new(["new"], Duration::from_secs(300));
        assert_eq!(new.check(&old, 1), Checked::Forged);
        assert_eq!(new.check(&token(&both.link("x", 0)), 1), Checked::Valid("x".into()));
    }

    #[test]
    fn no_link_lasts_longer_than_the_setting_says() {
        let at = 1_700_000_000;
        let year = token(&Signer::new(["dev-secret"], Duration::from_secs(31_536_000)).link("x", at));
        assert_eq!(signer().check(&year, at), Checked::TooLong);
        // Another replica's clock may be a minute ahead.
        let ahead = token(&signer().link("x", at + SKEW_MAX_SECS));
        assert_eq!(signer().check(&ahead, at), Checked::Valid("x".into()));
        assert_eq!(signer().check(&token(&signer().link("x", at + SKEW_MAX_SECS + 1)), at), Checked::TooLong);
        assert_eq!(signer().check(&year, at + 31_536_000), Checked::Expired);
    }

    #[test]
    fn an_expiry_is_signed_as_it_is_written() {
        // A holder of the key could sign these, but we never produce such numbers.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"dev-secret");
        for expiry in ["+1700000300", "1e9", "99999999999999999", "-1", ""] {
            let signed = format!("x.{expiry}");
            let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
            assert_eq!(signer().check(&format!("{signed}.{signature}"), 0), Checked::Forged, "{expiry}");
        }
    }
}
