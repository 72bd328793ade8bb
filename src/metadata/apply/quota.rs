//! Client quotas as opaque names with numbers: which names there are is checked by the proposer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::limits::COMMAND_PARTITIONS_MAX;
use crate::metadata::bounds::{CLIENT_NAME_BYTES_MAX, NAME_BYTES_MAX, QUOTA_ENTITIES_MAX, QUOTA_KEYS_MAX};
use crate::metadata::command::{QuotaChange, QuotaEntity, QuotaName};
use crate::metadata::image::Image;
use crate::metadata::reject::{Reject, Response};

use super::require_at_most;

pub fn alter(image: &mut Image, changes: &[QuotaChange]) -> Result<Response, Reject> {
    require_at_most("the number of changes of quotas", changes.len(), COMMAND_PARTITIONS_MAX)?;
    let mut staged: BTreeMap<&QuotaEntity, BTreeMap<String, f64>> = BTreeMap::new();
    for change in changes {
        check(change)?;
        let present = || image.client_quotas.get(&change.entity).cloned().unwrap_or_default();
        let values = staged.entry(&change.entity).or_insert_with(present);
        match change.value {
            Some(value) => drop(values.insert(change.key.clone(), value)),
            None => drop(values.remove(&change.key)),
        }
    }
    let mut entities = image.client_quotas.len();
    for (entity, values) in &staged {
        require_at_most("the number of quotas of one entity", values.len(), QUOTA_KEYS_MAX)?;
        let known = image.client_quotas.contains_key(*entity);
        entities = entities + usize::from(!known && !values.is_empty()) - usize::from(known && values.is_empty());
    }
    require_at_most("the number of entities with quotas", entities, QUOTA_ENTITIES_MAX)?;
    let quotas = Arc::make_mut(&mut image.client_quotas);
    for (entity, values) in staged {
        match values.is_empty() {
            true => drop(quotas.remove(entity)),
            false => drop(quotas.insert(entity.clone(), values)),
        }
    }
    Ok(Response::Ok)
}

fn check(change: &QuotaChange) -> Result<(), Reject> {
    let QuotaEntity { user, client_id, ip } = &change.entity;
    let parts = [user, client_id, ip];
    if parts.iter().all(|part| part.is_none()) || (ip.is_some() && (user.is_some() || client_id.is_some())) {
        return Err(Reject::Invalid("the entity of a quota".to_owned()));
    }
    for part in parts.into_iter().flatten() {
        if let QuotaName::Named(name) = part {
            if name.is_empty() {
                return Err(Reject::Invalid("an entity of a quota without a name".to_owned()));
            }
            require_at_most("the length of the name of a quota's entity", name.len(), CLIENT_NAME_BYTES_MAX)?;
        }
    }
    if change.key.is_empty() {
        return Err(Reject::Invalid("a quota without a name".to_owned()));
    }
    require_at_most("the length of a quota's name", change.key.len(), NAME_BYTES_MAX)?;
    match change.value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(Reject::Invalid("a quota that is not positive".to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Option<QuotaName> {
        Some(QuotaName::Named(name.to_owned()))
    }

    fn change(entity: QuotaEntity, key: &str, value: Option<f64>) -> QuotaChange {
        QuotaChange { entity, key: key.to_owned(), value }
    }

    fn user(name: &str) -> QuotaEntity {
        QuotaEntity { user: named(name), ..QuotaEntity::default() }
    }

    #[test]
    fn quotas_come_and_go_with_their_entity() {
        let mut image = Image::default();
        let both = QuotaEntity { client_id: Some(QuotaName::Default), ..user("a") };
        let set = [
            change(user("a"), "x", Some(1.0)),
            change(user("a"), "y", Some(2.5)),
            change(both.clone(), "x", Some(3.0)),
            change(user("a"), "x", Some(4.0)),
        ];
        assert_eq!(alter(&mut image, &set), Ok(Response::Ok));
        assert_eq!(image.client_quotas[&user("a")], BTreeMap::from([("x".to_owned(), 4.0), ("y".to_owned(), 2.5)]));
        assert_eq!(image.client_quotas.len(), 2);
        let removed = [change(user("a"), "x", None), change(user("a"), "y", None), change(user("b"), "x", None)];
        assert_eq!(alter(&mut image, &removed), Ok(Response::Ok));
        assert_eq!(image.client_quotas.keys().collect::<Vec<_>>(), [&both]);
    }

    #[test]
    fn a_wrong_change_changes_nothing() {
        let ip = QuotaEntity { ip: named("10.0.0.1"), ..QuotaEntity::default() };
        for wrong in [
            change(QuotaEntity::default(), "x", Some(1.0)),
            change(QuotaEntity { user: named("a"), ..ip.clone() }, "x", Some(1.0)),
            change(user(""), "x", Some(1.0)),
            change(user(&"x".repeat(CLIENT_NAME_BYTES_MAX + 1)), "x", Some(1.0)),
            change(ip.clone(), "", Some(1.0)),
            change(ip.clone(), &"x".repeat(NAME_BYTES_MAX + 1), Some(1.0)),
            change(ip.clone(), "x", Some(0.0)),
            change(ip.clone(), "x", Some(-1.0)),
            change(ip.clone(), "x", Some(f64::NAN)),
            change(ip.clone(), "x", Some(f64::INFINITY)),
        ] {
            let mut image = Image::default();
            let good = change(user("a"), "x", Some(1.0));
            assert!(alter(&mut image, &[good, wrong.clone()]).is_err(), "{wrong:?}");
            assert_eq!(image, Image::default());
        }
        let many: Vec<_> = (0..=QUOTA_KEYS_MAX).map(|n| change(ip.clone(), &n.to_string(), Some(1.0))).collect();
        assert!(matches!(alter(&mut Image::default(), &many), Err(Reject::TooMany { .. })));
    }
}
