//! A page whose commands are run: the shell blocks of a section, one after the other, with what they set.
//!
//! Secrets of Kubernetes are files here: `kubectl get` and `kubectl patch` of a page read and write them, and a pod's mount
//! of a Secret changes as the kubelet changes it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// What stands for kubectl.
const KUBECTL: &str = include_str!("kubectl.py");
/// What begins and ends a block of commands.
const FENCES: (&str, &str) = ("```sh", "```");

/// The commands of a section, and the Secrets that they change.
pub struct Runbook {
    dir: TempDir,
    blocks: Vec<String>,
    next: usize,
}

impl Runbook {
    /// The section below `heading` of a page of the repository, up to the next heading of its level.
    ///
    /// # Panics
    /// When there is no such section with commands.
    pub fn open(page: &str, heading: &str) -> Self {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        let blocks = blocks(&text, heading);
        assert!(!blocks.is_empty(), "{page} has no commands below {heading}");
        let dir = tempfile::Builder::new().prefix("agentforge-runbook-").tempdir().expect("a temporary folder");
        let kubectl = dir.path().join("bin/kubectl");
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, blocks, next: 0 }
    }

    /// Makes a Secret, or gives it more keys; the folder where a pod has it mounted.
    pub fn secret(&self, name: &str, values: &[(&str, &str)]) -> PathBuf {
        let values: serde_json::Map<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let patch = self.dir.path().join("patch.json");
        fs::write(&patch, serde_json::json!({ "stringData": values }).to_string()).unwrap();
        self.bash(&format!("kubectl -n any patch secret {name} --type merge --patch-file {}", patch.display()));
        self.dir.path().join("mounted").join(name)
    }

    /// Runs the next block; what it printed.
    ///
    /// # Panics
    /// When a command of it fails, or there is no further block.
    pub fn step(&mut self) -> String {
        let block = self.blocks.get(self.next).expect("the section has a further block");
        self.next += 1;
        // What a block sets is there for the next one, as in a terminal.
        let state = self.dir.path().join("state");
        let (before, after) = (format!("[ ! -e {0} ] || . {0}", state.display()), state.display());
        self.bash(&format!("{before}\nset -a\n{block}\nset +a\nexport -p > {after}"))
    }

    /// Sets a variable for the blocks that follow, instead of what the page has as an example.
    pub fn set(&self, name: &str, value: &str) {
        self.bash(&format!(
            "printf 'declare -x {name}=%q\\n' '{value}' >> {}",
            self.dir.path().join("state").display()
        ));
    }

    /// The variable that the blocks so far have set.
    pub fn get(&self, name: &str) -> String {
        self.bash(&format!(". {}; printf %s \"${name}\"", self.dir.path().join("state").display()))
    }

    /// Blocks that were not run.
    pub fn left(&self) -> usize {
        self.blocks.len() - self.next
    }

    fn bash(&self, commands: &str) -> String {
        let (path, test) = (std::env::var("PATH").unwrap_or_default(), std::env::current_exe().unwrap_or_default());
        // The commands of this workspace, where they are built.
        let ours = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(Path::new("/"));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]).current_dir(root());
        bash.env("PATH", format!("{}:{}:{path}", self.dir.path().join("bin").display(), ours.display()));
        // Where `mktemp` of a page makes its folders.
        let out = bash.env("CLUSTER", self.dir.path()).env("TMPDIR", self.dir.path()).output().expect("bash starts");
        assert!(out.status.success(), "{commands}\n{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// The shell blocks below a heading.
fn blocks(page: &str, heading: &str) -> Vec<String> {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let mut lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let depth = line.chars().take_while(|c| *c == '#').count();
        if (1..=level).contains(&depth) && line[depth..].starts_with(' ') {
            break;
        }
        // Those of a list are indented, which a shell does not mind.
        if line.trim() == FENCES.0 {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != FENCES.1).collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_a_section_end_with_it() {
        let page = "# P\n```sh\na\n```\n## One\n```sh\nb\n# c\n```\ntext\n### 1\n   ```sh\n   d\n   ```\n```toml\nx\n```\n## Two\n```sh\ne\n```\n";
        assert_eq!(blocks(page, "## One"), ["b\n# c", "   d"]);
        assert_eq!(blocks(page, "## Two"), ["e"]);
        assert_eq!(blocks(page, "## None"), Vec::<String>::new());
    }
}
