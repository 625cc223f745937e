//! The command line of the known exporter, turned into settings.
//!
//! Go's syntax: `-x` and `--x`, `-x=v` and `-x v`, switches without a value or with `=false`. Unlike there, flags that
//! are lists may be repeated and take commas, and an unknown flag is refused with a suggestion. Only turns words into
//! settings; `config` checks their values.

use crate::config;
use agentforge_config::{Setting, nearest};
use std::{collections::BTreeMap, ffi::OsString};

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Settings, over those of the environment.
    pub settings: BTreeMap<String, String>,
    /// Settings where neither the command line nor the environment has them: the known exporter's own.
    pub defaults: BTreeMap<String, String>,
    /// For the runtime: --help, --version, --check-config.
    pub rest: Vec<OsString>,
    /// What was accepted and has no effect.
    pub warnings: Vec<String>,
}

enum Kind {
    /// A value for a setting.
    Value(Setting),
    /// One more item of a list setting.
    Items(Setting),
    /// A switch that sets a truth value.
    Switch(Setting),
    /// A switch that sets the opposite.
    Not(Setting),
    /// A switch that sets this value.
    Word(Setting, &'static str),
    /// Passed to the runtime as this.
    Runtime(&'static str),
    /// Taken without effect: whether it has a value, and why.
    Ignored(bool, &'static str),
}

use Kind::{Ignored, Items, Not, Runtime, Switch, Value, Word};

const STDERR: &str = "logs go to stderr, one JSON object per line";
const EACH_SCRAPE: &str = "every scrape asks the servers again, so there is nothing to retry";

/// Every flag, `-` in its name written as `_`, with the words of --help.
fn table() -> Vec<(&'static [&'static str], Kind, &'static str)> {
    use agentforge_config::common::{BIND_ADDR, LOG_LEVEL, METRICS_PORT};
    let endpoint = |name: &'static str| Word(config::ENDPOINTS, name);
    vec![
        (&["port", "p"], Value(METRICS_PORT), "port to listen on"),
        (&["addr", "a"], Value(BIND_ADDR), "address to listen on"),
        (&["path"], Value(config::PATH), "path of the page"),
        (&["varz"], endpoint("varz"), "the server"),
        (&["connz"], endpoint("connz"), "connections, summed up"),
        (&["connz_detailed"], endpoint("connz_detailed"), "each connection"),
        (&["routez"], endpoint("routez"), "routes"),
        (&["subz", "subsz"], endpoint("subsz"), "subscriptions"),
        (&["gatewayz"], endpoint("gatewayz"), "gateways"),
        (&["leafz"], endpoint("leafz"), "leaf nodes"),
        (&["accstatz"], endpoint("accstatz"), "traffic by account"),
        (&["accountz"], endpoint("accountz"), "limits by account"),
        (&["healthz"], endpoint("healthz"), "health"),
        (&["healthz_js_enabled_only"], endpoint("healthz_js_enabled_only"), "health: JetStream is enabled"),
        (&["healthz_js_server_only"], endpoint("healthz_js_server_only"), "health: the server's JetStream"),
        (&["jsz"], Items(config::JSZ), "JetStream: accounts, streams, consumers, all"),
        (&["jsz_stream_meta_keys"], Items(config::STREAM_META_KEYS), "metadata keys of streams as labels"),
        (&["jsz_consumer_meta_keys"], Items(config::CONSUMER_META_KEYS), "metadata keys of consumers as labels"),
        (&["prefix"], Value(config::PREFIX), "in place of gnatsd and jetstream"),
        (&["use_internal_server_id"], Word(config::SERVER_ID, "internal_id"), "server_id from varz"),
        (&["use_internal_server_name"], Word(config::SERVER_ID, "internal_name"), "server_id is the server's name"),
        (&["tlscert"], Value(config::TLS_CERT), "certificate of the page's port"),
        (&["tlskey"], Value(config::TLS_KEY), "its key"),
        (&["tlscacert"], Value(config::TLS_CLIENT_CA), "authorities of the clients' certificates"),
        (&["http_user"], Value(config::HTTP_USER), "who may read the page"),
        (&["http_pass"], Value(config::HTTP_PASSWORD), "its password, plain or bcrypt; better in the environment"),
        (&["D"], Word(LOG_LEVEL, "debug"), "more logs"),
        (&["V", "DV"], Word(LOG_LEVEL, "trace"), "all logs"),
        (&["ri"], Ignored(true, EACH_SCRAPE), "accepted, without effect"),
        (&["l", "log"], Ignored(true, STDERR), "accepted, without effect"),
        (&["s", "syslog"], Ignored(false, STDERR), "accepted, without effect"),
        (&["r", "remote_syslog"], Ignored(true, STDERR), "accepted, without effect"),
        (&["no_stock_jetstream"], Not(config::STOCK_JETSTREAM), "leave jetstream_* out"),
        (&["no_compact"], Not(config::COMPACT), "leave nats_jetstream_* out"),
        (&["no_self_metrics"], Not(config::SELF_METRICS), "leave out the exporter's own series about scrapes"),
        (&["ephemeral"], Switch(config::EPHEMERAL), "consumers that are not durable in nats_jetstream_*"),
        (&["connection_names"], Switch(config::CONNECTION_NAMES), "names of connections"),
        (&["typed_counters"], Switch(config::TYPED_COUNTERS), "counters of varz with their type"),
        (&["account_include"], Value(config::ACCOUNT_INCLUDE), "accounts, by regular expression"),
        (&["account_exclude"], Value(config::ACCOUNT_EXCLUDE), "accounts to leave out"),
        (&["stream_include"], Value(config::STREAM_INCLUDE), "streams, by regular expression"),
        (&["stream_exclude"], Value(config::STREAM_EXCLUDE), "streams to leave out"),
        (&["consumer_include"], Value(config::CONSUMER_INCLUDE), "consumers, by regular expression"),
        (&["consumer_exclude"], Value(config::CONSUMER_EXCLUDE), "consumers to leave out"),
        (&["series_max"], Value(config::SERIES_MAX), "series of a page"),
        (&["timeout"], Value(config::TIMEOUT), "how long a server may take"),
        (&["response_max"], Value(config::RESPONSE_MAX), "longest answer"),
        (&["no_gzip"], Not(config::GZIP), "never compress"),
        (&["nats_tls_ca"], Value(config::NATS_TLS_CA), "authorities of the servers' certificates"),
        (&["nats_tls_cert"], Value(config::NATS_TLS_CERT), "client certificate towards the servers"),
        (&["nats_tls_key"], Value(config::NATS_TLS_KEY), "its key"),
        (&["check_config"], Runtime("--check-config"), "check the settings, print the effective ones"),
        (&["version"], Runtime("--version"), "print the version"),
        (&["help", "h"], Runtime("--help"), "this"),
    ]
}

/// Flags that the known exporter had and dropped.
const GONE: [&str; 3] = ["channelz", "serverz", "replicatorVarz"];

/// Reads the command line.
///
/// # Errors
/// What is wrong with it, with a hint; a value that may be a secret is not shown.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<CommandLine, String> {
    let table = table();
    let mut line = CommandLine::default();
    let mut positional = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.into_string().map_err(|_| "an argument is not UTF-8".to_owned())?;
        if text == "--" {
            positional.extend(arguments.map(|rest| rest.to_string_lossy().into_owned()));
            break;
        }
        let Some(flag) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).filter(|f| !f.is_empty()) else {
            positional.push(text);
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let normal = name.replace('-', "_");
        let found = table.iter().find(|(names, ..)| names.contains(&normal.as_str()));
        let Some((_, kind, _)) = found else { return Err(unknown(name, &table)) };
        let mut required = || value.clone().or_else(|| arguments.next()?.into_string().ok());
        let missing = || format!("-{name} needs a value");
        match kind {
            Value(setting) => line.set(setting, required().ok_or_else(missing)?),
            Items(setting) => line.add(setting, &required().ok_or_else(missing)?),
            Switch(setting) => line.set(setting, truth(name, value.as_deref())?.to_string()),
            Not(setting) => line.set(setting, (!truth(name, value.as_deref())?).to_string()),
            Word(setting, word) => {
                if truth(name, value.as_deref())? {
                    if setting.key == config::ENDPOINTS.key {
                        line.add(setting, word)
                    } else {
                        line.set(setting, (*word).to_owned())
                    }
                }
            }
            Runtime(argument) => line.rest.push(argument.into()),
            Ignored(has_value, why) => {
                if *has_value {
                    required().ok_or_else(missing)?;
                }
                line.warnings.push(format!("-{name} has no effect: {why}"));
            }
        }
    }
    if !positional.is_empty() {
        line.add(&config::TARGETS, &positional.join(","));
    }
    line.addresses();
    line.stands_in();
    Ok(line)
}

impl CommandLine {
    fn set(&mut self, setting: &Setting, value: String) {
        self.settings.insert(setting.key.to_owned(), value);
    }

    fn add(&mut self, setting: &Setting, items: &str) {
        let list = self.settings.entry(setting.key.to_owned()).or_default();
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(items);
    }

    /// A command line of the known exporter names an endpoint: without one it does not start. Who scraped it from
    /// elsewhere must find this one, too.
    fn stands_in(&mut self) {
        let named = [config::ENDPOINTS, config::JSZ];
        if named.iter().any(|setting| self.settings.contains_key(setting.key)) {
            self.defaults.insert(agentforge_config::common::BIND_ADDR.key.to_owned(), "0.0.0.0".to_owned());
        }
    }

    /// prometheus-nats-exporter accepts names for its address; the usual one needs no resolver.
    fn addresses(&mut self) {
        if let Some(address) = self.settings.get_mut(agentforge_config::common::BIND_ADDR.key)
            && address == "localhost"
        {
            "127.0.0.1".clone_into(address);
        }
    }
}

fn truth(name: &str, value: Option<&str>) -> Result<bool, String> {
    // Go has t, T, f and F too.
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("t") => Ok(true),
        Some("f") => Ok(false),
        Some(text) => agentforge_config::truth(text).map_err(|problem| format!("the value of -{name} {problem}")),
    }
}

fn unknown(name: &str, table: &[(&'static [&'static str], Kind, &'static str)]) -> String {
    if GONE.contains(&name) {
        return format!("-{name} is gone: NATS Streaming and its replicator are no more");
    }
    let known = table.iter().flat_map(|(names, ..)| names.iter().copied());
    let hint = nearest(&name.replace('-', "_"), known, slips_max(name)).map(|near| format!(": did you mean -{near}?"));
    format!("unknown flag -{name}{}", hint.unwrap_or_default())
}

/// A third of the letters may be wrong: with more a proposal is a riddle.
pub fn slips_max(word: &str) -> usize {
    (word.len() / 3).max(1)
}

/// The flags for --help.
pub fn help() -> String {
    let mut out = String::from(
        "Usage: agentforge-nats-exporter [flags] [url | id,url]...\n\n\
         Flags (- or --, = or a blank before the value; lists repeat and take commas):\n",
    );
    for (names, _, help) in table() {
        let names: Vec<String> = names.iter().map(|name| format!("-{name}")).collect();
        out += &format!("  {:<34} {help}\n", names.join(", "));
    }
    out + "\nEach flag is a setting too:\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<CommandLine, String> {
        parse(text.split_whitespace().map(OsString::from))
    }

    fn settings(text: &str) -> Vec<(String, String)> {
        line(text).unwrap().settings.into_iter().collect()
    }

    #[test]
    fn every_form_of_a_flag_is_one_setting() {
        for text in ["-port 1", "--port 1", "-port=1", "-p 1", "-p=1", "--p=1"] {
            assert_eq!(settings(text), [("METRICS_PORT".into(), "1".into())], "{text}");
        }
        for (text, value) in [("-ephemeral", "true"), ("--ephemeral=false", "false"), ("-ephemeral=T", "true")] {
            assert_eq!(settings(text), [("NATS_EXPORTER_EPHEMERAL".into(), value.into())], "{text}");
        }
        assert_eq!(settings("--no-stock-jetstream"), [("NATS_EXPORTER_STOCK_JETSTREAM".into(), "false".into())]);
        assert_eq!(settings("-addr localhost"), [("BIND_ADDR".into(), "127.0.0.1".into())]);
        let defaults = |text: &str| parse(text.split(' ').map(OsString::from)).unwrap().defaults;
        for (stock, own) in [("-varz http://a:8222", "http://a:8222"), ("-jsz=all -port 7777", "-port 7777 --no-gzip")]
        {
            assert_eq!(defaults(stock)["BIND_ADDR"], "0.0.0.0", "{stock}");
            assert!(defaults(own).is_empty(), "{own}");
        }
    }

    #[test]
    fn lists_repeat_and_take_commas() {
        let endpoints = |text: &str| settings(text)[0].1.clone();
        assert_eq!(endpoints("-varz -connz -subz -healthz"), "varz,connz,subsz,healthz");
        assert_eq!(endpoints("-subsz -routez=false"), "subsz");
        for text in ["-jsz=streams,consumers", "-jsz streams -jsz=consumers", "-jsz=streams --jsz consumers"] {
            assert_eq!(settings(text), [("NATS_EXPORTER_JSZ".into(), "streams,consumers".into())], "{text}");
        }
        assert_eq!(
            settings("http://a n2,http://b -- http://c,http://d"),
            [("NATS_EXPORTER_TARGETS".into(), "http://a,n2,http://b,http://c,http://d".into())]
        );
    }

    #[test]
    fn unknown_flags_come_with_a_hint_and_values_are_not_told() {
        for (text, part) in [
            ("-varzz", "did you mean -varz?"),
            ("--connz_details", "did you mean -connz_detailed?"),
            ("--stream-includes=x", "did you mean -stream_include?"),
            ("-channelz", "is gone"),
            ("-qqq", "unknown flag -qqq"),
            ("-port", "needs a value"),
            ("-varz=maybe", "-varz is not a truth value"),
            ("-http_passs=hunter2", "did you mean -http_pass?"),
        ] {
            let fault = line(text).unwrap_err();
            assert!(fault.contains(part) && !fault.contains("hunter2"), "{text}: {fault}");
        }
    }

    #[test]
    fn logging_flags_are_taken_and_said_to_have_no_effect() {
        let line = line("-l file -s -r=host -ri 5 -D -version").unwrap();
        assert_eq!(line.warnings.len(), 4, "{:?}", line.warnings);
        assert_eq!(line.settings["LOG_LEVEL"], "debug");
        assert_eq!(line.rest, ["--version"]);
    }

    #[test]
    fn names_are_unique_and_help_has_each() {
        let mut names: Vec<&str> = table().iter().flat_map(|(names, ..)| names.iter().copied()).collect();
        let help = help();
        assert!(names.iter().all(|name| help.contains(&format!("-{name}"))));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
