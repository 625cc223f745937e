//! WebSocket as a server of small messages needs it (RFC 6455): the handshake's answer, frames out, frames
//! in. No extensions, no compression. Pure; a client's half-read frame is the only state.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// Opcode of text.
pub const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// Opcode of a close.
pub const CLOSE: u8 = 8;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a pong.
pub const PONG: u8 = 10;

/// Longest message that a client may send, in bytes: a filter with many sites.
pub const MESSAGE_MAX_BYTES: usize = 8192;
/// RFC 6455, 5.5.
const CONTROL_MAX_BYTES: usize = 125;

/// Codes of closes.
pub mod code {
    /// All is well.
    pub const NORMAL: u16 = 1000;
    /// The server goes; connect again.
    pub const RESTART: u16 = 1012;
    /// 1013: the service cannot serve the client now; it may try again.
    pub const TRY_LATER: u16 = 1013;
    /// The client broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The client sent something that is no filter.
    pub const UNSUPPORTED: u16 = 1003;
    /// The client sent too much at once.
    pub const TOO_BIG: u16 = 1009;
    /// Parameters that make no sense.
    pub const BAD_REQUEST: u16 = 4400;
    /// No valid token.
    pub const UNAUTHORIZED: u16 = 4401;
    /// No client certificate, or a page that may not.
    pub const FORBIDDEN: u16 = 4403;
    /// No place is free.
    pub const TOO_MANY: u16 = 4408;
    /// The client did not keep up.
    pub const SLOW: u16 = 4413;
}

/// A frame of a server: final, not masked.
pub fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(0x80 | opcode);
    match payload.len() {
        n @ 0..126 => out.put_u8(u8::try_from(n).expect("less than 126")),
        n @ 126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(u16::try_from(n).expect("matched"));
        }
        n => {
            out.put_u8(127);
            out.put_u64(n as u64);
        }
    }
    out.put_slice(payload);
    out.freeze()
}

/// A close with a code and a reason of at most 123 bytes.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..reason.len().min(CONTROL_MAX_BYTES - 2)]);
    frame(CLOSE, &payload)
}

/// The answer to a `Sec-WebSocket-Key`.
pub fn accept_of(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message.
    Text(String),
    /// A ping, to be answered with its payload.
    Ping(Vec<u8>),
    /// An answer to a ping of ours.
    Pong,
    /// It wants to close; its code, where it gave one.
    Close(Option<u16>),
    /// It must be closed with this code.
    Fault(u16, &'static str),
}

/// Puts a client's frames together. Holds nothing while no frame is half-read.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    /// A message in fragments, so far.
    message: Option<Vec<u8>>,
}

/// How long a frame is, and what it completes.
type Frame = (usize, Option<Incoming>);
/// The code to close with, and why.
type Refusal = (u16, &'static str);

impl Decoder {
    /// Takes what was read and gives what it completes. Nothing may be asked after a [`Incoming::Fault`].
    pub fn feed(&mut self, read: &[u8]) -> Vec<Incoming> {
        if self.pending.is_empty() {
            return self.frames(read);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(read);
        self.frames(&joined)
    }

    fn frames(&mut self, mut read: &[u8]) -> Vec<Incoming> {
        let mut said = Vec::new();
        loop {
            match self.next(read) {
                Ok(Some((used, one))) => {
                    read = &read[used..];
                    let is_end = matches!(one, Some(Incoming::Fault(..) | Incoming::Close(_)));
                    said.extend(one);
                    if is_end {
                        return said;
                    }
                }
                Ok(None) => break,
                Err((code, reason)) => {
                    said.push(Incoming::Fault(code, reason));
                    return said;
                }
            }
        }
        self.pending = read.to_vec();
        said
    }

    /// One frame from the start of `read`: its length, and what it completes.
    fn next(&mut self, read: &[u8]) -> Result<Option<Frame>, Refusal> {
        let protocol = |reason| Err((code::PROTOCOL, reason));
        let [first, second, rest @ ..] = read else { return Ok(None) };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return protocol("reserved bits are set");
        }
        if second & 0x80 == 0 {
            return protocol("a client's frames are masked");
        }
        let (len, rest) = match (second & 0x7F, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            // Longer than any message may be, regardless of what the eight bytes say.
            (127, _) => return Err((code::TOO_BIG, "the message is too large")),
            (126, _) => return Ok(None),
            (n, rest) => (usize::from(n), rest),
        };
        if opcode >= CLOSE && (len > CONTROL_MAX_BYTES || !is_final) {
            return protocol("a control frame is too long or in fragments");
        }
        if len + self.message.as_ref().map_or(0, Vec::len) > MESSAGE_MAX_BYTES {
            return Err((code::TOO_BIG, "the message is too large"));
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        if rest.len() < len {
            return Ok(None);
        }
        let payload: Vec<u8> = rest[..len].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        let used = read.len() - rest.len() + len;
        let said = match opcode {
            0 | TEXT => self.text(opcode, is_final, payload)?,
            BINARY => return Err((code::UNSUPPORTED, "only text is understood")),
            CLOSE => {
                if payload.len() == 1 {
                    return protocol("a close of one byte");
                }
                Some(Incoming::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))))
            }
            PING => Some(Incoming::Ping(payload)),
            PONG => Some(Incoming::Pong),
            _ => return protocol("an unknown opcode"),
        };
        Ok(Some((used, said)))
    }

    fn text(&mut self, opcode: u8, is_final: bool, payload: Vec<u8>) -> Result<Option<Incoming>, Refusal> {
        let message = match (opcode, self.message.take()) {
            (TEXT, None) => payload,
            (0, Some(mut message)) => {
                message.extend(payload);
                message
            }
            _ => return Err((code::PROTOCOL, "fragments out of order")),
        };
        if !is_final {
            self.message = Some(message);
            return Ok(None);
        }
        let text = String::from_utf8(message).map_err(|_| (1007, "text that is not UTF-8"))?;
        Ok(Some(Incoming::Text(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = vec![first];
        match payload.len() {
            n if n < 126 => out.push(0x80 | n as u8),
            n => {
                out.push(0x80 | 126);
                out.extend((n as u16).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_have_the_shortest_length() {
        for (n, header) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
            assert_eq!(frame(TEXT, &vec![0; n]).len(), n + header);
        }
        assert_eq!(&close(4413, "slow")[..], b"\x88\x06\x11\x3dslow");
        assert_eq!(close(1000, &"x".repeat(300)).len(), 127);
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut stream = masked(0x81, b"{\"filter\":{}}");
        stream.extend(masked(0x89, b"hi"));
        stream.extend(masked(0x01, b"ab"));
        stream.extend(masked(0x8A, b""));
        stream.extend(masked(0x80, &[b'c'; 300]));
        stream.extend(masked(0x88, &4000u16.to_be_bytes()));
        let expected = [
            Incoming::Text("{\"filter\":{}}".into()),
            Incoming::Ping(b"hi".to_vec()),
            Incoming::Pong,
            Incoming::Text(format!("ab{}", "c".repeat(300))),
            Incoming::Close(Some(4000)),
        ];
        for step in [1, 3, 7, stream.len()] {
            let mut decoder = Decoder::default();
            let said: Vec<Incoming> = stream.chunks(step).flat_map(|chunk| decoder.feed(chunk)).collect();
            assert_eq!(said, expected, "in steps of {step}");
            assert!(decoder.pending.is_empty());
        }
    }

    #[test]
    fn broken_frames_are_faults() {
        let unmasked = [0x81, 0x01, b'x'];
        for (bytes, code) in [
            (unmasked.to_vec(), code::PROTOCOL),
            (masked(0xC1, b"x"), code::PROTOCOL),
            (masked(0x83, b"x"), code::PROTOCOL),
            (masked(0x09, b"x"), code::PROTOCOL),
            (masked(0x89, &[0; 126]), code::PROTOCOL),
            (masked(0x80, b"x"), code::PROTOCOL),
            (masked(0x88, b"x"), code::PROTOCOL),
            (masked(0x82, b"x"), code::UNSUPPORTED),
            (masked(0x81, &[b'x'; MESSAGE_MAX_BYTES + 1]), code::TOO_BIG),
            (vec![0x81, 0xFF, 0, 0, 0, 0], code::TOO_BIG),
            (masked(0x81, b"\xff"), 1007),
        ] {
            let said = Decoder::default().feed(&bytes);
            assert!(matches!(said[..], [Incoming::Fault(given, _)] if given == code), "{bytes:?}: {said:?}");
        }
    }
}
