//! Commands that share one log entry, and so one sync.
//!
//! Encoding: version `u16` = 1 | count `u32` | per command: length `u32`, bytes. An empty group is a barrier: it
//! changes nothing, and once it is applied so is everything before it.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::COMMAND_BYTES_MAX;

const VERSION: u16 = 1;

/// Commands of one group.
pub const COMMANDS_MAX: usize = 256;
/// Bytes of the commands of one group; one largest command always fits.
pub const BYTES_MAX: usize = COMMAND_BYTES_MAX;

/// Bytes of an encoded group.
pub const ENCODED_BYTES_MAX: usize = 6 + 4 * COMMANDS_MAX + BYTES_MAX;

pub fn encode(commands: &[Bytes]) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(6 + commands.iter().map(|c| 4 + c.len()).sum::<usize>()));
    w.u16(VERSION).count(commands.len());
    for command in commands {
        w.bytes(command);
    }
    w.0
}

pub fn decode(bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut r = Reader::new(bytes);
    match r.u16()? {
        VERSION => {}
        found => return Err(DecodeError::Version { found, newest: VERSION }),
    }
    let count = r.count(4)?;
    let commands = (0..count).map(|_| r.bytes()).collect::<Result<_, _>>()?;
    r.finish()?;
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_every_release_are_readable() {
        let commands = [Bytes::from_static(b"first"), Bytes::new(), Bytes::from_static(b"third")];
        let fixture = crate::kv::fixture("command_group_v1", &encode(&commands));
        assert_eq!(decode(&fixture), Ok(vec![&b"first"[..], b"", b"third"]));
        assert_eq!(decode(&encode(&[])), Ok(vec![]));
    }

    #[test]
    fn damaged_groups_are_refused() {
        let bytes = encode(&[Bytes::from_static(b"command")]);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err());
        }
        assert!(decode(&[0, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
