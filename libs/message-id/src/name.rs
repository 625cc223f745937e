//! Names that people choose: missions, queues, sites, tools, agents.
//!
//! One grammar each, checked once at the border; inside, a name is known to fit its subject token.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, sync::Arc};

/// Why a name was refused. The text names the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {shown:?} is not valid: {rule}")]
pub struct NameError {
    kind: &'static str,
    shown: String,
    rule: &'static str,
}

impl NameError {
    fn new(kind: &'static str, value: &str, rule: &'static str) -> Self {
        let shown = value.chars().take(80).collect();
        Self { kind, shown, rule }
    }
    pub(crate) fn not_a_uuid(value: &str) -> Self {
        Self::new("id", value, "expected a UUID, such as 01890a5d-ac96-774b-bcce-b302099a8057")
    }
}

const TOKEN_RULE: &str = "expected 1 to 63 letters, digits or hyphens, starting with a letter or digit";
const TOOL_RULE: &str =
    "expected 1 to 64 letters, digits, dots, hyphens or underscores, starting with a letter or digit";
const AGENT_RULE: &str =
    "expected 1 to 128 letters, digits, dots, hyphens or underscores, starting with a letter or digit";

fn fits(s: &str, max: usize, extra: &[u8]) -> bool {
    let b = s.as_bytes();
    (1..=max).contains(&b.len())
        && b[0].is_ascii_alphanumeric()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $extra:literal, $rule:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the grammar.
            ///
            /// # Errors
            /// [`NameError`] names the rule that the value breaks.
            pub fn new(value: impl AsRef<str>) -> Result<Self, NameError> {
                let v = value.as_ref();
                if fits(v, $max, $extra) { Ok(Self(v.into())) } else { Err(NameError::new($kind, v, $rule)) }
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0.as_ref().to_owned()
            }
        }
        // By hand: derived, each name would be copied on its way to JSON and from it.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

name!(
    /// The environment or shard a job belongs to; one subject token, no `_` (durable names join with it).
    Mission, "mission", 63, b"-", TOKEN_RULE
);
name!(
    /// A lane inside a mission; one subject token, no `_`.
    Queue, "queue", 63, b"-", TOKEN_RULE
);
name!(
    /// A place with a link of its own; one subject token.
    Site, "site", 63, b"-", TOKEN_RULE
);
name!(
    /// What a worker runs. Never part of a subject, so dots and underscores are fine.
    ToolName, "tool", 64, b"._-", TOOL_RULE
);
name!(
    /// A worker as the orchestrator knows it.
    AgentId, "agent id", 128, b"._-", AGENT_RULE
);

impl Default for Queue {
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_fit_a_subject_pass_and_others_say_why() {
        for good in ["a", "dev", "mission-7", "A9", &"x".repeat(63)] {
            assert!(Mission::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a_b", "a.b", "a b", "a*", "a>", "ä", "a\n", &"x".repeat(64)] {
            let e = Queue::new(bad).unwrap_err().to_string();
            assert!(e.contains("1 to 63"), "{e}");
        }
    }

    #[test]
    fn tools_may_have_dots_and_underscores() {
        assert!(ToolName::new("acme.hash_file-2").is_ok());
        assert!(ToolName::new("../etc").is_err());
    }

    #[test]
    fn a_refusal_never_echoes_a_long_value() {
        let e = Mission::new("x".repeat(10_000)).unwrap_err().to_string();
        assert!(e.len() < 300);
    }
}
