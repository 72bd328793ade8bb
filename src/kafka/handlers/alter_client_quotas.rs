//! AlterClientQuotas (key 49, KIP-546): sets and removes the quotas of entities, each entity for itself. What is right
//! is changed in one step, whatever else of the request is wrong.

use std::collections::{BTreeMap, HashMap, HashSet};

use kafka_protocol::messages::alter_client_quotas_request::{EntryData, OpData};
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData as EntryAnswer};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::quota;
use crate::kafka::{Reply, Request};
use crate::metadata::QuotaChange;
use crate::security::{Denied, Operation, Permit, Resource};

use super::Handlers;
use super::administer::{Refusal, outcome};

/// An entity as a request names it; of a part that is named twice the last counts, as in Kafka.
type Asked = BTreeMap<StrBytes, Option<StrBytes>>;

impl Handlers {
    pub(super) async fn alter_client_quotas(&self, request: Request, body: AlterClientQuotasRequest) -> Reply {
        let permit = self.permit(&request.context, Operation::AlterConfigs, Resource::CLUSTER);
        let mut judged = judged(&body.entries);
        self.carry_out(permit, &mut judged, body.validate_only).await;
        let mut response = AlterClientQuotasResponse::default();
        for (asked, result) in judged {
            let (code, message) = outcome(&result);
            self.count(&request, code);
            let entity = asked
                .into_iter()
                .map(|(kind, name)| EntityData::default().with_entity_type(kind).with_entity_name(name));
            response.entries.push(
                EntryAnswer::default().with_error_code(code).with_error_message(message).with_entity(entity.collect()),
            );
        }
        Reply::encode(request.to, &response)
    }

    /// Proposes what is right; if that fails, none of it was done.
    async fn carry_out(
        &self,
        permit: Result<Permit, Denied>,
        judged: &mut [(Asked, Result<Vec<QuotaChange>, Refusal>)],
        validate_only: bool,
    ) {
        let changes: Vec<QuotaChange> =
            judged.iter().filter_map(|(_, result)| result.as_ref().ok()).flatten().cloned().collect();
        let failed: Option<Refusal> = match permit {
            Err(denied) => Some(denied.into()),
            Ok(_) if validate_only || changes.is_empty() => None,
            Ok(permit) => self.broker.alter_client_quotas(&permit, changes).await.err().map(Refusal::from),
        };
        if let Some(refusal) = failed {
            judged
                .iter_mut()
                .filter(|(_, result)| result.is_ok())
                .for_each(|(_, result)| *result = Err(refusal.clone()));
        }
    }
}

/// Each entity once, with what is to be changed of it. One that is named in several entries is refused: they may
/// contradict one another.
fn judged(entries: &[EntryData]) -> Vec<(Asked, Result<Vec<QuotaChange>, Refusal>)> {
    let asked: Vec<Asked> = entries
        .iter()
        .map(|entry| entry.entity.iter().map(|part| (part.entity_type.clone(), part.entity_name.clone())).collect())
        .collect();
    let mut times: HashMap<&Asked, usize> = HashMap::new();
    for entity in &asked {
        *times.entry(entity).or_default() += 1;
    }
    let mut judged = Vec::with_capacity(times.len());
    for (entity, entry) in asked.iter().zip(entries) {
        match times.remove(entity) {
            // The first was answered for all.
            None => {}
            Some(1) => judged.push((entity.clone(), changes(entity, &entry.ops))),
            Some(_) => judged.push((entity.clone(), Err(duplicate(entity)))),
        }
    }
    judged
}

fn duplicate(asked: &Asked) -> Refusal {
    let shown = |(kind, name): (&StrBytes, &Option<StrBytes>)| format!("{kind}={}", name.as_deref().unwrap_or("null"));
    let entity: Vec<String> = asked.iter().map(shown).collect();
    Refusal::invalid(format!("Ignoring duplicate entity ClientQuotaEntity(entries={{{}}})", entity.join(", ")))
}

fn changes(asked: &Asked, ops: &[OpData]) -> Result<Vec<QuotaChange>, Refusal> {
    let mut keys = HashSet::new();
    if !ops.iter().all(|op| keys.insert(&*op.key)) {
        return Err(duplicate(asked));
    }
    let wrong = |error: quota::QuotaError| Refusal::invalid(error.to_string());
    let entity = quota::entity(asked.iter().map(|(kind, name)| (&**kind, name.as_deref()))).map_err(wrong)?;
    let mut changes = Vec::with_capacity(ops.len());
    for op in ops {
        let value = (!op.remove).then_some(op.value);
        if let Some(value) = value {
            quota::check_value(&entity, &op.key, value).map_err(wrong)?;
        } else if !quota::is_key(&op.key) {
            // There is nothing of that name to remove.
            continue;
        }
        changes.push(QuotaChange { entity: entity.clone(), key: op.key.to_string(), value });
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::text;
    use kafka_protocol::messages::alter_client_quotas_request::EntityData as EntityAsked;

    fn entry(parts: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]) -> EntryData {
        let part = |(kind, name): &(&str, Option<&str>)| {
            EntityAsked::default().with_entity_type(text(*kind)).with_entity_name(name.map(text))
        };
        let op = |(key, value): &(&str, Option<f64>)| {
            OpData::default().with_key(text(*key)).with_value(value.unwrap_or(0.0)).with_remove(value.is_none())
        };
        EntryData::default().with_entity(parts.iter().map(part).collect()).with_ops(ops.iter().map(op).collect())
    }

    /// The number of each entity's answer, and how much would be changed.
    fn answers(entries: &[EntryData]) -> Vec<(i16, usize)> {
        let answer = |(_, result): (Asked, Result<Vec<QuotaChange>, Refusal>)| match result {
            Ok(changes) => (0, changes.len()),
            Err(refusal) => (refusal.code(), 0),
        };
        judged(entries).into_iter().map(answer).collect()
    }

    /// As a real Kafka 4.3.1 answered, but that it changes an entity that it refuses for being named twice.
    #[test]
    fn entities_are_judged_as_in_kafka() {
        const RATE: &str = "producer_byte_rate";
        let x = ("user", Some("x"));
        for (entry, expected) in [
            (entry(&[x], &[(RATE, Some(1.0))]), (0, 1)),
            (entry(&[x, ("client-id", None)], &[(RATE, Some(1.0)), ("request_percentage", None)]), (0, 2)),
            (entry(&[x], &[]), (0, 0)),
            (entry(&[x], &[("nope", None)]), (0, 0)),
            (entry(&[x, ("user", Some("y"))], &[(RATE, Some(1.0))]), (0, 1)),
            (entry(&[], &[(RATE, Some(1.0))]), (42, 0)),
            (entry(&[("user", Some(""))], &[(RATE, Some(1.0))]), (42, 0)),
            (entry(&[("group", Some("x"))], &[(RATE, Some(1.0))]), (42, 0)),
            (entry(&[x, ("ip", Some("1.1.1.1"))], &[(RATE, Some(1.0))]), (42, 0)),
            (entry(&[x], &[("nope", Some(1.0))]), (42, 0)),
            (entry(&[x], &[(RATE, Some(0.0))]), (42, 0)),
            (entry(&[x], &[(RATE, Some(1.5))]), (42, 0)),
            (entry(&[x], &[(RATE, Some(1.0)), (RATE, Some(2.0))]), (42, 0)),
        ] {
            assert_eq!(answers(std::slice::from_ref(&entry)), [expected], "{entry:?}");
        }
        let (one, other) = (entry(&[x], &[(RATE, Some(1.0))]), entry(&[("user", Some("z"))], &[("nope", Some(1.0))]));
        assert_eq!(answers(&[one.clone(), other.clone()]), [(0, 1), (42, 0)], "each for itself");
        assert_eq!(answers(&[one.clone(), other, one.clone()]), [(42, 0), (42, 0)], "x is named twice");
        let (asked, result) = judged(&[one.clone(), one]).remove(0);
        assert_eq!(asked.len(), 1);
        let words = "Ignoring duplicate entity ClientQuotaEntity(entries={user=x})";
        assert_eq!(result.unwrap_err().message.as_deref(), Some(words));
    }
}
