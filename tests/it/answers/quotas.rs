//! Quotas: entities of no kind, keys and values that cannot be, filters that do not fit.

use super::super::client::text;
use super::state::Watched;
use super::world::World;
use kafka_protocol::messages::*;

type Entity<'a> = Vec<(&'a str, Option<&'a str>)>;

pub fn run() {
    let mut world = World::new("quotas").settling();
    entities(&mut world);
    values(&mut world);
    filters(&mut world);
    world.finish();
}

fn alter(entity: &Entity<'_>, ops: &[(&str, f64, bool)]) -> AlterClientQuotasRequest {
    let entity = entity.iter().map(|(kind, name)| {
        let entity = alter_client_quotas_request::EntityData::default().with_entity_type(text(kind));
        entity.with_entity_name(name.map(text))
    });
    let ops = ops.iter().map(|(key, value, remove)| {
        alter_client_quotas_request::OpData::default().with_key(text(key)).with_value(*value).with_remove(*remove)
    });
    let entry = alter_client_quotas_request::EntryData::default().with_entity(entity.collect()).with_ops(ops.collect());
    AlterClientQuotasRequest::default().with_entries(vec![entry])
}

fn entities(world: &mut World) {
    let name = world.fresh("client");
    world.watched = vec![Watched::Quotas("client-id", name.clone()), Watched::Quotas("user", name.clone())];
    let some = Some(name.as_str());
    for (words, entity) in [
        ("nobody", vec![]),
        ("an unknown kind", vec![("absent", some)]),
        ("a kind without a name", vec![("", some)]),
        ("a kind in capitals", vec![("USER", some)]),
        ("an empty client id", vec![("client-id", Some(""))]),
        ("an empty user", vec![("user", Some(""))]),
        ("an empty address", vec![("ip", Some(""))]),
        ("no address", vec![("ip", Some("300.1.1.1"))]),
        ("an address of letters", vec![("ip", Some("no such host.invalid"))]),
        ("a range of addresses", vec![("ip", Some("10.0.0.0/8"))]),
        ("a kind twice", vec![("client-id", some), ("client-id", some)]),
        ("a kind twice, once by default", vec![("client-id", some), ("client-id", None)]),
        ("a user at an address", vec![("user", some), ("ip", Some("127.0.0.9"))]),
        ("a client id at an address", vec![("client-id", some), ("ip", Some("127.0.0.9"))]),
        ("a known and an unknown kind", vec![("client-id", some), ("absent", some)]),
    ] {
        world.ask(&format!("AlterClientQuotas: {words}"), |_, _| alter(&entity, &[("producer_byte_rate", 1e9, false)]));
    }
    world.ask("AlterClientQuotas: nothing", |_, _| AlterClientQuotasRequest::default());
    world.ask("AlterClientQuotas: one good entity and one bad", |_, _| {
        let mut request = alter(&vec![("client-id", some)], &[("producer_byte_rate", 1e9, false)]);
        request.entries.extend(alter(&vec![("absent", some)], &[("producer_byte_rate", 1e9, false)]).entries);
        request
    });
}

fn values(world: &mut World) {
    for (kind, key) in [
        ("client-id", "producer_byte_rate"),
        ("client-id", "request_percentage"),
        ("client-id", "controller_mutation_rate"),
        ("user", "consumer_byte_rate"),
        ("ip", "connection_creation_rate"),
    ] {
        let mut name = world.fresh("client");
        if kind == "ip" {
            name = "127.0.0.77".into();
        }
        world.watched = vec![Watched::Quotas(kind, name.clone())];
        let values = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.0,
            -0.5,
            -0.0,
            0.0,
            f64::MIN_POSITIVE,
            0.5,
            1.0,
            1.5,
            2147483647.0,
            2147483648.0,
            9007199254740993.0,
            9.3e18,
            f64::MAX,
        ];
        let rows: Vec<_> = values
            .iter()
            .map(|value| (format!("{value:e}"), alter(&vec![(kind, Some(&name))], &[(key, *value, false)])))
            .collect();
        world.table(&format!("AlterClientQuotas: {key} of a {kind}"), rows);
        world.ask(&format!("AlterClientQuotas: {key} of a {kind} removed, with a value"), |_, _| {
            alter(&vec![(kind, Some(&name))], &[(key, -5.0, true)])
        });
        for other in ["absent", "", "PRODUCER_BYTE_RATE", "producer_byte_rate", "connection_creation_rate"] {
            if other == key {
                continue;
            }
            world.ask(&format!("AlterClientQuotas: {key} or rather `{other}` of a {kind}"), |_, _| {
                alter(&vec![(kind, Some(&name))], &[(other, 5.0, false)])
            });
            world.ask(&format!("AlterClientQuotas: {key} or rather `{other}` of a {kind}, removed"), |_, _| {
                alter(&vec![(kind, Some(&name))], &[(other, 5.0, true)])
            });
        }
        world.ask(&format!("AlterClientQuotas: {key} and a bad key of a {kind}"), |_, _| {
            alter(&vec![(kind, Some(&name))], &[(key, 1e9, false), ("absent", 5.0, false)])
        });
        world.ask(&format!("AlterClientQuotas: no {key} of a {kind}"), |_, _| alter(&vec![(kind, Some(&name))], &[]));
        world.ask(&format!("AlterClientQuotas: {key} only tried for a {kind}"), |_, _| {
            alter(&vec![(kind, Some(&name))], &[(key, 77.0, false)]).with_validate_only(true)
        });
        // Last, of somebody else: what a real Kafka takes here would be in the way.
        let name = if kind == "ip" { "127.0.0.78".to_string() } else { world.fresh("client") };
        world.watched = vec![Watched::Quotas(kind, name.clone())];
        let rows = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN]
            .map(|value| (format!("{value:e}"), alter(&vec![(kind, Some(&name))], &[(key, value, false)])));
        world.table(&format!("AlterClientQuotas: {key} of a {kind} that is no number"), rows);
    }
}

fn filters(world: &mut World) {
    world.watched.clear();
    let describe = |components: &[(&str, i8, Option<&str>)], strict: bool| {
        let components = components.iter().map(|(kind, how, name)| {
            describe_client_quotas_request::ComponentData::default()
                .with_entity_type(text(kind))
                .with_match_type(*how)
                .with_match(name.map(text))
        });
        DescribeClientQuotasRequest::default().with_components(components.collect()).with_strict(strict)
    };
    for (words, components) in [
        ("an unknown kind", vec![("absent", 0, Some("a"))]),
        ("a kind without a name", vec![("", 0, Some("a"))]),
        ("match type 3", vec![("user", 3, Some("absent"))]),
        ("match type -1", vec![("user", -1, Some("absent"))]),
        ("a name for the default", vec![("user", 1, Some("absent"))]),
        ("no name for an exact match", vec![("user", 0, None)]),
        ("a kind twice", vec![("user", 0, Some("absent")), ("user", 0, Some("absent"))]),
        ("a user at an address", vec![("user", 0, Some("absent")), ("ip", 0, Some("127.0.0.3"))]),
        ("a client id at an address", vec![("client-id", 0, Some("absent")), ("ip", 0, Some("127.0.0.3"))]),
        ("an empty name", vec![("client-id", 0, Some(""))]),
        ("no address", vec![("ip", 0, Some("300.1.1.1"))]),
    ] {
        for strict in [false, true] {
            let how = if strict { "exactly " } else { "" };
            world.ask(&format!("DescribeClientQuotas: {how}{words}"), |_, _| describe(&components, strict));
        }
    }
    world.ask("DescribeClientQuotas: exactly nobody", |_, _| describe(&[], true));
}
