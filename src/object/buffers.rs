//! Large buffers that reads use again and again.
//!
//! A fresh buffer costs more than the read that fills it: the kernel maps and clears each of its pages. What a read
//! answers gives its buffer back when the last slice of it is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Smaller buffers are cheap enough to be made anew.
const SMALL_BYTES: usize = 128 * 1024;
/// Size of a buffer: a block of an object with its header.
const BUFFER_BYTES: usize = 1024 * 1024 + 4096;
/// Buffers kept for later use.
const KEPT_MAX: usize = 16;

/// The buffers that nobody uses now.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer under its user; the first `used` bytes are shown.
struct Lent {
    buffer: Vec<u8>,
    used: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT_MAX {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Buffers {
    /// `bytes` that `fill` writes, all of them. Its error is passed on.
    pub fn filled<E>(&self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Bytes, E> {
        if !(SMALL_BYTES..=BUFFER_BYTES).contains(&bytes) {
            let mut buffer = vec![0; bytes];
            fill(&mut buffer)?;
            return Ok(buffer.into());
        }
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = kept.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        let mut lent = Lent { buffer, used: bytes, free: self.free.clone() };
        fill(&mut lent.buffer[..bytes])?;
        Ok(Bytes::from_owner(lent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn filled(buffers: &Buffers, bytes: usize, with: u8) -> Bytes {
        let fill = |b: &mut [u8]| {
            b.fill(with);
            Ok::<(), Infallible>(())
        };
        buffers.filled(bytes, fill).unwrap_or_else(|e| match e {})
    }

    #[test]
    fn a_buffer_is_used_again_only_when_nothing_points_into_it() {
        let buffers = Buffers::default();
        let first = filled(&buffers, SMALL_BYTES, 1);
        let slice = first.slice(10..20);
        let place = first.as_ptr();
        drop(first);
        let second = filled(&buffers, BUFFER_BYTES, 2);
        assert_ne!(second.as_ptr(), place);
        assert_eq!(&slice[..], [1; 10]);
        drop(slice);
        let third = filled(&buffers, SMALL_BYTES + 1, 3);
        assert_eq!((third.as_ptr(), third.len()), (place, SMALL_BYTES + 1));
        assert!(third.iter().all(|b| *b == 3));
    }

    #[test]
    fn few_are_kept_and_a_failed_read_loses_none() {
        let buffers = Buffers::default();
        let many: Vec<_> = (0..2 * KEPT_MAX).map(|_| filled(&buffers, SMALL_BYTES, 0)).collect();
        drop(many);
        assert_eq!(buffers.free.lock().unwrap().len(), KEPT_MAX);
        assert_eq!(buffers.filled(SMALL_BYTES, |_| Err("read")), Err("read"));
        assert_eq!(buffers.free.lock().unwrap().len(), KEPT_MAX);
        filled(&buffers, 10, 0);
        filled(&buffers, BUFFER_BYTES + 1, 0);
        assert_eq!(buffers.free.lock().unwrap().len(), KEPT_MAX);
    }
}
