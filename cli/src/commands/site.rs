//! `agentforge site`: edge sites at their hub. Writes files, and talks to no server.
//!
//! The hub's part names each site with its public key, and is not a secret. The site's part is a folder that its NATS server
//! and its services start from; the seed in it exists nowhere else.

use agentforge_jetstream::site_accounts::{SiteAccounts, SiteKey};
use agentforge_message_id::Site;
use agentforge_terminal::{BOLD, Failure, Output, Result, Table, styled};
use serde::Serialize;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

macro_rules! shipped {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/", $path))
    };
}

/// What a site's server is configured with.
const LEAF: &str = shipped!("components/edge/nats-leaf.conf");
/// The site's services, and what each may there.
const SERVICES: [(&str, &str); 4] = [
    ("topology", shipped!("base/nats/may-topology.conf")),
    ("orchestrator", shipped!("base/nats/may-orchestrator.conf")),
    ("worker", shipped!("base/nats/may-worker.conf")),
    ("syncdaemon", shipped!("base/nats/may-syncdaemon.conf")),
];
/// Where a hub takes leaf nodes, where an address names no port.
const LEAF_PORT: u16 = 7422;

/// What to do with sites.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Give a site an account at its hub, and write what the site needs
    Add(AddArgs),
    /// Take a site's account away: its link is cut when the hub's gate restarts
    Revoke(RevokeArgs),
    /// List the sites of a hub
    List(ListArgs),
}

/// The hub's file.
#[derive(Debug, clap::Args)]
pub struct Accounts {
    /// The hub's file of accounts, which its gate includes
    #[arg(long = "accounts", value_name = "FILE", default_value = "sites.conf")]
    path: PathBuf,
}

/// Which site.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge site add pier-7 --hub tls://hub.example:7422
  agentforge site add pier-7 --hub tls://hub.example --out /media/stick/pier-7
  agentforge site add pier-7 --hub nats-leaf://10.1.2.3 --accounts overlays/production/sites.conf

The folder has the site's secrets, readable only for you: take it to the site, and keep no copy. `nats-server -c
nats.conf` in it is the site's server, services/*.env are the settings of its services, and nats-site.json is the Secret of
a site in Kubernetes. The hub's gate takes the site after a restart.")]
pub struct AddArgs {
    /// The site's name: 1 to 63 letters, digits or hyphens
    #[arg(value_parser = site)]
    name: Site,
    /// Where the site reaches its hub's gate: tls://HOST or tls://HOST:PORT; nats-leaf://… without TLS
    #[arg(long, value_name = "URL", value_parser = hub)]
    hub: String,
    /// The new folder for the site [default: site-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    accounts: Accounts,
}

/// Which site.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge site revoke pier-7
  agentforge site revoke pier-7 --accounts overlays/production/sites.conf

Then restart the gate (docs/howto/edge-site.md), which stores nothing: it cuts the site's link and refuses its credential. What the site delivered stays. The same name can be added again, with a new credential.")]
pub struct RevokeArgs {
    /// The site's name
    #[arg(value_parser = site)]
    name: Site,
    #[command(flatten)]
    accounts: Accounts,
}

/// Of which hub.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge site list
  agentforge site list --accounts overlays/production/sites.conf --json")]
pub struct ListArgs {
    #[command(flatten)]
    accounts: Accounts,
}

fn site(name: &str) -> std::result::Result<Site, String> {
    Site::new(name).map_err(|e| e.to_string())
}

/// An address without credentials, with its port.
fn hub(url: &str) -> std::result::Result<String, String> {
    let expected = "expected tls://HOST[:PORT] or nats-leaf://HOST[:PORT]";
    let (scheme, rest) = url.split_once("://").ok_or(expected)?;
    if !["tls", "nats-leaf"].contains(&scheme) {
        return Err(format!("scheme {scheme} is not known; {expected}"));
    }
    if rest.contains('@') {
        return Err("has credentials; the site's credential is made here".to_owned());
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| expected)?),
        _ => (rest, LEAF_PORT),
    };
    if host.is_empty() || !host.chars().all(fits) || (host.contains(':') && !host.starts_with('[')) {
        return Err(expected.to_owned());
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

#[derive(Serialize)]
struct Listed<'a> {
    site: &'a str,
    public_key: &'a str,
}

#[derive(Serialize)]
struct Added<'a> {
    site: &'a str,
    public_key: &'a str,
    accounts: &'a Path,
    folder: &'a Path,
}

/// Runs it.
///
/// # Errors
/// The site exists or does not, or a file cannot be read or written.
pub fn run(command: &Command, out: Output) -> Result {
    match command {
        Command::Add(args) => add(args, out),
        Command::Revoke(args) => revoke(args, out),
        Command::List(args) => list(args, out),
    }
}

fn add(args: &AddArgs, out: Output) -> Result {
    let path = &args.accounts.path;
    let change = Change::begin(path)?;
    let mut sites = read(path)?;
    let key = SiteKey::generate().map_err(anyhow::Error::from)?;
    sites.add(&args.name, &key.public).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("site-{}", args.name)));
    // First, so that there is no account without its credential.
    write_folder(&folder, &args.name, &args.hub, &key)?;
    if let Err(failure) = change.commit(&sites) {
        let _ = fs::remove_dir_all(&folder);
        return Err(failure);
    }
    if out.json {
        let (site, public_key) = (args.name.as_str(), key.public.as_str());
        return out.document(&Added { site, public_key, accounts: path, folder: &folder });
    }
    out.line(format!("site {} has an account in {}", styled(BOLD, &args.name), path.display()))?;
    out.line(format!("its secrets are in {}; take them there and keep no copy", folder.display()))?;
    out.line("the hub's gate takes it after a restart")
}

fn revoke(args: &RevokeArgs, out: Output) -> Result {
    let path = &args.accounts.path;
    let change = Change::begin(path)?;
    let mut sites = read(path)?;
    let public_key = sites.revoke(&args.name).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    change.commit(&sites)?;
    if out.json {
        return out.document(&Listed { site: args.name.as_str(), public_key: &public_key });
    }
    out.line(format!("site {} has no account in {} any more", styled(BOLD, &args.name), path.display()))?;
    out.line("the hub's gate cuts its link at a restart")
}

fn list(args: &ListArgs, out: Output) -> Result {
    let path = &args.accounts.path;
    if !path.exists() {
        return Err(Failure::new(format!("there is no {}", path.display())).hint("--accounts names the hub's file"));
    }
    let sites = read(path)?;
    if out.json {
        let listed: Vec<_> = sites.iter().map(|(site, key)| Listed { site: site.as_str(), public_key: key }).collect();
        return listed.iter().try_for_each(|site| out.document(site));
    }
    let mut table = Table::new(["SITE", "PUBLIC KEY"]);
    for (site, key) in sites.iter() {
        table.row([site.to_string(), key.to_owned()], None);
    }
    table.print(out, "No sites.")
}

/// The sites in a file; none where there is no file yet.
fn read(path: &Path) -> Result<SiteAccounts> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Failure::new(format!("{} cannot be read: {e}", path.display()))),
    };
    SiteAccounts::parse(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// A change of the file: one at a time, and all of it or nothing.
struct Change {
    path: PathBuf,
    new: PathBuf,
    file: Option<fs::File>,
}

impl Change {
    fn begin(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Failure::usage("--accounts names no file"))?;
        let new = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
        match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new) {
            Ok(file) => Ok(Self { path: path.to_owned(), new, file: Some(file) }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(format!(
                "{} is being changed by another command, or one was interrupted",
                path.display()
            ))
            .hint(format!("if none runs, remove {}", new.display()))),
            Err(e) => Err(Failure::new(format!("{} cannot be written: {e}", new.display()))),
        }
    }

    fn commit(mut self, sites: &SiteAccounts) -> Result {
        let written = self.file.take().map_or(Ok(()), |mut file| {
            file.write_all(sites.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&self.new, &self.path)
        });
        written.map_err(|e| Failure::new(format!("{} cannot be written: {e}", self.path.display())))
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        // After a commit there is none.
        let _ = fs::remove_file(&self.new);
    }
}

/// All that a site starts from, in a folder that did not exist.
fn write_folder(folder: &Path, name: &Site, hub: &str, key: &SiteKey) -> Result {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{} exists", folder.display())).hint("--out names another")
        }
        _ => Failure::new(format!("{} cannot be written: {e}", folder.display())),
    };
    DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
    let written = files(name, hub, key).and_then(|files| {
        for (path, text) in files {
            write_file(&folder.join(path), &text).map_err(failed)?;
        }
        Ok(())
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(folder);
    }
    written
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// The files of a site, by their paths in its folder.
fn files(name: &Site, hub: &str, key: &SiteKey) -> Result<Vec<(String, String)>> {
    let seed = format!("nkey: {}\n", key.seed);
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "nats-site", "labels": {"app.kubernetes.io/part-of": "agentforge"}},
        "stringData": {"seed.conf": seed},
    });
    let server = format!(
        "# The NATS server of the site {name}. Written by `agentforge site add`.\n\
         server_name: \"{name}\"\n\
         listen: \"127.0.0.1:4222\"\n\
         http: \"127.0.0.1:8222\"\n\
         # A message is on disk before it is acknowledged: sites lose power.\n\
         jetstream {{ store_dir: \"js\", domain: \"{name}\", sync_interval: always }}\n\
         include \"nats-edge/nats-leaf.conf\"\n"
    );
    let (mut users, mut all) = (String::from("users: [\n"), Vec::new());
    for (service, may) in SERVICES {
        // Letters and digits, as random as a key.
        let password = SiteKey::generate().map_err(anyhow::Error::from)?.seed;
        let file = format!("may-{service}.conf");
        users += &format!("  {{ user: {service}, password: \"{password}\", permissions {{ include \"{file}\" }} }}\n");
        let edge = match service {
            "orchestrator" => "EDGE_MODE=on\nEDGE_HUB_DOMAIN=hub\n",
            "syncdaemon" => "SYNC_JS_DOMAIN=hub\n",
            "topology" => "EDGE_MODE=on\nTOPOLOGY_PARTS=jobs\n",
            _ => "EDGE_MODE=on\n",
        };
        let env = format!(
            "SITE={name}\nNATS_URL=nats://127.0.0.1:4222\nNATS_USER={service}\nNATS_PASSWORD={password}\n\
             NATS_TOPOLOGY=wait\n{edge}"
        );
        all.push((format!("services/{service}.env"), env));
        all.push((format!("nats/{file}"), may.to_owned()));
    }
    users += "]\n";
    all.extend([
        ("nats.conf".to_owned(), server),
        ("nats/users.conf".to_owned(), users),
        ("nats-edge/nats-leaf.conf".to_owned(), LEAF.replace("$HUB_LEAF_URL", &format!("\"{hub}\""))),
        ("nats-site/seed.conf".to_owned(), seed),
        ("nats-site.json".to_owned(), format!("{secret:#}\n")),
    ]);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hubs_address_has_a_port_and_no_credentials() {
        for (given, address) in [
            ("tls://hub.example", "tls://hub.example:7422"),
            ("nats-leaf://10.1.2.3:7000", "nats-leaf://10.1.2.3:7000"),
            ("tls://[2001:db8::1]", "tls://[2001:db8::1]:7422"),
            ("tls://[2001:db8::1]:7", "tls://[2001:db8::1]:7"),
        ] {
            assert_eq!(hub(given).as_deref(), Ok(address));
        }
        for wrong in [
            "hub.example",
            "nats://hub",
            "tls://",
            "tls://a b",
            "tls://user:pw@hub",
            "tls://hub:port",
            "tls://hub/x",
            "tls://a\"b",
            "tls://2001:db8::1",
            "tls://hub:70000",
        ] {
            assert!(hub(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_sites_server_has_no_secret_of_the_hub_and_all_of_its_own() {
        let key = SiteKey::generate().unwrap();
        let files = files(&Site::new("pier-7").unwrap(), "tls://hub:7422", &key).unwrap();
        let holding: Vec<_> =
            files.iter().filter(|(_, text)| text.contains(&key.seed)).map(|(path, _)| &**path).collect();
        assert_eq!(holding, ["nats-site/seed.conf", "nats-site.json"]);
        let leaf = files.iter().find(|(path, _)| path.ends_with("nats-leaf.conf")).unwrap();
        assert!(leaf.1.contains("urls: [ \"tls://hub:7422\" ]") && !leaf.1.contains("$HUB"), "{}", leaf.1);
    }
}
