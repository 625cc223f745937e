//! A client's socket, with or without TLS, read and written without waiting.

use agentforge_runtime::http::Socket;
use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::ServerConnection;
use socket2::SockRef;
use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    time::Duration,
};

/// What the kernel keeps of what was not yet taken by the client, bytes; it doubles the number for itself.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// After this long without an answer to what was sent the client is gone: its machine or its link failed.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);
/// What TLS keeps of what the kernel did not take.
const TLS_BUFFER_BYTES: usize = 64 << 10;

/// The socket of a client.
#[derive(Debug)]
pub enum Transport {
    /// A connection without TLS.
    Plain(TcpStream),
    /// With TLS. Boxed: the others need not pay for its size.
    Tls(Box<(TcpStream, ServerConnection)>),
}

impl Transport {
    /// From a connection that was taken out of HTTP.
    pub fn new(socket: Socket) -> Self {
        let prepared = |stream: std::net::TcpStream| {
            let socket = SockRef::from(&stream);
            // Neither changes what is promised; a system that lacks them has its own defaults.
            let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
            let _ = socket.set_tcp_user_timeout(Some(UNANSWERED_MAX));
            TcpStream::from_std(stream)
        };
        match socket {
            Socket::Plain(stream) => Self::Plain(prepared(stream)),
            Socket::Tls(stream, mut session) => {
                session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
                Self::Tls(Box::new((prepared(stream), *session)))
            }
        }
    }

    fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(both) => &mut both.0,
        }
    }

    /// Subscribes to both directions, once per change.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.stream(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Ends the subscription of [`register`](Self::register), before the socket is closed.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(self.stream());
    }

    /// Writes what fits. `WouldBlock` when nothing does.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => match parts {
                [one] => stream.write(one),
                many => stream.write_vectored(many),
            },
            Self::Tls(both) => {
                let (stream, session) = &mut **both;
                push(stream, session)?;
                let taken = session.writer().write_vectored(parts)?;
                match push(stream, session) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    // What TLS has taken goes with the next write, or when the socket is writable again.
                    _ => Ok(taken),
                }
            }
        }
    }

    /// Moves what TLS still holds; `true` when nothing is left.
    pub fn is_flushed(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(both) => {
                let (stream, session) = &mut **both;
                match push(stream, session) {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Whether a write was cut short only by TLS, and the socket has room.
    pub fn takes_more(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(false),
            Self::Tls(_) => self.is_flushed(),
        }
    }

    /// Reads what is there; 0 is the end, `WouldBlock` is nothing.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(both) => {
                let (stream, session) = &mut **both;
                loop {
                    match session.reader().read(buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        read => return read,
                    }
                    if session.read_tls(stream)? == 0 {
                        return Ok(0);
                    }
                    session.process_new_packets().map_err(io::Error::other)?;
                }
            }
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        if let Self::Tls(both) = self {
            let (stream, session) = &mut **both;
            session.send_close_notify();
            let _ = push(stream, session);
        }
        let _ = self.stream().shutdown(Shutdown::Write);
    }
}

fn push(stream: &mut TcpStream, session: &mut ServerConnection) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(stream)?;
    }
    Ok(())
}
