//! The configuration of the tactical API: every setting, parsed and checked, all faults at once.

use crate::{
    access::{Access, OWN_TOKENS, own_tokens},
    event::Sight,
    origin::Origin,
    signing::{SIGNING_SECRET, SIGNING_TTL, Signing, check_secrets},
};
use agentforge_access::{Guard, VERIFY_HEADERS};
use agentforge_config::{ByteSize, CommaList, Common, ExposeSecret, Parse, Reader, Secret, Setting};
use agentforge_door::{Door, DoorConfig};
use agentforge_jetstream::{
    NatsConfig,
    topology::{Maker, TacticalConfig},
};
use agentforge_runtime::http::{ClientCertificates, ServerTls, TlsSettings};
use axum::http::HeaderName;
use std::time::Duration;

const HTTP_PORT: Setting = Setting::new(
    "HTTP_PORT",
    Some("8010"),
    "port 0-65535; 0 selects a free one",
    "Where streams, evidence and health listen.",
);
const MAX_CLIENTS: Setting = Setting::new(
    "TACTICAL_STREAM_MAX_CLIENTS",
    Some("50"),
    "1-1000000",
    "Concurrent clients of both streams, in this process. Each needs a file descriptor.",
);
const MAX_PER_IP: Setting = Setting::new(
    "TACTICAL_STREAM_MAX_PER_IP",
    Some("0"),
    "0-1000000; 0 for no limit",
    "Concurrent clients of one address, in this process; IPv6 addresses of one /64 count as one.",
);
const SSE_HEARTBEAT: Setting = Setting::new(
    "TACTICAL_SSE_HEARTBEAT_SECS",
    Some("10"),
    "seconds 0.05-3600, fractions allowed",
    "After this long without an event an SSE client gets a comment with the newest id.",
);
const WS_HEARTBEAT: Setting = Setting::new(
    "TACTICAL_WS_HEARTBEAT_SECS",
    Some("10"),
    "seconds 0.05-3600, fractions allowed",
    "After this long without an event a WebSocket client gets a heartbeat with the newest id.",
);
const CLIENT_BUFFER: Setting = Setting::new(
    "TACTICAL_CLIENT_BUFFER",
    Some("512KiB"),
    "size 512KiB-64MiB",
    "How much data may wait for one client. Beyond it older states are replaced by newer ones; if half of it is still used, the client is disconnected.",
);
const REQUIRE_BEARER: Setting = Setting::new(
    "TACTICAL_REQUIRE_BEARER",
    None,
    "1, true, yes, on, 0, false, no, off",
    "Streams need a token: of TACTICAL_READ_TOKENS, of ACCESS_TOKENS_FILE, or of an issuer. Without a required client certificate, only TACTICAL_OPEN_TO_ANYONE turns this off outside ENV=dev on loopback.",
)
.default_note("off in ENV=dev on loopback, with TACTICAL_REQUIRE_CLIENT_CERT and with TACTICAL_OPEN_TO_ANYONE, else on");
const OPEN_TO_ANYONE: Setting = Setting::new(
    "TACTICAL_OPEN_TO_ANYONE",
    Some("off"),
    "off, picture, evidence",
    "What everybody who reaches the port gets without a token: nothing, the live picture without links to evidence, or the evidence too.",
);
const READ_TOKENS: Setting = Setting::new(
    "TACTICAL_READ_TOKENS",
    None,
    "comma-separated list; each of 16 characters or more",
    "Tokens for reading the picture and evidence: Authorization header, cookie agentforge_token, or WebSocket subprotocol bearer.<token>.",
)
.secret();
const PUBLISH_TOKEN: Setting = Setting::new(
    "TACTICAL_PUBLISH_TOKEN",
    None,
    "text of 16 characters or more",
    "Token for POST and DELETE. Without it, ACCESS_TOKENS_FILE and ACCESS_ISSUERS they are open in ENV=dev on loopback, and closed everywhere else.",
)
.secret();
const REQUIRE_CLIENT_CERT: Setting = Setting::new(
    "TACTICAL_REQUIRE_CLIENT_CERT",
    Some("off"),
    "1, true, yes, on, 0, false, no, off",
    "Streams need a client certificate: of this port's TLS, or SUCCESS in a header of a trusted proxy.",
);
const CLIENT_CERT_HEADER: Setting = Setting::new(
    "TACTICAL_CLIENT_CERT_HEADER",
    None,
    "name of a header",
    "The header in which a trusted proxy reports SUCCESS for a client's certificate; it must overwrite the callers' header. Unset: ssl-client-verify, x-ssl-client-verify and x-client-verify, and all that are there must agree.",
);
const TRUSTED_PROXIES: Setting = Setting::new(
    "TACTICAL_TRUSTED_PROXIES",
    None,
    "list of addresses and ranges such as 10.1.0.0/16",
    "Peers whose X-Forwarded-* and client certificate headers are trusted, in addition to those of ACCESS_TRUSTED_PROXIES.",
);
const ALLOWED_ORIGINS: Setting = Setting::new(
    "TACTICAL_ALLOWED_ORIGINS",
    None,
    "list of origins such as https://maps.example",
    "Pages of other origins that may use streams, evidence and the API (CORS, and the Origin of a WebSocket). Pages of the same origin always may, all others never.",
);
const TLS_CERT: Setting =
    Setting::new("TACTICAL_TLS_CERT", None, "path of a PEM file", "Certificate chain of HTTP_PORT; turns TLS on.");
const TLS_KEY: Setting = Setting::new("TACTICAL_TLS_KEY", None, "path of a PEM file", "Key of TACTICAL_TLS_CERT.");
const TLS_CLIENT_CA: Setting = Setting::new(
    "TACTICAL_TLS_CLIENT_CA",
    None,
    "path of a PEM file",
    "Authorities whose client certificates are accepted. A client needs none unless TACTICAL_REQUIRE_CLIENT_CERT is on.",
);
/// Origins that may be named.
const ORIGINS_MAX: usize = 64;

/// What is read here, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    HTTP_PORT,
    MAX_CLIENTS,
    MAX_PER_IP,
    SSE_HEARTBEAT,
    WS_HEARTBEAT,
    CLIENT_BUFFER,
    REQUIRE_BEARER,
    OPEN_TO_ANYONE,
    READ_TOKENS,
    PUBLISH_TOKEN,
    REQUIRE_CLIENT_CERT,
    CLIENT_CERT_HEADER,
    TRUSTED_PROXIES,
    ALLOWED_ORIGINS,
    TLS_CERT,
    TLS_KEY,
    TLS_CLIENT_CA,
    SIGNING_SECRET,
    SIGNING_TTL,
];

/// Bounds of the streams.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at once.
    pub clients: usize,
    /// Clients of one address; 0 means no limit.
    pub clients_per_address: usize,
    /// Idle time before a heartbeat, SSE.
    pub sse_heartbeat: Duration,
    /// Idle time before a heartbeat, WebSocket.
    pub ws_heartbeat: Duration,
    /// What may wait for one client, bytes.
    pub client_buffer_bytes: usize,
}

/// The tactical API's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings of every service.
    pub common: Common,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// The limits of the stream that this service creates.
    pub stream: TacticalConfig,
    /// Whether it is made here.
    pub maker: Maker,
    /// Where it listens.
    pub http_port: u16,
    /// Bounds of the streams.
    pub limits: Limits,
    /// Who may do what.
    pub access: Access,
    /// TLS of the port.
    pub tls: Option<ServerTls>,
    /// Makes and checks links to evidence.
    pub signing: Signing,
}

impl Config {
    /// Reads the settings; faults stay in the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let common = Common::read(reader);
        let is_lenient = common.is_dev() && common.bind_addr.is_loopback();
        let http_port = reader.get(&HTTP_PORT);
        common.check_port(reader, &HTTP_PORT, http_port);
        let limits = read_limits(reader);
        let tls = read_tls(reader).or_else(|| ServerTls::of(&common, PROTOCOLS));
        let access = Access { is_tls: tls.is_some(), ..read_access(reader, &common, is_lenient) };
        Self {
            http_port,
            limits,
            access,
            tls,
            signing: Signing::read(reader, is_lenient),
            stream: TacticalConfig::read(reader),
            maker: Maker::read(reader, &common),
            nats: NatsConfig::read(reader),
            common,
        }
    }
}

fn read_limits(reader: &mut Reader<'_>) -> Limits {
    let seconds = |reader: &mut Reader<'_>, setting| Duration::from_secs_f64(reader.get_in(setting, 0.05..=3600.0));
    let buffer = reader.get_in(&CLIENT_BUFFER, ByteSize(512 << 10)..=ByteSize(64 << 20)).bytes();
    Limits {
        clients: reader.get_in(&MAX_CLIENTS, 1..=1_000_000),
        clients_per_address: reader.get_in(&MAX_PER_IP, 0..=1_000_000),
        sse_heartbeat: seconds(reader, &SSE_HEARTBEAT),
        ws_heartbeat: seconds(reader, &WS_HEARTBEAT),
        client_buffer_bytes: usize::try_from(buffer).unwrap_or(64 << 20),
    }
}

fn read_access(reader: &mut Reader<'_>, common: &Common, is_lenient: bool) -> Access {
    let tokens = secrets(reader.opt::<Secret>(&READ_TOKENS));
    check_secrets(reader, &READ_TOKENS, &tokens);
    let needs_certificate: bool = reader.get(&REQUIRE_CLIENT_CERT);
    let publish_token: Option<Secret> = reader.opt(&PUBLISH_TOKEN);
    check_secrets(reader, &PUBLISH_TOKEN, publish_token.as_slice());
    let mut door = DoorConfig::read_closed(reader, common, own_tokens(&tokens, publish_token.as_ref()), OWN_TOKENS);
    if is_lenient && matches!(door.guard, Guard::Closed) {
        // No one is asked for anything, as where a door is open.
        (door.caller_rate, door.address_rate) = (0, 0);
    }
    let has_tokens = !tokens.is_empty() || door.has_shared_tokens();
    let without_token = read_without_token(reader, has_tokens, needs_certificate, is_lenient);
    for entry in reader.opt::<CommaList>(&TRUSTED_PROXIES).map(CommaList::into_inner).unwrap_or_default() {
        match entry.parse() {
            Ok(net) => door.trusted_proxies.push(net),
            Err(problem) => reader.fault(TRUSTED_PROXIES.key, format!("{entry} {problem}")),
        }
    }
    let certificate_header = reader.opt_if::<String>(&CLIENT_CERT_HEADER, |name| {
        let unfit = |_| format!("is not the name of a header such as {}", VERIFY_HEADERS[0]);
        name.parse::<HeaderName>().map(drop).map_err(unfit)
    });
    Access {
        certificate_header,
        allowed_origins: read_origins(reader),
        is_local: is_lenient,
        is_tls: false,
        is_publishing_open: is_lenient && publish_token.is_none() && !door.has_shared_tokens(),
        door: Door::new(door),
        without_token,
        needs_certificate,
    }
}

/// What a reader without a token gets. Nothing is open by omission, except on somebody's own machine.
fn read_without_token(
    reader: &mut Reader<'_>,
    has_tokens: bool,
    needs_certificate: bool,
    is_lenient: bool,
) -> Option<Sight> {
    let OpenTo(open) = reader.get(&OPEN_TO_ANYONE);
    let given: Option<bool> = reader.opt(&REQUIRE_BEARER);
    let is_guarded = needs_certificate || is_lenient;
    let needs_bearer = given.unwrap_or(!is_guarded && open.is_none());
    if needs_bearer && open.is_some() {
        let problem = format!("opens what {} closes; leave one of them out", REQUIRE_BEARER.key);
        reader.fault(OPEN_TO_ANYONE.key, problem);
    } else if needs_bearer && !has_tokens {
        let problem = format!(
            "has no token, and reading needs one; {}=picture would let everybody read the live picture, and evidence the files too",
            OPEN_TO_ANYONE.key
        );
        reader.fault(READ_TOKENS.key, problem);
    } else if !needs_bearer && !is_guarded && open.is_none() {
        let problem = format!(
            "is off, which opens only ENV=dev on loopback; {}=picture or evidence opens it to everybody",
            OPEN_TO_ANYONE.key
        );
        reader.fault(REQUIRE_BEARER.key, problem);
    }
    (!needs_bearer).then(|| open.unwrap_or(Sight::Evidence))
}

/// The value of `TACTICAL_OPEN_TO_ANYONE`.
struct OpenTo(Option<Sight>);

impl Parse for OpenTo {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            "picture" => Ok(Self(Some(Sight::Picture))),
            "evidence" => Ok(Self(Some(Sight::Evidence))),
            _ => Err("is not one of off, picture, evidence".to_owned()),
        }
    }
    fn placeholder() -> Self {
        Self(None)
    }
}

fn read_origins(reader: &mut Reader<'_>) -> Vec<Origin> {
    let entries = reader.opt::<CommaList>(&ALLOWED_ORIGINS).map(CommaList::into_inner).unwrap_or_default();
    if entries.len() > ORIGINS_MAX {
        reader.fault(ALLOWED_ORIGINS.key, format!("has more than {ORIGINS_MAX} origins"));
    }
    let mut origins = Vec::new();
    for entry in entries {
        match Origin::parse(&entry) {
            Some(origin) => origins.push(origin),
            None => reader.fault(
                ALLOWED_ORIGINS.key,
                format!("{entry} is not scheme://host or scheme://host:port, without a path"),
            ),
        }
    }
    origins
}

fn secrets(list: Option<Secret>) -> Vec<Secret> {
    let list = list.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| Secret::from(entry.to_owned())).collect()
}

/// Streams are taken out of HTTP, which HTTP/2 has no way for.
const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

fn read_tls(reader: &mut Reader<'_>) -> Option<ServerTls> {
    let settings = TlsSettings { cert: &TLS_CERT, key: &TLS_KEY, client_ca: &TLS_CLIENT_CA };
    // Whether a certificate is needed is answered in words, behind the handshake.
    ServerTls::read(reader, settings, ClientCertificates::Optional, PROTOCOLS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&source);
        let config = Config::read(&mut reader);
        reader.finish().map(|_| config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = read(&[]).unwrap();
        let limits = config.limits;
        assert_eq!((config.http_port, limits.clients, limits.clients_per_address), (8010, 50, 0));
        assert_eq!(limits.sse_heartbeat, Duration::from_secs(10));
        assert_eq!(config.signing.signer.ttl(), Duration::from_secs(300));
        assert!(
            config.access.is_publishing_open
                && config.access.without_token == Some(Sight::Evidence)
                && config.tls.is_none()
        );
        assert_eq!(read(&[("TACTICAL_WS_HEARTBEAT_SECS", "0.25")]).unwrap().limits.ws_heartbeat.as_millis(), 250);
    }

    #[test]
    fn the_known_secret_is_refused_where_others_can_come() {
        let own = ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own");
        let reader = ("TACTICAL_READ_TOKENS", "a-token-of-a-reader");
        for open in [
            &[("ENV", "production")][..],
            &[("BIND_ADDR", "0.0.0.0")],
            &[("ENV", "staging"), ("BIND_ADDR", "127.0.0.1")],
        ] {
            assert!(read(open).unwrap_err().contains("EVIDENCE_SIGNING_SECRET"), "{open:?}");
            let with_own = [open, &[own, reader]].concat();
            let config = read(&with_own).unwrap();
            assert!(!config.access.is_publishing_open, "{open:?}");
            let rotated =
                [open, &[("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own,dev-secret-that-everybody-knows")]].concat();
            assert!(read(&rotated).unwrap_err().contains("default"), "{open:?}");
        }
    }

    #[test]
    fn short_secrets_are_refused_in_dev_too() {
        let good = ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own");
        for place in [("ENV", "production"), ("ENV", "dev")] {
            for (key, value) in [
                ("EVIDENCE_SIGNING_SECRET", "k"),
                ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own,15-characters-x"),
                ("TACTICAL_READ_TOKENS", "1"),
                ("TACTICAL_READ_TOKENS", "a-token-that-is-long-enough,short"),
                ("TACTICAL_PUBLISH_TOKEN", "x"),
            ] {
                let fault = read(&[good, place, (key, value)]).unwrap_err();
                assert!(fault.contains(key) && fault.contains("16 characters"), "{key}: {fault}");
            }
            assert!(read(&[place, good, ("TACTICAL_READ_TOKENS", "exactly-16-chars")]).is_ok());
        }
    }

    #[test]
    fn an_issuer_or_a_file_is_a_way_in_and_closes_publishing() {
        let issuer = [
            ("ACCESS_ISSUERS", "https://login.example"),
            ("ACCESS_AUDIENCE", "urn:agentforge"),
            ("ACCESS_ROLES", "ops=operator"),
        ];
        let production = [("ENV", "production"), ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own")];
        assert_eq!(read(&[&production[..], &issuer].concat()).unwrap().access.without_token, None);
        assert!(!read(&issuer).unwrap().access.is_publishing_open);
    }

    #[test]
    fn outside_of_dev_reading_is_open_only_where_a_setting_says_so() {
        const READER: (&str, &str) = ("TACTICAL_READ_TOKENS", "a-token-of-a-reader");
        const CERTIFICATE: (&str, &str) = ("TACTICAL_REQUIRE_CLIENT_CERT", "on");
        let own = ("EVIDENCE_SIGNING_SECRET", "a-secret-of-our-own");
        let open = |to: &'static str| ("TACTICAL_OPEN_TO_ANYONE", to);
        let bearer = |on: &'static str| ("TACTICAL_REQUIRE_BEARER", on);
        for place in [("ENV", "production"), ("BIND_ADDR", "0.0.0.0")] {
            for (given, wanted) in [
                (&[][..], Err("TACTICAL_READ_TOKENS")),
                (&[READER], Ok(None)),
                (&[READER, bearer("on")], Ok(None)),
                (&[READER, bearer("off")], Err("TACTICAL_OPEN_TO_ANYONE=picture or evidence")),
                (&[READER, bearer("off"), open("picture")], Ok(Some(Sight::Picture))),
                (&[open("picture")], Ok(Some(Sight::Picture))),
                (&[open("evidence")], Ok(Some(Sight::Evidence))),
                (&[READER, bearer("on"), open("picture")], Err("TACTICAL_OPEN_TO_ANYONE")),
                (&[CERTIFICATE], Ok(Some(Sight::Evidence))),
                (&[CERTIFICATE, READER, bearer("on")], Ok(None)),
                (&[CERTIFICATE, bearer("on")], Err("TACTICAL_READ_TOKENS")),
            ] {
                let found = read(&[given, &[place, own]].concat()).map(|config| config.access.without_token);
                match wanted {
                    Ok(sight) => assert_eq!(found, Ok(sight), "{place:?} {given:?}"),
                    Err(word) => assert!(found.as_ref().is_err_and(|f| f.contains(word)), "{given:?}: {found:?}"),
                }
            }
        }
    }

    #[test]
    fn half_settings_are_faults() {
        for (pairs, key) in [
            (&[("TACTICAL_REQUIRE_BEARER", "on")][..], "TACTICAL_READ_TOKENS"),
            (&[("TACTICAL_OPEN_TO_ANYONE", "on")], "TACTICAL_OPEN_TO_ANYONE"),
            (&[("TACTICAL_TRUSTED_PROXIES", "10.0.0.0/8,nonsense")], "TACTICAL_TRUSTED_PROXIES"),
            (&[("TACTICAL_TLS_CERT", "/c")], "TACTICAL_TLS_CERT"),
            (&[("TACTICAL_TLS_KEY", "/k")], "TACTICAL_TLS_KEY"),
            (&[("TACTICAL_TLS_CLIENT_CA", "/a")], "TACTICAL_TLS_CLIENT_CA"),
            (&[("TACTICAL_STREAM_MAX_CLIENTS", "0")], "TACTICAL_STREAM_MAX_CLIENTS"),
            (&[("TACTICAL_SSE_HEARTBEAT_SECS", "0")], "TACTICAL_SSE_HEARTBEAT_SECS"),
            (&[("EVIDENCE_SIGNING_SECRET", " , ")], "EVIDENCE_SIGNING_SECRET"),
            (&[("TACTICAL_CLIENT_BUFFER", "1KiB")], "TACTICAL_CLIENT_BUFFER"),
            (&[("TACTICAL_ALLOWED_ORIGINS", "https://maps.example,*")], "TACTICAL_ALLOWED_ORIGINS"),
            (&[("TACTICAL_ALLOWED_ORIGINS", "https://maps.example/map")], "TACTICAL_ALLOWED_ORIGINS"),
            (&[("TACTICAL_ALLOWED_ORIGINS", "null")], "TACTICAL_ALLOWED_ORIGINS"),
            (&[("TACTICAL_CLIENT_CERT_HEADER", "not a name")], "TACTICAL_CLIENT_CERT_HEADER"),
        ] {
            assert!(read(pairs).unwrap_err().contains(key), "{pairs:?}");
        }
    }
}
