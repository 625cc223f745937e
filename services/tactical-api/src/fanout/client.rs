//! One client of a worker: its socket, its place among the slots, and what waits for it.

use super::{
    queue::{FRAMES_AT_ONCE, Phase, Queue, WriteStats},
    ring::Ring,
    transport::Transport,
};
use crate::{
    event::Channel,
    slots::Slot,
    ws::{self, Decoder},
};
use bytes::Bytes;
use std::{
    io::{self, IoSlice},
    time::{Duration, Instant},
};

/// Writes to one client before it is the next one's turn.
const WRITES_AT_ONCE: usize = 4;
/// How long a client that is asked to leave may take to read the notice.
pub const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// One that was too slow gets longer: what it has yet to read lies before its last words.
const FAREWELL_SLOW_MAX: Duration = Duration::from_secs(60);

/// Why a client is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It does not keep up.
    Slow,
    /// The service stops.
    Restart,
    /// The stream cannot be read for it now.
    Unavailable,
    /// Too many clients wait for the stream already.
    Busy,
    /// It broke the protocol, or asked to close: the code of the answer.
    Closed(u16, &'static str),
}

impl CloseReason {
    /// The label, where it is the API that cuts.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::Slow => Some("slow_consumer"),
            Self::Restart => Some("restart"),
            Self::Unavailable => Some("unavailable"),
            Self::Busy => Some("busy"),
            Self::Closed(ws::code::NORMAL, _) => None,
            Self::Closed(..) => Some("protocol"),
        }
    }

    fn words(self, channel: Channel) -> Bytes {
        let (event, code, reason) = match self {
            Self::Slow => ("slow_consumer", ws::code::SLOW, "slow_consumer: resume with the last id"),
            Self::Restart => ("reconnect", ws::code::RESTART, "the server restarts: connect again"),
            Self::Unavailable => ("reconnect", ws::code::TRY_LATER, "the stream cannot be read now: connect again"),
            Self::Busy => ("reconnect", ws::code::TRY_LATER, "too many clients wait for the stream: connect again"),
            Self::Closed(code, reason) => ("reconnect", code, reason),
        };
        match channel {
            Channel::Ws => ws::close(code, reason),
            Channel::Sse => format!("event: {event}\ndata: {{\"reason\":\"{reason}\"}}\n\n").into(),
        }
    }
}

/// The client's connection ended or failed.
#[derive(Debug)]
pub struct Disconnected;

/// A client of one worker, from its join until its socket is closed.
#[derive(Debug)]
pub struct Client {
    /// Its socket, with or without TLS.
    pub transport: Transport,
    /// What waits for it.
    pub queue: Queue,
    /// Freed as soon as the client is asked to leave.
    pub slot: Option<Slot>,
    /// Of a WebSocket.
    pub decoder: Option<Box<Decoder>>,
    /// When something was last written.
    pub wrote_at: Instant,
    /// When it is asked to reconnect, once the service stops.
    pub leave_at: Option<Instant>,
    /// Distinguishes it from others that had its key before.
    pub generation: u64,
    /// Nothing more fits into its socket.
    pub is_blocked: bool,
    /// Unexpected bytes that it sent.
    pub ignored_bytes: usize,
    /// It was not let in.
    pub is_refused: bool,
}

impl Client {
    /// Writes what fits and is available. `true` when there is more that would fit.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn flush(&mut self, ring: &Ring, tally: &mut WriteStats, now: Instant) -> Result<bool, Disconnected> {
        for _ in 0..WRITES_AT_ONCE {
            let mut parts = [IoSlice::new(&[]); FRAMES_AT_ONCE];
            let (count, bytes) = self.queue.gather(ring, &mut parts);
            if count == 0 {
                // Events that the filter leaves out are passed by without a write.
                self.queue.consume(0, ring, tally);
                self.is_blocked = !self.transport.is_flushed().map_err(|_| Disconnected)?;
                return Ok(false);
            }
            match self.transport.write(&parts[..count]) {
                Ok(written) => {
                    self.wrote_at = now;
                    self.queue.consume(written, ring, tally);
                    if written < bytes && !self.transport.takes_more().map_err(|_| Disconnected)? {
                        self.is_blocked = true;
                        return Ok(false);
                    }
                    // The common case ends here, without another check.
                    if written == bytes
                        && self.queue.is_drained()
                        && (!self.queue.is_live() || self.queue.next >= ring.end())
                    {
                        self.is_blocked = !self.transport.is_flushed().map_err(|_| Disconnected)?;
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Disconnected),
            }
        }
        Ok(true)
    }

    /// Writes something to a client that has nothing else to get.
    pub fn write_now(
        &mut self,
        bytes: &Bytes,
        ring: &Ring,
        tally: &mut WriteStats,
        now: Instant,
    ) -> Result<(), Disconnected> {
        self.queue.interject(bytes);
        self.flush(ring, tally, now).map(drop)
    }

    /// Gives its place back and leaves it its last words.
    pub fn leave(&mut self, reason: CloseReason, now: Instant) {
        self.slot = None;
        self.queue.end_with(&reason.words(self.queue.channel));
        let time = if reason == CloseReason::Slow { FAREWELL_SLOW_MAX } else { FAREWELL_MAX };
        self.queue.phase = Phase::Leaving { by: now + time, is_told: false };
    }

    /// When a client that only gets a notice must be gone.
    pub fn leaving(now: Instant) -> Phase {
        Phase::Leaving { by: now + FAREWELL_MAX, is_told: false }
    }
}
