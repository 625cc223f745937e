//! Memory of contents that were sent, used again for those that are read next.
//!
//! New memory of a megabyte costs the system as much as reading the file into it: each page is found,
//! cleared and taken away again. What was used last is given out first, while it is still in the caches.

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{pread, retry_on_intr},
};
use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Smaller contents are the allocator's, which keeps such memory itself.
const POOLED_MIN_BYTES: usize = 64 << 10;
/// What may lie idle: as much as was in use, so that memory is not given up and asked for in turns.
const POOL_MAX_BYTES: usize = 20 << 20;

/// Idle memory, what was used last at the end.
#[derive(Debug, Default)]
pub struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
    in_use: AtomicUsize,
}

impl Buffers {
    /// Reads so many bytes from the beginning of a file.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` for a file that is shorter.
    pub fn read(self: &Arc<Self>, file: &File, size: u64) -> io::Result<Bytes> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut memory = self.lend(size);
        while memory.len() < size {
            let at = memory.len() as u64;
            if retry_on_intr(|| pread(file, spare_capacity(&mut memory), at))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        memory.truncate(size);
        if memory.capacity() < POOLED_MIN_BYTES {
            return Ok(memory.into());
        }
        self.in_use.fetch_add(memory.capacity(), Relaxed);
        Ok(Bytes::from_owner(Lent { memory, home: self.clone() }))
    }

    /// Bytes of contents that were read and are not written to the connection yet, small ones left out.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// Empty memory for `size` bytes, and for not more than twice as many.
    fn lend(&self, size: usize) -> Vec<u8> {
        if size < POOLED_MIN_BYTES {
            return Vec::with_capacity(size);
        }
        let fits = |memory: &Vec<u8>| (size..=2 * size).contains(&memory.capacity());
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.iter().rposition(fits) {
            Some(at) => idle.remove(at),
            None => Vec::with_capacity(size),
        }
    }

    fn take_back(&self, mut memory: Vec<u8>) {
        self.in_use.fetch_sub(memory.capacity(), Relaxed);
        memory.clear();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(memory);
        let mut kept = idle.iter().map(Vec::capacity).sum::<usize>();
        // What was used longest ago goes: sizes that do not come any more are not kept forever.
        while kept > POOL_MAX_BYTES {
            kept -= idle.remove(0).capacity();
        }
    }
}

/// A content; its memory goes back when it is dropped.
struct Lent {
    memory: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.take_back(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn idle(buffers: &Buffers) -> Vec<usize> {
        buffers.idle.lock().unwrap().iter().map(Vec::capacity).collect()
    }

    #[test]
    fn memory_is_used_again_and_shows_nothing_of_its_past() {
        let buffers = Arc::new(Buffers::default());
        let first = buffers.read(&file(&[7; 200_000]), 200_000).unwrap();
        let place = first.as_ptr();
        assert_eq!(*first, [7; 200_000]);
        drop(first);
        let second = buffers.read(&file(&[8; 150_000]), 150_000).unwrap();
        assert_eq!((*second == [8; 150_000], second.as_ptr()), (true, place));
        let third = buffers.read(&file(&[9; 150_000]), 150_000).unwrap();
        assert_ne!(third.as_ptr(), place, "it is in use");
        assert_eq!(buffers.in_use(), 200_000 + 150_000);
        drop((second, third));
        assert_eq!(buffers.in_use(), 0);
        assert_eq!(idle(&buffers).len(), 2);
        drop(buffers.read(&file(&[1; 70_000]), 70_000).unwrap());
        assert_eq!(idle(&buffers).len(), 3, "a small content does not hold large memory");
    }

    #[test]
    fn what_lies_idle_is_bounded_and_small_contents_are_not_kept() {
        let buffers = Arc::new(Buffers::default());
        let mebibyte = file(&[5; 1 << 20]);
        let all: Vec<Bytes> = (0..40).map(|_| buffers.read(&mebibyte, 1 << 20).unwrap()).collect();
        drop(all);
        assert_eq!(idle(&buffers).iter().sum::<usize>(), POOL_MAX_BYTES);
        let huge = file(&vec![6; 21 << 20]);
        drop(buffers.read(&huge, 21 << 20).unwrap());
        assert!(idle(&buffers).is_empty(), "larger than all that may be kept");
        drop(buffers.read(&mebibyte, 4096).unwrap());
        assert!(idle(&buffers).is_empty());
    }

    #[test]
    fn a_file_is_read_up_to_its_size_and_not_beyond() {
        let buffers = Arc::new(Buffers::default());
        let grown = file(&[3; 100_000]);
        assert_eq!(*buffers.read(&grown, 99_999).unwrap(), [3; 99_999]);
        assert!(buffers.read(&grown, 0).unwrap().is_empty());
        let error = buffers.read(&grown, 100_001).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
