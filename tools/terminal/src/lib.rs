//! How our programs speak to people: errors with a hint, output as text or JSON, tables, progress, values of the
//! command line, and how one program starts another.
//!
//! Relies on clap for parsing and on `agentforge-client` for what can go wrong with a call. Knows no service.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod called;
mod describe;
mod end;
mod error;
mod explain;
mod global;
mod output;
mod program;
mod values;

pub use called::parse;
pub use describe::{command_of, describe};
pub use end::{ended, report, runtime, usage};
pub use error::{FAILED, Failure, NOT_SUCCEEDED, Result, USAGE};
pub use explain::{Explain, until_final};
pub use global::Global;
pub use output::{
    BOLD, CYAN, DIM, GREEN, JsonList, Output, Progress, RED, Table, YELLOW, age, bytes, clean, clean_lines,
    short_duration, state_style, styled, warn,
};
pub use program::{become_program, find_program};
pub use values::{Token, When, duration, label, label_text, server, since, token, when};

use clap::builder::styling;

/// The colours of every program's help.
pub const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default())
    .placeholder(styling::AnsiColor::Cyan.on_default());
