//! The byte side of a connection: one stream, a frame reader, and the queue of bytes that wait to be written.
//!
//! What is written are pieces of shared memory; as many as wait are written by one vectored write. Nothing here knows what
//! the bytes mean.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frame::FrameReader;

/// Pieces of one vectored write.
const WRITE_PIECES_MAX: usize = 128;

/// What one turn of reading and writing achieved; at least one of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read; `Some(0)` is the end of the stream.
    pub read: Option<usize>,
    pub written: usize,
}

#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    pub reader: FrameReader,
    queue: VecDeque<Bytes>,
    /// Bytes ever given to [`Transport::push`], and how many of them are written.
    pushed: u64,
    written: u64,
    /// The stream may hold back bytes until it is flushed (TLS does).
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    pub fn new(stream: S, frame_bytes_max: usize) -> Self {
        let reader = FrameReader::new(frame_bytes_max);
        Transport { stream, reader, queue: VecDeque::new(), pushed: 0, written: 0, unflushed: false }
    }

    /// Queues what is to be written, in pieces that are not copied.
    pub fn push(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            self.pushed += piece.len() as u64;
            self.queue.push_back(piece);
        }
    }

    /// The stream itself, to ask it something.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Position in the outgoing stream after everything queued so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Position in the outgoing stream up to which the stream has taken the bytes.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes queued and not written.
    pub fn queued_bytes(&self) -> u64 {
        self.pushed - self.written
    }

    pub fn wants_write(&self) -> bool {
        !self.queue.is_empty() || self.unflushed
    }

    /// Writes what is queued and, if asked to, reads once. Ready as soon as either got anywhere.
    pub fn poll_progress(&mut self, cx: &mut Context<'_>, want_read: bool) -> Poll<io::Result<Progress>> {
        let mut progress = Progress::default();
        if self.wants_write() {
            let before = self.written;
            if let Poll::Ready(Err(e)) = self.poll_write(cx) {
                return Poll::Ready(Err(e));
            }
            progress.written = (self.written - before) as usize;
        }
        if want_read && let Poll::Ready(read) = self.reader.poll_read(cx, &mut self.stream) {
            progress.read = Some(read?);
        }
        let stuck = progress.read.is_none() && progress.written == 0 && (want_read || self.wants_write());
        if stuck { Poll::Pending } else { Poll::Ready(Ok(progress)) }
    }

    /// Writes and flushes until all is out (ready) or the stream takes no more (pending).
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_PIECES_MAX];
            let count = self.queue.len().min(WRITE_PIECES_MAX);
            for (slice, piece) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(piece);
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.written += written as u64;
        while written > 0
            && let Some(piece) = self.queue.front_mut()
        {
            let taken = written.min(piece.len());
            piece.advance(taken);
            written -= taken;
            if piece.is_empty() {
                self.queue.pop_front();
            }
        }
        if self.queue.is_empty() {
            // A burst of many small batches must not leave its queue behind on an idle connection.
            self.queue.shrink_to(WRITE_PIECES_MAX / 8);
        }
    }

    /// Says good-bye to the peer: half-closes TCP, sends TLS's close_notify.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
