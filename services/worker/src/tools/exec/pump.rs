//! A command's pipes: arguments in, output to its cap, the tail of standard error.
//!
//! All state is in the value, so that `run` may be dropped at any await and called again. Never
//! holds more than the cap of the output and the tail of the log.

use super::process::Pipes;
use agentforge_proto::bus::Failure;
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
};

/// Why pumping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Both outputs are at their end.
    AtEnd,
    /// Standard output passed its cap.
    TooMuchOutput,
}

/// One pipe's buffer; the size of a Linux pipe.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) struct Pump<'a> {
    stdin: Option<ChildStdin>,
    unwritten: &'a [u8],
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    output: Vec<u8>,
    output_max: usize,
    too_much: bool,
    tail: Tail,
    chunk: Vec<u8>,
}

enum Step {
    Wrote(io::Result<usize>),
    Output(io::Result<usize>),
    Log(io::Result<usize>),
}

impl<'a> Pump<'a> {
    pub(super) fn new((stdin, stdout, stderr): Pipes, input: &'a [u8], output_max: usize) -> Self {
        let (output, chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
        let tail = Tail::new(Failure::LOG_TAIL_MAX_BYTES);
        Self { stdin, unwritten: input, stdout, stderr, output, output_max, too_much: false, tail, chunk }
    }

    pub(super) async fn run(&mut self) -> Pumped {
        while !self.too_much && (self.stdout.is_some() || self.stderr.is_some()) {
            let step = self.step().await;
            self.apply(step);
        }
        if self.too_much { Pumped::TooMuchOutput } else { Pumped::AtEnd }
    }

    /// What was read: the output, and the log's tail as text.
    pub(super) fn into_parts(self) -> (Vec<u8>, String) {
        (self.output, self.tail.into_text())
    }

    async fn step(&mut self) -> Step {
        let (low, high) = self.chunk.split_at_mut(CHUNK_BYTES / 2);
        tokio::select! {
            n = async { self.stdin.as_mut().expect("the arm's condition").write(self.unwritten).await }, if self.stdin.is_some() => Step::Wrote(n),
            n = async { self.stdout.as_mut().expect("the arm's condition").read(low).await }, if self.stdout.is_some() => Step::Output(n),
            n = async { self.stderr.as_mut().expect("the arm's condition").read(high).await }, if self.stderr.is_some() => Step::Log(n),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Wrote(Ok(n)) if n < self.unwritten.len() => self.unwritten = &self.unwritten[n..],
            // All written; or the command closed its input, which is its right.
            Step::Wrote(_) => self.stdin = None,
            Step::Output(Ok(0) | Err(_)) => self.stdout = None,
            Step::Output(Ok(n)) if self.output.len() + n > self.output_max => self.too_much = true,
            Step::Output(Ok(n)) => self.output.extend_from_slice(&self.chunk[..n]),
            Step::Log(Ok(0) | Err(_)) => self.stderr = None,
            Step::Log(Ok(n)) => self.tail.push(&self.chunk[CHUNK_BYTES / 2..CHUNK_BYTES / 2 + n]),
        }
    }
}

/// The last bytes of a log.
struct Tail {
    bytes: Vec<u8>,
    max: usize,
}

impl Tail {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(&more[more.len().saturating_sub(self.max)..]);
        // Twice the limit before moving bytes, so that each byte moves about once.
        if self.bytes.len() > 2 * self.max {
            let surplus = self.bytes.len() - self.max;
            self.bytes.drain(..surplus);
        }
    }

    /// As text of at most `max` bytes; what is not UTF-8 is marked, which can make it longer, so
    /// the front is cut after that.
    fn into_text(self) -> String {
        let text = String::from_utf8_lossy(&self.bytes[self.bytes.len().saturating_sub(self.max)..]).into_owned();
        let surplus = text.len().saturating_sub(self.max);
        let start = (surplus..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        text[start..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_stays_within_its_limit() {
        let mut tail = Tail::new(4);
        for part in ["ab", "cdefghij", "k", "", "lm"] {
            tail.push(part.as_bytes());
        }
        assert_eq!(tail.into_text(), "jklm");
        let mut tail = Tail::new(8);
        tail.push(&[0xff; 100]);
        let text = tail.into_text();
        assert!(text.len() <= 8 && text.chars().all(|c| c == '\u{fffd}'), "{text:?}");
    }
}
