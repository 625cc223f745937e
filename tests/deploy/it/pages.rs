//! Commands of all pages about deploying and running: a shell can read them, and the scripts, folders, options, Secrets and ports
//! that they name exist. Some pages have tests of their own that run the commands; this finds a name that has changed.

use crate::manifests::{find, overlay, read, root, secrets};
use agentforge_harness::{cargo_bin, require};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Pages of other versions name what these have.
const OF_THEN: [&str; 3] = ["docs/deploy/upgrade-0.2.md", "docs/deploy/upgrade-0.3.md", "docs/deploy/old-names.md"];

/// Shell blocks, by their pages, without the indentation of a list.
fn blocks() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["docs/deploy", "docs/howto", "docs/runbooks"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            if OF_THEN.contains(&name.as_str()) {
                continue;
            }
            let mut block: Option<(usize, String)> = None;
            for line in read(&name).lines() {
                let fence = line.trim_start();
                match &mut block {
                    None if fence == "```sh" => block = Some((line.len() - fence.len(), String::new())),
                    Some((_, text)) if fence == "```" => {
                        found.push((name.clone(), std::mem::take(text)));
                        block = None;
                    }
                    Some((indent, text)) => {
                        text.push_str(line.get(*indent..).unwrap_or_default());
                        text.push('\n');
                    }
                    None => {}
                }
            }
            assert!(block.is_none(), "{name}: a block without an end");
        }
    }
    assert!(found.len() > 60, "the blocks were not found");
    found
}

/// Commands: lines with their continuation, without comments, and apart at pipes and the like.
fn commands(block: &str) -> Vec<Vec<String>> {
    let whole = block.replace("\\\n", " ");
    let lines = whole.lines().map(|line| line.split(" #").next().unwrap()).filter(|line| !line.starts_with('#'));
    let parts = lines.flat_map(|line| line.split([';', '|', '&']).map(str::trim).collect::<Vec<_>>());
    let words = |part: &str| part.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_setting = |word: &String| {
        word.split_once('=').is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
    };
    let own =
        parts.map(|part| words(part).into_iter().skip_while(is_setting).skip_while(|w| w == "do").collect::<Vec<_>>());
    own.filter(|words| !words.is_empty()).collect()
}

fn help(program: &str, args: &[&str]) -> Option<String> {
    let program = if program == "agentforge" { cargo_bin(program) } else { root().join(program) };
    let out = Command::new(program).args(args).arg("--help").current_dir(root()).output().unwrap();
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn a_shell_can_read_every_block() {
    for (page, block) in blocks() {
        let out = Command::new("bash").args(["-n", "-c", &block]).output().unwrap();
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{page}: {}\n{block}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

#[test]
fn scripts_targets_and_folders_that_commands_name_exist() {
    let makefile = read("Makefile");
    let mut seen = BTreeSet::new();
    for (page, block) in blocks() {
        for words in commands(&block) {
            if words[0].starts_with("scripts/") {
                assert!(root().join(&words[0]).is_file(), "{page}: {}", words[0]);
                let text = help(&words[0], &[]).unwrap_or_else(|| panic!("{page}: {} has no help", words[0]));
                for option in words[1..].iter().filter(|word| word.starts_with("--")) {
                    assert!(text.contains(option.split('=').next().unwrap()), "{page}: {} has no {option}", words[0]);
                }
                seen.insert("script");
            }
            if words[0] == "make" {
                let is_target = |word: &&String| !word.contains('=') && !word.starts_with('-');
                for target in words[1..].iter().filter(is_target) {
                    assert!(makefile.contains(&format!("\n{target}: ")), "{page}: make {target}");
                }
                seen.insert("target");
            }
            for pair in words.windows(2).filter(|pair| pair[0] == "-k" || pair[0] == "kustomize") {
                let folder = root().join(&pair[1]);
                let is_ours = pair[1].starts_with("k8s/") || pair[1].starts_with("overlays/");
                assert!(!is_ours || folder.join("kustomization.yaml").is_file(), "{page}: {}", pair[1]);
                seen.insert("folder");
            }
            for word in words
                .iter()
                .filter(|w| ["k8s/", "overlays/", "monitoring/", "deploy/"].iter().any(|top| w.starts_with(top)))
            {
                let file = word.split(['=', ':', '*']).next().unwrap();
                assert!(root().join(file).exists() || file.ends_with("sites.conf"), "{page}: {word}");
            }
        }
    }
    assert_eq!(seen, BTreeSet::from(["folder", "script", "target"]));
}

#[test]
fn subcommands_and_options_of_the_command_exist() {
    let mut known: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    let mut found = 0;
    for (page, block) in blocks() {
        for words in commands(&block).into_iter().filter(|words| words[0] == "agentforge") {
            // Options before the subcommand are those of all; then as many words as are subcommands.
            let plain =
                |word: &String| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-');
            let first = words.iter().skip(1).position(plain).map_or(words.len(), |at| at + 1);
            let mut path: Vec<String> = words[first..].iter().take_while(|word| plain(word)).take(3).cloned().collect();
            let mut text = None;
            while !path.is_empty() {
                let args: Vec<&str> = path.iter().map(String::as_str).collect();
                text = known.entry(path.clone()).or_insert_with(|| help("agentforge", &args)).clone();
                if text.is_some() {
                    break;
                }
                path.pop();
            }
            let text = text.unwrap_or_else(|| panic!("{page}: {words:?} has no help"));
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(text.contains(option.split('=').next().unwrap()), "{page}: {path:?} has no {option}");
            }
            found += 1;
        }
    }
    assert!(found > 40, "{found} commands were found");
}

#[test]
fn secrets_and_ports_that_commands_name_exist() {
    let Some(()) = require("kubectl") else { return };
    let base = overlay("production");
    let (mut keys, mut ports) = (0, 0);
    for (page, block) in blocks() {
        for words in commands(&block).into_iter().filter(|words| words[0].ends_with("kubectl")) {
            let after = |word: &str| words.iter().position(|w| w == word).and_then(|at| words.get(at + 1));
            let path =
                words.iter().find_map(|word| word.split_once("{.data.")).and_then(|(_, rest)| rest.split_once("}'"));
            if let (Some(name), Some((key, _))) = (after("secret"), path) {
                let key = key.replace('\\', "");
                let is_made_elsewhere = ["nats-tls", "broadcaster-state"].contains(&name.as_str());
                let has = secrets().get(name).is_some_and(|made| made.contains_key(&key));
                assert!(has || is_made_elsewhere, "{page}: the Secret {name} has no {key}");
                keys += 1;
            }
            let Some(service) = after("port-forward").and_then(|target| target.strip_prefix("service/")) else {
                continue;
            };
            if service.ends_with("-operated") || service.contains('$') || words.contains(&"monitoring".to_owned()) {
                continue;
            }
            let port: u64 = words.last().unwrap().split(':').next_back().unwrap().parse().unwrap();
            let has = find(&base, "Service", service).list("/spec/ports").iter().any(|p| p["port"] == port);
            assert!(has, "{page}: the Service {service} has no port {port}");
            ports += 1;
        }
    }
    assert!(keys > 8 && ports > 3, "{keys} keys and {ports} ports were found");
}
