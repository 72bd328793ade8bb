//! What nodes say to each other about stored copies.
//!
//! ```text
//! ask  = version (1) ‖ operation (1) ‖ fields
//! tell = version (1) ‖ answer (1) ‖ fields
//! key  = 1 ‖ object id (8)  |  2 ‖ generation (8) ‖ applied (8)  |  3 ‖ nonce (8)
//! ```
//!
//! Integers are big-endian. Keys are numbers and never paths, so no name from another node reaches the file system.

use bytes::{Buf, Bytes};

use crate::base::ObjectId;
use crate::base::checksum::crc32c;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::{STORE_LIST_MAX, STORE_PIECE_BYTES};
use crate::object::{Listed, Shelf, StoredKey};

const VERSION: u8 = 1;
/// Bytes of a listed copy: its key at least, its length and its time.
const LISTED_BYTES_MIN: usize = 9 + 8 + 8;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 512;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The next piece of an upload, whose number its sender chose; the first begins at 0.
    Piece {
        upload: u64,
        position: u64,
        bytes: Vec<Bytes>,
    },
    /// Publishes an upload, if it has this length and digest. Never replaces.
    Commit {
        upload: u64,
        key: StoredKey,
        bytes: u64,
        digest: u32,
    },
    /// Bytes of a copy, checked.
    Read {
        key: StoredKey,
        from: u64,
        bytes: u32,
    },
    /// Length and digest of a copy; the digest costs reading it where it was never checked.
    Stat {
        key: StoredKey,
        digest: bool,
    },
    List {
        shelf: Shelf,
        after: Option<StoredKey>,
        limit: u32,
    },
    Delete {
        key: StoredKey,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    Done,
    Bytes {
        total: u64,
        bytes: Bytes,
    },
    Stat {
        bytes: u64,
        digest: Option<u32>,
    },
    Listed {
        complete: bool,
        copies: Vec<Listed>,
        more: bool,
    },
    /// No copy here. It counts only from a node that has had everything that belongs on it.
    Missing {
        complete: bool,
    },
    /// The key has other content.
    Exists,
    Damaged,
    /// The copy has so many bytes and ends before the range.
    Short {
        bytes: u64,
    },
    Full {
        reason: String,
    },
    Failed {
        reason: String,
    },
}

fn put_key(w: &mut Writer, key: StoredKey) {
    match key {
        StoredKey::Object(object) => w.u8(1).u64(object.0),
        StoredKey::Snapshot { generation, applied } => w.u8(2).u64(generation).u64(applied),
        StoredKey::Probe(nonce) => w.u8(3).u64(nonce),
    };
}

fn get_key(r: &mut Reader<'_>) -> Result<StoredKey, DecodeError> {
    Ok(match r.u8()? {
        1 => StoredKey::Object(ObjectId(r.u64()?)),
        2 => StoredKey::Snapshot { generation: r.u64()?, applied: r.u64()? },
        3 => StoredKey::Probe(r.u64()?),
        other => return Err(DecodeError::Invalid { field: "kind of key", value: other.into() }),
    })
}

fn versioned(bytes: &Bytes) -> Result<(Reader<'_>, u8), DecodeError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        VERSION => {}
        found => return Err(DecodeError::Version { found: found.into(), newest: VERSION.into() }),
    }
    let code = r.u8()?;
    Ok((r, code))
}

impl Ask {
    /// The message in pieces; what is uploaded is not copied.
    pub fn encode(self) -> Vec<Bytes> {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            Ask::Piece { upload, position, bytes } => {
                w.u8(1).u64(upload).u64(position);
                return [vec![w.finish()], bytes].concat();
            }
            Ask::Commit { upload, key, bytes, digest } => {
                w.u8(2).u64(upload);
                put_key(&mut w, key);
                w.u64(bytes).u32(digest);
            }
            Ask::Read { key, from, bytes } => {
                w.u8(3);
                put_key(&mut w, key);
                w.u64(from).u32(bytes);
            }
            Ask::Stat { key, digest } => {
                w.u8(4);
                put_key(&mut w, key);
                w.bool(digest);
            }
            Ask::List { shelf, after, limit } => {
                w.u8(5);
                match shelf {
                    Shelf::Objects(shard) => w.u8(1).u8(shard),
                    Shelf::Snapshots => w.u8(2),
                };
                w.bool(after.is_some());
                if let Some(after) = after {
                    put_key(&mut w, after);
                }
                w.u32(limit);
            }
            Ask::Delete { key } => {
                w.u8(6);
                put_key(&mut w, key);
            }
        }
        vec![w.finish()]
    }

    pub fn decode(bytes: Bytes) -> Result<Ask, DecodeError> {
        let (mut r, code) = versioned(&bytes)?;
        let ask = match code {
            1 => {
                let (upload, position) = (r.u64()?, r.u64()?);
                let piece = bytes.slice(bytes.len() - r.left()..);
                if piece.len() > STORE_PIECE_BYTES {
                    return Err(DecodeError::Invalid { field: "bytes of a piece", value: piece.len() as u64 });
                }
                return Ok(Ask::Piece { upload, position, bytes: vec![piece] });
            }
            2 => {
                let (upload, key) = (r.u64()?, get_key(&mut r)?);
                Ask::Commit { upload, key, bytes: r.u64()?, digest: r.u32()? }
            }
            3 => {
                let (key, from, bytes) = (get_key(&mut r)?, r.u64()?, r.u32()?);
                if bytes as usize > STORE_PIECE_BYTES {
                    return Err(DecodeError::Invalid { field: "bytes to read", value: bytes.into() });
                }
                Ask::Read { key, from, bytes }
            }
            4 => Ask::Stat { key: get_key(&mut r)?, digest: r.bool("digest")? },
            5 => {
                let shelf = match r.u8()? {
                    1 => Shelf::Objects(r.u8()?),
                    2 => Shelf::Snapshots,
                    other => return Err(DecodeError::Invalid { field: "shelf", value: other.into() }),
                };
                let after = if r.bool("after")? { Some(get_key(&mut r)?) } else { None };
                let limit = r.u32()?;
                if limit == 0 || limit as usize > STORE_LIST_MAX {
                    return Err(DecodeError::Invalid { field: "length of a listing", value: limit.into() });
                }
                Ask::List { shelf, after, limit }
            }
            6 => Ask::Delete { key: get_key(&mut r)? },
            other => return Err(DecodeError::Invalid { field: "operation", value: other.into() }),
        };
        r.finish()?;
        Ok(ask)
    }
}

impl Tell {
    pub fn encode(self) -> Vec<Bytes> {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            Tell::Done => w.u8(1),
            Tell::Bytes { total, bytes } => {
                w.u8(2).u64(total).u32(crc32c(&bytes));
                return vec![w.finish(), bytes];
            }
            Tell::Stat { bytes, digest } => {
                w.u8(3).u64(bytes).bool(digest.is_some());
                if let Some(digest) = digest {
                    w.u32(digest);
                }
                &mut w
            }
            Tell::Listed { complete, copies, more } => {
                w.u8(4).bool(complete).bool(more).count(copies.len());
                for copy in copies {
                    put_key(&mut w, copy.key);
                    w.u64(copy.bytes).i64(copy.modified_ms);
                }
                &mut w
            }
            Tell::Missing { complete } => w.u8(5).bool(complete),
            Tell::Exists => w.u8(6),
            Tell::Damaged => w.u8(7),
            Tell::Short { bytes } => w.u8(8).u64(bytes),
            Tell::Full { reason } => w.u8(9).string(brief(&reason)),
            Tell::Failed { reason } => w.u8(10).string(brief(&reason)),
        };
        vec![w.finish()]
    }

    pub fn decode(mut bytes: Bytes) -> Result<Tell, DecodeError> {
        let (mut r, code) = versioned(&bytes)?;
        let tell = match code {
            1 => Tell::Done,
            2 => {
                let (total, crc) = (r.u64()?, r.u32()?);
                let head = bytes.len() - r.left();
                bytes.advance(head);
                if crc32c(&bytes) != crc {
                    return Err(DecodeError::Invalid { field: "checksum of the bytes", value: crc.into() });
                }
                return Ok(Tell::Bytes { total, bytes });
            }
            3 => Tell::Stat { bytes: r.u64()?, digest: if r.bool("digest")? { Some(r.u32()?) } else { None } },
            4 => {
                let (complete, more) = (r.bool("complete")?, r.bool("more")?);
                let count = r.count(LISTED_BYTES_MIN)?;
                let listed = |_| Ok(Listed { key: get_key(&mut r)?, bytes: r.u64()?, modified_ms: r.i64()? });
                let copies = (0..count).map(listed).collect::<Result<Vec<_>, DecodeError>>()?;
                Tell::Listed { complete, copies, more }
            }
            5 => Tell::Missing { complete: r.bool("complete")? },
            6 => Tell::Exists,
            7 => Tell::Damaged,
            8 => Tell::Short { bytes: r.u64()? },
            9 => Tell::Full { reason: r.string("reason")? },
            10 => Tell::Failed { reason: r.string("reason")? },
            other => return Err(DecodeError::Invalid { field: "answer", value: other.into() }),
        };
        r.finish()?;
        Ok(tell)
    }
}

/// A reason within its bound.
fn brief(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pieces: Vec<Bytes>) -> Bytes {
        pieces.concat().into()
    }

    pub fn asks() -> Vec<Ask> {
        let object = StoredKey::Object(ObjectId(7));
        let snapshot = StoredKey::Snapshot { generation: 1, applied: 9 };
        vec![
            Ask::Piece { upload: 3, position: 10, bytes: vec![Bytes::from_static(b"abc")] },
            Ask::Commit { upload: 3, key: object, bytes: 13, digest: 5 },
            Ask::Read { key: snapshot, from: 4, bytes: 100 },
            Ask::Stat { key: StoredKey::Probe(9), digest: true },
            Ask::List { shelf: Shelf::Objects(0xfe), after: Some(object), limit: 10 },
            Ask::List { shelf: Shelf::Snapshots, after: None, limit: 1 },
            Ask::Delete { key: object },
        ]
    }

    fn tells() -> Vec<Tell> {
        let copies = vec![Listed { key: StoredKey::Object(ObjectId(7)), bytes: 8, modified_ms: 9 }];
        vec![
            Tell::Done,
            Tell::Bytes { total: 9, bytes: Bytes::from_static(b"abc") },
            Tell::Stat { bytes: 1, digest: None },
            Tell::Stat { bytes: 1, digest: Some(4) },
            Tell::Listed { complete: true, copies, more: true },
            Tell::Missing { complete: false },
            Tell::Exists,
            Tell::Damaged,
            Tell::Short { bytes: 3 },
            Tell::Full { reason: "full".to_owned() },
            Tell::Failed { reason: "why".to_owned() },
        ]
    }

    #[test]
    fn messages_come_back_as_written_and_nothing_shorter_passes() {
        for ask in asks() {
            let bytes = whole(ask.clone().encode());
            assert_eq!(Ask::decode(bytes.clone()), Ok(ask.clone()));
            if !matches!(ask, Ask::Piece { .. }) {
                (0..bytes.len()).for_each(|at| assert!(Ask::decode(bytes.slice(..at)).is_err(), "{ask:?} {at}"));
            }
        }
        for tell in tells() {
            let bytes = whole(tell.clone().encode());
            assert_eq!(Tell::decode(bytes.clone()), Ok(tell.clone()));
            (0..bytes.len()).for_each(|at| assert!(Tell::decode(bytes.slice(..at)).is_err(), "{tell:?} {at}"));
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let key = StoredKey::Probe(1);
        let read = Ask::Read { key, from: 0, bytes: STORE_PIECE_BYTES as u32 + 1 };
        assert!(Ask::decode(whole(read.encode())).is_err());
        let list = Ask::List { shelf: Shelf::Snapshots, after: None, limit: STORE_LIST_MAX as u32 + 1 };
        assert!(Ask::decode(whole(list.encode())).is_err());
        let piece = Ask::Piece { upload: 1, position: 0, bytes: vec![vec![0; STORE_PIECE_BYTES + 1].into()] };
        assert!(Ask::decode(whole(piece.encode())).is_err());
        assert!(matches!(Ask::decode(Bytes::from_static(&[2, 1])), Err(DecodeError::Version { .. })));
        let long = whole(Tell::Failed { reason: "ä".repeat(1000) }.encode());
        assert!(long.len() < 600 && Tell::decode(long).is_ok());
    }
}
