//! The changelog has the version that is built, and what people need for it.

use crate::manifests::read;

/// Headings such as `## [0.2.0] - 2026-11-30`, newest first.
fn releases(changelog: &str) -> Vec<(&str, &str)> {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## ["));
    headings.filter_map(|rest| rest.split_once(']')).collect()
}

#[test]
fn the_changelogs_newest_release_is_the_workspaces_version() {
    let changelog = read("CHANGELOG.md");
    let released: Vec<_> = releases(&changelog).into_iter().filter(|(version, _)| *version != "Unreleased").collect();
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    assert_eq!(released[0].0, version, "CHANGELOG.md and Cargo.toml name different versions");

    for (version, date) in &released {
        let date = date.strip_prefix(" - ").unwrap_or_else(|| panic!("{version} has no date"));
        let is_date = date.len() == 10 && date.split('-').all(|part| part.parse::<u16>().is_ok());
        assert!(is_date, "{version}: {date} is not a date");
        assert!(changelog.contains(&format!("\n[{version}]: ")), "{version} leads nowhere");
    }
    let in_order = released.windows(2).all(|pair| pair[0].1 >= pair[1].1);
    assert!(in_order, "the newest release comes first: {released:?}");
}
