//! Which missions, queues, tools and sites a caller's rights are for. Pure.
//!
//! No scopes at all: everything. With scopes a right is only for what they name: a caller with scopes for jobs has
//! none for sites, and the other way round; a kind that is not named is not limited within its family.

use std::{fmt, sync::Arc};

/// Most scopes of one caller: each request is compared with them.
pub const SCOPES_MAX: usize = 64;
/// Longest name in a scope, bytes; longer than any name that there is.
const NAME_BYTES_MAX: usize = 128;

/// What a scope names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A mission of jobs.
    Mission,
    /// A queue of jobs.
    Queue,
    /// The tool that jobs run.
    Tool,
    /// A site of markers and evidence.
    Site,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Mission, Self::Queue, Self::Tool, Self::Site];

    /// The word in front of the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mission => "mission",
            Self::Queue => "queue",
            Self::Tool => "tool",
            Self::Site => "site",
        }
    }
}

/// A caller's scopes. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Scopes(Option<Arc<[Scope]>>);

#[derive(Clone, PartialEq, Eq)]
struct Scope {
    kind: Kind,
    /// Without the `*` that a prefix ends with.
    name: Box<str>,
    is_prefix: bool,
}

impl Scope {
    fn matches(&self, kind: Kind, name: &str) -> bool {
        self.kind == kind && if self.is_prefix { name.starts_with(&*self.name) } else { *self.name == *name }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.kind.as_str(), self.name, if self.is_prefix { "*" } else { "" })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.list().iter().enumerate() {
            write!(f, "{}{scope}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl Scopes {
    /// Everything.
    pub const ALL: Self = Self(None);

    /// Nothing.
    pub fn none() -> Self {
        Self(Some(Vec::new().into()))
    }

    /// Reads `kind:name` words; a name may end with `*`, which stands for any rest. A single `*` is everything.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence about a scope.
    pub fn parse<'s>(words: impl IntoIterator<Item = &'s str>) -> Result<Self, &'static str> {
        let mut scopes = Vec::new();
        let mut is_all = false;
        for word in words {
            if word == "*" {
                is_all = true;
                continue;
            }
            if scopes.len() == SCOPES_MAX {
                return Err("has more than 64 scopes");
            }
            scopes.push(parse_one(word)?);
        }
        Ok(if is_all || scopes.is_empty() { Self::ALL } else { Self(Some(scopes.into())) })
    }

    fn list(&self) -> &[Scope] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether they are for everything.
    pub const fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a job of this mission and queue, with this tool, is within them.
    pub fn has_job(&self, mission: &str, queue: &str, tool: &str) -> bool {
        let all = [(Kind::Mission, mission), (Kind::Queue, queue), (Kind::Tool, tool)];
        self.is_for_jobs() && all.into_iter().all(|(kind, name)| self.lets(kind, name))
    }

    /// Whether this mission, queue or tool may be asked about.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        if kind == Kind::Site { self.has_site(name) } else { self.is_for_jobs() && self.lets(kind, name) }
    }

    /// Whether one of them names this; being for everything names nothing.
    pub fn names(&self, kind: Kind, name: &str) -> bool {
        self.list().iter().any(|scope| scope.matches(kind, name))
    }

    /// Whether this site is within them.
    pub fn has_site(&self, site: &str) -> bool {
        self.is_all() || self.list().iter().any(|scope| scope.matches(Kind::Site, site))
    }

    /// Whether any job is within them.
    pub fn is_for_jobs(&self) -> bool {
        self.is_all() || self.list().iter().any(|scope| scope.kind != Kind::Site)
    }

    /// The one name of this kind, where there is exactly one: a listing can ask for it only.
    pub fn only(&self, kind: Kind) -> Option<&str> {
        let mut named = self.list().iter().filter(|scope| scope.kind == kind);
        match (named.next(), named.next()) {
            (Some(scope), None) if !scope.is_prefix => Some(&scope.name),
            _ => None,
        }
    }

    /// A kind that no scope names is not limited.
    fn lets(&self, kind: Kind, name: &str) -> bool {
        let mut named = self.list().iter().filter(|scope| scope.kind == kind).peekable();
        named.peek().is_none() || named.any(|scope| scope.matches(kind, name))
    }
}

fn parse_one(word: &str) -> Result<Scope, &'static str> {
    let (kind, name) = word.split_once(':').ok_or("has a scope that is not kind:name")?;
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
    let kind = kind.ok_or("has a scope of a kind that is none of mission, queue, tool, site")?;
    let (name, is_prefix) = name.strip_suffix('*').map_or((name, false), |prefix| (prefix, true));
    let fits = name.len() <= NAME_BYTES_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    // A prefix of nothing is all names of a kind.
    if !fits || (name.is_empty() && !is_prefix) {
        return Err("has a scope whose name has other characters than letters, digits, dots, hyphens, underscores");
    }
    Ok(Scope { kind, name: name.into(), is_prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text.split_whitespace()).unwrap()
    }

    #[test]
    fn a_right_is_for_what_the_scopes_name() {
        for (text, job, within) in [
            ("", ("m", "a", "echo"), true),
            ("*", ("m", "a", "echo"), true),
            ("queue:a tool:echo", ("m", "a", "echo"), true),
            ("queue:a tool:echo", ("m", "b", "echo"), false),
            ("queue:a tool:echo", ("m", "a", "sh"), false),
            ("queue:a queue:b", ("m", "b", "sh"), true),
            ("mission:m", ("m", "b", "sh"), true),
            ("mission:m", ("n", "b", "sh"), false),
            ("queue:bill-*", ("m", "bill-eu", "sh"), true),
            ("queue:bill-*", ("m", "bill", "sh"), false),
            ("queue:a", ("m", "ab", "sh"), false),
            ("tool:*", ("m", "a", "sh"), true),
            // For sites only: no jobs.
            ("site:north", ("m", "a", "echo"), false),
        ] {
            let (mission, queue, tool) = job;
            assert_eq!(scopes(text).has_job(mission, queue, tool), within, "{text:?} {job:?}");
        }
    }

    #[test]
    fn sites_and_jobs_are_apart() {
        assert!(scopes("").has_site("north") && scopes("site:north").has_site("north"));
        assert!(!scopes("site:north").has_site("south") && !scopes("queue:a").has_site("north"));
        assert!(scopes("site:n*").has_site("north") && !scopes("site:north").is_for_jobs());
        let none = Scopes::none();
        assert!(!none.has_job("m", "a", "t") && !none.has_site("north") && !none.is_all());
        assert!(scopes("site:north queue:a").has_job("m", "a", "t") && scopes("queue:a").is_for_jobs());
        assert!(scopes("tool:pay*").names(Kind::Tool, "pay-out") && !scopes("queue:a").names(Kind::Tool, "pay-out"));
        assert!(!Scopes::ALL.names(Kind::Tool, "pay-out"));
    }

    #[test]
    fn a_listing_can_ask_for_a_name_that_is_the_only_one() {
        assert_eq!(scopes("queue:a tool:x tool:y").only(Kind::Queue), Some("a"));
        for text in ["", "queue:a queue:b", "queue:a*", "tool:x"] {
            assert_eq!(scopes(text).only(Kind::Queue), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for wrong in ["queue", "queue:", "room:a", "queue:a b:c", "queue:a/b", "queue:a*b", "Queue:a"] {
            assert!(Scopes::parse(wrong.split_whitespace()).is_err(), "{wrong}");
        }
        let many = vec!["queue:a"; SCOPES_MAX + 1];
        assert!(Scopes::parse(many).is_err());
        assert_eq!(scopes("queue:a* tool:echo").to_string(), "queue:a* tool:echo");
    }
}
