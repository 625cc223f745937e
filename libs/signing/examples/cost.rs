//! What signing and verifying cost per message, by the size of the group. Measure it on your machine with:
//!
//! `cargo run --release -p agentforge-signing --example cost`
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program that prints what it measured")]

use agentforge_signing::{Signer, Task, Verifier, leaf, new_private_pem};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// As long as a job's message with 256 bytes of arguments.
const BODY: [u8; 560] = [b'x'; 560];
const SUBJECT: &str = "swarm.jobs.dev.default";

/// Microseconds per message of the fastest of many runs, which others on the machine disturbed least.
fn fastest(messages: usize, mut run: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..400 {
        let begun = Instant::now();
        run();
        best = best.min(begun.elapsed());
    }
    best.as_secs_f64() * 1e6 / messages as f64
}

fn main() {
    let signer = Signer::from_pem(&new_private_pem().expect("random bytes")).expect("a key that was just made");
    println!("group  bytes  sign µs  verify µs");
    for group in [1, 2, 4, 8, 16, 32] {
        let ids: Vec<String> = (0..group).map(|n| format!("01a1fd98-49e6-720a-ab05-e03bd3d8231b:{n}")).collect();
        let leaves = || ids.iter().map(|id| leaf(SUBJECT, id, &BODY)).collect::<Vec<_>>();
        let sign = fastest(group, || drop(black_box(signer.sign(&leaves(), 0, u64::MAX))));
        let headers = signer.sign(&leaves(), 0, u64::MAX);
        let verify = fastest(group, || {
            let verifier = Verifier::new(signer.public_keys());
            for (id, header) in ids.iter().zip(&headers) {
                verifier.verify(Some(header), leaf(SUBJECT, id, &BODY), 1).expect("it was signed");
            }
        });
        println!("{group:5}  {:5}  {sign:7.1}  {verify:9.1}", headers[0].len());
    }
    let task = Task { mission: "dev", queue: "default", job: "01a1fd98-49e6-720a-ab05-e03bd3d8231b", attempt: 1 };
    let token = signer.token(&task);
    let made = fastest(100, || (0..100).for_each(|_| drop(black_box(signer.token(&task)))));
    let checked = fastest(100, || (0..100).for_each(|_| assert!(signer.is_token_of(&task, &token))));
    println!("token: made {made:.2} µs, checked {checked:.2} µs");
}
