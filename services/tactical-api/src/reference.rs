//! What the id of evidence refers to, and whose it is. Pure.
//!
//! Publishers write `<site>/<sha256>` or an alias. A marker may link only to evidence of its own site, so a link to an
//! alias carries the site: `~<site>/<alias>`, which is signed with it.

use agentforge_jetstream::subjects;
use agentforge_message_id::Site;
use std::borrow::Cow;

/// What an alias with its site begins with.
const SCOPED: char = '~';

/// The site and the hash of `<site>/<sha256>`.
pub fn site_and_hash(id: &str) -> Option<(Site, &str)> {
    let (site, sha256) = id.split_once('/')?;
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    Some((Site::new(site).ok().filter(|_| is_hash)?, sha256))
}

/// The subject of `<site>/<sha256>`, and the hash.
pub fn place_of(id: &str) -> Option<(String, String)> {
    let (site, sha256) = site_and_hash(id)?;
    Some((format!("{}.{sha256}", subjects::evidence(&site)), sha256.to_owned()))
}

/// The site whose evidence is stored under a subject.
pub fn site_of_subject(subject: &str) -> Option<&str> {
    let mut tokens = subject.strip_prefix("edge.evidence.")?.split('.');
    let site = tokens.next().filter(|site| !site.is_empty());
    (tokens.clone().count() == 1).then_some(site).flatten()
}

/// Whether a marker of this site may link to this evidence. An alias is looked up among those of the site, so it
/// cannot be another's; a site that cannot have evidence has none to link to.
pub fn is_own(site: &str, id: &str) -> bool {
    match site_and_hash(id) {
        Some((of, _)) => of.as_str() == site,
        None => Site::new(site).is_ok(),
    }
}

/// The id in the link of a marker of this site.
pub fn of_site<'a>(site: &str, id: &'a str) -> Cow<'a, str> {
    if site_and_hash(id).is_some() { id.into() } else { format!("{SCOPED}{site}/{id}").into() }
}

/// The alias in the id of a link, and the site where it is looked up. Links of earlier versions have no site.
pub fn alias_of(id: &str) -> (Option<&str>, &str) {
    match id.strip_prefix(SCOPED).and_then(|rest| rest.split_once('/')) {
        Some((site, alias)) => (Some(site), alias),
        None => (None, id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_site_and_hash_have_a_subject() {
        let sha = "ab".repeat(32);
        let (subject, hash) = place_of(&format!("pier-7/{sha}")).unwrap();
        assert_eq!((subject.clone(), hash), (format!("edge.evidence.pier-7.{sha}"), sha.clone()));
        assert_eq!(site_of_subject(&subject), Some("pier-7"));
        for other in
            ["", "pier-7", "pier-7/ab", &format!("pier.7/{sha}"), &format!("a/b/{sha}"), &format!("*/{sha}"), &sha]
        {
            assert_eq!(place_of(other), None, "{other}");
        }
        assert_eq!(place_of(&format!("pier-7/{}", sha.to_uppercase())), None);
        for other in ["edge.evidence.a", "edge.evidence..x", "edge.evidence.a.b.c", "edge.site.a.b", ""] {
            assert_eq!(site_of_subject(other), None, "{other}");
        }
    }

    #[test]
    fn a_marker_refers_to_its_own_site_alone() {
        let sha = "ab".repeat(32);
        for (site, id, is_its_own) in [
            ("pier-7", format!("pier-7/{sha}"), true),
            ("pier-8", format!("pier-7/{sha}"), false),
            ("pier-7", "report.v1".to_owned(), true),
            // Its link would be that of the alias "x/report" at pier-7.
            ("pier-7/x", "report".to_owned(), false),
            ("pier 7", "report".to_owned(), false),
        ] {
            assert_eq!(is_own(site, &id), is_its_own, "{site} {id}");
        }
    }

    #[test]
    fn a_link_to_an_alias_carries_the_site() {
        let sha = "ab".repeat(32);
        assert_eq!(of_site("a", &format!("a/{sha}")), format!("a/{sha}"));
        for alias in ["report.v1/photo", "b/x", "~b/x", "x"] {
            assert_eq!(alias_of(&of_site("a", alias)), (Some("a"), alias), "{alias}");
        }
        assert_eq!(alias_of("report.v1/photo"), (None, "report.v1/photo"));
    }
}
