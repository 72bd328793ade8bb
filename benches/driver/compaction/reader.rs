//! What is left of a compacted topic against what was written to it.

use super::load::Load;
use crate::client::Client;
use std::io;
use std::net::SocketAddr;

/// Reads the whole topic: the newest record of every key is there, records of a key keep their order, and nothing is
/// there that was not written. The bytes of all records read.
pub fn verify(address: SocketAddr, load: &Load) -> io::Result<u64> {
    let newest = newest(load);
    let mut found: Vec<Option<u64>> = vec![None; load.keys() as usize];
    let mut client = Client::connect(address)?;
    let mut bytes = 0;
    for partition in 0..load.partitions {
        let mut next = client.list_offset(&load.topic, partition, -2)?.2;
        loop {
            let fetched = client.fetch(&load.topic, partition, next, 100, 8 << 20)?;
            if fetched.error != 0 {
                return Err(io::Error::other(format!("{}-{partition} at {next}: error {}", load.topic, fetched.error)));
            }
            let end = fetched.batches.last().map(|batch| batch.last_offset + 1);
            for record in fetched.batches.into_iter().flat_map(|batch| batch.records).filter(|r| r.offset >= next) {
                let value = record.value.unwrap_or_default();
                bytes += value.len() as u64 + 16;
                take(&mut found, record.key.as_deref(), &value)?;
            }
            match end {
                Some(end) => next = end,
                None if next >= fetched.high_watermark => break,
                None => {}
            }
        }
    }
    let lost = newest.iter().zip(&found).filter(|(newest, found)| newest != found).count();
    match lost {
        0 => Ok(bytes),
        _ => Err(io::Error::other(format!("of {lost} keys the newest record is not what was written last"))),
    }
}

/// The number of the newest record of each key.
fn newest(load: &Load) -> Vec<Option<u64>> {
    let mut newest = vec![None; load.keys() as usize];
    for number in 0..load.records_sent() {
        newest[load.key_in(number / load.records_each(), number) as usize] = Some(number);
    }
    newest
}

fn take(found: &mut [Option<u64>], key: Option<&[u8]>, value: &[u8]) -> io::Result<()> {
    let key = key.and_then(|key| u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok());
    let slot = key.and_then(|key| found.get_mut(key as usize));
    let number = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    match (slot, number) {
        (Some(slot), Some(number)) if slot.is_none_or(|before| before < number) => {
            *slot = Some(number);
            Ok(())
        }
        _ => Err(io::Error::other(format!("an unexpected record: key {key:?}, number {number:?}"))),
    }
}
