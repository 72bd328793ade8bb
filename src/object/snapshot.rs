//! Metadata snapshots in object storage: the envelope that names and checks one.
//!
//! Pure. The content is opaque here.

use bytes::Bytes;

use crate::base::ClusterId;
use crate::base::checksum::crc32c;
use crate::base::codec::{Reader, Writer};

use super::format::{FormatError, checked, expect, read_prefix, sealed, write_prefix};

const MAGIC: u32 = u32::from_be_bytes(*b"CMM1");
pub(super) const ENVELOPE_BYTES: usize = 12 + 16 + 8 + 8 + 8 + 4 + 4;

/// A metadata snapshot as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Generation of the cluster that wrote it; a restored cluster has a higher one.
    pub generation: u64,
    /// Commands applied to the image.
    pub applied: u64,
    pub content: Bytes,
}

pub(super) fn envelope(cluster: ClusterId, generation: u64, applied: u64, content: &[u8]) -> Bytes {
    let mut w = Writer::new();
    write_prefix(&mut w, MAGIC);
    w.raw(&cluster.0).u64(generation).u64(applied).u64(content.len() as u64).u32(crc32c(content));
    sealed(w)
}

/// Opens what was stored under the key of `generation` and `applied`.
pub(super) fn open(bytes: &Bytes, cluster: ClusterId, generation: u64, applied: u64) -> Result<Snapshot, FormatError> {
    if bytes.len() < ENVELOPE_BYTES {
        return Err(FormatError::Length { expected: ENVELOPE_BYTES as u64, bytes: bytes.len() as u64 });
    }
    let mut r = Reader::new(checked(&bytes[..ENVELOPE_BYTES])?);
    read_prefix(&mut r, MAGIC)?;
    let found = ClusterId(r.array()?);
    if found != cluster {
        return Err(FormatError::Cluster(found));
    }
    expect("generation", generation, r.u64()?)?;
    expect("applied commands", applied, r.u64()?)?;
    let content = bytes.slice(ENVELOPE_BYTES..);
    expect("snapshot length", content.len() as u64, r.u64()?)?;
    let (found, computed) = (r.u32()?, crc32c(&content));
    r.finish()?;
    if found != computed {
        return Err(FormatError::Checksum { found, computed });
    }
    Ok(Snapshot { generation, applied, content })
}

/// Generation and applied commands from the last part of a key.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (generation, applied) = name.split_once('-')?;
    let hex = |text: &str| if text.len() == 16 { u64::from_str_radix(text, 16).ok() } else { None };
    Some((hex(generation)?, hex(applied)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_of_a_snapshot_is_detected() {
        let cluster = ClusterId([3; 16]);
        let content = b"image".as_slice();
        let whole = Bytes::from([&envelope(cluster, 1, 2, content)[..], content].concat());
        assert_eq!(open(&whole, cluster, 1, 2).unwrap().content, content);
        for at in 0..whole.len() {
            let mut bad = whole.to_vec();
            bad[at] ^= 1;
            assert!(open(&bad.into(), cluster, 1, 2).is_err(), "byte {at}");
        }
        assert!(open(&whole, cluster, 1, 3).is_err());
        assert!(open(&whole.slice(..whole.len() - 1), cluster, 1, 2).is_err());
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(parse_name("0000000000000001-00000000000000ff"), Some((1, 255)));
        assert_eq!(parse_name("1-ff"), None);
    }
}
