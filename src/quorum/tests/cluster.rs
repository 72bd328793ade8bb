//! Several nodes over a network in memory whose links can be cut: growing, failing over, coming back.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, Weak};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::metadata::Reject;

/// Who reaches whom.
#[derive(Default)]
struct Net {
    nodes: Mutex<HashMap<NodeId, Weak<Quorum>>>,
    /// From, to: what is sent there does not arrive.
    cut: Mutex<HashSet<(NodeId, NodeId)>>,
    /// From, to: what is asked there arrives, and the answer does not.
    deaf: Mutex<HashSet<(NodeId, NodeId)>>,
}

struct Port {
    net: Arc<Net>,
    from: NodeId,
}

impl Net {
    fn set(links: &Mutex<HashSet<(NodeId, NodeId)>>, pairs: &[(i32, i32)]) {
        *links.lock().unwrap() = pairs.iter().map(|(from, to)| (NodeId(*from), NodeId(*to))).collect();
    }

    /// Cuts the links between each of `side` and everybody else, both ways.
    fn isolate(&self, side: &[i32]) {
        let others: Vec<i32> = (1..10).filter(|node| !side.contains(node)).collect();
        let pairs: Vec<_> = side.iter().flat_map(|a| others.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect();
        Self::set(&self.cut, &pairs);
    }

    fn heal(&self) {
        Self::set(&self.cut, &[]);
        Self::set(&self.deaf, &[]);
    }

    fn is(links: &Mutex<HashSet<(NodeId, NodeId)>>, from: NodeId, to: NodeId) -> bool {
        links.lock().unwrap().contains(&(from, to))
    }
}

impl Transport for Port {
    fn call(&self, to: NodeId, ask: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let target = self.net.nodes.lock().unwrap().get(&to).and_then(Weak::upgrade);
        let (from, net) = (self.from, self.net.clone());
        async move {
            let unreachable = || TransportError::Unreachable { to, reason: "no link".to_owned() };
            let target = target.filter(|_| !Net::is(&net.cut, from, to)).ok_or_else(unreachable)?;
            let silent = || TransportError::NoAnswer { to, reason: "no answer".to_owned() };
            let answer = tokio::time::timeout(timeout, target.serve(from, &ask)).await.map_err(|_| silent())?;
            let heard = !Net::is(&net.cut, to, from) && !Net::is(&net.deaf, from, to);
            if heard { Ok(answer) } else { Err(silent()) }
        }
        .boxed()
    }
}

struct Cluster {
    net: Arc<Net>,
    folders: Vec<tempfile::TempDir>,
    nodes: Vec<Option<Arc<Quorum>>>,
}

const WAIT: Duration = Duration::from_secs(20);

impl Cluster {
    /// Node 1 alone, recorded as such.
    async fn of_one() -> Cluster {
        let mut cluster = Cluster { net: Arc::default(), folders: vec![], nodes: vec![] };
        cluster.folders.push(tempfile::tempdir().unwrap());
        cluster.nodes.push(None);
        cluster.boot(1, Create::Quorum).await;
        let first = cluster.node(1);
        first.ready().await.unwrap();
        let register = Command::RegisterSelf {
            node: NODE,
            name: "a".to_owned(),
            rack: String::new(),
            host: "a".to_owned(),
            port: 1,
            identity: "CN=node-1".to_owned(),
            directory: first.owner().directory,
            now_ms: 1,
        };
        run(&first, [Command::InitCluster { cluster: ClusterId([3; 16]), generation: 1 }, register]).await;
        cluster
    }

    async fn of(count: i32) -> Cluster {
        let mut cluster = Cluster::of_one().await;
        for _ in 1..count {
            cluster.join().await;
        }
        cluster
    }

    /// Starts the node with the folder that it has.
    async fn boot(&mut self, node: i32, create: Create) {
        let options =
            QuorumOptions { dir: self.folders[node as usize - 1].path().join("m"), node: NodeId(node), create };
        let transport = Arc::new(Port { net: self.net.clone(), from: NodeId(node) });
        // The process before may still be closing its files.
        let quorum = loop {
            match Quorum::open(options.clone(), transport.clone(), Arc::new(SystemEntropy)).await {
                Err(StartError::Open(OpenError::Locked { .. })) => sleep(Duration::from_millis(10)).await,
                opened => break opened.unwrap(),
            }
        };
        self.net.nodes.lock().unwrap().insert(NodeId(node), Arc::downgrade(&quorum));
        self.nodes[node as usize - 1] = Some(quorum);
    }

    async fn kill(&mut self, node: i32) {
        self.net.nodes.lock().unwrap().remove(&NodeId(node));
        if let Some(quorum) = self.nodes[node as usize - 1].take() {
            quorum.shutdown().await;
        }
    }

    fn node(&self, node: i32) -> Arc<Quorum> {
        self.nodes[node as usize - 1].clone().unwrap()
    }

    /// The next node is invited, starts with an empty folder, and joins.
    async fn join(&mut self) -> i32 {
        self.folders.push(tempfile::tempdir().unwrap());
        self.nodes.push(None);
        let node = self.nodes.len() as i32;
        self.boot(node, Create::Member).await;
        let directory = self.node(node).owner().directory;
        let (first, token) = (self.node(1), [node as u8; 32]);
        let add = Command::AddNode {
            node: NodeId(node),
            name: format!("n{node}"),
            rack: String::new(),
            host: format!("h{node}"),
            port: 1,
            identity: format!("CN=node-{node}"),
            token_sha256: token,
            expires_ms: 1_000,
            now_ms: 2,
        };
        let join = Command::JoinNode { node: NodeId(node), token_sha256: token, directory, now_ms: 3 };
        run(&first, [add, join]).await;
        tokio::time::timeout(WAIT, self.node(node).ready()).await.unwrap().unwrap();
        node
    }

    /// Waits until exactly these vote, as each of them sees it.
    async fn voters(&self, voters: &[i32]) {
        let wanted: Vec<_> = voters.iter().map(|node| NodeId(*node)).collect();
        eventually(|| voters.iter().all(|node| self.node(*node).status().voters == wanted)).await;
    }

    /// Waits until one of `nodes` leads by its own account.
    async fn leader(&self, nodes: &[i32]) -> i32 {
        let leads = || nodes.iter().copied().find(|node| self.node(*node).leads());
        eventually(|| leads().is_some()).await;
        leads().unwrap_or(0)
    }
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < until, "it never came to that");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn allocate(quorum: &Quorum) -> Result<i64, ProposeError> {
    let allocate = Command::AllocateProducerIds { node: NODE, epoch: EPOCH, count: 1 };
    match quorum.propose(&allocate).await? {
        Response::ProducerIds { first, .. } => Ok(first.0),
        other => panic!("{other:?}"),
    }
}

fn register_broker() -> Command {
    let (endpoints, version) = (Vec::new(), "1".to_owned());
    Command::RegisterBroker { node: NODE, incarnation: WAL, boot: 1, endpoints, version, now_ms: 1 }
}

#[test]
fn three_nodes_grow_from_one_and_answer_whoever_proposes() {
    runtime().block_on(async {
        let mut cluster = Cluster::of_one().await;
        cluster.join().await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(cluster.node(2).status().voters, [NODE], "two voters survive no loss");
        cluster.join().await;
        cluster.voters(&[1, 2, 3]).await;
        run(&cluster.node(3), [register_broker()]).await;
        for (round, node) in [1, 2, 3, 2, 1].into_iter().enumerate() {
            let quorum = cluster.node(node);
            assert_eq!(allocate(&quorum).await.unwrap(), round as i64);
            assert_eq!(quorum.image().borrow().next_producer, round as i64 + 1, "the effect is there with the answer");
        }
        let refused = cluster.node(2).propose(&Command::DeleteTopic { id: TOPIC, now_ms: 1 }).await.unwrap();
        assert_eq!(refused, Response::Rejected(Reject::UnknownTopic));
        let many = futures_util::future::join_all((0..100).map(|n| {
            let quorum = cluster.node(n % 3 + 1);
            async move { allocate(&quorum).await.unwrap() }
        }));
        let mut ids = many.await;
        ids.sort_unstable();
        assert_eq!(ids, (5..105).collect::<Vec<_>>());
    });
}

#[test]
fn whoever_is_asked_shows_the_quorum_as_its_leader_sees_it() {
    runtime().block_on(async {
        let mut cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        // Once three vote: of four that join together, any three that have caught up may.
        cluster.join().await;
        let led = cluster.leader(&[1, 2, 3]).await;
        run(&cluster.node(led), [register_broker()]).await;
        let until = Instant::now() + WAIT;
        let view = loop {
            let view = cluster.node(4).view().await;
            let caught_up = |view: &QuorumView| view.members.iter().all(|m| m.end >= Some(view.committed));
            if let Some(view) = view.filter(caught_up) {
                break view;
            }
            assert!(Instant::now() < until, "not all have everything");
            sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(view.leader, NodeId(led));
        let seen: Vec<_> = view.members.iter().map(|member| (member.node.0, member.is_voter)).collect();
        assert_eq!(seen, [(1, true), (2, true), (3, true), (4, false)]);
        for member in &view.members {
            assert!(member.heard_ago.is_some_and(|ago| ago < WAIT) && member.caught_up_ago.is_some(), "{member:?}");
        }
        // A voter that is gone is heard no more, and what it had is still known.
        let gone = (1..=3).find(|node| *node != led).unwrap();
        cluster.kill(gone).await;
        sleep(Duration::from_millis(600)).await;
        run(&cluster.node(led), [Command::InitCluster { cluster: ClusterId([3; 16]), generation: 1 }]).await;
        let later = cluster.node(4).view().await.unwrap();
        let member = |view: &QuorumView| view.members.iter().find(|m| m.node == NodeId(gone)).unwrap().clone();
        assert!(member(&later).heard_ago.unwrap() >= Duration::from_millis(500), "{later:?}");
        assert!(member(&later).end >= member(&view).end && member(&later).end < Some(later.committed));
        cluster.net.isolate(&[4]);
        assert_eq!(cluster.node(4).view().await, None);
    });
}

#[test]
fn a_leader_that_dies_is_replaced_and_catches_up_when_it_is_back() {
    runtime().block_on(async {
        let mut cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        run(&cluster.node(1), [register_broker()]).await;
        for round in 0..3 {
            let led = cluster.leader(&[1, 2, 3]).await;
            let others: Vec<i32> = (1..=3).filter(|node| *node != led).collect();
            cluster.kill(led).await;
            for n in 0..5 {
                assert_eq!(allocate(&cluster.node(others[n % 2])).await.unwrap(), round * 5 + n as i64);
            }
            cluster.boot(led, Create::No).await;
            tokio::time::timeout(WAIT, cluster.node(led).ready()).await.unwrap().unwrap();
            assert_eq!(cluster.node(led).image().borrow().next_producer, round * 5 + 5);
        }
    });
}

#[test]
fn a_leader_without_a_majority_changes_nothing_and_knows_that_it_may_be_replaced() {
    runtime().block_on(async {
        let cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        run(&cluster.node(1), [register_broker()]).await;
        let led = cluster.leader(&[1, 2, 3]).await;
        let others: Vec<i32> = (1..=3).filter(|node| *node != led).collect();
        cluster.net.isolate(&[led]);
        let alone = cluster.node(led);
        let lost = tokio::spawn(async move { allocate(&alone).await });
        eventually(|| !cluster.node(led).leads()).await;
        let next = cluster.leader(&others).await;
        assert!(!cluster.node(led).leads() && cluster.node(next).leads());
        assert_eq!(allocate(&cluster.node(others[0])).await.unwrap(), 0);
        cluster.net.heal();
        // What it had appended is cut, or it was told that it leads no more: in no case was it carried out twice.
        let outcome = lost.await.unwrap();
        let id = allocate(&cluster.node(led)).await.unwrap();
        match outcome {
            Ok(first) => assert_eq!((first, id), (1, 2)),
            Err(error) => assert!(matches!(error, ProposeError::Unknown(_)) && id <= 2, "{error}"),
        }
    });
}

#[test]
fn a_voter_behind_a_bad_link_deposes_nobody() {
    runtime().block_on(async {
        let cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        let led = cluster.leader(&[1, 2, 3]).await;
        let others: Vec<i32> = (1..=3).filter(|node| *node != led).collect();
        let term = cluster.node(led).status().term;
        for links in [
            vec![(led, others[0]), (others[0], led)],
            vec![(led, others[0])],
            vec![(led, others[0]), (others[0], led), (others[1], others[0]), (others[0], others[1])],
        ] {
            Net::set(&cluster.net.cut, &links);
            sleep(Duration::from_millis(3_500)).await;
            cluster.net.heal();
            sleep(Duration::from_millis(500)).await;
            let status = cluster.node(led).status();
            assert_eq!((status.leader, status.term), (Some(NodeId(led)), term), "{links:?}");
        }
    });
}

#[test]
fn a_command_whose_answer_is_lost_is_not_repeated() {
    runtime().block_on(async {
        let cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        run(&cluster.node(1), [register_broker()]).await;
        let led = cluster.leader(&[1, 2, 3]).await;
        let follower = led % 3 + 1;
        Net::set(&cluster.net.deaf, &[(follower, led)]);
        let lost = allocate(&cluster.node(follower)).await;
        assert!(matches!(lost, Err(ProposeError::Unknown(_))), "{lost:?}");
        cluster.net.heal();
        assert_eq!(allocate(&cluster.node(follower)).await.unwrap(), 1, "it was carried out, once");
    });
}

#[test]
fn a_node_that_starts_asks_until_it_knows_and_is_told_whether_it_was_heard_before() {
    runtime().block_on(async {
        let cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        let led = cluster.leader(&[1, 2, 3]).await;
        let follower = cluster.node(led % 3 + 1);
        Net::set(&cluster.net.deaf, &[(led % 3 + 1, led)]);
        let asking = tokio::spawn({
            let follower = follower.clone();
            async move { follower.propose_on(&register_broker()).await }
        });
        eventually(|| follower.image().borrow().brokers.contains_key(&NODE)).await;
        sleep(Duration::from_millis(500)).await;
        assert!(!asking.is_finished(), "its answers are lost");
        cluster.net.heal();
        let (response, doubtful) = asking.await.unwrap().unwrap();
        assert_eq!(response, Response::Rejected(Reject::BootCount { boot: 1, recorded: 1 }), "once is enough");
        assert!(doubtful);
        let again = Command::RegisterBroker {
            node: NODE,
            incarnation: WAL,
            boot: 2,
            endpoints: Vec::new(),
            version: String::new(),
            now_ms: 1,
        };
        assert!(matches!(follower.propose_on(&again).await, Ok((Response::BrokerEpoch(_), false))));
    });
}

#[test]
fn a_node_that_lost_its_folder_does_not_vote() {
    runtime().block_on(async {
        let mut cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        run(&cluster.node(1), [register_broker()]).await;
        let before = cluster.node(3).owner();
        cluster.kill(3).await;
        cluster.folders[2] = tempfile::tempdir().unwrap();
        cluster.boot(3, Create::Member).await;
        assert_ne!(cluster.node(3).owner().directory, before.directory);
        cluster.kill(2).await;
        // Two of three run, and one of them has forgotten what it voted for.
        sleep(Duration::from_secs(3)).await;
        assert!(!cluster.node(1).leads() && !cluster.node(3).leads());
        cluster.boot(2, Create::No).await;
        assert_eq!(allocate(&cluster.node(2)).await.unwrap(), 0);
    });
}

#[test]
fn a_node_that_joins_late_gets_a_snapshot() {
    runtime().block_on(async {
        let mut cluster = Cluster::of_one().await;
        let first = cluster.node(1);
        let set_up: Vec<_> = set_up().into_iter().skip(1).collect();
        run(&first, set_up).await;
        run(&first, (0..100).flat_map(upload)).await;
        first.raft.trigger().snapshot().await.unwrap();
        let purged = |m: &openraft::RaftMetrics<u64, EmptyNode>| m.purged.is_some_and(|id| id.index > 100);
        first.raft.wait(Some(LEADER_WAIT)).metrics(purged, "purge").await.unwrap();
        let node = cluster.join().await;
        let second = cluster.node(node);
        eventually(|| second.image().borrow().applied == first.image().borrow().applied).await;
        assert_eq!(second.index().totals().unwrap(), first.index().totals().unwrap());
        assert_eq!(*second.image().borrow(), *first.image().borrow());
    });
}

#[test]
fn the_leadership_is_handed_over() {
    runtime().block_on(async {
        let cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        run(&cluster.node(1), [register_broker()]).await;
        let led = cluster.leader(&[1, 2, 3]).await;
        let next = led % 3 + 1;
        assert!(!cluster.node(next).hand_over(NodeId(led)).await, "only the leader hands over");
        assert!(!cluster.node(led).hand_over(NodeId(7)).await, "nobody votes for a node that is not there");
        assert!(cluster.node(led).hand_over(NodeId(next)).await);
        assert_eq!(cluster.leader(&[1, 2, 3]).await, next);
        assert_eq!(allocate(&cluster.node(led)).await.unwrap(), 0);
    });
}

#[test]
fn a_removed_node_is_replaced_by_one_that_joins() {
    runtime().block_on(async {
        let mut cluster = Cluster::of(3).await;
        cluster.voters(&[1, 2, 3]).await;
        cluster.kill(3).await;
        run(&cluster.node(1), [Command::RemoveNode { node: NodeId(3), now_ms: 9 }]).await;
        cluster.voters(&[1, 2]).await;
        let node = cluster.join().await;
        cluster.voters(&[1, 2, node]).await;
    });
}

#[test]
fn only_a_node_itself_says_what_it_is() {
    runtime().block_on(async {
        let cluster = Cluster::of_one().await;
        let quorum = cluster.node(1);
        let before = quorum.status().last_index;
        let (node, directory) = (NodeId(3), DirectoryId(5));
        let register = Command::RegisterSelf {
            node,
            name: "c".to_owned(),
            rack: String::new(),
            host: "c".to_owned(),
            port: 9094,
            identity: "CN=c".to_owned(),
            directory,
            now_ms: 1,
        };
        let join = Command::JoinNode { node, token_sha256: [7; 32], directory, now_ms: 1 };
        let mut asks = Vec::new();
        for command in [register, join] {
            let group = group::encode(&[command.encode()]);
            let ask = Ask::Propose { group }.encode(None);
            let answer = quorum.serve(NodeId(2), &ask).await;
            let Ok(Tell::Refused { reason }) = Tell::decode(&answer) else { panic!("another node's word was taken") };
            assert!(reason.contains("only node 3 may"), "{reason}");
            assert_eq!(quorum.status().last_index, before);
            asks.push(ask);
        }
        // Its own word is taken; what the metadata then say of it is another matter.
        for ask in asks {
            let answer = quorum.serve(node, &ask).await;
            assert!(matches!(Tell::decode(&answer), Ok(Tell::Proposed { .. })));
        }
    });
}

#[test]
fn commands_that_cannot_be_read_never_enter_the_log() {
    runtime().block_on(async {
        let cluster = Cluster::of_one().await;
        let quorum = cluster.node(1);
        let before = quorum.status().last_index;
        let groups = [vec![], vec![0xff; 40], group::encode(&[Bytes::from_static(b"no command")])];
        for group in groups {
            let answer = quorum.serve(NodeId(2), &Ask::Propose { group }.encode(None)).await;
            assert!(matches!(Tell::decode(&answer), Ok(Tell::Refused { .. })));
        }
        let answer = quorum.serve(NodeId(2), b"garbage").await;
        assert!(matches!(Tell::decode(&answer), Ok(Tell::Refused { .. })));
        assert_eq!(quorum.status().last_index, before);
        quorum.propose(&Command::PurgeRanges { now_ms: 1 }).await.unwrap();
    });
}
