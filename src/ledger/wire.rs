//! What nodes say to each other about ledgers, as bytes.
//!
//! ```text
//! request = version (1) ‖ kind (1) ‖ incarnation meant (16) ‖ ledger (8) ‖ …            class Ledger
//!   append   1 : durable (8) ‖ first entry (8) ‖ count (4) ‖ payload…
//!   seal     2 : nothing more
//!   recover  3 : durable (8) ‖ uploaded (8) ‖ first entry (8) ‖ count (4) ‖ payload…
//! payload = bytes (4) ‖ CRC32C (4) ‖ bytes
//! answer  = version (1) ‖ node (4) ‖ incarnation (16) ‖ boot (8) ‖ kind (1) ‖ ledger (8) ‖ fields of the kind
//! read    = READ_ENTRIES (1) ‖ version (1) ‖ incarnation meant (16) ‖ ledger (8) ‖ from (8) ‖ below (8) ‖ bytes (4)   class Bulk
//! its answer = version (1) ‖ kind (1) ‖ …
//!   entries  1 : first entry (8) ‖ count (4) ‖ payload…
//!   not held 2 : first entry held (8) ‖ the one behind the last (8)
//!   unknown  3 : nothing more; another incarnation is here than was meant
//! ```
//!
//! Integers are big-endian. Payloads are slices of the message that brought them, and are checked while it is decoded. A
//! number of an entry is refused unless the one behind it is a number, too.

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::checksum::crc32c;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::{LEDGER_MESSAGE_ENTRIES_MAX, LEDGER_READ_BYTES_MAX};
use crate::base::{EntryId, LedgerId, NodeId, WalIncarnation};
use crate::peer::{Body, kind};
use crate::wal::{HEAD, payload_crc};

use super::core::{self, Identity, Reply};

const VERSION: u8 = 1;
/// Length and checksum of a payload.
const PAYLOAD_HEADER: usize = 8;
/// Bytes of a request around its payloads, at most.
pub const REQUEST_HEAD_BYTES_MAX: usize = 1 + 1 + 16 + 8 + 3 * 8 + 4;

/// The content of one entry as the WAL takes it, with its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    head: [u8; HEAD],
    body: Bytes,
    crc: u32,
}

impl Payload {
    pub fn new(head: [u8; HEAD], body: Bytes) -> Payload {
        let crc = payload_crc(&head, &body);
        Payload { head, body, crc }
    }

    /// Splits a payload that was read from a WAL and checked there; `None` when it is too short to be one.
    pub fn from_contiguous(bytes: Bytes) -> Option<Payload> {
        let head = *bytes.first_chunk()?;
        let crc = crc32c(&bytes);
        Some(Payload { head, body: bytes.slice(HEAD..), crc })
    }

    pub fn head(&self) -> &[u8; HEAD] {
        &self.head
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// CRC32C of head and body.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Bytes of head and body.
    pub fn len(&self) -> usize {
        HEAD + self.body.len()
    }

    /// Never: it has a head.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes that it takes in a message.
    pub fn wire_bytes(&self) -> usize {
        PAYLOAD_HEADER + self.len()
    }

    /// All of it in one piece; a copy.
    pub fn to_contiguous(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        out.put_slice(&self.head);
        out.put_slice(&self.body);
        out.freeze()
    }
}

impl core::Payload for Payload {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// What is asked of a replica: of one ledger, and of one incarnation of its WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub to: WalIncarnation,
    pub ledger: LedgerId,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Entries from `first` on, at least one. Entries below `durable` are durable.
    Append {
        durable: EntryId,
        first: EntryId,
        payloads: Vec<Payload>,
    },
    Seal,
    /// A recoverer's copies from `first` on, at least one. Entries below `uploaded` are in object storage.
    Recover {
        durable: EntryId,
        uploaded: EntryId,
        first: EntryId,
        payloads: Vec<Payload>,
    },
}

/// What a replica says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub from: Identity,
    pub reply: Reply,
}

/// Asks for entries `from..below`, as many as fit in `max_bytes` of payload, but at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub to: WalIncarnation,
    pub ledger: LedgerId,
    pub from: EntryId,
    pub below: EntryId,
    pub max_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// At least one, from the one that was asked for on.
    Entries { first: EntryId, payloads: Vec<Payload> },
    /// What was asked for is not held here; `first..next` is, which may be nothing.
    NotHeld { first: EntryId, next: EntryId },
    /// Another incarnation is here than was meant.
    Unknown,
}

fn invalid<T>(field: &'static str, value: u64) -> Result<T, DecodeError> {
    Err(DecodeError::Invalid { field, value })
}

fn version(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u8()? {
        VERSION => Ok(()),
        found => Err(DecodeError::Version { found: found.into(), newest: VERSION.into() }),
    }
}

fn entry(r: &mut Reader<'_>) -> Result<EntryId, DecodeError> {
    match r.u64()? {
        u64::MAX => invalid("entry", u64::MAX),
        entry => Ok(EntryId(entry)),
    }
}

/// Payloads as pieces behind `head`; their bodies are not copied.
fn with_payloads(mut head: Writer, payloads: &[Payload]) -> Body {
    head.count(payloads.len());
    let mut pieces = Vec::with_capacity(1 + 2 * payloads.len());
    for payload in payloads {
        // A payload is under 4 GiB: it is in a message that is.
        head.u32(u32::try_from(payload.len()).unwrap_or(u32::MAX)).u32(payload.crc).raw(&payload.head);
        pieces.push(std::mem::take(&mut head).finish());
        if !payload.body.is_empty() {
            pieces.push(payload.body.clone());
        }
    }
    if !head.0.is_empty() {
        pieces.push(head.finish());
    }
    Body::from(pieces)
}

/// Payloads up to the end of the message, for entries from `first` on; at least one.
fn payloads(message: &Bytes, r: &mut Reader<'_>, first: EntryId) -> Result<Vec<Payload>, DecodeError> {
    let count = r.count(PAYLOAD_HEADER + HEAD)?;
    // Counting them goes one further than the last.
    let countable = first.0.checked_add(count as u64 + 1).is_some();
    if count == 0 || count > LEDGER_MESSAGE_ENTRIES_MAX || !countable {
        return invalid("entries", count as u64);
    }
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        let (len, crc) = (r.u32()? as usize, r.u32()?);
        let at = message.len() - r.left();
        let bytes = r.raw(len)?;
        let Some(head) = bytes.first_chunk::<HEAD>() else { return invalid("payload bytes", len as u64) };
        if crc32c(bytes) != crc {
            return invalid("payload checksum", crc.into());
        }
        out.push(Payload { head: *head, body: message.slice(at + HEAD..at + len), crc });
    }
    Ok(out)
}

impl Request {
    pub fn encode(&self) -> Body {
        let mut w = Writer::new();
        w.u8(VERSION).u8(self.ask.kind()).raw(&self.to.0).u64(self.ledger.0);
        match &self.ask {
            Ask::Append { durable, first, payloads } => {
                w.u64(durable.0).u64(first.0);
                with_payloads(w, payloads)
            }
            Ask::Seal => Body::from(w.finish()),
            Ask::Recover { durable, uploaded, first, payloads } => {
                w.u64(durable.0).u64(uploaded.0).u64(first.0);
                with_payloads(w, payloads)
            }
        }
    }

    pub fn decode(message: &Bytes) -> Result<Request, DecodeError> {
        let mut r = Reader::new(message);
        version(&mut r)?;
        let kind = r.u8()?;
        let (to, ledger) = (WalIncarnation(r.array()?), LedgerId(r.u64()?));
        let ask = match kind {
            1 => {
                let (durable, first) = (entry(&mut r)?, entry(&mut r)?);
                Ask::Append { durable, first, payloads: payloads(message, &mut r, first)? }
            }
            2 => Ask::Seal,
            3 => {
                let (durable, uploaded, first) = (entry(&mut r)?, entry(&mut r)?, entry(&mut r)?);
                Ask::Recover { durable, uploaded, first, payloads: payloads(message, &mut r, first)? }
            }
            other => return invalid("kind of request", other.into()),
        };
        r.finish()?;
        Ok(Request { to, ledger, ask })
    }
}

impl Ask {
    fn kind(&self) -> u8 {
        match self {
            Ask::Append { .. } => 1,
            Ask::Seal => 2,
            Ask::Recover { .. } => 3,
        }
    }
}

impl Answer {
    pub fn encode(&self) -> Bytes {
        let Identity { node, incarnation, boot } = self.from;
        let mut w = Writer::new();
        w.u8(VERSION).i32(node.0).raw(&incarnation.0).u64(boot);
        let ledger = self.reply.ledger().0;
        match self.reply {
            Reply::Position { first, synced, durable, .. } => {
                w.u8(1).u64(ledger).u64(first.0).u64(synced.0).u64(durable.0)
            }
            Reply::Copied { first, synced, durable, .. } => {
                w.u8(2).u64(ledger).u64(first.0).u64(synced.0).u64(durable.0)
            }
            Reply::OutOfSequence { expected, .. } => w.u8(3).u64(ledger).u64(expected.0),
            Reply::Sealed { .. } => w.u8(4).u64(ledger),
            Reply::NotOpen { .. } => w.u8(5).u64(ledger),
            Reply::NotSealed { .. } => w.u8(6).u64(ledger),
            Reply::SealAnswer { through, uncertain_from, durable, .. } => {
                w.u8(7).u64(ledger);
                for entry in [through, uncertain_from] {
                    w.bool(entry.is_some()).u64(entry.map_or(0, |entry| entry.0));
                }
                w.u64(durable.0)
            }
            Reply::Unknown { .. } => w.u8(8).u64(ledger),
            Reply::Busy { .. } => w.u8(9).u64(ledger),
        };
        w.finish()
    }

    pub fn decode(message: &[u8]) -> Result<Answer, DecodeError> {
        let mut r = Reader::new(message);
        version(&mut r)?;
        let from = Identity { node: NodeId(r.i32()?), incarnation: WalIncarnation(r.array()?), boot: r.u64()? };
        let (kind, ledger) = (r.u8()?, LedgerId(r.u64()?));
        let reply = match kind {
            1 | 2 => {
                let (first, synced, durable) = (entry(&mut r)?, entry(&mut r)?, entry(&mut r)?);
                match kind {
                    1 => Reply::Position { ledger, first, synced, durable },
                    _ => Reply::Copied { ledger, first, synced, durable },
                }
            }
            3 => Reply::OutOfSequence { ledger, expected: entry(&mut r)? },
            4 => Reply::Sealed { ledger },
            5 => Reply::NotOpen { ledger },
            6 => Reply::NotSealed { ledger },
            7 => {
                let mut optional = || match (r.bool("entry")?, entry(&mut r)?) {
                    (true, entry) => Ok(Some(entry)),
                    (false, EntryId(0)) => Ok(None),
                    (false, EntryId(other)) => invalid("no entry", other),
                };
                let (through, uncertain_from) = (optional()?, optional()?);
                Reply::SealAnswer { ledger, through, uncertain_from, durable: entry(&mut r)? }
            }
            8 => Reply::Unknown { ledger },
            9 => Reply::Busy { ledger },
            other => return invalid("kind of answer", other.into()),
        };
        r.finish()?;
        Ok(Answer { from, reply })
    }
}

impl Read {
    /// With the byte in front that says the kind among requests of its class.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(kind::READ_ENTRIES).u8(VERSION).raw(&self.to.0).u64(self.ledger.0);
        w.u64(self.from.0).u64(self.below.0).u32(self.max_bytes);
        w.finish()
    }

    /// Without that byte, which [`crate::peer::Dispatch`] takes off.
    pub fn decode(message: &[u8]) -> Result<Read, DecodeError> {
        let mut r = Reader::new(message);
        version(&mut r)?;
        let (to, ledger) = (WalIncarnation(r.array()?), LedgerId(r.u64()?));
        let (from, below, max_bytes) = (entry(&mut r)?, entry(&mut r)?, r.u32()?);
        r.finish()?;
        if from >= below {
            return invalid("entries", below.0);
        }
        let max_bytes = max_bytes.min(LEDGER_READ_BYTES_MAX as u32);
        Ok(Read { to, ledger, from, below, max_bytes })
    }
}

impl ReadAnswer {
    pub fn encode(&self) -> Body {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            ReadAnswer::Entries { first, payloads } => {
                w.u8(1).u64(first.0);
                return with_payloads(w, payloads);
            }
            ReadAnswer::NotHeld { first, next } => w.u8(2).u64(first.0).u64(next.0),
            ReadAnswer::Unknown => w.u8(3),
        };
        Body::from(w.finish())
    }

    pub fn decode(message: &Bytes) -> Result<ReadAnswer, DecodeError> {
        let mut r = Reader::new(message);
        version(&mut r)?;
        let answer = match r.u8()? {
            1 => {
                let first = entry(&mut r)?;
                ReadAnswer::Entries { first, payloads: payloads(message, &mut r, first)? }
            }
            2 => ReadAnswer::NotHeld { first: entry(&mut r)?, next: entry(&mut r)? },
            3 => ReadAnswer::Unknown,
            other => return invalid("kind of answer", other.into()),
        };
        r.finish()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: WalIncarnation = WalIncarnation([7; 16]);
    const LEDGER: LedgerId = LedgerId(9);

    fn payloads() -> Vec<Payload> {
        let lens = [0, 1, 300];
        lens.into_iter().map(|len| Payload::new([len as u8; HEAD], Bytes::from(vec![5; len]))).collect()
    }

    fn requests() -> Vec<Request> {
        let (durable, uploaded, first) = (EntryId(3), EntryId(1), EntryId(4));
        let asks = [
            Ask::Append { durable, first, payloads: payloads() },
            Ask::Seal,
            Ask::Recover { durable, uploaded, first, payloads: payloads() },
        ];
        asks.into_iter().map(|ask| Request { to: TO, ledger: LEDGER, ask }).collect()
    }

    fn answers() -> Vec<Answer> {
        let from = Identity { node: NodeId(2), incarnation: TO, boot: 5 };
        let (ledger, first, synced, durable) = (LEDGER, EntryId(1), EntryId(8), EntryId(6));
        let (through, uncertain_from) = (Some(EntryId(7)), None);
        let replies = [
            Reply::Position { ledger, first, synced, durable },
            Reply::Copied { ledger, first, synced, durable },
            Reply::OutOfSequence { ledger, expected: synced },
            Reply::Sealed { ledger },
            Reply::NotOpen { ledger },
            Reply::NotSealed { ledger },
            Reply::SealAnswer { ledger, through, uncertain_from, durable },
            Reply::SealAnswer { ledger, through: None, uncertain_from: Some(EntryId(0)), durable },
            Reply::Unknown { ledger },
            Reply::Busy { ledger },
        ];
        replies.into_iter().map(|reply| Answer { from, reply }).collect()
    }

    #[test]
    fn messages_come_back_as_written_and_no_cut_one_does() {
        for request in requests() {
            let bytes = request.encode().to_bytes();
            assert_eq!(Request::decode(&bytes), Ok(request));
            for cut in 0..bytes.len() {
                assert!(Request::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
        for answer in answers() {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Ok(answer));
            for cut in 0..bytes.len() {
                assert!(Answer::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        let read = Read { to: TO, ledger: LEDGER, from: EntryId(2), below: EntryId(9), max_bytes: 1000 };
        let bytes = read.encode();
        assert_eq!(bytes[0], kind::READ_ENTRIES);
        assert_eq!(Read::decode(&bytes[1..]), Ok(read));
        let answers = [
            ReadAnswer::Entries { first: EntryId(2), payloads: payloads() },
            ReadAnswer::NotHeld { first: EntryId(3), next: EntryId(5) },
            ReadAnswer::Unknown,
        ];
        for answer in answers {
            assert_eq!(ReadAnswer::decode(&answer.encode().to_bytes()), Ok(answer));
        }
    }

    #[test]
    fn a_payload_is_checked_and_shares_the_message() {
        let request = requests().remove(0);
        let good = request.encode().to_bytes();
        for at in good.len() - 300..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert!(Request::decode(&Bytes::from(bad)).is_err(), "byte {at}");
        }
        let Ask::Append { payloads, .. } = Request::decode(&good).expect("good").ask else { panic!("an append") };
        let message = good.as_ptr() as usize..good.as_ptr() as usize + good.len();
        assert!(message.contains(&(payloads[2].body().as_ptr() as usize)));
        assert_eq!(Payload::from_contiguous(payloads[2].to_contiguous()).as_ref(), Some(&payloads[2]));
    }

    #[test]
    fn numbers_that_would_overflow_and_empty_appends_are_refused() {
        let append = |first, payloads| {
            let ask = Ask::Append { durable: EntryId(0), first: EntryId(first), payloads };
            Request::decode(&Request { to: TO, ledger: LEDGER, ask }.encode().to_bytes())
        };
        assert!(append(u64::MAX, payloads()).is_err());
        assert!(append(u64::MAX - 3, payloads()).is_err());
        assert!(append(u64::MAX - 4, payloads()).is_ok());
        assert!(append(0, Vec::new()).is_err());
        let read = Read { to: TO, ledger: LEDGER, from: EntryId(2), below: EntryId(2), max_bytes: 1 };
        assert!(Read::decode(&read.encode()[1..]).is_err(), "nothing is asked for");
        let greedy = Read { below: EntryId(3), max_bytes: u32::MAX, ..read };
        let granted = Read::decode(&greedy.encode()[1..]).expect("read").max_bytes;
        assert_eq!(granted as usize, LEDGER_READ_BYTES_MAX);
    }

    /// Fixed bytes of version 1: a change of the layout needs a new version, not a new constant here.
    #[test]
    fn the_layout_of_version_1_stands() {
        let mut all = Vec::new();
        requests().iter().for_each(|r| all.extend_from_slice(&r.encode().to_bytes()));
        answers().iter().for_each(|a| all.extend_from_slice(&a.encode()));
        assert_eq!(crc32c(&all), 3_950_839_189);
    }
}
