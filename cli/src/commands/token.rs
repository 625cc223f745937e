//! `agentforge token`: makes tokens for callers of the services.
//!
//! A token is shown once and stored nowhere; the services' file has its digest. Nothing is asked of a server.

use agentforge_access::{Role, Scopes, TokenFile, digest, is_certificate_name, is_name, now};
use agentforge_terminal::{Failure, Output, Result, When, when};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

/// Random bytes of a token: 256 bits.
const TOKEN_BYTES: usize = 32;
/// What each begins with, so that scanners of leaked secrets know it.
const PREFIX: &str = "af_";

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token, and its line for ACCESS_TOKENS_FILE
    New(NewArgs),
}

/// What the token is for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge token new ci --role submitter --expires +90d --scope queue:builds --scope tool:echo
  agentforge token new oncall --role operator --expires 2027-01-31T00:00:00Z
  agentforge token new dashboard --role viewer --json | jq -r .line >> tokens
  agentforge token new fleet --role operator --certificate fleet.example

The token goes to its caller (AGENTFORGE_TOKEN), the line into the file that ACCESS_TOKENS_FILE names. The services read
the file again when it changes. To revoke a token, remove its line.")]
pub struct NewArgs {
    /// Who will have it; appears in logs
    #[arg(value_parser = name)]
    name: String,
    /// viewer, submitter, operator, alerts or admin
    #[arg(long, value_parser = role)]
    role: Role,
    /// When it ends: a moment, or a duration such as +90d; without it the token does not end
    #[arg(long, value_name = "TIME", value_parser = when)]
    expires: Option<When>,
    /// What it is for: mission:NAME, queue:NAME, tool:NAME or site:NAME; `*` at the end stands for any rest; repeatable
    #[arg(long = "scope", value_name = "KIND:NAME", value_parser = scope)]
    scopes: Vec<String>,
    /// Let the client certificate with this name in, instead of a token
    #[arg(long, value_name = "NAME", value_parser = certificate)]
    certificate: Option<String>,
}

/// A token as `--json` prints it.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    line: String,
}

/// Runs it.
///
/// # Errors
/// When there is no randomness, and for an end that has passed.
pub fn run(command: &Command, out: Output) -> Result {
    let Command::New(args) = command;
    let expires = args.expires.map(|end| match end {
        When::At(moment) => moment.as_second(),
        When::In(wait) => now().saturating_add(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX)),
    });
    if expires.is_some_and(|end| end <= now()) {
        return Err(Failure::usage("the end of the token has passed; --expires takes a later moment, or +90d"));
    }
    let scopes = Scopes::parse(args.scopes.iter().map(String::as_str))
        .map_err(|problem| Failure::usage(format!("the token {problem}")))?;
    if let Some(named) = &args.certificate {
        let line = TokenFile::certificate_line(&args.name, args.role, named, expires, &scopes);
        if out.json {
            return out.document(&Made { name: &args.name, token: None, line });
        }
        return out.line(format!("line for the file of tokens (ACCESS_TOKENS_FILE):\n  {line}"));
    }
    let mut bytes = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new("the system provides no random numbers"))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let line = TokenFile::line(&args.name, args.role, &digest(&token), expires, &scopes);
    if out.json {
        return out.document(&Made { name: &args.name, token: Some(token), line });
    }
    out.line(format!("token, shown only now:\n  {token}\nline for the file of tokens (ACCESS_TOKENS_FILE):\n  {line}"))
}

fn name(text: &str) -> std::result::Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, dots, hyphens or underscores".to_owned())
    }
}

fn certificate(text: &str) -> std::result::Result<String, String> {
    if is_certificate_name(text) { Ok(text.to_owned()) } else { Err("expected 1 to 256 visible characters".to_owned()) }
}

fn role(text: &str) -> std::result::Result<Role, String> {
    Role::from_word(text).ok_or_else(|| format!("expected one of {}", Role::ALL.map(Role::as_str).join(", ")))
}

fn scope(text: &str) -> std::result::Result<String, String> {
    Scopes::parse([text])
        .map(|_| text.to_owned())
        .map_err(|problem| format!("it {problem}; expected such as queue:builds"))
}
