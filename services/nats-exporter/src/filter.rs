//! Which accounts, streams and consumers become series.

use regex::Regex;

/// One name's rules: it must match `include` if there is one, and must not match `exclude`. Expressions
/// cover the whole name, as they do in Prometheus.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// What is let in; `None` is everything.
    pub include: Option<Regex>,
    /// What is kept out all the same.
    pub exclude: Option<Regex>,
}

impl Rule {
    /// Whether a name becomes series.
    pub fn admits(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|re| re.is_match(name))
            && !self.exclude.as_ref().is_some_and(|re| re.is_match(name))
    }
}

/// The rules of all names.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Accounts, by name or id.
    pub account: Rule,
    /// The rule for names of streams.
    pub stream: Rule,
    /// The rule for names of consumers.
    pub consumer: Rule,
}

/// An expression that covers the whole of a name.
///
/// # Errors
/// What is wrong with it, as a half-sentence.
pub fn expression(text: &str) -> Result<Regex, String> {
    /// Compiled expressions are as large as their repetitions; this is far more than a list of names needs.
    const SIZE_MAX_BYTES: usize = 1 << 20;
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(SIZE_MAX_BYTES)
        .build()
        .map_err(|_| "is not a regular expression".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn include_and_exclude_cover_whole_names() {
        let rule = |include: &str, exclude: &str| Rule {
            include: (!include.is_empty()).then(|| expression(include).unwrap()),
            exclude: (!exclude.is_empty()).then(|| expression(exclude).unwrap()),
        };
        for (include, exclude, name, admitted) in [
            ("", "", "anything", true),
            ("swarm_.*", "", "swarm_jobs", true),
            ("swarm", "", "swarm_jobs", false),
            ("a|b", "", "b", true),
            ("a|b", "", "ab", false),
            ("", "KV_.*", "KV_x", false),
            (".*", "KV_.*|OBJ_.*", "OBJ_y", false),
            ("KV_.*", "KV_secret", "KV_secret", false),
        ] {
            assert_eq!(rule(include, exclude).admits(name), admitted, "{include} {exclude} {name}");
        }
        assert!(expression("(").is_err() && expression("a{99999}{99999}").is_err());
    }
}
