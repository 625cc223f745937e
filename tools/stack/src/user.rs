//! `agentforge user`: the console's users, in its database. The console may run.
//!
//! For those who have the machine or the database: the first admin, and the way back in. Passwords come from standard input,
//! never from the command line, which every process of a machine can read.

use agentforge_console::{
    accounts::{self, Change, Sessions, User, Users},
    store,
};
use agentforge_terminal::{Failure, GREEN, Output, Result, styled};
use serde::Serialize;
use std::{
    error::Error,
    io::{IsTerminal, Read},
    num::NonZeroU32,
    path::PathBuf,
};

/// More is not a password.
const INPUT_BYTES_MAX: u64 = 4096;

/// Which database.
#[derive(Clone, Debug, clap::Args)]
pub struct Database {
    /// sqlite://FILE (under the data directory) or postgres://…; prefer the environment
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = "sqlite://console.db",
        hide_env_values = true
    )]
    store: String,
    /// The console's data directory
    #[arg(long, env = "DATA_DIR", value_name = "DIR", default_value = "./.agentforge")]
    data_dir: PathBuf,
}

/// What to do with users.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a user: with a password from standard input, or with --link
    Add(AddArgs),
    /// List the users
    List(ListArgs),
    /// End a user's sessions, and let it in no more
    Disable(OneArgs),
    /// Let a disabled user in again
    Enable(OneArgs),
    /// Set a password from standard input; ends the sessions
    Password(OneArgs),
    /// Print a link to log in once, within 15 minutes
    Link(LinkArgs),
}

/// Whom to add.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge user add alice --role admin --link
  agentforge user add bob --role operator < password.txt
  agentforge user add bob --role viewer --store postgres://forge@db.example/forge < password.txt

A password has 12 characters or more.")]
pub struct AddArgs {
    /// The name to log in with
    name: String,
    /// viewer, submitter, operator or admin
    #[arg(long)]
    role: String,
    /// No password yet: print a link to log in once, within 15 minutes
    #[arg(long)]
    link: bool,
    /// Where people reach the console, for the link
    #[arg(long, env = "CONSOLE_PUBLIC_URL", value_name = "URL", default_value = "http://127.0.0.1:5125")]
    url: String,
    #[command(flatten)]
    database: Database,
}

/// Which users.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge user list
  agentforge user list --json | jq -r '.users[].name'")]
pub struct ListArgs {
    #[command(flatten)]
    database: Database,
}

/// Which user.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge user disable bob
  agentforge user enable bob
  agentforge user password bob < password.txt")]
pub struct OneArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    database: Database,
}

/// Whose link.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge user link alice
  agentforge user link alice --url https://console.example")]
pub struct LinkArgs {
    /// Its name
    name: String,
    /// Where people reach the console
    #[arg(long, env = "CONSOLE_PUBLIC_URL", value_name = "URL", default_value = "http://127.0.0.1:5125")]
    url: String,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct List {
    users: Vec<User>,
}

#[derive(Serialize)]
struct Done<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

/// Does it.
///
/// # Errors
/// What failed.
pub async fn run(command: Command, out: Output) -> Result {
    match command {
        Command::Add(args) => add(&args, out).await,
        Command::List(args) => list(&args, out).await,
        Command::Disable(args) => set_disabled(&args, true, out).await,
        Command::Enable(args) => set_disabled(&args, false, out).await,
        Command::Password(args) => password(&args, out).await,
        Command::Link(args) => {
            let database = open(&args.database).await?;
            let link = link(&Users(database.clone()), &args.name, &args.url).await?;
            database.close().await;
            done("link for", &args.name, Some(link), out)
        }
    }
}

async fn add(args: &AddArgs, out: Output) -> Result {
    let role = accounts::role(&args.role).map_err(Failure::usage)?;
    let password = if args.link { None } else { Some(read_password()?) };
    accounts::check(&args.name, password.as_deref()).map_err(Failure::usage)?;
    let hash = password.as_deref().map(accounts::hash_now).transpose().map_err(Failure::new)?;
    let database = open(&args.database).await?;
    let users = Users(database.clone());
    match users.add(&args.name, role, hash.as_deref()).await {
        Err(error) if error.is_duplicate() => {
            return Err(Failure::new(format!("there is a user {}", args.name))
                .hint("`agentforge user password` and `agentforge user link` let it in again"));
        }
        added => added.map_err(|e| explain(&e))?,
    }
    let link = if args.link { Some(link(&users, &args.name, &args.url).await?) } else { None };
    database.close().await;
    done("added", &args.name, link, out)
}

async fn list(args: &ListArgs, out: Output) -> Result {
    let database = open(&args.database).await?;
    let users = Users(database.clone());
    let mut all: Vec<User> = Vec::new();
    loop {
        let after = all.last().map(|user| user.name.clone()).unwrap_or_default();
        let page = users.list(&after, accounts::PAGE_MAX).await.map_err(|e| explain(&e))?;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    database.close().await;
    if out.json {
        return out.document(&List { users: all });
    }
    if all.is_empty() {
        return out.line("no users; `agentforge user add NAME --role admin --link` adds the first");
    }
    for user in all {
        let mut notes = Vec::new();
        notes.extend(user.disabled.then_some("disabled"));
        notes.extend((!user.has_password).then_some("no password"));
        let last = user.last_login_at.as_deref().unwrap_or("never logged in");
        out.line(format!("{:<24} {:<10} {last:<30} {}", user.name, user.role, notes.join(", ")).trim_end())?;
    }
    Ok(())
}

async fn set_disabled(args: &OneArgs, disabled: bool, out: Output) -> Result {
    let change = Change { disabled: Some(disabled), ..Change::default() };
    changed(args, &change, if disabled { "disabled" } else { "enabled" }, out).await
}

async fn password(args: &OneArgs, out: Output) -> Result {
    let password = read_password()?;
    accounts::check(&args.name, Some(&password)).map_err(Failure::usage)?;
    let hash = accounts::hash_now(&password).map_err(Failure::new)?;
    changed(args, &Change { password: Some(hash), ..Change::default() }, "new password for", out).await
}

async fn changed(args: &OneArgs, change: &Change, word: &str, out: Output) -> Result {
    let database = open(&args.database).await?;
    let known = Users(database.clone()).change(&args.name, change).await.map_err(|e| explain(&e))?;
    if !known {
        return Err(unknown(&args.name));
    }
    if change.disabled != Some(false) {
        let sessions = Sessions::new(database.clone());
        sessions.revoke_all(&args.name, "", "command").await.map_err(|e| explain(&e))?;
    }
    database.close().await;
    done(word, &args.name, None, out)
}

async fn link(users: &Users, name: &str, url: &str) -> Result<String> {
    let known = users.get(name).await.map_err(|e| explain(&e))?;
    if known.ok_or_else(|| unknown(name))?.disabled {
        return Err(
            Failure::new(format!("the user {name} is disabled")).hint("`agentforge user enable` lets it in again")
        );
    }
    let token = accounts::random().map_err(|e| Failure::new(e.to_string()))?;
    users.link(name, &token).await.map_err(|e| explain(&e))?;
    Ok(format!("{}/once/{token}", url.trim_end_matches('/')))
}

async fn open(database: &Database) -> Result<store::Database> {
    let opened =
        store::Database::open(&database.store, &database.data_dir, NonZeroU32::MIN).map_err(|e| explain(&e))?;
    opened.prepare().await.map_err(|e| explain(&e))?;
    Ok(opened)
}

fn read_password() -> Result<String> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::usage("the password is read from standard input, which is a terminal and would show it")
            .hint("redirect a file (< password.txt), or use --link"));
    }
    let mut text = String::new();
    stdin.by_ref().take(INPUT_BYTES_MAX).read_to_string(&mut text).map_err(|e| Failure::new(e.to_string()))?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    if password.is_empty() { Err(Failure::usage("standard input has no password")) } else { Ok(password) }
}

fn done(word: &str, name: &str, link: Option<String>, out: Output) -> Result {
    if out.json {
        return out.document(&Done { name, link });
    }
    out.line(format!("{} {name}", styled(GREEN, word)))?;
    link.map_or(Ok(()), |link| out.line(link))
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("there is no user {name}"))
        .hint("`agentforge user list` shows them; is it the console's database?")
}

fn explain(e: &store::Error) -> Failure {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    Failure::new(text)
        .hint("--store and --data-dir (or DATABASE_URL and DATA_DIR) name the console's database; --help has examples")
}
