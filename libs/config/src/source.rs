//! Where settings come from: the process environment, or a map in tests and in the all-in-one.

use crate::secret_file;
use std::collections::{BTreeMap, HashMap};

/// Gives the raw text of a setting.
pub trait Source: Send + Sync {
    /// The value of `key`, or `None` when it is not set.
    fn get(&self, key: &str) -> Option<String>;

    /// The names of all values that are set, in no order.
    fn keys(&self) -> Vec<String>;
}

/// The process environment. Bytes that are not UTF-8 come through as replacement characters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Env;

impl Source for Env {
    fn get(&self, key: &str) -> Option<String> {
        std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
    }

    fn keys(&self) -> Vec<String> {
        std::env::vars_os().map(|(key, _)| key.to_string_lossy().into_owned()).collect()
    }
}

impl Source for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        BTreeMap::get(self, key).cloned()
    }

    fn keys(&self) -> Vec<String> {
        BTreeMap::keys(self).cloned().collect()
    }
}

impl Source for HashMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        HashMap::get(self, key).cloned()
    }

    fn keys(&self) -> Vec<String> {
        HashMap::keys(self).cloned().collect()
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn get(&self, key: &str) -> Option<String> {
        (**self).get(key)
    }

    fn keys(&self) -> Vec<String> {
        (**self).keys()
    }
}

/// The first source that knows the key wins: `(overrides, Env)`. It decides about a secret in both of its forms: who
/// overrides `TOKEN` is not contradicted by a `TOKEN_FILE` of the other source.
impl<A: Source, B: Source> Source for (A, B) {
    fn get(&self, key: &str) -> Option<String> {
        let is_decided = match key.strip_suffix(secret_file::SUFFIX) {
            Some(plain) => self.0.get(plain).is_some(),
            None => self.0.get(&format!("{key}{}", secret_file::SUFFIX)).is_some(),
        };
        self.0.get(key).or_else(|| if is_decided { None } else { self.1.get(key) })
    }

    fn keys(&self) -> Vec<String> {
        let mut keys = self.0.keys();
        keys.extend(self.1.keys());
        keys
    }
}
