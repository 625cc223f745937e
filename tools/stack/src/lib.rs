//! One AgentForge on this machine: NATS and every service, in one process or as processes of their own.
//!
//! `agentforge dev` is its face; benchmarks and tests start the same. Owns no promise of durability: each service
//! keeps its own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backup;
mod banner;
pub mod child;
pub mod console;
mod data_dir;
mod demo;
pub mod dev;
mod evidence;
pub mod example_tool;
mod feed;
mod files;
mod in_process;
mod keeper;
mod link;
pub mod link_command;
pub mod locate;
mod nats;
pub mod pages;
pub mod patience;
pub mod ports;
mod processes;
pub mod program;
pub mod ready;
pub mod roster;
mod servers;
pub mod settings;
pub mod sink;
pub mod user;

#[cfg(test)]
mod settings_tests;
