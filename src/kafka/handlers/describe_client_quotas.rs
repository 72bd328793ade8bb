//! DescribeClientQuotas (key 48, KIP-546): the quotas of the entities that a filter admits.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::broker::quota::{Filter, FilterError, parts};
use crate::kafka::{Reply, Request};
use crate::metadata::ClientQuotas;
use crate::security::{Operation, Resource};

use super::administer::Refusal;
use super::{Handlers, text};

impl Handlers {
    pub(super) async fn describe_client_quotas(&self, request: Request, body: DescribeClientQuotasRequest) -> Reply {
        let permitted = self.permit(&request.context, Operation::DescribeConfigs, Resource::CLUSTER);
        let found = permitted.map_err(Refusal::from).and_then(|_permit| {
            let filter = filter(&body)?;
            Ok(entries(&filter, &self.broker.image().client_quotas))
        });
        let mut response = DescribeClientQuotasResponse::default();
        match found {
            // As in Kafka the message of a success is empty, not null.
            Ok(entries) => (response.entries, response.error_message) = (Some(entries), Some(text(""))),
            Err(refusal) => {
                (response.error_code, response.error_message) = (refusal.code(), refusal.text());
                response.entries = None;
            }
        }
        self.count(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}

fn filter(body: &DescribeClientQuotasRequest) -> Result<Filter, Refusal> {
    let components = body
        .components
        .iter()
        .map(|component| (&*component.entity_type, component.match_type, component._match.as_deref()));
    Filter::new(components, body.strict).map_err(|error| {
        let number = match error {
            FilterError::UnsupportedType(_) => ResponseError::UnsupportedVersion,
            _ => ResponseError::InvalidRequest,
        };
        Refusal::new(number, error.to_string())
    })
}

fn entries(filter: &Filter, quotas: &ClientQuotas) -> Vec<EntryData> {
    let admitted = quotas.iter().filter(|(entity, _)| filter.admits(entity));
    admitted
        .map(|(entity, values)| {
            let entity = parts(entity).map(|(kind, name)| {
                EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text))
            });
            let values =
                values.iter().map(|(key, value)| ValueData::default().with_key(text(key.as_str())).with_value(*value));
            EntryData::default().with_entity(entity.collect()).with_values(values.collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{QuotaEntity, QuotaName};
    use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn asked(kind: &str, number: i8, name: Option<&str>) -> DescribeClientQuotasRequest {
        let component =
            ComponentData::default().with_entity_type(text(kind)).with_match_type(number).with_match(name.map(text));
        DescribeClientQuotasRequest::default().with_components(vec![component])
    }

    /// As a real Kafka 4.3.1 answered.
    #[test]
    fn a_wrong_filter_has_the_number_that_kafka_gives() {
        let code = |asked| filter(&asked).map_or_else(|refusal| refusal.code(), |_| 0);
        for (asked, expected) in [
            (asked("user", 2, None), 0),
            (asked("group", 2, None), 35),
            (asked("", 2, None), 42),
            (asked("user", 0, None), 42),
            (asked("user", 3, None), 42),
        ] {
            assert_eq!(code(asked.clone()), expected, "{asked:?}");
        }
    }

    #[test]
    fn an_entity_is_shown_with_its_quotas() {
        let both = QuotaEntity {
            user: Some(QuotaName::Named("alice".to_owned())),
            client_id: Some(QuotaName::Default),
            ip: None,
        };
        let values = BTreeMap::from([("producer_byte_rate".to_owned(), 1024.0)]);
        let quotas = Arc::new(BTreeMap::from([(both, values)]));
        let found = entries(&Filter::default(), &quotas);
        let [entry] = &found[..] else { panic!("{found:?}") };
        let entity: Vec<_> =
            entry.entity.iter().map(|part| (&*part.entity_type, part.entity_name.as_deref())).collect();
        assert_eq!(entity, [("user", Some("alice")), ("client-id", None)]);
        assert_eq!((&*entry.values[0].key, entry.values[0].value), ("producer_byte_rate", 1024.0));
    }
}
