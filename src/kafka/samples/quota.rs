//! Samples of what is asked about client quotas.

use bytes::Bytes;
use kafka_protocol::messages::*;

use super::{frame, tags, text};
use crate::kafka::versions::Api;

pub fn frames(api: &Api, version: i16) -> Vec<Bytes> {
    let f = api.flexible(version);
    match api.key {
        ApiKey::DescribeClientQuotas => {
            let all = DescribeClientQuotasRequest::default();
            vec![frame(api, version, &all), frame(api, version, &describe_client_quotas(f))]
        }
        ApiKey::AlterClientQuotas => vec![frame(api, version, &alter_client_quotas(f))],
        _ => Vec::new(),
    }
}

fn describe_client_quotas(f: bool) -> DescribeClientQuotasRequest {
    use describe_client_quotas_request::ComponentData;
    let component = |name| {
        ComponentData::default()
            .with_entity_type(text("user"))
            .with_match_type(0)
            .with_match(name)
            .with_unknown_tagged_fields(tags(f))
    };
    DescribeClientQuotasRequest::default()
        .with_components(vec![component(Some(text("alice"))), component(None)])
        .with_strict(true)
        .with_unknown_tagged_fields(tags(f))
}

fn alter_client_quotas(f: bool) -> AlterClientQuotasRequest {
    use alter_client_quotas_request::{EntityData, EntryData, OpData};
    let entity = |name| {
        EntityData::default()
            .with_entity_type(text("client-id"))
            .with_entity_name(name)
            .with_unknown_tagged_fields(tags(f))
    };
    let change = OpData::default()
        .with_key(text("producer_byte_rate"))
        .with_value(1024.5)
        .with_remove(true)
        .with_unknown_tagged_fields(tags(f));
    let entry = EntryData::default()
        .with_entity(vec![entity(Some(text("app"))), entity(None)])
        .with_ops(vec![change.clone(), change])
        .with_unknown_tagged_fields(tags(f));
    AlterClientQuotasRequest::default()
        .with_entries(vec![entry.clone(), entry])
        .with_validate_only(true)
        .with_unknown_tagged_fields(tags(f))
}
