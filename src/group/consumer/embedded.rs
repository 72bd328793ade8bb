//! The consumer protocol embedded in classic groups (KIP-54, KIP-429, KIP-792, KIP-881): subscriptions and assignments
//! that classic members exchange through the broker, which a migration between the protocols has to read and write.
//!
//! Versions 0–3, all big-endian and without tagged fields. A version above is read as the highest known, as Kafka
//! does: each version only appends. Invariant: no claimed length is believed before the bytes are there.

use bytes::Bytes;

use crate::base::codec::{DecodeError, Reader, Writer};

/// The protocol type of groups of consumers.
pub const CONSUMER_PROTOCOL: &str = "consumer";

const VERSION_MAX: i16 = 3;

/// What a classic member wants to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    pub version: i16,
    pub topics: Vec<String>,
    /// From version 1 on (KIP-429): topic names with partitions.
    pub owned: Vec<(String, Vec<i32>)>,
    /// From version 3 on (KIP-881).
    pub rack: Option<String>,
}

/// What a classic member is given to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    pub partitions: Vec<(String, Vec<i32>)>,
    /// Whether the leader's assignor added data of its own, which no other assignor understands.
    pub has_user_data: bool,
}

/// The version that metadata begin with, at most the highest known.
pub fn version(metadata: &[u8]) -> Result<i16, DecodeError> {
    let version = Reader::new(metadata).i16()?;
    if version < 0 {
        return Err(DecodeError::Invalid { field: "consumer protocol version", value: version as u64 });
    }
    Ok(version.min(VERSION_MAX))
}

pub fn read_subscription(metadata: &[u8]) -> Result<Subscription, DecodeError> {
    let version = version(metadata)?;
    let mut reader = Reader::new(metadata);
    reader.i16()?;
    let mut out = Subscription { version, ..Subscription::default() };
    for _ in 0..count(&mut reader, 2)? {
        out.topics.push(string(&mut reader)?);
    }
    nullable_bytes(&mut reader)?;
    if version >= 1 {
        out.owned = topic_partitions(&mut reader)?;
    }
    if version >= 2 {
        reader.i32()?;
    }
    if version >= 3 {
        out.rack = nullable_string(&mut reader)?.filter(|rack| !rack.is_empty());
    }
    Ok(out)
}

pub fn read_assignment(assignment: &[u8]) -> Result<Assignment, DecodeError> {
    version(assignment)?;
    let mut reader = Reader::new(assignment);
    reader.i16()?;
    let partitions = topic_partitions(&mut reader)?;
    let has_user_data = nullable_bytes(&mut reader)?.is_some_and(|data| !data.is_empty());
    Ok(Assignment { partitions, has_user_data })
}

/// An assignment without user data, in the version that the member's subscription came in.
pub fn write_assignment(version: i16, partitions: &[(&str, Vec<i32>)]) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(version).i32(partitions.len() as i32);
    for (topic, indexes) in partitions {
        // Topic names are at most 249 bytes long.
        writer.i16(topic.len() as i16).raw(topic.as_bytes()).i32(indexes.len() as i32);
        for index in indexes {
            writer.i32(*index);
        }
    }
    writer.i32(-1);
    writer.finish()
}

fn topic_partitions(reader: &mut Reader<'_>) -> Result<Vec<(String, Vec<i32>)>, DecodeError> {
    let mut out = vec![];
    for _ in 0..count(reader, 6)? {
        let topic = string(reader)?;
        let mut partitions = vec![];
        for _ in 0..count(reader, 4)? {
            partitions.push(reader.i32()?);
        }
        out.push((topic, partitions));
    }
    Ok(out)
}

/// A number of elements of at least `element_bytes` each; a negative one counts as none.
fn count(reader: &mut Reader<'_>, element_bytes: usize) -> Result<usize, DecodeError> {
    let count = usize::try_from(reader.i32()?).unwrap_or(0);
    let needed = count.saturating_mul(element_bytes);
    if needed > reader.left() {
        return Err(DecodeError::Truncated { needed, left: reader.left() });
    }
    Ok(count)
}

fn string(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    nullable_string(reader)?.ok_or(DecodeError::Invalid { field: "string length", value: u64::MAX })
}

fn nullable_string(reader: &mut Reader<'_>) -> Result<Option<String>, DecodeError> {
    let Ok(length) = usize::try_from(reader.i16()?) else { return Ok(None) };
    let bytes = reader.raw(length)?;
    std::str::from_utf8(bytes).map(|text| Some(text.to_owned())).map_err(|_| DecodeError::Utf8("consumer protocol"))
}

fn nullable_bytes<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    let Ok(length) = usize::try_from(reader.i32()?) else { return Ok(None) };
    reader.raw(length).map(Some)
}

/// A subscription as a Java consumer writes it, for tests.
#[cfg(test)]
pub fn write_subscription(version: i16, topics: &[&str], owned: &[(&str, &[i32])], rack: Option<&str>) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(version).i32(topics.len() as i32);
    for topic in topics {
        writer.i16(topic.len() as i16).raw(topic.as_bytes());
    }
    writer.i32(-1);
    if version >= 1 {
        writer.i32(owned.len() as i32);
        for (topic, partitions) in owned {
            writer.i16(topic.len() as i16).raw(topic.as_bytes()).i32(partitions.len() as i32);
            partitions.iter().for_each(|partition| {
                writer.i32(*partition);
            });
        }
    }
    if version >= 2 {
        writer.i32(-1);
    }
    if version >= 3 {
        match rack {
            Some(rack) => writer.i16(rack.len() as i16).raw(rack.as_bytes()),
            None => writer.i16(-1),
        };
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_of_every_version_are_read() {
        for version in 0..=5 {
            let bytes = write_subscription(version, &["a", "bc"], &[("a", &[0, 7])], Some("r1"));
            let read = read_subscription(&bytes).unwrap();
            assert_eq!(read.version, version.min(3));
            assert_eq!(read.topics, ["a", "bc"]);
            assert_eq!(read.owned, if version >= 1 { vec![("a".to_string(), vec![0, 7])] } else { vec![] });
            assert_eq!(read.rack.as_deref(), (version >= 3).then_some("r1"));
        }
    }

    #[test]
    fn an_assignment_comes_back() {
        let bytes = write_assignment(3, &[("a", vec![2, 0]), ("b", vec![])]);
        let read = read_assignment(&bytes).unwrap();
        assert_eq!(read.partitions, [("a".to_string(), vec![2, 0]), ("b".to_string(), vec![])]);
        assert!(!read.has_user_data);
        let mut with_data = bytes[..bytes.len() - 4].to_vec();
        with_data.extend_from_slice(&[0, 0, 0, 1, 9]);
        assert!(read_assignment(&with_data).unwrap().has_user_data);
    }

    #[test]
    fn damaged_bytes_are_refused_and_claimed_lengths_not_believed() {
        let whole = write_subscription(3, &["a", "bc"], &[("a", &[0, 7])], Some("r1"));
        for end in 0..whole.len() {
            assert!(read_subscription(&whole[..end]).is_err(), "cut at {end}");
        }
        assert!(read_subscription(&[0xff, 0xff, 0, 0]).is_err(), "a negative version");
        assert!(read_subscription(&[0, 0, 0x7f, 0xff, 0xff, 0xff]).is_err());
        assert!(read_assignment(&[0, 0, 0, 0, 0, 1, 0, 1, b'a', 0x7f, 0xff, 0xff, 0xff]).is_err());
        let random = crate::env::SeededEntropy::new(3);
        for _ in 0..20_000 {
            let mut bytes = whole.to_vec();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
            let _ = read_subscription(&bytes);
            let _ = read_assignment(&bytes);
        }
    }
}
