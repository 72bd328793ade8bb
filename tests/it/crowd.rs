//! Ten thousand members that join one group: as many as it may have are taken, the others are told so, memory stays
//! within bounds, and everybody else is served meanwhile.

use super::batch::{self, NO_PRODUCER};
use super::client::{Client, text, topic};
use super::harness::{Broker, Launch, eventually, folder, now_ms, skip, unique, wait_for_leaders};
use kafka_protocol::messages::*;
use std::time::{Duration, Instant};

const MEMBERS: usize = 10_000;
/// A connection has so many requests under way at most.
const OF_A_CONNECTION: usize = 125;
/// What ten thousand members with a subscription of some bytes may take, and their answers: 64 KiB for each.
const GROWTH_KIB: u64 = 640 << 10;
const GROUP_IS_FULL: i16 = 81;
const MEMBER_ID_REQUIRED: i16 = 79;
/// How long another client may wait for one record to go in and out, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody else, who goes on working.
struct Other {
    client: Client,
    name: String,
    written: i64,
}

impl Other {
    fn new(broker: &Broker) -> Other {
        let (mut client, name) = (broker.client(), unique("other"));
        assert_eq!(client.create_topic(&name, 1, &[]).expect("an answer to CreateTopics"), 0);
        wait_for_leaders(&mut client, &name, 1);
        Other { client, name, written: 0 }
    }

    fn works(&mut self) {
        let began = Instant::now();
        let batch = batch::encode(&[b"other".to_vec()], NO_PRODUCER, -1, now_ms());
        let produced = self.client.produce(&self.name, 0, batch).expect("the other client still produces");
        assert_eq!((produced.error, produced.base_offset), (0, self.written));
        let fetched = self.client.fetch(&self.name, 0, self.written, 1_000, 1 << 20).expect("and fetches");
        assert_eq!(fetched.batches.len(), 1);
        self.written += 1;
        assert!(began.elapsed() < PATIENCE, "the other client waited {:?}", began.elapsed());
    }
}

/// The name of a group whose coordinator is there.
fn group(other: &mut Other, prefix: &str) -> String {
    let name = unique(prefix);
    let find = FindCoordinatorRequest::default().with_key(text(&name));
    let fetch = OffsetFetchRequest::default().with_group_id(GroupId(text(&name))).with_topics(None);
    eventually("the coordinator is there", Duration::from_secs(20), || {
        let found = other.client.call(3, &find).ok()?.error_code == 0;
        (found && other.client.call(7, &fetch).ok()?.error_code == 0).then_some(())
    });
    name
}

fn join(group: &str, session_timeout_ms: i32, rebalance_timeout_ms: i32) -> JoinGroupRequest {
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(session_timeout_ms)
        .with_rebalance_timeout_ms(rebalance_timeout_ms)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol.with_metadata(vec![0; 40].into())])
}

/// Sends one request of every member over many connections, and looks after the other client in between.
fn crowd<R: kafka_protocol::protocol::Request>(
    broker: &Broker,
    other: &mut Other,
    of_a_connection: usize,
    version: i16,
    request: impl Fn(usize) -> R,
) -> Vec<Client> {
    let mut clients = vec![];
    for first in (0..MEMBERS).step_by(of_a_connection) {
        let mut client = broker.client();
        for member in first..first + of_a_connection {
            client.send(version, &request(member)).expect("a request can be sent");
        }
        clients.push(client);
        if (first + of_a_connection).is_multiple_of(2_000) {
            other.works();
        }
    }
    clients
}

fn answers<R: kafka_protocol::protocol::Request>(
    clients: &mut [Client],
    of_a_connection: usize,
    version: i16,
) -> Vec<R::Response> {
    let one = |client: &mut Client| client.receive::<R>(version).expect("every member is answered");
    clients.iter_mut().flat_map(|c| (0..of_a_connection).map(|_| one(c)).collect::<Vec<_>>()).collect()
}

/// A consumer that joins with a subscription to what is not there.
fn heartbeat(group: &str, member: usize) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(&format!("member-{member}")))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![topic("absent")]))
        .with_topic_partitions(Some(vec![]))
}

/// Raises the limit of open files, which the broker inherits.
fn may_open(files: u64) -> bool {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).is_ok() && limit.maximum.is_none_or(|most| most >= files)
}

fn grown(broker: &Broker, before: u64) {
    let grown = broker.memory_kib("VmHWM").saturating_sub(before);
    println!("the process grew by {} MiB", grown >> 10);
    assert!(grown < GROWTH_KIB, "the process grew by {grown} KiB");
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
}

#[test]
fn ten_thousand_members_join_one_group() {
    // A join waits for the others, and a connection for its answer: each member needs one of its own.
    if !may_open(MEMBERS as u64 + 1_000) {
        return skip("too few files may be open");
    }
    let dir = folder();
    let broker = Launch::dev(dir.path()).set("group.initial.rebalance.delay.ms", "3000").start();
    let mut other = Other::new(&broker);
    let group = group(&mut other, "crowd");
    let before = broker.memory_kib("VmHWM");
    let mut clients = crowd(&broker, &mut other, 1, 3, |_| join(&group, 60_000, 10_000));
    let joined: Vec<JoinGroupResponse> = answers::<JoinGroupRequest>(&mut clients, 1, 3);
    assert!(joined.iter().all(|j| j.error_code == 0), "{:?}", joined.iter().find(|j| j.error_code != 0));
    let last = joined.iter().map(|j| j.generation_id).max().unwrap_or_default();
    let leaders: Vec<_> = joined.iter().filter(|j| j.member_id == j.leader && j.generation_id == last).collect();
    assert_eq!(leaders.len(), 1);
    assert_eq!(leaders[0].members.len(), MEMBERS, "the leader is told of everybody");
    other.works();
    grown(&broker, before);
}

#[test]
fn ten_thousand_consumers_join_one_group_of_the_new_protocol() {
    let dir = folder();
    let broker = Launch::dev(dir.path()).start();
    let mut other = Other::new(&broker);
    let group = group(&mut other, "crowd");
    let before = broker.memory_kib("VmHWM");
    let mut clients = crowd(&broker, &mut other, OF_A_CONNECTION, 1, |member| heartbeat(&group, member));
    let joined: Vec<_> = answers::<ConsumerGroupHeartbeatRequest>(&mut clients, OF_A_CONNECTION, 1);
    assert!(joined.iter().all(|j| j.error_code == 0), "{:?}", joined.iter().find(|j| j.error_code != 0));
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(&group))]);
    let described = other.client.call(1, &request).expect("an answer to ConsumerGroupDescribe");
    assert_eq!(described.groups[0].members.len(), MEMBERS);
    other.works();
    grown(&broker, before);
}

#[test]
fn a_full_group_refuses_the_rest_of_ten_thousand() {
    let dir = folder();
    let launch = Launch::dev(dir.path()).set("group.initial.rebalance.delay.ms", "1000");
    let broker = launch.set("group.max.size", "50").set("group.consumer.max.size", "50").start();
    let mut other = Other::new(&broker);
    let (full, asking, modern) = (group(&mut other, "full"), group(&mut other, "asking"), group(&mut other, "modern"));
    let before = broker.memory_kib("VmHWM");
    let mut clients = crowd(&broker, &mut other, OF_A_CONNECTION, 3, |_| join(&full, 60_000, 60_000));
    let joined: Vec<JoinGroupResponse> = answers::<JoinGroupRequest>(&mut clients, OF_A_CONNECTION, 3);
    let count = |code| joined.iter().filter(|j| j.error_code == code).count();
    assert_eq!((count(0), count(GROUP_IS_FULL)), (50, MEMBERS - 50));
    other.works();

    // Those that only ask for their id, of a group that is empty.
    let mut clients = crowd(&broker, &mut other, OF_A_CONNECTION, 4, |_| join(&asking, 6_000, 6_000));
    let asked: Vec<JoinGroupResponse> = answers::<JoinGroupRequest>(&mut clients, OF_A_CONNECTION, 4);
    let codes: std::collections::BTreeSet<i16> = asked.iter().map(|j| j.error_code).collect();
    assert!(codes.iter().all(|code| [GROUP_IS_FULL, MEMBER_ID_REQUIRED].contains(code)), "{codes:?}");
    other.works();

    let mut clients = crowd(&broker, &mut other, OF_A_CONNECTION, 1, |member| heartbeat(&modern, member));
    let joined: Vec<ConsumerGroupHeartbeatResponse> =
        answers::<ConsumerGroupHeartbeatRequest>(&mut clients, OF_A_CONNECTION, 1);
    let count = |code| joined.iter().filter(|j| j.error_code == code).count();
    assert_eq!((count(0), count(GROUP_IS_FULL)), (50, MEMBERS - 50));
    other.works();
    grown(&broker, before);
}
