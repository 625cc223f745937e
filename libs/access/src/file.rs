//! The file of tokens: one line for each, with the digest of the token and never the token itself; and of certificates, by
//! their names. Pure.
//!
//! ```text
//! # name role  digest                 end                          what it is for
//! ci     submitter sha256:5e88…       expires=2027-01-31T00:00:00Z scope=queue:builds scope=tool:echo
//! # the certificate of a client, by a name that it has
//! fleet  operator  cert:fleet.example
//! # JSON Web Tokens that are refused before their end, by token or by subject
//! deny   jti=0b0f4c1e
//! deny   sub=alice
//! ```

use crate::{
    certificate::{certificate_digest, is_certificate_name},
    jwt::Denials,
    principal::Principal,
    role::Role,
    scopes::Scopes,
    tokens::{Token, TokenDigest, Tokens, is_name},
};
use jiff::Timestamp;
use std::collections::HashMap;

/// Longest file, bytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Most tokens of a file.
pub const FILE_TOKENS_MAX: usize = 10_000;
/// What a digest begins with.
const SHA256: &str = "sha256:";
/// What the name of a certificate begins with.
const CERT: &str = "cert:";
/// The first word of a line that denies tokens.
const DENY: &str = "deny";

/// What a file of tokens says.
#[derive(Clone, Debug, Default)]
pub struct TokenFile {
    /// Its tokens.
    pub tokens: Tokens,
    /// JSON Web Tokens that it denies.
    pub denials: Denials,
}

/// Why a file was refused. Names the line by its number, never its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It has more bytes than allowed.
    #[error("has more than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// It has more tokens than allowed.
    #[error("has more than {FILE_TOKENS_MAX} tokens")]
    TooMany,
    /// One line is wrong.
    #[error("line {line} {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it, as the rest of the sentence.
        problem: &'static str,
    },
}

impl TokenFile {
    /// Reads a file's text. Blank lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`FileError`]: a file counts whole or not at all.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLong);
        }
        let mut names = HashMap::new();
        let mut tokens = HashMap::new();
        let mut denials = Denials::default();
        for (i, line) in text.lines().enumerate() {
            let at = |problem| FileError::Line { line: i + 1, problem };
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            if words.first() == Some(&DENY) {
                deny(&words, &mut denials).map_err(at)?;
                continue;
            }
            if tokens.len() == FILE_TOKENS_MAX {
                return Err(FileError::TooMany);
            }
            let (digest, token) = parse_line(&words).map_err(at)?;
            if names.insert(token.principal.name.clone(), ()).is_some() {
                return Err(at("has the name of an earlier line"));
            }
            if tokens.insert(digest, token).is_some() {
                return Err(at("has the digest or the certificate of an earlier line"));
            }
        }
        Ok(Self { tokens: Tokens::of(tokens), denials })
    }

    /// The line of a token.
    pub fn line(name: &str, role: Role, digest: &TokenDigest, expires: Option<i64>, scopes: &Scopes) -> String {
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::line_of(name, role, &format!("{SHA256}{digest}"), expires, scopes)
    }

    /// The line of a certificate with this name.
    pub fn certificate_line(name: &str, role: Role, named: &str, expires: Option<i64>, scopes: &Scopes) -> String {
        Self::line_of(name, role, &format!("{CERT}{named}"), expires, scopes)
    }

    fn line_of(name: &str, role: Role, credential: &str, expires: Option<i64>, scopes: &Scopes) -> String {
        let mut line = format!("{name} {} {credential}", role.as_str());
        if let Some(end) = expires.and_then(|end| Timestamp::from_second(end).ok()) {
            line += &format!(" expires={end}");
        }
        for scope in scopes.to_string().split_whitespace() {
            line += &format!(" scope={scope}");
        }
        line
    }
}

fn deny(words: &[&str], denials: &mut Denials) -> Result<(), &'static str> {
    let [_, denied] = words else { return Err("is not deny jti=TOKEN or deny sub=SUBJECT") };
    let set = match denied.split_once('=') {
        Some(("jti", token)) if !token.is_empty() => denials.tokens.insert(token.to_owned()),
        Some(("sub", subject)) if !subject.is_empty() => denials.subjects.insert(subject.to_owned()),
        _ => return Err("is not deny jti=TOKEN or deny sub=SUBJECT"),
    };
    if set { Ok(()) } else { Err("denies what an earlier line denies") }
}

fn parse_line(words: &[&str]) -> Result<(TokenDigest, Token), &'static str> {
    let [name, role, credential, options @ ..] = words else {
        return Err(
            "is not NAME ROLE sha256:DIGEST or NAME ROLE cert:NAME, with expires=TIME and scope=KIND:NAME as needed",
        );
    };
    if !is_name(name) {
        return Err("needs a name of 1 to 64 letters, digits, dots, hyphens or underscores");
    }
    let role = Role::from_word(role).ok_or("needs one of the roles viewer, submitter, operator, alerts, admin")?;
    let digest = match credential.strip_prefix(CERT) {
        Some(named) if is_certificate_name(named) => certificate_digest(named),
        Some(_) => return Err("needs cert: and the name of a certificate, 1 to 256 visible characters"),
        None => {
            let digest = credential.strip_prefix(SHA256).and_then(parse_digest);
            digest.ok_or("needs sha256: and the 64 hexadecimal digits of the token's digest, or cert: and a name")?
        }
    };
    let (mut expires, mut scopes) = (None, Vec::new());
    for option in options {
        match option.split_once('=') {
            Some(("expires", time)) if expires.is_none() => {
                let end: Timestamp =
                    time.parse().map_err(|_| "has an end that is not a time such as 2027-01-31T00:00:00Z")?;
                expires = Some(end.as_second());
            }
            Some(("scope", scope)) => scopes.push(scope),
            _ => return Err("has something other than one expires=TIME and scope=KIND:NAME"),
        }
    }
    let principal = Principal { name: (*name).into(), role, scopes: Scopes::parse(scopes)? };
    Ok((digest, Token { principal, expires }))
}

fn parse_digest(text: &str) -> Option<TokenDigest> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::digest;

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let scopes = Scopes::parse(["queue:builds", "tool:e*"]).unwrap();
        let line = TokenFile::line("ci", Role::Submit, &digest("secret"), Some(1_801_353_600), &scopes);
        assert!(line.starts_with("ci submitter sha256:") && line.contains("expires=2027-01-31T00:00:00Z"), "{line}");
        let file = TokenFile::parse(&format!("# tokens\n\n  {line}\r\n")).unwrap();
        let token = file.tokens.find(b"secret").unwrap();
        assert_eq!(
            (&*token.principal.name, token.principal.role, token.expires),
            ("ci", Role::Submit, Some(1_801_353_600))
        );
        assert_eq!(token.principal.scopes, scopes);
        let line = TokenFile::certificate_line("fleet", Role::Operator, "spiffe://fleet/a", None, &scopes);
        assert_eq!(line, "fleet operator cert:spiffe://fleet/a scope=queue:builds scope=tool:e*");
        assert_eq!(TokenFile::parse(&line).unwrap().tokens.len(), 1);
    }

    #[test]
    fn faults_name_the_line_and_never_its_text() {
        let (d, e) = ("a".repeat(64), "b".repeat(64));
        let table = [
            ("ci".to_owned(), "line 1 is not NAME ROLE"),
            (format!("ci root sha256:{d}"), "line 1 needs one of the roles"),
            (format!("c/i viewer sha256:{d}"), "line 1 needs a name"),
            (format!("ci viewer {d}"), "line 1 needs sha256:"),
            ("ci viewer cert:".to_owned(), "line 1 needs cert:"),
            ("ci viewer cert:a\nop viewer cert:a".to_owned(), "line 2 has the digest"),
            (format!("ci viewer sha256:{}", &d[1..]), "line 1 needs sha256:"),
            (format!("ci viewer sha256:{}é", &d[2..]), "line 1 needs sha256:"),
            (format!("\nci viewer sha256:{d} expires=tomorrow"), "line 2 has an end"),
            (
                format!("ci viewer sha256:{d} expires=2027-01-31T00:00:00Z expires=2028-01-31T00:00:00Z"),
                "line 1 has something",
            ),
            (format!("ci viewer sha256:{d} scope=room:a"), "line 1 has a scope of a kind"),
            (format!("ci viewer sha256:{d} admin"), "line 1 has something"),
            ("deny aaaa".to_owned(), "line 1 is not deny"),
            ("deny sub=".to_owned(), "line 1 is not deny"),
            ("deny jti=aaaa\ndeny jti=aaaa".to_owned(), "line 2 denies what"),
            (format!("ci viewer sha256:{d}\nci viewer sha256:{e}"), "line 2 has the name"),
            (format!("ci viewer sha256:{d}\nop viewer sha256:{d}"), "line 2 has the digest"),
        ];
        for (text, want) in table {
            let got = TokenFile::parse(&text).unwrap_err().to_string();
            assert!(got.starts_with(want), "{text:?}: {got}");
            assert!(!got.contains("aaaa"), "{got}");
        }
        assert_eq!(TokenFile::parse(&"#".repeat(FILE_BYTES_MAX + 1)).unwrap_err(), FileError::TooLong);
        let file = TokenFile::parse("\n# nothing\ndeny sub=alice\n").unwrap();
        assert!(file.tokens.is_empty() && file.denials.subjects.contains("alice"));
    }
}
