//! Our verdicts on changes of .proto files, and buf's.

use super::{CHANGES, Explained, Numbers, Recorded, agree, asked, compare_or_record, program, root};
use agentforge_governance::contract::{
    finding::Level,
    proto::{Declared, compare},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

const KEPT: &str = "buf.json";
/// What was done, what we say, what buf says; the page has the reasons.
const EXPLAINED: &[Explained] = &[];
/// As buf.yaml has it.
const CONFIG: &str = r#"{"version":"v2","breaking":{"use":["PACKAGE"]}}"#;

/// A file that has what ours do not.
const EXTRA: &str = r#"syntax = "proto3";

package agentforge.extra.v1;

option go_package = "example.com/extra";

service Shelf {
  rpc Take(TakeRequest) returns (Item);
  rpc Watch(TakeRequest) returns (stream Item);
  rpc Put(stream Item) returns (Item) { option idempotency_level = IDEMPOTENT; }
}

message TakeRequest {
  reserved 4, 6 to 9;
  reserved "old", "older";
  string name = 1;
  repeated int32 counts = 2;
  optional int64 limit = 3;
  oneof by {
    string owner = 10;
    int64 number = 11;
  }
  int64 big = 12 [jstype = JS_STRING];
  map<string, int32> sizes = 13;
}

message Item {
  enum Kind {
    KIND_UNSPECIFIED = 0;
    KIND_BOOK = 1;
    KIND_BOX = 2;
    reserved 5 to 7;
  }
  Kind kind = 1;
  bytes content = 2;
  Item inner = 3;
  fixed32 mark = 4 [json_name = "theMark"];
}
"#;

type Files = BTreeMap<String, String>;

fn base() -> Files {
    let folder = root().join("docs/contracts/0.2.0/proto/agentforge/v1");
    let mut files: Files = ["agents", "jobs", "schedules"]
        .map(|name| {
            (
                format!("agentforge/v1/{name}.proto"),
                std::fs::read_to_string(folder.join(format!("{name}.proto"))).unwrap(),
            )
        })
        .into();
    files.insert("agentforge/extra/v1/extra.proto".to_owned(), EXTRA.to_owned());
    files
}

/// What is done to a line; `None` when it is not of the right kind.
type Edit = fn(&str, &mut Numbers) -> Option<String>;

const EDITS: &[(&str, Edit)] = &[
    ("field removed", |l, _| field(l).map(|_| String::new())),
    ("field renamed", |l, _| field(l).map(|f| l.replace(&format!(" {} =", f.name), &format!(" {}_new =", f.name)))),
    ("field renumbered", |l, _| {
        field(l).map(|f| l.replace(&format!("= {}", f.number), &format!("= {}", f.number + 500)))
    }),
    ("field type changed", |l, _| {
        swapped(l, &[("string ", "bytes "), ("int64 ", "string "), ("int32 ", "bool "), ("bool ", "double ")])
    }),
    ("field type widened", |l, _| swapped(l, &[("int32 ", "int64 "), ("uint32 ", "uint64 ")])),
    ("field became repeated", |l, _| {
        field(l)
            .filter(|_| !l.contains("repeated") && !l.contains("optional") && !l.contains("map<"))
            .map(|_| format!("  repeated {}", l.trim()))
    }),
    ("field became single", |l, _| field(l).and_then(|_| l.contains("repeated ").then(|| l.replace("repeated ", "")))),
    ("field became optional", |l, _| {
        field(l)
            .filter(|_| l.starts_with("  string") || l.starts_with("  bytes"))
            .map(|_| format!("  optional {}", l.trim()))
    }),
    ("field is not optional anymore", |l, _| {
        field(l).and_then(|_| l.contains("optional ").then(|| l.replace("optional ", "")))
    }),
    ("field added", |l, _| field(l).map(|_| format!("{l}\n  string fresh = 900;"))),
    ("json name changed", |l, _| {
        field(l)
            .filter(|_| !l.contains('[') && !l.contains("map<"))
            .map(|_| l.replace(';', " [json_name = \"other\"];"))
    }),
    ("jstype removed", |l, _| l.contains(" [jstype = JS_STRING]").then(|| l.replace(" [jstype = JS_STRING]", ""))),
    ("enum value removed", |l, _| value(l).map(|_| String::new())),
    ("enum value renamed", |l, _| value(l).map(|name| l.replace(&name, &format!("{name}_NEW")))),
    ("enum value added", |l, _| value(l).map(|_| format!("{l}\n  FRESH_{} = 900;", l.len()))),
    ("method removed", |l, _| (l.trim().starts_with("rpc ") && l.ends_with(';')).then(String::new)),
    ("method renamed", |l, _| l.trim().starts_with("rpc ").then(|| l.replacen("rpc ", "rpc New", 1))),
    ("method's request changed", |l, _| l.contains("(TakeRequest)").then(|| l.replace("(TakeRequest)", "(Item)"))),
    ("method's response changed", |l, _| {
        l.contains("returns (Item)").then(|| l.replace("returns (Item)", "returns (TakeRequest)"))
    }),
    ("method streams its response", |l, _| {
        (l.contains("returns (") && !l.contains("returns (stream")).then(|| l.replace("returns (", "returns (stream "))
    }),
    ("method streams no request", |l, _| l.contains("(stream Item)").then(|| l.replace("(stream Item)", "(Item)"))),
    ("method's idempotency changed", |l, _| {
        l.contains("IDEMPOTENT;").then(|| l.replace("IDEMPOTENT;", "NO_SIDE_EFFECTS;"))
    }),
    ("method added", |l, _| {
        l.trim()
            .starts_with("rpc ")
            .then(|| format!("{l}\n  rpc Fresh(Item) returns (Item);"))
            .filter(|t| t.contains("TakeRequest"))
    }),
    ("message added", |l, _| l.starts_with("message ").then(|| format!("message Fresh {{}}\n{l}"))),
    ("message renamed", |l, _| (l.starts_with("message ") && l.contains("Chunk")).then(|| l.replace("Chunk", "Part"))),
    ("reserved number freed", |l, _| l.contains("reserved 4, 6 to 9;").then(|| l.replace("4, 6 to 9", "4, 6 to 8"))),
    ("reserved numbers joined", |l, _| l.contains("reserved 4, 6 to 9;").then(|| l.replace("4, 6 to 9", "4 to 9"))),
    ("reserved name freed", |l, _| {
        l.contains("\"old\", \"older\"").then(|| l.replace("\"old\", \"older\"", "\"old\""))
    }),
    ("enum's reserved number freed", |l, _| l.contains("reserved 5 to 7;").then(|| l.replace("5 to 7", "5 to 6"))),
    ("option changed", |l, _| {
        l.contains("example.com/extra").then(|| l.replace("example.com/extra", "example.com/other"))
    }),
    ("option removed", |l, _| l.contains("go_package").then(String::new)),
    ("package changed", |l, _| l.starts_with("package agentforge.extra.v1;").then(|| l.replace("v1", "v2"))),
    ("oneof renamed", |l, _| l.contains("oneof ").then(|| l.replace("oneof ", "oneof new_"))),
    ("field moved into the oneof", |l, _| {
        l.contains("int64 number = 11;").then(|| format!("{l}\n    string name = 1;"))
    }),
    ("comment changed", |l, _| l.trim().starts_with("//").then(|| format!("{l} Indeed."))),
];

struct Field {
    name: String,
    number: u32,
}

/// A line that declares a field; enum values have no type.
fn field(line: &str) -> Option<Field> {
    let (left, right) = line.strip_suffix(';')?.split_once(" = ")?;
    let mut words = left.split_whitespace();
    let (first, name) = (words.next()?, words.next_back()?);
    let digits: String = right.chars().take_while(char::is_ascii_digit).collect();
    let is_field = line.starts_with("  ") && !["option", "reserved"].contains(&first);
    Some(Field { name: name.to_owned(), number: digits.parse().ok().filter(|_| is_field)? })
}

fn value(line: &str) -> Option<String> {
    let (left, right) = line.strip_suffix(';')?.split_once(" = ")?;
    let name = left.trim();
    let is_value = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') && right != "0";
    is_value.then(|| name.to_owned())
}

fn swapped(line: &str, pairs: &[(&str, &str)]) -> Option<String> {
    field(line)?;
    if line.contains("map<") {
        return None;
    }
    pairs.iter().find(|(from, _)| line.trim_start().starts_with(from)).map(|(from, to)| line.replacen(from, to, 1))
}

fn write(files: &Files, folder: &Path) -> Vec<PathBuf> {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    files.keys().map(PathBuf::from).collect()
}

fn compiled(files: &Files) -> Result<Declared, String> {
    let home = tempfile::tempdir().unwrap();
    let names = write(files, home.path());
    Declared::compile(home.path(), &names)
}

/// The files with the n-th change, what it is, and what they declare: a change that does not compile is none.
fn changed(base: &Files, n: usize) -> (Files, String, Declared) {
    let mut numbers = Numbers(n as u64 * 1_009 + 7);
    for turn in 0..10_000 {
        let (kind, edit) = EDITS[(n + (turn / 20) * 11) % EDITS.len()];
        let lines: Vec<(&String, usize)> = base
            .iter()
            .flat_map(|(name, text)| text.lines().enumerate().map(move |(i, line)| (name, i, line)))
            .filter(|(_, _, line)| edit(line, &mut Numbers(1)).is_some())
            .map(|(name, i, _)| (name, i))
            .collect();
        let Some((name, i)) = numbers.pick(&lines) else { continue };
        let mut files = base.clone();
        let text = files.get_mut(*name).unwrap();
        let was = text.lines().nth(*i).unwrap().to_owned();
        let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
        all[*i] = edit(&was, &mut numbers).unwrap();
        // It is in one place only.
        if kind == "field moved into the oneof" {
            all.retain(|line| line != "  string name = 1;");
        }
        *text = all.join("\n") + "\n";
        if let Ok(declared) = compiled(&files) {
            return (files, format!("{kind}: {name}: {}", was.trim()), declared);
        }
    }
    unreachable!("some kind finds a place")
}

#[test]
fn a_hundred_changes_are_judged_as_by_buf_or_the_difference_is_explained() {
    let base = base();
    let old = compiled(&base).unwrap();
    let ours: Vec<(String, Level)> = (0..CHANGES)
        .map(|n| {
            let (_, change, new) = changed(&base, n);
            let level = compare(&old, &new, "proto").iter().map(|f| f.level).max().unwrap_or(Level::Compatible);
            (change, level)
        })
        .collect();
    agree(KEPT, &ours, EXPLAINED);
}

#[test]
fn what_is_kept_is_what_buf_says() {
    let Some(buf) = program("buf") else { return };
    let base = base();
    let home = tempfile::tempdir().unwrap();
    let old = home.path().join("old");
    write(&base, &old);
    let now: Vec<Recorded> = asked()
        .map(|n| {
            let (files, change, _) = changed(&base, n);
            let new = home.path().join(format!("new-{n}"));
            write(&files, &new);
            let mut command = Command::new(&buf);
            command.args(["breaking", "--error-format", "json", "--config", CONFIG, "--against-config", CONFIG]);
            command
                .arg(".")
                .arg("--against")
                .arg(&old)
                .current_dir(&new)
                .env("BUF_CACHE_DIR", home.path().join("cache"));
            let out = command.output().unwrap();
            let told = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() || out.status.code() == Some(100), "{change}: {told}");
            let rules: BTreeSet<String> = String::from_utf8_lossy(&out.stdout)
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
                .collect();
            let level = if rules.is_empty() { "compatible" } else { "breaking" }.to_owned();
            Recorded { n, change, level, rules }
        })
        .collect();
    compare_or_record(KEPT, &now);
}
