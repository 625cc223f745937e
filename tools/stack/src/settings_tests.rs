//! Settings of all services as one table: every number, duration and size has a range, and a value beyond it is a fault
//! of its own key, found with all others.
//!
//! Reads declarations and calls the services' own reading; starts nothing.

use crate::roster::{SERVICES, Service};
use agentforge_config::{ByteSize, Faults, Parse, Setting, parse_duration, unknown};
use std::collections::BTreeMap;
use std::time::Duration;

/// Every setting of a service.
fn declared(service: &Service) -> Vec<Setting> {
    (service.program.settings)().into_iter().flat_map(|(_, settings)| settings).collect()
}

/// What a setting's range is counted in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantity {
    Number(f64),
    Duration(Duration),
    Size(u64),
}

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Some(Self::Number(number));
        }
        if let Ok(duration) = parse_duration(text) {
            return Some(Self::Duration(duration));
        }
        ByteSize::parse(text).ok().map(|size| Self::Size(size.bytes()))
    }

    /// As a user would write what is a little more.
    fn beyond(self) -> String {
        match self {
            Self::Number(n) if n.fract() == 0.0 => format!("{}", n + 1.0),
            Self::Number(n) => format!("{}", n + 0.01),
            Self::Duration(d) => format!("{}ms", d.as_millis() + 1),
            Self::Size(bytes) => (bytes + 1).to_string(),
        }
    }

    /// As a user would write what is a little less; `None` for zero.
    fn below(self) -> Option<String> {
        match self {
            Self::Number(n) if n >= 1.0 => Some(format!("{}", n - 1.0)),
            Self::Number(n) => (n > 0.0).then(|| format!("{}", n / 2.0)),
            Self::Duration(d) => (d >= Duration::from_millis(1)).then(|| format!("{}ms", d.as_millis() - 1)),
            Self::Size(bytes) => bytes.checked_sub(1).map(|bytes| bytes.to_string()),
        }
    }
}

/// The range that the declaration names, such as in `duration 1s-365d` and `1 to 200`.
fn range_of(setting: &Setting) -> Option<(Quantity, Quantity)> {
    let words: Vec<&str> = setting.values.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    // A list's items have the range, not the setting; and a name's or a secret's range counts its characters.
    if words.first().is_some_and(|word| ["durations", "list", "on", "text"].contains(word))
        || words.iter().any(|word| ["characters", "letters", "A-Z"].contains(word))
    {
        return None;
    }
    let spans = words.iter().filter_map(|word| word.split_once('-'));
    let to = words.windows(3).filter(|three| ["to", "and"].contains(&three[1])).map(|three| (three[0], three[2]));
    spans.chain(to).find_map(|(low, high)| Some((Quantity::parse(low)?, Quantity::parse(high)?)))
}

/// Whether it is counted at all, by its default or by the words for its values.
fn is_counted(setting: &Setting) -> bool {
    let unit = setting.values.split([' ', ',', ';']).next().unwrap_or_default();
    let named = ["number", "duration", "size", "seconds", "port", "jobs"].contains(&unit);
    let is_choice = setting.values.contains(" or ") && !setting.values.contains('-');
    named || (!is_choice && setting.default.is_some_and(|default| Quantity::parse(default).is_some()))
}

/// Counted, and without a range for a reason.
const WITHOUT_RANGE: [(&str, &str); 1] =
    [("JOB_DEADLINE", "off or a duration: a job's own deadline may be any moment, and so may its default")];

#[test]
fn every_counted_setting_has_a_range_and_refuses_one_beyond_it() {
    let (mut checked, mut problems) = (0, Vec::new());
    for service in SERVICES {
        assert!((service.program.faults)(&BTreeMap::new()).is_none(), "{} starts with its defaults", service.name);
        for setting in &declared(service) {
            let Some((low, high)) = range_of(setting) else {
                if is_counted(setting) && !WITHOUT_RANGE.iter().any(|(key, _)| *key == setting.key) {
                    problems.push(format!("{}: {} names no range: {}", service.name, setting.key, setting.values));
                }
                continue;
            };
            for value in [Some(high.beyond()), low.below()].into_iter().flatten() {
                checked += 1;
                let variables = BTreeMap::from([(setting.key.to_owned(), value.clone())]);
                let faults = (service.program.faults)(&variables);
                if !faults.is_some_and(|faults| faults.names(setting.key)) {
                    problems.push(format!("{}: {}={value} is taken ({})", service.name, setting.key, setting.values));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked > 100, "ranges were not found: {checked}");
}

#[test]
fn all_faults_are_found_at_once_each_under_its_own_key() {
    for service in SERVICES {
        let ranged: Vec<(&str, String)> =
            declared(service).iter().filter_map(|s| Some((s.key, range_of(s)?.1.beyond()))).collect();
        let variables = ranged.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let faults = (service.program.faults)(&variables).unwrap_or_else(|| panic!("{} takes all of it", service.name));
        let missing: Vec<_> = ranged.iter().filter(|(key, _)| !faults.names(key)).collect();
        assert!(missing.is_empty(), "{}: no fault of {missing:?} in\n{faults}", service.name);
    }
}

#[test]
fn a_wrong_value_is_one_fault() {
    let mut problems = Vec::new();
    for service in SERVICES {
        for setting in &declared(service) {
            for value in ["x", "0", "-1", "999999999", "x\u{7}"] {
                let variables = BTreeMap::from([(setting.key.to_owned(), value.to_owned())]);
                let faults = (service.program.faults)(&variables);
                // What must be set as well is another fault.
                let own = faults.iter().flat_map(Faults::iter).filter(|fault| fault.key == setting.key);
                let own = own.filter(|fault| !fault.problem.starts_with("needs ")).count();
                if own > 1 {
                    problems.push(format!("{}: {}={value:?} is {own} faults", service.name, setting.key));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_quantity_in_help_is_one_that_can_be_written() {
    let (mut found, mut problems) = (0, Vec::new());
    for service in SERVICES {
        for setting in &declared(service) {
            let texts = [Some(setting.values), Some(setting.help), setting.default, setting.default_note];
            let is_in_word = |c: char| c.is_alphanumeric() || "._:/".contains(c);
            let words = texts.into_iter().flatten().flat_map(|text| text.split(|c: char| !is_in_word(c)));
            // A number with a unit: digits, then letters.
            let quantities = words.map(|word| word.trim_end_matches(['.', ':'])).filter(|word| {
                word.starts_with(|c: char| c.is_ascii_digit())
                    && word.ends_with(|c: char| c.is_ascii_alphabetic())
                    && !word.contains([':', '/', '_'])
            });
            for word in quantities {
                found += 1;
                if Quantity::parse(word).is_none() {
                    problems.push(format!("{}: {} names {word}", service.name, setting.key));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(found > 100, "quantities were not found: {found}");
}

#[test]
fn variables_of_others_are_no_fault_of_any_service() {
    const OTHERS: [&str; 16] = [
        "JOB_NAME",
        "GRPC_VERBOSITY",
        "GRPC_TRACE",
        "DB_HOST",
        "DB_PORT",
        "NATS_HOST",
        "NATS_PORT",
        "NATS_SERVICE_HOST",
        "NATS_SERVICE_PORT",
        "NATS_SERVICE_PORT_CLIENT",
        "NATS_PORT_4222_TCP_ADDR",
        "ORCHESTRATOR_PORT",
        "BROADCASTER_PORT_8002_TCP",
        "WORKER_PORT",
        "HTTP_PROXY",
        "KUBERNETES_SERVICE_HOST",
    ];
    let names: Vec<String> = OTHERS.iter().map(|name| (*name).to_owned()).collect();
    for service in SERVICES {
        let declared: Vec<&str> = declared(service).iter().map(|setting| setting.key).collect();
        assert_eq!(unknown(&names, &declared).misspelt, [], "{}", service.name);
        // A slip of one or two letters is one, for every setting that is long enough.
        for key in declared.iter().filter(|key| key.len() >= 10) {
            let slip = format!("{}{}", &key[..key.len() - 1], "ZZ");
            let found = unknown(std::slice::from_ref(&slip), &declared).misspelt;
            assert!(declared.contains(&slip.as_str()) || found.len() == 1, "{}: {slip}", service.name);
        }
    }
}
