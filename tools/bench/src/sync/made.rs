//! The files of a run: made, and read back.

use bytes::Bytes;
use std::path::Path;
use tokio::sync::mpsc;

/// Files of one size, no two alike.
pub fn make_files(folder: &Path, bytes: usize, count: u32, seed: u64) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut content = vec![0u8; bytes];
    for (n, byte) in content.iter_mut().enumerate() {
        *byte = (n.wrapping_mul(2_654_435_761) >> 7) as u8;
    }
    for n in 0..count {
        content[..8].copy_from_slice(&seed.to_le_bytes());
        content[8..12].copy_from_slice(&n.to_le_bytes());
        content[12..16].copy_from_slice(&std::process::id().to_le_bytes());
        std::fs::write(folder.join(format!("file-{n:06}.bin")), &content)?;
    }
    rustix::fs::sync();
    Ok(())
}

/// As long and as scattered as the hash of a content, which is what the stream has to keep apart.
pub fn like_a_hash(n: u32) -> String {
    let mut at = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        at = (at ^ (at >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        at ^ (at >> 27)
    };
    format!("{:016x}{:016x}{:016x}{:016x}", next(), next(), next(), next())
}

/// Reads all of a folder, in any order.
pub fn read_all(folder: &Path, to: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        if to.blocking_send(std::fs::read(entry?.path())?.into()).is_err() {
            break;
        }
    }
    Ok(())
}
