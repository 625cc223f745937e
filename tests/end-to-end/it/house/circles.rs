//! Modules of a crate lead downwards, as crates do: no file uses another that leads back to it.
//!
//! A file is a node. An edge leads to the file that defines what is used: paths are followed through `pub use`, so
//! that a parent that only declares and re-exports its children leads nowhere. Code under `#[cfg(test)]` is left out.
//! Reads text, builds nothing.

use super::root;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[test]
fn no_file_uses_another_that_leads_back_to_it() {
    let root = root();
    let (mut faults, mut files) = (Vec::new(), 0);
    for group in ["libs", "services", "tools", "tests", "examples", "."] {
        let Ok(folders) = fs::read_dir(root.join(group)) else { continue };
        for folder in folders.flatten().map(|entry| entry.path()).filter(|path| path.join("src").is_dir()) {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            for start in ["src/lib.rs", "src/main.rs"].iter().map(|start| folder.join(start)).filter(|at| at.exists()) {
                let program = Program::read(&start);
                files += program.files.len();
                faults.extend(program.circles().iter().map(|circle| {
                    format!("{name}: {} files are in a circle:\n{}", circle.files.len(), circle.edges.join("\n"))
                }));
            }
        }
    }
    assert!(files > 200, "the sources were not found: {files} files");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// The modules of one crate that are files.
struct Program {
    files: Vec<Module>,
    /// By path, such as `["commands", "job"]`.
    by_path: BTreeMap<Vec<String>, usize>,
}

struct Module {
    path: Vec<String>,
    /// Where it is, below `src`.
    shown: String,
    /// What paths begin with here, and what may be named from elsewhere: the name and the whole path.
    imports: BTreeMap<String, Vec<String>>,
    /// Modules whose every item is taken.
    globs: Vec<Vec<String>>,
    /// Items that are defined here.
    items: BTreeSet<String>,
    /// Paths in the code, made whole.
    uses: BTreeSet<Vec<String>>,
    /// Names in the code that are neither imported nor defined here: of a glob, perhaps.
    names: BTreeSet<String>,
}

struct Circle {
    files: Vec<String>,
    edges: Vec<String>,
}

impl Program {
    fn read(start: &Path) -> Self {
        let mut program = Self { files: Vec::new(), by_path: BTreeMap::new() };
        program.add(start, &[], start.parent().unwrap(), start.parent().unwrap());
        program
    }

    /// Reads a file and those that it declares; `below` is where its children are.
    fn add(&mut self, file: &Path, path: &[String], below: &Path, src: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let shown = file.strip_prefix(src).unwrap().display().to_string();
        let (module, children) = Module::read(&text, path, shown);
        self.by_path.insert(path.to_vec(), self.files.len());
        self.files.push(module);
        for child in children {
            let (flat, folder) = (below.join(format!("{child}.rs")), below.join(&child));
            let file = if flat.exists() { flat } else { folder.join("mod.rs") };
            // A module behind `#[path]` or a macro is none that we know.
            if file.exists() {
                let path: Vec<String> = path.iter().cloned().chain([child]).collect();
                self.add(&file, &path, &folder, src);
            }
        }
    }

    /// The file that defines what a path names; `None` for a bare module and for what another crate has.
    fn defines(&self, path: &[String], depth: u8) -> Option<usize> {
        let module = (0..=path.len()).rev().find_map(|n| self.by_path.get(&path[..n]).map(|found| (*found, n)));
        let (file, taken) = module?;
        let item = path.get(taken)?;
        let module = &self.files[file];
        if module.items.contains(item) || depth == 0 {
            return Some(file);
        }
        let rest = &path[taken + 1..];
        if let Some(target) = module.imports.get(item) {
            let whole: Vec<String> = target.iter().chain(rest).cloned().collect();
            return if whole.first().is_some_and(|first| first == "crate") {
                self.defines(&whole[1..], depth - 1)
            } else {
                None
            };
        }
        let through = module.globs.iter().find_map(|glob| {
            let whole: Vec<String> = glob.iter().chain([item]).cloned().collect();
            self.defines(&whole, depth - 1).filter(|found| self.files[*found].items.contains(item))
        });
        Some(through.unwrap_or(file))
    }

    fn is_defined(&self, path: &[String]) -> bool {
        let name = path.last().expect("a path has a name");
        self.defines(path, 8).is_some_and(|file| self.files[file].items.contains(name))
    }

    fn circles(&self) -> Vec<Circle> {
        let mut edges: BTreeMap<usize, BTreeMap<usize, String>> = BTreeMap::new();
        for (from, module) in self.files.iter().enumerate() {
            let of_globs = module.globs.iter().flat_map(|glob| {
                let paths = module.names.iter().map(|name| [glob.as_slice(), std::slice::from_ref(name)].concat());
                paths.filter(|path| self.is_defined(path))
            });
            for path in module.uses.iter().cloned().chain(of_globs) {
                if let Some(to) = self.defines(&path, 8).filter(|to| *to != from) {
                    edges.entry(from).or_default().entry(to).or_insert_with(|| path.join("::"));
                }
            }
        }
        let reach: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|from| reachable(from, &edges)).collect();
        let (mut seen, mut circles) = (BTreeSet::new(), Vec::new());
        for from in 0..self.files.len() {
            let members: BTreeSet<usize> =
                reach[from].iter().copied().filter(|to| reach[*to].contains(&from)).collect();
            if members.is_empty() || !seen.insert(members.clone()) {
                continue;
            }
            let name = |file: &usize| self.files[*file].shown.clone();
            let lines = members.iter().flat_map(|from| {
                let inside = edges[from].iter().filter(|(to, _)| members.contains(to));
                inside.map(|(to, path)| format!("  {} uses {path} of {}", name(from), name(to)))
            });
            circles.push(Circle { files: members.iter().map(name).collect(), edges: lines.collect() });
        }
        circles
    }
}

/// All that can be reached, by at least one step.
fn reachable(from: usize, edges: &BTreeMap<usize, BTreeMap<usize, String>>) -> BTreeSet<usize> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(at) = next.pop() {
        for to in edges.get(&at).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(*to) {
                next.push(*to);
            }
        }
    }
    found
}

impl Module {
    fn read(text: &str, path: &[String], shown: String) -> (Self, Vec<String>) {
        let code = without_tests(&words(text));
        let mut module = Self {
            path: path.to_vec(),
            shown,
            imports: BTreeMap::new(),
            globs: Vec::new(),
            items: BTreeSet::new(),
            uses: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        let children = module.children(&code);
        module.read_imports(&code, &children);
        module.read_code(&code);
        (module, children)
    }

    /// Declared modules that are files, and the items that are defined here.
    fn children(&mut self, code: &[String]) -> Vec<String> {
        const DEFINE: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "mod"];
        let mut children = Vec::new();
        for three in code.windows(3) {
            let [word, name, after] = three else { continue };
            if word == "mod" && after == ";" {
                children.push(name.clone());
            } else if DEFINE.contains(&word.as_str()) && is_name(name) {
                self.items.insert(name.clone());
            } else if word == "macro_rules" && name == "!" {
                self.items.insert(after.clone());
            }
        }
        children
    }

    fn read_imports(&mut self, code: &[String], children: &[String]) {
        for child in children {
            let whole =
                ["crate"].map(str::to_owned).into_iter().chain(self.path.iter().cloned()).chain([child.clone()]);
            self.imports.insert(child.clone(), whole.collect());
        }
        let (mut at, inline) = (0, inline_depths(code));
        while at < code.len() {
            if code[at] == "use" && at + 1 < code.len() && (is_name(&code[at + 1]) || code[at + 1] == "{") {
                let end = at + code[at..].iter().position(|word| word == ";").unwrap_or(code.len() - at);
                let is_public = at > 0 && (code[at - 1] == "pub" || code[at - 1] == ")");
                self.import(&code[at + 1..end], &[], is_public, inline[at]);
                at = end;
            }
            at += 1;
        }
    }

    /// One tree of `use`. What is taken for this file is used here, if only a trait for its methods.
    fn import(&mut self, tree: &[String], before: &[String], is_public: bool, inline: usize) {
        let mut path = before.to_vec();
        let mut at = 0;
        while at < tree.len() {
            match tree[at].as_str() {
                "::" => {}
                "{" => {
                    for branch in branches(&tree[at + 1..tree.len() - 1]) {
                        self.import(&branch, &path, is_public, inline);
                    }
                    return;
                }
                "*" => {
                    let whole = self.whole(&path, inline);
                    if whole.first().is_some_and(|first| first == "crate") {
                        self.globs.push(whole[1..].to_vec());
                    }
                    return;
                }
                "as" => break,
                "self" if at > 0 || !before.is_empty() => {}
                word => path.push(word.to_owned()),
            }
            at += 1;
        }
        let alias = tree.get(at + 1).filter(|_| tree.get(at).is_some_and(|word| word == "as"));
        let whole = self.whole(&path, inline);
        if !is_public && whole.first().is_some_and(|first| first == "crate") {
            self.uses.insert(whole[1..].to_vec());
        }
        if let Some(name) = alias.or(path.last()) {
            self.imports.insert(name.clone(), whole);
        }
    }

    /// The path from the crate's root; one of another crate stays as it is. Inside `inline` modules as many `super`
    /// lead to this file.
    fn whole(&self, path: &[String], inline: usize) -> Vec<String> {
        let from_here = |up: usize| {
            let here = &self.path[..self.path.len().saturating_sub(up.saturating_sub(inline))];
            ["crate".to_owned()].into_iter().chain(here.iter().cloned()).collect::<Vec<_>>()
        };
        let ups = path.iter().take_while(|word| *word == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => path.to_vec(),
            Some("self") => from_here(0).into_iter().chain(path[1..].iter().cloned()).collect(),
            Some("super") => from_here(ups).into_iter().chain(path[ups..].iter().cloned()).collect(),
            Some(first) => match self.imports.get(first) {
                Some(known) if known.len() != 1 || known[0] != *first => {
                    known.iter().chain(&path[1..]).cloned().collect()
                }
                _ => path.to_vec(),
            },
            None => Vec::new(),
        }
    }

    /// Names of imports and whole paths in the code, outside of `use`.
    fn read_code(&mut self, code: &[String]) {
        let mut paths = Vec::new();
        let (mut at, mut is_use, inline) = (0, false, inline_depths(code));
        while at < code.len() {
            is_use = if is_use { code[at] != ";" } else { code[at] == "use" };
            let starts = at == 0 || !["::", ".", "mod", "'"].contains(&code[at - 1].as_str());
            if is_use || !starts || !is_name(&code[at]) {
                at += 1;
                continue;
            }
            let (mut path, depth) = (vec![code[at].clone()], inline[at]);
            while code.get(at + 1).is_some_and(|word| word == "::")
                && code.get(at + 2).is_some_and(|word| is_name(word))
            {
                path.push(code[at + 2].clone());
                at += 2;
            }
            at += 1;
            let is_ours = ["crate", "self", "super"].contains(&path[0].as_str()) && path.len() > 1;
            if is_ours || self.imports.contains_key(&path[0]) {
                let whole = self.whole(&path, depth);
                if whole.first().is_some_and(|first| first == "crate") {
                    paths.push(whole[1..].to_vec());
                }
            } else if !self.items.contains(&path[0]) {
                self.names.insert(path.swap_remove(0));
            }
        }
        self.uses.extend(paths);
    }
}

/// In how many modules with a body of their own each word is.
fn inline_depths(code: &[String]) -> Vec<usize> {
    // For each open brace, whether it is a module's.
    let (mut open, mut depths) = (Vec::new(), Vec::with_capacity(code.len()));
    for (at, word) in code.iter().enumerate() {
        match word.as_str() {
            "{" => open.push(at > 1 && code[at - 2] == "mod"),
            "}" => _ = open.pop(),
            _ => {}
        }
        depths.push(open.iter().filter(|is_module| **is_module).count());
    }
    depths
}

/// The parts between commas on the first level.
fn branches(tree: &[String]) -> Vec<Vec<String>> {
    let (mut depth, mut found) = (0_usize, vec![Vec::new()]);
    for word in tree {
        match word.as_str() {
            "," if depth == 0 => {
                found.push(Vec::new());
                continue;
            }
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        found.last_mut().expect("it is never empty").push(word.clone());
    }
    found.retain(|branch| !branch.is_empty());
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single signs; comments, texts and characters are left out.
fn words(text: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw(rest),
            '\'' => character(rest),
            _ if first.is_alphanumeric() || first == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                found.push(rest[..end].to_owned());
                end
            }
            _ if rest.starts_with("::") => {
                found.push("::".to_owned());
                2
            }
            _ => {
                if !first.is_whitespace() {
                    found.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    found
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw(text: &str) -> usize {
    let end = if text.starts_with("r#") { "\"#" } else { "\"" };
    let from = end.len() + 1;
    text[from..].find(end).map_or(text.len(), |at| from + at + end.len())
}

/// A character, or only the sign of a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), Some(escaped)) => {
            let from = 2 + escaped.len_utf8();
            text[from..].find('\'').map_or(1, |end| from + end + 1)
        }
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 1,
    }
}

/// Leaves out what follows `#[cfg(test)]`: up to its closing brace, or up to its semicolon.
fn without_tests(words: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut found, mut at) = (Vec::new(), 0);
    while at < words.len() {
        if words[at..].len() < MARK.len() || !words[at..].iter().zip(MARK).all(|(word, mark)| word == mark) {
            found.push(words[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0_usize;
        at += MARK.len();
        while at < words.len() {
            match words[at].as_str() {
                "{" => depth += 1,
                "}" if depth <= 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
            at += 1;
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of these files.
    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let at = dir.path().join(name);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        }
        Program::read(&dir.path().join("lib.rs")).circles().into_iter().map(|circle| circle.files).collect()
    }

    #[test]
    fn a_circle_is_found_through_every_kind_of_path() {
        let ways = [
            ("use crate::b::B; fn f(_: B) {}", "pub struct B; fn g() { crate::a::f() }"),
            ("use super::b; fn f() { b::g() }", "use crate::a::{self as other}; fn g() { other::f() }"),
            ("use crate::b::*; fn f() { g() }", "pub fn g() {} use super::{a::f}; fn h() { f() }"),
        ];
        for (a, b) in ways {
            let found = circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]);
            assert_eq!(found, [["a.rs", "b.rs"]], "{a} {b}");
        }
    }

    #[test]
    fn a_parent_that_declares_and_re_exports_is_in_no_circle() {
        let parent = "mod a; mod b; pub use a::A; pub use b::*;";
        let (a, b) = ("use super::B; pub struct A(B);", "pub struct B; // crate::a::A\n const S: &str = \"super::A\";");
        assert!(circles(&[("lib.rs", parent), ("a.rs", a), ("b.rs", b)]).is_empty());
        let parent = format!("{parent} pub struct Shared(A);");
        let a = "use super::Shared; pub struct A(Shared);";
        assert_eq!(circles(&[("lib.rs", &parent), ("a.rs", a), ("b.rs", b)]), [["lib.rs", "a.rs"]]);
    }

    #[test]
    fn super_of_a_module_inside_a_file_is_the_file() {
        let (parent, own) = ("mod a; pub struct P; fn f() { a::g() }", "pub fn g() {} const N: u8 = 1;");
        for inside in ["pub mod m { fn h() -> u8 { super::N } }", "pub mod m { use super::N; }"] {
            assert!(circles(&[("lib.rs", parent), ("a.rs", &format!("{own} {inside}"))]).is_empty(), "{inside}");
        }
        let a = format!("{own} pub mod m {{ fn h(_: super::super::P) {{}} }}");
        assert_eq!(circles(&[("lib.rs", parent), ("a.rs", &a)]), [["lib.rs", "a.rs"]]);
    }

    #[test]
    fn tests_may_use_what_they_test() {
        let lib = "mod a; pub fn f() { a::g() }";
        let a = "pub fn g() {} #[cfg(test)] mod tests { fn t() { crate::f(); } } #[cfg(test)] use crate::f;";
        assert!(circles(&[("lib.rs", lib), ("a.rs", a)]).is_empty());
    }
}
