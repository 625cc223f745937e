//! Tables for people: plain columns without frames, one line per row, one coloured word where it helps.
//!
//! Colours are put in after the layout, because escape codes would count as width. If stdout is not a terminal nothing
//! is cut: a file or a pipe has no window to fit.

use crate::{
    error::Result,
    output::{BOLD, Output, clean, state_style, styled},
};
use comfy_table::{CellAlignment, ContentArrangement, presets};
use std::io::IsTerminal;

/// Longest text of a cell on a terminal, in characters.
const CELL_MAX: usize = 72;

/// Collects rows and prints them.
pub struct Table {
    inner: comfy_table::Table,
    words: Vec<Option<String>>,
    cell_max: usize,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self::of(headings.map(str::to_owned).to_vec())
    }

    /// A table with headings that are chosen as it is made.
    pub fn of(headings: Vec<String>) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headings);
        for column in inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let cell_max = if std::io::stdout().is_terminal() { CELL_MAX } else { usize::MAX - 1 };
        Self { inner, words: Vec::new(), cell_max }
    }

    /// Aligns a column of numbers to the right.
    #[must_use]
    pub fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.inner.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Adds a row. `state` is the word in it that gets its colour.
    pub fn row<const N: usize>(&mut self, cells: [String; N], state: Option<&str>) {
        self.add(cells.into(), state);
    }

    /// As [`Table::row`], with as many cells as there are headings.
    pub fn add(&mut self, cells: Vec<String>, state: Option<&str>) {
        let cells: Vec<String> =
            cells.iter().map(|c| clean(c, self.cell_max)).map(|c| if c.is_empty() { "–".into() } else { c }).collect();
        self.inner.add_row(cells);
        self.words.push(state.map(str::to_owned));
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The lines as they are printed.
    pub fn lines(&self) -> Vec<String> {
        let paint = |(n, line): (usize, String)| {
            let line = line.trim_end().to_owned();
            match n.checked_sub(1).map(|row| &self.words[row]) {
                None => styled(BOLD, line),
                Some(Some(word)) => line.replacen(word.as_str(), &styled(state_style(word), word), 1),
                Some(None) => line,
            }
        };
        self.inner.lines().enumerate().map(paint).collect()
    }

    /// Prints it, or `empty` when it has no rows.
    pub fn print(&self, out: Output, empty: &str) -> Result {
        if self.is_empty() {
            return out.line(empty);
        }
        out.text(&(self.lines().join("\n") + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_line_and_columns_stand_below_each_other() {
        let mut table = Table::new(["ID", "STATE", "N"]).right(2);
        table.row(["a".into(), "failed".into(), "7".into()], Some("failed"));
        table.row(["long-one".into(), String::new(), "1\n2".into()], None);
        let plain: Vec<_> = table.lines().iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect();
        assert_eq!(plain.len(), 3, "{plain:?}");
        let at = plain[0].find("STATE").unwrap();
        assert_eq!(&plain[1][at..at + 6], "failed");
        assert!(plain[2].contains('–') && plain[2].ends_with("1 2"), "{plain:?}");
        assert!(table.lines()[1].contains("\x1b["), "the state has a colour");
    }
}
