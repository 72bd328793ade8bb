//! Messages of a connection once the hellos are exchanged.
//!
//! ```text
//! frame = length (4, of what follows) ‖ kind (1) ‖ id (8) ‖ body
//! ```
//!
//! Integers are big-endian. The id of a request is higher than that of every request before it on the connection; its
//! answer repeats it. A frame of kind [`Kind::Alive`] has id 0 and no body.

use bytes::{Buf, Bytes, BytesMut};

use crate::base::codec::Writer;

/// Kind and id.
pub(super) const HEADER_BYTES: usize = 9;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    /// The answer to a request.
    Answer,
    /// The service has done nothing for the request; the body is a sentence in UTF-8.
    Refusal,
    /// The service has answered, and the answer is too large to be sent; no body.
    Unanswered,
    /// Only shows that the sender is there.
    Alive,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Request => 1,
            Kind::Answer => 2,
            Kind::Refusal => 3,
            Kind::Alive => 4,
            Kind::Unanswered => 5,
        }
    }
}

/// A frame without its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub id: u64,
    pub body: Bytes,
}

/// Bytes that are no frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("a frame of {0} bytes has no header")]
    Short(usize),
    #[error("a frame is of the unknown kind {0}")]
    Kind(u8),
    #[error("a sign of life carries something")]
    Alive,
}

impl Frame {
    /// Reads a frame whose length is taken off already. The body is a slice of the same memory.
    pub fn decode(mut bytes: Bytes) -> Result<Frame, BadFrame> {
        if bytes.len() < HEADER_BYTES {
            return Err(BadFrame::Short(bytes.len()));
        }
        let (code, id) = (bytes.get_u8(), bytes.get_u64());
        let kinds = [Kind::Request, Kind::Answer, Kind::Refusal, Kind::Alive, Kind::Unanswered];
        let kind = kinds.into_iter().find(|kind| kind.code() == code).ok_or(BadFrame::Kind(code))?;
        if kind == Kind::Alive && (id != 0 || !bytes.is_empty()) {
            return Err(BadFrame::Alive);
        }
        Ok(Frame { kind, id, body: bytes })
    }
}

/// Length, kind and id of a frame whose body follows. The body was checked against its class's bound, which leaves
/// room for the header.
pub(super) fn head(kind: Kind, id: u64, body_bytes: usize) -> Bytes {
    let mut out = Writer::new();
    let length = u32::try_from(HEADER_BYTES + body_bytes).expect("the bound of every class is under 2 GiB");
    out.u32(length).u8(kind.code()).u64(id);
    out.finish()
}

/// A message body in pieces, which are sent one after the other without a copy.
#[derive(Debug, Clone, Default)]
pub struct Body(Vec<Bytes>);

impl Body {
    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        self.0
    }

    /// All in one piece; a copy unless it is one already.
    pub fn to_bytes(&self) -> Bytes {
        if let [one] = &self.0[..] {
            return one.clone();
        }
        let mut out = BytesMut::with_capacity(self.bytes());
        self.0.iter().for_each(|piece| out.extend_from_slice(piece));
        out.freeze()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body(vec![bytes])
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Body(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_written() {
        for (kind, id, body) in [
            (Kind::Request, 1, &b"abc"[..]),
            (Kind::Answer, u64::MAX, b""),
            (Kind::Refusal, 7, b"no"),
            (Kind::Unanswered, 8, b""),
            (Kind::Alive, 0, b""),
        ] {
            let mut bytes = BytesMut::from(&head(kind, id, body.len())[..]);
            bytes.extend_from_slice(body);
            let length = bytes.get_u32() as usize;
            assert_eq!(length, bytes.len());
            let frame = Frame { kind, id, body: Bytes::copy_from_slice(body) };
            assert_eq!(Frame::decode(bytes.freeze()), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let decode = |bytes: &[u8]| Frame::decode(Bytes::copy_from_slice(bytes));
        assert_eq!(decode(&[]), Err(BadFrame::Short(0)));
        assert_eq!(decode(&[1; 8]), Err(BadFrame::Short(8)));
        for kind in [0, 6, 255] {
            assert_eq!(decode(&[kind, 0, 0, 0, 0, 0, 0, 0, 1]), Err(BadFrame::Kind(kind)));
        }
        assert_eq!(decode(&[4, 0, 0, 0, 0, 0, 0, 0, 1]), Err(BadFrame::Alive));
        assert_eq!(decode(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 1]), Err(BadFrame::Alive));
    }
}
