//! Reads a JSON document while it arrives, value by value, without ever having the whole of it.
//!
//! The caller walks objects and arrays; a value it wants is gathered and given to serde, one it does not
//! want is skipped where it lies. Relies on the sender's order of keys in nothing. What is skipped is only
//! checked for its brackets; what is used is checked in full.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;

/// One value that is gathered: a consumer with its configuration is 2 KiB.
const VALUE_MAX_BYTES: usize = 4 << 20;

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    /// The bytes did not come.
    #[error("the answer ended early")]
    Source(#[source] E),
    /// More came than may.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(u64),
    /// They are not JSON, or end early.
    #[error("the answer is not the JSON that was expected, near byte {0}")]
    Syntax(u64),
    /// A value does not have the expected shape.
    #[error("the answer has a value of another shape near byte {at}")]
    Shape {
        /// The offset of the value in the document.
        at: u64,
        /// What was expected.
        #[source]
        source: serde_json::Error,
    },
}

/// A document that arrives.
pub struct Document<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What of the buffer was consumed.
    at: usize,
    /// Bytes that left the buffer before.
    before: u64,
    received: u64,
    max: u64,
}

impl<S, E> Document<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + 'static,
{
    /// A document of at most `max` bytes.
    pub fn new(stream: S, max: u64) -> Self {
        Self { stream, buffer: Vec::new(), at: 0, before: 0, received: 0, max }
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Enters an object; then [`key`](Self::key) until it gives `None`. False if the value is null.
    pub async fn object(&mut self) -> Result<bool, Error<E>> {
        self.enter(b'{').await
    }

    /// Enters an array; then [`element`](Self::element) until it is false. False if the value is null.
    pub async fn array(&mut self) -> Result<bool, Error<E>> {
        self.enter(b'[').await
    }

    async fn enter(&mut self, bracket: u8) -> Result<bool, Error<E>> {
        match self.peek().await? {
            b'n' => {
                self.skip().await?;
                Ok(false)
            }
            found if found == bracket => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.syntax()),
        }
    }

    /// The next key of the object, or its end. The value must be taken or skipped before the next call.
    pub async fn key(&mut self) -> Result<Option<String>, Error<E>> {
        if !self.next_in(b'}').await? {
            return Ok(None);
        }
        let key: String = self.value().await?;
        match self.peek().await? {
            b':' => self.at += 1,
            _ => return Err(self.syntax()),
        }
        Ok(Some(key))
    }

    /// Whether the array has one more element.
    pub async fn element(&mut self) -> Result<bool, Error<E>> {
        self.next_in(b']').await
    }

    /// Passes a comma, or the closing bracket: then it is the end.
    async fn next_in(&mut self, close: u8) -> Result<bool, Error<E>> {
        let mut found = self.peek().await?;
        // The first member has no comma before it. One that is missing later is not noticed: the next member is read all
        // the same, and a value of another shape is an error then.
        if found == b',' {
            self.at += 1;
            found = self.peek().await?;
            return if found == close { Err(self.syntax()) } else { Ok(true) };
        }
        if found == close {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// The next value.
    pub async fn value<T: DeserializeOwned>(&mut self) -> Result<T, Error<E>> {
        self.parse(|raw| serde_json::from_slice(raw)).await
    }

    /// The next value, given to `parse` as its bytes, so that it may borrow from them.
    pub async fn parse<T>(&mut self, parse: impl FnOnce(&[u8]) -> serde_json::Result<T>) -> Result<T, Error<E>> {
        self.peek().await?;
        let mut scan = Scan::default();
        let mut end = self.at;
        loop {
            match scan.advance(&self.buffer[end..]) {
                Some(length) => {
                    end += length;
                    break;
                }
                None => end = self.buffer.len(),
            }
            if end - self.at > VALUE_MAX_BYTES {
                return Err(Error::TooLarge(VALUE_MAX_BYTES as u64));
            }
            let start = self.at;
            if !self.more().await? {
                return Err(self.syntax());
            }
            // What was consumed before has left the buffer, so the value begins at its start now, and its end so far
            // moved by as much. The value stays in one piece: serde may borrow from it.
            end -= start - self.at;
        }
        let at = self.position();
        let value = parse(&self.buffer[self.at..end]).map_err(|source| Error::Shape { at, source })?;
        self.at = end;
        Ok(value)
    }

    /// Passes over the next value.
    pub async fn skip(&mut self) -> Result<(), Error<E>> {
        self.peek().await?;
        let mut scan = Scan::default();
        loop {
            match scan.advance(&self.buffer[self.at..]) {
                Some(length) => {
                    self.at += length;
                    return Ok(());
                }
                // Consumed piece by piece, so that skipping a large value holds none of it.
                None => self.at = self.buffer.len(),
            }
            if !self.more().await? {
                return Err(self.syntax());
            }
        }
    }

    /// Nothing may follow the value but white space.
    pub async fn end(&mut self) -> Result<(), Error<E>> {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                if byte.is_ascii_whitespace() { self.at += 1 } else { return Err(self.syntax()) }
            }
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// The next byte that is not white space; it is not consumed.
    async fn peek(&mut self) -> Result<u8, Error<E>> {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                match byte {
                    b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                    other => return Ok(*other),
                }
            }
            if !self.more().await? {
                return Err(self.syntax());
            }
        }
    }

    /// Waits for the next piece; false at the end.
    async fn more(&mut self) -> Result<bool, Error<E>> {
        self.before += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        match self.stream.next().await {
            None => Ok(false),
            Some(Err(error)) => Err(Error::Source(error)),
            Some(Ok(piece)) => {
                self.received += piece.len() as u64;
                if self.received > self.max {
                    return Err(Error::TooLarge(self.max));
                }
                self.buffer.extend_from_slice(&piece);
                Ok(true)
            }
        }
    }

    /// What to say of a value that is not what it must be.
    pub fn unexpected(&self) -> Error<E> {
        self.syntax()
    }

    fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    fn syntax(&self) -> Error<E> {
        Error::Syntax(self.position())
    }
}

/// Finds the end of a value over any number of pieces.
///
/// Counts brackets of both kinds together, and knows strings, since a bracket in one does not count. Its state is all
/// that is kept between two pieces: a piece may end anywhere, also between a backslash and what it escapes. It accepts
/// more than JSON (`[}`): a value that is used goes through serde afterwards, and one that is skipped does not matter.
#[derive(Debug, Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    in_scalar: bool,
}

impl Scan {
    /// How many bytes of `input` belong to the value, if it ends here.
    fn advance(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < input.len() {
            if self.in_string {
                at += self.string(&input[at..]);
                if self.in_string {
                    return None;
                }
                if self.depth == 0 {
                    return Some(at);
                }
                continue;
            }
            match input[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // The bracket of what is around a number or word ends it, and does not belong to it.
                b'}' | b']' if self.depth == 0 => return self.in_scalar.then_some(at),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                b',' | b' ' | b'\n' | b'\r' | b'\t' if self.depth == 0 => return Some(at),
                _ if self.depth == 0 => self.in_scalar = true,
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// Consumes the rest of a string with its closing quote, or all of the input.
    fn string(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        if self.is_escaped && !input.is_empty() {
            (self.is_escaped, at) = (false, 1);
        }
        while let Some(found) = memchr::memchr2(b'"', b'\\', &input[at..]) {
            at += found + 1;
            if input[at - 1] == b'"' {
                self.in_string = false;
                return at;
            }
            if at < input.len() { at += 1 } else { self.is_escaped = true }
        }
        input.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::convert::Infallible;

    fn document(text: &str, piece: usize) -> Document<impl Stream<Item = Result<Bytes, Infallible>> + Unpin> {
        let pieces: Vec<_> = text.as_bytes().chunks(piece).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        Document::new(futures_util::stream::iter(pieces), 1 << 20)
    }

    const SAMPLE: &str = r#" { "skip" : {"a":[1,{"b":"]}\\\""}],"c":null}, "n": -1.5e3, "list": [ {"x":"é\"}"} ,{"x":"2"}],
        "null": null, "none": [], "text": "a\\", "t":true } "#;

    #[tokio::test]
    async fn values_are_found_wherever_the_pieces_are_cut() {
        for piece in 1..40 {
            let mut d = document(SAMPLE, piece);
            let mut seen = Vec::new();
            assert!(d.object().await.unwrap());
            while let Some(key) = d.key().await.unwrap() {
                match key.as_str() {
                    "skip" => d.skip().await.unwrap(),
                    "list" | "none" | "null" => {
                        if d.array().await.unwrap() {
                            while d.element().await.unwrap() {
                                seen.push((key.clone(), d.value::<Value>().await.unwrap()));
                            }
                        }
                    }
                    _ => seen.push((key, d.value::<Value>().await.unwrap())),
                }
            }
            d.end().await.unwrap();
            let expected = [
                ("n", json!(-1500.0)),
                ("list", json!({"x": "é\"}"})),
                ("list", json!({"x": "2"})),
                ("text", json!("a\\")),
                ("t", json!(true)),
            ];
            assert_eq!(seen, expected.map(|(k, v)| (k.to_owned(), v)), "pieces of {piece}");
        }
    }

    async fn whole(text: &str, piece: usize) -> Result<(), Error<Infallible>> {
        let mut d = document(text, piece);
        d.object().await?;
        while d.key().await?.is_some() {
            d.skip().await?;
        }
        d.end().await
    }

    #[tokio::test]
    async fn rubbish_and_early_ends_are_errors() {
        let all = [
            "",
            "hello",
            "<html>",
            "[1]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":[1",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{} x",
        ];
        for bad in all {
            for piece in [1, 100] {
                let result = whole(bad, piece).await;
                assert!(result.is_err(), "{bad}: {result:?}");
            }
        }
        assert!(whole("{\"a\": 1 , \"b\": \"x\"}", 3).await.is_ok());
    }

    #[tokio::test]
    async fn a_document_longer_than_allowed_is_cut_off() {
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
        assert!(matches!(whole(&text, 4096).await, Err(Error::TooLarge(_))));
    }
}
