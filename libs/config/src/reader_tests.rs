//! What a reading promises: every fault at once, defaults for the unset, and no secret anywhere.

use super::*;
use crate::{ByteSize, Url};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

const PORT: Setting = Setting::new("PORT", Some("80"), "port 0-65535", "p");
const WAIT: Setting = Setting::new("WAIT", Some("30s"), "duration 1s-1h", "w");
const SIZE: Setting = Setting::new("SIZE", Some("1GiB"), "size", "s");
const NAME: Setting = Setting::new("NAME", None, "text", "n");
const TOKEN: Setting = Setting::new("TOKEN", None, "number", "t").secret();
const LINK: Setting = Setting::new("LINK", Some("http://localhost"), "URL", "l");

fn source(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn all_faults_are_told_at_once_with_key_value_and_allowed_values() {
    let source = source(&[("PORT", "eighty"), ("WAIT", "3 weeks"), ("SIZE", "big")]);
    let mut reader = Reader::new(&source);
    assert_eq!(reader.get::<u16>(&PORT), 80, "the default goes on beside the fault");
    assert_eq!(reader.get::<Duration>(&WAIT), Duration::from_secs(30));
    assert_eq!(reader.get::<ByteSize>(&SIZE), ByteSize(1 << 30));
    let _: String = reader.get(&NAME);
    reader.fault("PORT", "must differ from OTHER_PORT");
    let faults = reader.finish().unwrap_err();
    let lines: Vec<String> = faults.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "PORT: is not a whole number (value \"eighty\"; allowed: port 0-65535)",
            "WAIT: is not a duration (such as 200ms, 30s, 5m, 2h, 1d, or seconds) (value \"3 weeks\"; allowed: duration 1s-1h)",
            "SIZE: is not a size (such as 1048576, 512MiB, 1GiB, 500MB) (value \"big\"; allowed: size)",
            "NAME: is required and not set (allowed: text)",
            "PORT: must differ from OTHER_PORT",
        ]
    );
}

#[test]
fn blank_counts_as_not_set() {
    let source = source(&[("PORT", "  "), ("NAME", "")]);
    let mut reader = Reader::new(&source);
    assert_eq!(reader.get::<u16>(&PORT), 80);
    assert_eq!(reader.opt::<String>(&NAME), None);
    let effective = reader.finish().unwrap();
    assert_eq!(effective.get("PORT").unwrap().origin, Origin::Default);
    assert_eq!(effective.to_string(), "PORT=80  # default\n# NAME is not set\n");
}

#[test]
fn values_are_trimmed_and_shown_as_set() {
    let source = source(&[("PORT", " 8080\n"), ("NAME", "x")]);
    let mut reader = Reader::new(&source);
    assert_eq!(reader.get::<u16>(&PORT), 8080);
    assert_eq!(reader.opt::<String>(&NAME).as_deref(), Some("x"));
    assert_eq!(reader.finish().unwrap().to_string(), "PORT=8080\nNAME=x\n");
}

#[test]
fn no_secret_in_effective_settings_faults_or_debug() {
    let source = source(&[("TOKEN", "hunter2"), ("LINK", "http://bob:swordfish@h/")]);

    let mut reader = Reader::new(&source);
    let secret: SecretString = reader.get(&TOKEN);
    let link: Url = reader.get(&LINK);
    assert_eq!((secret.expose_secret(), link.password()), ("hunter2", Some("swordfish")));
    let debug = format!("{reader:?}");
    let effective = reader.finish().unwrap();
    let texts = [debug, format!("{secret:?}"), format!("{effective:?}"), effective.to_string()];
    for text in texts {
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    }
    assert!(effective.to_string().contains("TOKEN=[hidden]\n"));

    // A parser that quotes the value, and a check that does.
    struct Loud;
    impl Parse for Loud {
        fn parse(s: &str) -> Result<Self, String> {
            Err(format!("\"{s}\" is not a number"))
        }
        fn placeholder() -> Self {
            Self
        }
    }
    let mut reader = Reader::new(&source);
    let _: Loud = reader.get(&TOKEN);
    let _: Loud = reader.get(&LINK);
    reader.fault("NAME", "must not equal hunter2");
    let faults = reader.finish().unwrap_err();
    for text in [faults.to_string(), format!("{faults:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    }
    assert!(faults.to_string().contains("TOKEN: the value is not accepted (value \"[hidden]\"; allowed: number)"));
    assert!(faults.to_string().contains("NAME: must not equal [hidden]"));
}

#[test]
fn a_default_that_does_not_parse_is_a_fault() {
    const BROKEN: Setting = Setting::new("BROKEN", Some("zero"), "1 or more", "b");
    let source = source(&[]);
    let mut reader = Reader::new(&source);
    assert_eq!(reader.get::<NonZeroU32>(&BROKEN), NonZeroU32::MIN);
    assert!(reader.finish().unwrap_err().to_string().starts_with("BROKEN: the default is not a whole number"));
}

#[test]
fn ranges_hold_for_values() {
    for (value, fits) in [("1s", true), ("1h", true), ("999ms", false), ("61m", false)] {
        let source = source(&[("WAIT", value)]);
        let mut reader = Reader::new(&source);
        let _: Duration = reader.get_in(&WAIT, Duration::from_secs(1)..=Duration::from_secs(3600));
        assert_eq!(reader.finish().is_ok(), fits, "{value}");
    }
}

#[test]
fn an_optional_value_at_fault_is_one_fault_and_no_value() {
    const MOST: Setting = Setting::new("MOST", None, "number 1-9", "m");
    for (value, problem) in [
        ("", None),
        ("9", None),
        ("x", Some("MOST: is not a whole number (value \"x\"; allowed: number 1-9)")),
        ("0", Some("MOST: is out of range (value \"0\"; allowed: number 1-9)")),
    ] {
        let source = source(&[("MOST", value)]);
        let mut reader = Reader::new(&source);
        let read: Option<u64> = reader.opt_in(&MOST, 1..=9);
        assert_eq!(read, (value == "9").then_some(9), "{value}");
        assert_eq!(reader.finish().err().map(|faults| faults.to_string()).as_deref(), problem, "{value}");
    }
    // A check's words about a secret are not passed on.
    let source = source(&[("TOKEN", "hunter2")]);
    let mut reader = Reader::new(&source);
    assert!(reader.opt_if::<SecretString>(&TOKEN, |_| Err("is hunter2".to_owned())).is_none());
    assert!(!reader.finish().unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn a_key_read_twice_is_told_once() {
    let source = source(&[("PORT", "x")]);
    let mut reader = Reader::new(&source);
    let _: u16 = reader.get(&PORT);
    let _: u16 = reader.get(&PORT);
    assert_eq!(reader.finish().unwrap_err().iter().count(), 1);
}

#[test]
fn overrides_come_before_what_they_override() {
    let source = (source(&[("PORT", "1")]), source(&[("PORT", "2"), ("NAME", "n")]));
    let mut reader = Reader::new(&source);
    assert_eq!(reader.get::<u16>(&PORT), 1);
    assert_eq!(reader.get::<String>(&NAME), "n");
}

#[test]
fn a_secret_comes_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "12345678\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let given = source(&[("TOKEN_FILE", path.to_str().unwrap()), ("NAME_FILE", path.to_str().unwrap())]);
    let mut reader = Reader::new(&given);
    assert!(reader.is_set(&TOKEN));
    assert_eq!(reader.opt::<u32>(&TOKEN), Some(12_345_678));
    assert_eq!(reader.opt::<String>(&NAME), None, "only secrets have files");
    let effective = reader.finish().unwrap();
    assert_eq!(effective.to_string(), "TOKEN=[hidden]\n# NAME is not set\n");
    let concern = effective.concerns().join("\n");
    assert!(concern.starts_with("TOKEN_FILE: ") && concern.contains("mode 0640"), "{concern}");

    let mut reader = Reader::new(&given);
    assert_eq!(reader.opt::<u32>(&TOKEN.not_by_file()), None);
    // A value that does not parse is as hidden as that of a variable.
    std::fs::write(&path, "not-a-number").unwrap();
    let mut reader = Reader::new(&given);
    let _ = reader.opt::<u32>(&TOKEN);
    reader.fault("NAME", "not-a-number is in another text");
    let faults = reader.finish().unwrap_err().to_string();
    assert!(faults.contains("TOKEN: ") && !faults.contains("not-a-number"), "{faults}");
    // Nothing in it is nothing set.
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(Reader::new(&given).opt::<u32>(&TOKEN), None);
}

#[test]
fn a_secret_twice_and_a_file_that_is_not_there_are_faults() {
    for (pairs, wanted) in [
        (&[("TOKEN", "1"), ("TOKEN_FILE", "/no/such")][..], "TOKEN_FILE: is set, and so is TOKEN"),
        (&[("TOKEN_FILE", "/no/such")], "TOKEN_FILE: /no/such cannot be read: No such file"),
    ] {
        let given = source(pairs);
        let mut reader = Reader::new(&given);
        let _ = (reader.is_set(&TOKEN), reader.opt::<u32>(&TOKEN));
        let faults = reader.finish().unwrap_err().to_string();
        assert!(faults.contains(wanted) && faults.lines().count() == 1, "{faults}");
    }
    // An override decides about both forms.
    let (over, env) = (source(&[("TOKEN", "")]), source(&[("TOKEN_FILE", "/no/such"), ("NAME_FILE", "x")]));
    let both = (over, env);
    assert_eq!((both.get("TOKEN_FILE"), both.get("NAME_FILE").as_deref()), (None, Some("x")));
    let both = (source(&[("TOKEN_FILE", "/own")]), source(&[("TOKEN", "1")]));
    assert_eq!((both.get("TOKEN"), both.get("TOKEN_FILE").as_deref()), (None, Some("/own")));
}
