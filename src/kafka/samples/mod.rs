//! Requests of every API and version, as clients write them: empty, and with every field filled.
//!
//! One file per family of APIs, like the shapes.

mod admin;
mod data;
mod group;
mod quota;
mod telemetry;
mod transaction;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::versions::Api;

/// A frame without its length prefix.
pub fn frame(api: &Api, version: i16, body: &impl Encodable) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(text("sample")))
        .with_unknown_tagged_fields(tags(api.flexible(version)));
    let mut out = BytesMut::new();
    header.encode(&mut out, api.key.request_header_version(version)).unwrap();
    body.encode(&mut out, version).unwrap();
    out.freeze()
}

/// With the length prefix.
pub fn with_length(frame: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(frame.len() as i32);
    out.put_slice(frame);
    out.freeze()
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn group(id: &'static str) -> GroupId {
    GroupId(text(id))
}

/// Unknown tagged fields, where the version can carry them.
fn tags(flexible: bool) -> BTreeMap<i32, Bytes> {
    let fields = [(100, Bytes::from_static(b"unknown")), (300, Bytes::new())];
    if flexible { fields.into() } else { BTreeMap::new() }
}

/// Frames of one API and version: most have the default body, and populated ones.
pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let families = [admin::frames, data::frames, group::frames, quota::frames, telemetry::frames, transaction::frames];
    let frames: Vec<Bytes> = families.iter().flat_map(|family| family(api, version)).collect();
    assert!(!frames.is_empty(), "no sample of {:?}", api.key);
    frames
}
