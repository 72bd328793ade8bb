//! Cuts the byte stream of a connection into frames.
//!
//! Memory grows with the bytes that have arrived, never with a claimed length: a step of growth is at most
//! [`READ_BYTES`], what the frame has already shown, or what earlier frames of this connection really took. A frame is
//! handed out as a slice of the read buffer, so record batches are not copied on their way in.

use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes before every frame: its length.
const LENGTH_PREFIX_BYTES: usize = 4;
/// Size of one read on a busy connection, and the least step of growth.
const READ_BYTES: usize = 64 * 1024;
/// Size of the first read after a pause; what an idle connection keeps.
const FIRST_READ_BYTES: usize = 1024;
/// Largest step that earlier frames justify: a batch of 1 MiB and its envelope are then read without being moved.
const EARNED_STEP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A length prefix that no frame of ours can have. The stream cannot be followed beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame length {length} is outside 1 to {max}")]
pub struct FrameError {
    pub length: i32,
    pub max: usize,
}

/// Reads frames from one stream.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// Size of the next read while no frame is under way.
    read_bytes: usize,
    /// About the largest of the last frames, length prefix included.
    earned_bytes: usize,
}

impl FrameReader {
    pub fn new(frame_bytes_max: usize) -> Self {
        FrameReader { buffer: BytesMut::new(), frame_bytes_max, read_bytes: FIRST_READ_BYTES, earned_bytes: 0 }
    }

    /// The next whole frame, without its length prefix, if it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(total) = self.started_bytes()? else {
            return Ok(None);
        };
        if self.buffer.len() < total {
            return Ok(None);
        }
        self.earned_bytes = total.max(self.earned_bytes - self.earned_bytes / 8);
        let mut frame = self.buffer.split_to(total).freeze();
        frame.advance(LENGTH_PREFIX_BYTES);
        Ok(Some(frame))
    }

    /// Total bytes of the frame at the front of the buffer, once its length is known.
    fn started_bytes(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*prefix);
        match usize::try_from(length) {
            Ok(bytes) if (1..=self.frame_bytes_max).contains(&bytes) => Ok(Some(LENGTH_PREFIX_BYTES + bytes)),
            _ => Err(FrameError { length, max: self.frame_bytes_max }),
        }
    }

    /// Whether [`FrameReader::next_frame`] has something to say: a whole frame, or that none can come.
    pub fn has_frame(&self) -> bool {
        match self.started_bytes() {
            Ok(Some(total)) => self.buffer.len() >= total,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Whether bytes have arrived that were not handed out.
    pub fn is_inside_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether the buffer is larger than an idle connection should keep.
    pub fn can_release(&self) -> bool {
        self.buffer.is_empty() && self.buffer.capacity() > FIRST_READ_BYTES
    }

    /// Gives the buffer back and forgets what the connection had earned.
    pub fn release(&mut self) {
        if self.can_release() {
            *self = FrameReader::new(self.frame_bytes_max);
        }
    }

    /// Reads once; the number of bytes, 0 at the end of the stream.
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut R,
    ) -> Poll<std::io::Result<usize>> {
        self.make_room();
        let room = self.buffer.capacity() - self.buffer.len();
        let count = ready!(pin!(stream.read_buf(&mut self.buffer)).poll(cx))?;
        if count == room {
            self.read_bytes = READ_BYTES;
        }
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self) {
        let buffered = self.buffer.len();
        let earned = self.earned_bytes.min(EARNED_STEP_BYTES_MAX);
        let (wanted, step) = match self.started_bytes() {
            // Inside a frame all of its next step is wanted at once.
            Ok(Some(total)) if total > buffered => {
                let wanted = (total - buffered).min(READ_BYTES.max(buffered).max(earned));
                (wanted, wanted.max(self.read_bytes))
            }
            // Between frames what is left of the buffer will do, unless it is next to nothing.
            _ if self.read_bytes < READ_BYTES => (FIRST_READ_BYTES / 2, FIRST_READ_BYTES),
            _ => (earned.max(FIRST_READ_BYTES / 2), READ_BYTES.max(earned)),
        };
        if self.buffer.capacity() - buffered < wanted {
            self.buffer.reserve(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn read(reader: &mut FrameReader, stream: &mut (impl AsyncRead + Unpin)) -> usize {
        poll_fn(|cx| reader.poll_read(cx, stream)).await.unwrap()
    }

    fn framed(bytes: usize) -> Vec<u8> {
        let mut out = (bytes as i32).to_be_bytes().to_vec();
        out.extend((0..bytes).map(|i| i as u8));
        out
    }

    #[tokio::test]
    async fn frames_come_out_whole_however_the_bytes_arrive() {
        for piece in [1, 3, 4, 5, 1000, 70_000, 1_000_000] {
            let sizes = [1, 2, 1023, 1024, 1025, 65_536, 300_000, 7];
            let stream: Vec<u8> = sizes.iter().flat_map(|size| framed(*size)).collect();
            let (mut near, mut far) = duplex(2_000_000);
            let mut reader = FrameReader::new(1 << 20);
            let mut found = Vec::new();
            for bytes in stream.chunks(piece) {
                far.write_all(bytes).await.unwrap();
                let mut left = bytes.len();
                while left > 0 {
                    left -= read(&mut reader, &mut near).await;
                    while let Some(frame) = reader.next_frame().unwrap() {
                        assert!(frame.iter().enumerate().all(|(i, b)| *b == i as u8));
                        found.push(frame.len());
                    }
                }
            }
            assert_eq!(found, sizes);
            assert!(!reader.is_inside_frame());
        }
    }

    #[tokio::test]
    async fn a_claimed_length_reserves_only_a_step() {
        let (mut near, mut far) = duplex(1 << 20);
        let mut reader = FrameReader::new(100 << 20);
        far.write_all(&(100_i32 << 20).to_be_bytes()).await.unwrap();
        let mut arrived = read(&mut reader, &mut near).await;
        for _ in 0..40 {
            assert_eq!(reader.next_frame(), Ok(None));
            far.write_all(&[0; 50_000]).await.unwrap();
            arrived += read(&mut reader, &mut near).await;
            assert!(
                reader.buffer.capacity() <= 4 * arrived + 2 * READ_BYTES,
                "{} for {arrived}",
                reader.buffer.capacity()
            );
        }
    }

    #[tokio::test]
    async fn frames_of_one_size_are_soon_read_in_one_piece() {
        let (mut near, mut far) = duplex(4 << 20);
        let mut reader = FrameReader::new(100 << 20);
        let frame = framed(1 << 20);
        let mut reads = 0;
        for _ in 0..4 {
            far.write_all(&frame).await.unwrap();
            reads = 0;
            while reader.next_frame().unwrap().is_none() {
                read(&mut reader, &mut near).await;
                reads += 1;
            }
        }
        assert_eq!(reads, 1);
    }

    #[tokio::test]
    async fn an_idle_connection_keeps_next_to_nothing() {
        let (mut near, mut far) = duplex(1 << 20);
        let mut reader = FrameReader::new(100 << 20);
        far.write_all(&framed(500_000)).await.unwrap();
        while reader.next_frame().unwrap().is_none() {
            read(&mut reader, &mut near).await;
        }
        assert!(reader.can_release());
        reader.release();
        far.write_all(&framed(100)).await.unwrap();
        read(&mut reader, &mut near).await;
        assert!(reader.buffer.capacity() <= FIRST_READ_BYTES);
    }

    #[tokio::test]
    async fn frames_of_one_size_are_soon_read_in_one_piece_though_they_are_kept() {
        for size in [100, 16 << 10, 1 << 20] {
            let (mut near, mut far) = duplex(4 << 20);
            let mut reader = FrameReader::new(100 << 20);
            let (mut kept, mut capacity, mut reads) = (Vec::new(), 0, 0);
            for i in 0..64 {
                far.write_all(&framed(size)).await.unwrap();
                loop {
                    let room = reader.buffer.capacity();
                    reads += usize::from(i >= 32);
                    read(&mut reader, &mut near).await;
                    capacity += reader.buffer.capacity().saturating_sub(room);
                    if let Some(frame) = reader.next_frame().unwrap() {
                        kept.push(frame);
                        break;
                    }
                }
            }
            assert_eq!(reads, 32);
            let bytes: usize = kept.iter().map(Bytes::len).sum();
            assert!(capacity < 2 * bytes + 4 * READ_BYTES, "{capacity} for {bytes}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0, -1, i32::MIN, i32::MAX, 1001] {
            let mut reader = FrameReader::new(1000);
            reader.buffer.extend_from_slice(&length.to_be_bytes());
            assert_eq!(reader.next_frame(), Err(FrameError { length, max: 1000 }));
        }
    }
}
