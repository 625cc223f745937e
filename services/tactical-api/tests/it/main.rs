//! The tactical API as its clients see it: real processes, real servers, clients that share no code with it.
#![allow(clippy::unwrap_used)]

mod access;
mod audited;
mod browser;
mod certificates;
mod door;
mod evidence;
mod gaps;
mod pages;
mod picture;
mod publish;
mod rotation;
mod sites;
mod slots;
mod slow;
mod streams;
mod support;
mod tls;
mod views;
