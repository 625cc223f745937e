//! The settings of a door, and whether it may be open.

use crate::{console::ConsoleKeys, watch::read_file};
use agentforge_access::{Guard, Issuer, Keyring, Role, Tokens};
use agentforge_config::{CommaList, Common, Reader, Setting};
use agentforge_egress::Net;
use http::HeaderName;
use std::{path::PathBuf, time::Duration};
use url::Url;

/// Issuers whose keys are kept and fetched.
const ISSUERS_MAX: usize = 8;

const TOKENS_FILE: Setting = Setting::new(
    "ACCESS_TOKENS_FILE",
    None,
    "path of a file with lines of `agentforge token new`",
    "Tokens as digests, and names of client certificates, with roles, ends and scopes. Read again when it changes.",
);
const RELOAD_INTERVAL: Setting =
    Setting::new("ACCESS_RELOAD_INTERVAL", Some("2s"), "duration 100ms-1h", "How often ACCESS_TOKENS_FILE is checked.");
const CALLER_RATE: Setting = Setting::new(
    "ACCESS_CALLER_RATE",
    Some("5000"),
    "requests per second 0-1000000; 0 for no limit",
    "How many requests one caller may make; twice as many at once. Not where no tokens are asked for.",
);
const ADDRESS_RATE: Setting = Setting::new(
    "ACCESS_ADDRESS_RATE",
    Some("5000"),
    "requests per second 0-1000000; 0 for no limit",
    "The same for one address; IPv6 addresses of one /64 count as one.",
);
const LOCKOUT_AFTER: Setting = Setting::new(
    "ACCESS_LOCKOUT_AFTER",
    Some("10"),
    "number 0-1000; 0 locks nothing",
    "Failed logins after which an address is locked, for 1 s at first and twice as long after each further one, up to 5m.",
);
const TRUSTED_PROXIES: Setting = Setting::new(
    "ACCESS_TRUSTED_PROXIES",
    None,
    "list of addresses and ranges such as 10.1.0.0/16",
    "Peers whose X-Forwarded-For or Forwarded header is believed: limits and log lines are then about the address behind them.",
);
const CLIENT_CERT_HEADER: Setting = Setting::new(
    "ACCESS_CLIENT_CERT_HEADER",
    None,
    "name of a header",
    "The header in which a trusted proxy reports the name of a client's verified certificate, or its distinguished name, of which CN counts. It must overwrite the callers' header.",
);

const ISSUERS: Setting = Setting::new(
    "ACCESS_ISSUERS",
    None,
    "URLs of OpenID providers, comma separated, at most 8; https, in ENV=dev also http",
    "Whose JSON Web Tokens are accepted. Each is written as in the claim iss, to the letter.",
);
const AUDIENCE: Setting = Setting::new(
    "ACCESS_AUDIENCE",
    None,
    "text; needed with ACCESS_ISSUERS",
    "What a JSON Web Token must have among its audiences (aud).",
);
const CLOCK_SKEW: Setting = Setting::new(
    "ACCESS_CLOCK_SKEW",
    Some("30s"),
    "duration 0s-5m",
    "How far the clock of an issuer may be from this one.",
);
const ROLE_CLAIM: Setting = Setting::new(
    "ACCESS_ROLE_CLAIM",
    Some("groups"),
    "name of a claim, or of a member of it, such as realm_access.roles",
    "Where a JSON Web Token has the groups of its caller: a list, or words with blanks between them.",
);
const ROLES: Setting = Setting::new(
    "ACCESS_ROLES",
    None,
    "group=role, comma separated; roles viewer, submitter, operator, alerts, admin; needed with ACCESS_ISSUERS",
    "What groups may do. The strongest role counts; a token without any of these groups is refused.",
);
const SCOPE_CLAIM: Setting = Setting::new(
    "ACCESS_SCOPE_CLAIM",
    None,
    "name of a claim, or of a member of it",
    "Where a JSON Web Token has its scopes, such as queue:a; * is everything, and none at all is refused. Unset: all tokens of the issuers have every scope.",
);

const CONSOLE_KEYS: Setting = Setting::new(
    "ACCESS_CONSOLE_KEYS",
    None,
    "path of a JWKS file with the console's public keys",
    "Whose word about its users is accepted: the console's requests carry a short token with the user and the role. Several keys during a rotation; read again when it changes (ACCESS_RELOAD_INTERVAL). In ENV=dev on loopback it asks nothing of other callers.",
);

/// The settings of every door.
pub const SETTINGS: &[Setting] = &[
    TOKENS_FILE,
    RELOAD_INTERVAL,
    ISSUERS,
    AUDIENCE,
    CLOCK_SKEW,
    ROLE_CLAIM,
    ROLES,
    SCOPE_CLAIM,
    CONSOLE_KEYS,
    CALLER_RATE,
    ADDRESS_RATE,
    LOCKOUT_AFTER,
    TRUSTED_PROXIES,
    CLIENT_CERT_HEADER,
];

/// The configuration of a door.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// What callers need.
    pub guard: Guard,
    /// The file of tokens.
    pub file: Option<PathBuf>,
    /// The console's keys, and where they are accepted.
    pub console: Option<ConsoleKeys>,
    /// Between two checks of both files.
    pub reload_interval: Duration,
    /// Requests of one caller per second; 0: no limit.
    pub caller_rate: u32,
    /// Requests of one address per second; 0: no limit.
    pub address_rate: u32,
    /// Failed logins before the first pause; 0: none.
    pub lockout_after: u32,
    /// Whose headers are believed.
    pub trusted_proxies: Vec<Net>,
    /// Where they report a client's certificate.
    pub certificate_header: Option<HeaderName>,
}

impl DoorConfig {
    /// Everybody may do everything. Only for listeners that strangers cannot reach.
    pub const fn open() -> Self {
        Self {
            guard: Guard::Open,
            file: None,
            console: None,
            reload_interval: Duration::from_secs(2),
            caller_rate: 0,
            address_rate: 0,
            lockout_after: 0,
            trusted_proxies: Vec::new(),
            certificate_header: None,
        }
    }

    /// Reads the settings; faults stay in the reader. `own` are the tokens of the surface's own setting, which is named
    /// where there is no way at all to authenticate: that is for ENV=dev on a loopback listener only. A loopback
    /// listener elsewhere may have a proxy in front of it, whose callers are strangers.
    pub fn read(reader: &mut Reader<'_>, common: &Common, own: Tokens, own_setting: &Setting) -> Self {
        let mut config = Self::read_closed(reader, common, own, own_setting.key);
        if matches!(config.guard, Guard::Closed) {
            config.guard = without_tokens(reader, common, own_setting);
        }
        config
    }

    /// The same for a surface that decides itself what it does where there is no way to authenticate: its door is closed
    /// then. `own_settings` names those of `own`.
    pub fn read_closed(reader: &mut Reader<'_>, common: &Common, own: Tokens, own_settings: &str) -> Self {
        let file: Option<PathBuf> = reader.opt(&TOKENS_FILE);
        let mut trusted_proxies = Vec::new();
        for entry in reader.opt::<CommaList>(&TRUSTED_PROXIES).map(CommaList::into_inner).unwrap_or_default() {
            match entry.parse() {
                Ok(net) => trusted_proxies.push(net),
                Err(problem) => reader.fault(TRUSTED_PROXIES.key, format!("{entry} {problem}")),
            }
        }
        let mut issuers = issuers(reader, common);
        let console: Option<PathBuf> = reader.opt(&CONSOLE_KEYS);
        // On a developer's machine the console is one caller among others, who need nothing.
        let is_asked = console.is_some() && !(common.is_dev() && common.bind_addr.is_loopback());
        let guard = if own.is_empty() && file.is_none() && issuers.is_empty() && !is_asked {
            Guard::Closed
        } else {
            if console.is_some() {
                // The last one: keys of those before it are fetched, by their places.
                issuers.push(Issuer::console());
            }
            let keyring = Keyring::new(own, issuers);
            let problem = file.as_ref().and_then(|path| match read_file(path) {
                Ok(file) => keyring.replace(&file).map_err(|name| same_name(&name, own_settings)).err(),
                Err(problem) => Some(problem),
            });
            if let Some(problem) = problem {
                reader.fault(TOKENS_FILE.key, problem);
            }
            Guard::Keyring(keyring)
        };
        let console = console.map(|path| ConsoleKeys::of(path, &guard));
        if let Some(problem) = console.as_ref().and_then(|console| console.load().err()) {
            reader.fault(CONSOLE_KEYS.key, problem);
        }
        Self {
            guard,
            file,
            console,
            reload_interval: reader.get_in(&RELOAD_INTERVAL, Duration::from_millis(100)..=Duration::from_secs(3600)),
            caller_rate: reader.get_in(&CALLER_RATE, ..=1_000_000),
            address_rate: reader.get_in(&ADDRESS_RATE, ..=1_000_000),
            lockout_after: reader.get_in(&LOCKOUT_AFTER, ..=1_000),
            trusted_proxies,
            certificate_header: read_header(reader),
        }
    }

    /// Whether tokens can come from elsewhere than the surface's own settings: from the file or an issuer.
    pub fn has_shared_tokens(&self) -> bool {
        self.file.is_some() || matches!(&self.guard, Guard::Keyring(keyring) if !keyring.issuers().is_empty())
    }
}

fn read_header(reader: &mut Reader<'_>) -> Option<HeaderName> {
    let unfit = |_| "is not the name of a header such as x-client-cert-name".to_owned();
    let name = reader.opt_if::<String>(&CLIENT_CERT_HEADER, |name| name.parse::<HeaderName>().map(drop).map_err(unfit));
    name?.parse().ok()
}

fn issuers(reader: &mut Reader<'_>, common: &Common) -> Vec<Issuer> {
    let urls = reader.opt::<CommaList>(&ISSUERS).map(CommaList::into_inner).unwrap_or_default();
    let audience: Option<String> = reader.opt(&AUDIENCE);
    let skew = reader.get_in(&CLOCK_SKEW, ..=Duration::from_secs(300)).as_secs();
    let role_claim: String = reader.get(&ROLE_CLAIM);
    let scope_claim: Option<String> = reader.opt(&SCOPE_CLAIM);
    let mut roles = Vec::new();
    for entry in reader.opt::<CommaList>(&ROLES).map(CommaList::into_inner).unwrap_or_default() {
        let role = entry.rsplit_once('=').and_then(|(group, role)| Some((group.to_owned(), Role::from_word(role)?)));
        match role {
            Some(role) => roles.push(role),
            None => reader.fault(ROLES.key, format!("{entry} is not group=role with one of the roles")),
        }
    }
    if urls.len() > ISSUERS_MAX {
        reader.fault(ISSUERS.key, format!("has more than {ISSUERS_MAX} issuers"));
    }
    if !urls.is_empty() {
        for (setting, is_missing) in [(&AUDIENCE, audience.is_none()), (&ROLES, !reader.is_set(&ROLES))] {
            if is_missing {
                reader.fault(setting.key, format!("is required with {}", ISSUERS.key));
            }
        }
    }
    for url in &urls {
        let fits = Url::parse(url).is_ok_and(|url| {
            let is_safe = url.scheme() == "https" || (url.scheme() == "http" && common.is_dev());
            is_safe && url.has_host() && url.query().is_none() && url.fragment().is_none() && url.username().is_empty()
        });
        if !fits {
            reader.fault(ISSUERS.key, format!("{url} is not an https URL of an issuer (http is for ENV=dev)"));
        }
    }
    let skew = i64::try_from(skew).unwrap_or_default();
    let issuer = |url| Issuer {
        url,
        audience: audience.clone().unwrap_or_default(),
        skew,
        role_claim: role_claim.clone(),
        roles: roles.clone(),
        scope_claim: scope_claim.clone(),
    };
    urls.into_iter().take(ISSUERS_MAX).map(issuer).collect()
}

fn without_tokens(reader: &mut Reader<'_>, common: &Common, own: &Setting) -> Guard {
    if common.is_dev() && common.bind_addr.is_loopback() {
        return Guard::Open;
    }
    // A value that is not a list of tokens has been reported.
    if !reader.is_set(own) {
        let problem = format!(
            "is required (or {}, or {}): ENV is {} and BIND_ADDR is {}, and without tokens anyone who can reach the port could \
             use it; only ENV=dev on a loopback BIND_ADDR needs none",
            TOKENS_FILE.key, ISSUERS.key, common.env, common.bind_addr
        );
        reader.fault(own.key, problem);
    }
    Guard::Closed
}

fn same_name(name: &str, own: &str) -> String {
    format!("has a token named {name}, as {own} has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_config::Secret;
    use std::collections::BTreeMap;

    const OWN: Setting = Setting::new("API_TOKENS", None, "tokens", "Tokens.").secret();

    fn read(pairs: &[(&str, &str)]) -> Result<DoorConfig, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&source);
        let common = Common::read(&mut reader);
        let own = reader.opt::<Secret>(&OWN).map(|text| Tokens::parse(&text).unwrap()).unwrap_or_default();
        let config = DoorConfig::read(&mut reader, &common, own, &OWN);
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn only_a_developers_machine_is_open() {
        let token = ("API_TOKENS", "ops:admin:0123456789abcdef");
        assert!(read(&[]).unwrap().guard.is_open());
        assert!(!read(&[token]).unwrap().guard.is_open());
        for strict in [
            &[("ENV", "production")][..],
            &[("ENV", "production"), ("BIND_ADDR", "127.0.0.1")],
            &[("ENV", "staging"), ("BIND_ADDR", "::1")],
            &[("BIND_ADDR", "0.0.0.0")],
            &[("BIND_ADDR", "10.0.0.1")],
        ] {
            assert!(read(strict).unwrap_err().contains("API_TOKENS: is required"), "{strict:?}");
            assert!(!read(&[strict, &[token]].concat()).unwrap().guard.is_open(), "{strict:?}");
        }
    }

    #[test]
    fn the_consoles_keys_are_a_way_in_and_leave_a_developers_machine_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console-keys.json");
        let console = ("ACCESS_CONSOLE_KEYS", path.to_str().unwrap());
        assert!(read(&[console]).unwrap_err().contains("ACCESS_CONSOLE_KEYS: "), "a file that is not there");
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
        std::fs::write(&path, keys).unwrap();
        let open = read(&[console]).unwrap();
        assert!(open.guard.is_open() && open.console.is_some());
        for strict in [[console, ("ENV", "production")], [console, ("BIND_ADDR", "0.0.0.0")]] {
            let config = read(&strict).unwrap();
            assert!(matches!(config.guard, Guard::Keyring(_)) && config.has_shared_tokens(), "{strict:?}");
        }
        assert!(!read(&[console, ("API_TOKENS", "ops:admin:0123456789abcdef")]).unwrap().guard.is_open());
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&[console]).unwrap_err().contains("is not a JWKS document"));
    }

    #[test]
    fn issuers_need_an_audience_roles_and_https() {
        let issuer = ("ACCESS_ISSUERS", "https://login.example/realms/a");
        let rest = [("ACCESS_AUDIENCE", "urn:agentforge"), ("ACCESS_ROLES", "ops=operator,devs=submitter")];
        let production = ("ENV", "production");
        assert!(!read(&[production, issuer, rest[0], rest[1]]).unwrap().guard.is_open(), "they are a way in, too");
        assert!(read(&[issuer, rest[1]]).unwrap_err().contains("ACCESS_AUDIENCE: is required"));
        assert!(read(&[issuer, rest[0]]).unwrap_err().contains("ACCESS_ROLES: is required"));
        assert!(read(&[issuer, rest[0], ("ACCESS_ROLES", "ops=root")]).unwrap_err().contains("ops=root"));
        let plain = ("ACCESS_ISSUERS", "http://127.0.0.1:9000");
        assert!(read(&[plain, rest[0], rest[1]]).is_ok());
        assert!(read(&[production, plain, rest[0], rest[1]]).unwrap_err().contains("ACCESS_ISSUERS"));
        for wrong in ["login.example", "https://login.example/?a=b", "https://u@login.example"] {
            assert!(
                read(&[("ACCESS_ISSUERS", wrong), rest[0], rest[1]]).unwrap_err().contains("ACCESS_ISSUERS"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_file_is_a_way_too_and_its_faults_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let file = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&[("ENV", "production"), ("ACCESS_TOKENS_FILE", path.to_str().unwrap())])
        };
        let digest = "a".repeat(64);
        assert!(!file(&format!("ops admin sha256:{digest}\n")).unwrap().guard.is_open());
        assert!(!file("# none yet\n").unwrap().guard.is_open(), "an empty file opens nothing");
        assert!(file("ops root x").unwrap_err().contains("ACCESS_TOKENS_FILE: "));
        std::fs::write(&path, format!("ops admin sha256:{digest}\n")).unwrap();
        let both = [("API_TOKENS", "ops:admin:0123456789abcdef"), ("ACCESS_TOKENS_FILE", path.to_str().unwrap())];
        assert!(read(&both).unwrap_err().contains("named ops"));
        assert!(read(&[("ACCESS_TOKENS_FILE", "/no/such")]).unwrap_err().contains("/no/such"));
        assert!(
            read(&[("ACCESS_CLIENT_CERT_HEADER", "not a name")]).unwrap_err().contains("ACCESS_CLIENT_CERT_HEADER")
        );
        assert!(read(&[("ACCESS_TRUSTED_PROXIES", "10.0.0.1/8")]).unwrap_err().contains("ACCESS_TRUSTED_PROXIES"));
    }
}
