//! The floor: one frame, encoded before, written to so many sockets by as many threads as there are
//! processors. Nothing is read, parsed, chosen or looked after.

use super::{
    load::{DIGITS, MARK, now_us},
    usage::cpu_of_this_thread,
};
use agentforge_terminal::{Failure, Result};
use memchr::memmem;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// What to write.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A frame with a stamp
    #[arg(long)]
    frame: PathBuf,
    /// Sockets
    #[arg(long)]
    clients: usize,
    /// Events per second
    #[arg(long)]
    rate: u32,
    /// Events in all
    #[arg(long)]
    events: u64,
    /// Written with the address when it listens
    #[arg(long)]
    listening: PathBuf,
    /// Read: when this file exists, writing begins
    #[arg(long)]
    begin: PathBuf,
    /// Written when all is out
    #[arg(long)]
    report: PathBuf,
}

/// Accepts, writes, reports its processor time.
///
/// # Errors
/// A socket or a file that fails.
pub fn run(args: &Args) -> Result {
    everything(args).map_err(|e| Failure::new(format!("the floor: {e}")))
}

fn everything(args: &Args) -> std::io::Result<()> {
    let mut frame = std::fs::read(&args.frame)?;
    let stamp = memmem::find(&frame, MARK).map(|at| at + MARK.len());
    let stamp = stamp.ok_or_else(|| std::io::Error::other("the frame has no stamp"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    std::fs::write(&args.listening, format!("\"{}\"", listener.local_addr()?))?;
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shares: Vec<Vec<TcpStream>> = (0..count).map(|_| Vec::new()).collect();
    for n in 0..args.clients {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut head = Vec::new();
        let mut byte = [0; 512];
        while !head.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut byte)?;
            head.extend_from_slice(&byte[..n]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        shares[n % count].push(stream);
    }
    while !args.begin.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = cpu_of_this_thread();
    let mut threads = Vec::new();
    let mut writers = Vec::new();
    for share in shares {
        #[expect(clippy::disallowed_methods, reason = "a run has a fixed number of frames, which share their bytes")]
        let (send, frames) = mpsc::channel::<Arc<Vec<u8>>>();
        writers.push(send);
        threads.push(std::thread::spawn(move || {
            for frame in frames {
                for mut stream in &share {
                    let _ = stream.write_all(&frame);
                }
            }
            (share, cpu_of_this_thread())
        }));
    }
    let begun = Instant::now();
    for n in 0..args.events {
        let due = begun + Duration::from_secs_f64(n as f64 / f64::from(args.rate));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        frame[stamp..stamp + DIGITS].copy_from_slice(format!("{:0DIGITS$}", now_us()).as_bytes());
        let shared = Arc::new(frame.clone());
        for writer in &writers {
            let _ = writer.send(shared.clone());
        }
    }
    drop(writers);
    let ended: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    let (shares, writers): (Vec<_>, Vec<Duration>) = ended.into_iter().unzip();
    let cpu = cpu_of_this_thread().saturating_sub(before) + writers.iter().sum::<Duration>();
    std::fs::write(&args.report, cpu.as_secs_f64().to_string())?;
    // The clients end first.
    std::thread::sleep(Duration::from_secs(60));
    drop(shares);
    Ok(())
}
