//! The accounts of edge sites at their hub's gate: one for each, with what it may send there, and the site's key.
//!
//! Values only: the text of the gate's `sites.conf` from names and public keys, and back. Each site's block is
//! `k8s/components/edge/site-account.conf` with its name, which is checked where it is made, so that no name reaches
//! into another's subjects.

use agentforge_message_id::Site;
use nkeys::KeyPair;
use std::{collections::BTreeMap, fmt};

/// What one site adds.
const ACCOUNT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/site-account.conf"));
const HEAD: &str = "# The sites of this hub: an account for each. Written by `agentforge site add` and `agentforge site revoke`, \
                    which keep names and keys;\n# what is added by hand is lost.\n";
/// Before a site's name, so that no site has the name of an account of the gate's own.
const PREFIX: &str = "SITE-";
/// Of the end of a key, which is in the account's name.
const ID_CHARS: usize = 8;
/// The hub's own name, which is its JetStream domain.
const HUB: &str = "hub";

/// A site's key pair: only the site has the seed.
pub struct SiteKey {
    /// What the site logs in with: `SU…`.
    pub seed: String,
    /// What its account at the gate has: `U…`.
    pub public: String,
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SiteKey {
    /// A new one, from the system's randomness.
    ///
    /// # Errors
    /// The seed cannot be written as text.
    pub fn generate() -> Result<Self, nkeys::error::Error> {
        let pair = KeyPair::new_user();
        Ok(Self { seed: pair.seed()?, public: pair.public_key() })
    }
}

/// Why the sites cannot be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is there already.
    #[error("site {0} exists; a site that lost its credential is revoked first")]
    Exists(Site),
    /// It is not there.
    #[error("there is no site {0}")]
    Unknown(Site),
    /// The hub cannot be a site of itself.
    #[error("{HUB} is the hub's own name; a site has another")]
    Hub,
    /// The file is not one of ours.
    #[error("line {line} is not one that `agentforge site` writes: {problem}")]
    Unreadable {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// The sites of a hub, by name, each with its public key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteAccounts(BTreeMap<Site, String>);

impl SiteAccounts {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`Error::Unreadable`]: a name or key is not valid, or a site has no key or two accounts.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut sites = BTreeMap::new();
        let mut open: Option<Site> = None;
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        for (line, text) in lines.filter(|(_, text)| !text.starts_with('#')) {
            let unreadable = |problem: String| Error::Unreadable { line, problem };
            if let Some(name) = text.strip_prefix(&format!("\"{PREFIX}")) {
                let name = name.split('"').next().unwrap_or_default();
                let (name, _key) = name.rsplit_once('-').unwrap_or((name, ""));
                let site = Site::new(name).map_err(|e| unreadable(e.to_string()))?;
                if let Some(before) = open.replace(site) {
                    return Err(unreadable(format!("site {before} has no key")));
                }
            } else if let Some((_, rest)) = text.split_once("nkey: ") {
                let key = rest.split([',', ' ']).next().unwrap_or_default();
                let site = open.take().ok_or_else(|| unreadable("a key of no site".to_owned()))?;
                if !is_public_key(key) {
                    return Err(unreadable(format!("site {site} has no public key of a user")));
                }
                if sites.insert(site.clone(), key.to_owned()).is_some() {
                    return Err(unreadable(format!("site {site} is here twice")));
                }
            }
        }
        match open {
            Some(site) => {
                Err(Error::Unreadable { line: text.lines().count(), problem: format!("site {site} has no key") })
            }
            None => Ok(Self(sites)),
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let accounts = self.0.iter().map(|(site, key)| account(site, key));
        HEAD.to_owned() + &accounts.collect::<String>()
    }

    /// Adds a site with its public key.
    ///
    /// # Errors
    /// It exists, or it is the hub's name.
    pub fn add(&mut self, site: &Site, public: &str) -> Result<(), Error> {
        // Servers may compare names of domains without case.
        if site.as_str().eq_ignore_ascii_case(HUB) {
            return Err(Error::Hub);
        }
        if self.0.contains_key(site) {
            return Err(Error::Exists(site.clone()));
        }
        self.0.insert(site.clone(), public.to_owned());
        Ok(())
    }

    /// Takes a site out.
    ///
    /// # Errors
    /// It is not there.
    pub fn revoke(&mut self, site: &Site) -> Result<String, Error> {
        self.0.remove(site).ok_or_else(|| Error::Unknown(site.clone()))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Site, &str)> {
        self.0.iter().map(|(site, key)| (site, key.as_str()))
    }
}

fn account(site: &Site, key: &str) -> String {
    let id = key.get(key.len().saturating_sub(ID_CHARS)..).unwrap_or(key);
    ACCOUNT.replace("@SITE@", site.as_str()).replace("@ID@", id).replace("@NKEY@", key)
}

fn is_public_key(key: &str) -> bool {
    key.starts_with('U') && KeyPair::from_public_key(key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> Site {
        Site::new(name).unwrap()
    }

    #[test]
    fn sites_come_go_and_are_read_back() {
        let mut sites = SiteAccounts::default();
        assert_eq!(SiteAccounts::parse(&sites.text()), Ok(sites.clone()));
        let (a, b) = (SiteKey::generate().unwrap(), SiteKey::generate().unwrap());
        assert!(a.seed.starts_with("SU") && a.public.starts_with('U') && a.public != b.public);
        assert!(!format!("{a:?}").contains(&a.seed));
        sites.add(&site("pier-7"), &a.public).unwrap();
        sites.add(&site("dock-1"), &b.public).unwrap();
        assert_eq!(sites.add(&site("pier-7"), &b.public), Err(Error::Exists(site("pier-7"))));
        assert_eq!(sites.add(&site("Hub"), &b.public), Err(Error::Hub));
        let text = sites.text();
        assert_eq!(SiteAccounts::parse(&text), Ok(sites.clone()));
        assert!(text.contains("subject: \"edge.evidence.pier-7.>\"") && !text.contains('@'), "{text}");
        assert_eq!(sites.revoke(&site("dock-1")), Ok(b.public));
        assert_eq!(sites.revoke(&site("dock-1")), Err(Error::Unknown(site("dock-1"))));
        assert!(!sites.text().contains("dock-1"));
    }

    #[test]
    fn what_is_not_ours_is_not_overwritten() {
        let key = SiteKey::generate().unwrap();
        let block = |name: &str, key: &str| ACCOUNT.replace("@SITE@", name).replace("@ID@", "X").replace("@NKEY@", key);
        for (text, problem) in [
            (block("a.b", &key.public), "site \"a.b\" is not valid"),
            (block("a", "UNOTAKEY"), "no public key"),
            (block("a", &key.seed), "no public key"),
            (block("a", &key.public).repeat(2), "twice"),
            ("\"SITE-a-X\" {\n}\n".to_owned(), "has no key"),
            (format!("nkey: {}", key.public), "a key of no site"),
        ] {
            let error = SiteAccounts::parse(&text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
