//! Every bound of the process in one place, their relations asserted at compile time.
//!
//! A limit that an operator may tune has its default here and its option beside the code that it tunes.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Largest request frame (Kafka's `socket.request.max.bytes` default): a longer one closes the connection.
pub const REQUEST_BYTES_MAX: usize = 100 * MIB;
/// Elements of all arrays of one request together: enough to name every partition of a full cluster, even with a topic
/// for each.
pub const REQUEST_ELEMENTS_MAX: usize = 2 * CLUSTER_PARTITIONS_MAX;
/// What an answer is taken to need that lists all there is of a kind (topics, groups, transactions): its request does
/// not say. A full cluster's metadata are about this long.
pub const LISTING_ANSWER_BYTES: usize = 8 * MIB;
/// The same for one thing with all its parts: a group with its members, a transaction with its partitions. A group of
/// 500 members takes about this much.
pub const DESCRIPTION_ANSWER_BYTES: usize = 256 * KIB;
/// Of all such descriptions in one answer: one request can name the same thing over and over. A full group has room.
pub const DESCRIPTIONS_BYTES_MAX: usize = 128 * MIB;
/// Requests of one connection that are read but not yet answered.
pub const CONNECTION_REQUESTS_MAX: usize = 128;
/// Bytes of one connection's requests that are read but not yet answered; the next frame waits.
pub const CONNECTION_BYTES_MAX: usize = 128 * MIB;
/// Bytes of one connection's finished answers that are not yet written: while there are more, none of its requests is begun
/// or read. As no request is begun before the answer to the one before is known (but for Produce and Fetch, which are
/// charged for what they may answer), a peer that does not read holds so much and one answer.
pub const CONNECTION_ANSWER_BYTES_MAX: usize = 16 * MIB;
/// Largest answer to one Fetch (Kafka's `fetch.max.bytes` default on the broker).
pub const FETCH_BYTES_MAX: usize = 55 * MIB;
/// Largest record batch (Kafka's `message.max.bytes` default: 1 MiB plus the 12 bytes of an old log overhead).
pub const BATCH_BYTES_DEFAULT: usize = MIB + 12;
/// Largest record batch that any configuration may allow.
pub const BATCH_BYTES_MAX: usize = 64 * MIB;
/// Largest metadata command, encoded.
pub const COMMAND_BYTES_MAX: usize = 4 * MIB;
/// Largest snapshot of the metadata that another node may send; it is gathered in memory.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * MIB;
/// Bytes of the log entries in one message between quorums; one largest entry always fits, and so does what stands around
/// them into the message's body.
pub const RAFT_ENTRIES_BYTES_MAX: usize = COMMAND_BYTES_MAX + MIB;
/// Bytes of one piece of a snapshot between quorums.
pub const SNAPSHOT_PIECE_BYTES: usize = MIB;
/// Partitions named in one metadata command.
pub const COMMAND_PARTITIONS_MAX: usize = 10_000;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: usize = 10_000;
/// Partitions of the whole cluster.
pub const CLUSTER_PARTITIONS_MAX: usize = 200_000;
/// Batches of one producer that a duplicate is recognised among (KIP-98's window).
pub const PRODUCER_WINDOW: usize = 5;
/// Transactional ids of one partition of `__transaction_state`, and its share of requests that wait there.
pub const TRANSACTIONAL_IDS_MAX: usize = 1_000_000;
pub const PARKED_REQUESTS_MAX: usize = 10_000;
/// Partitions that one question about a transaction may name: more than a transaction's record, half a largest batch, has
/// room for.
pub const ADMIT_PARTITIONS_MAX: usize = BATCH_BYTES_DEFAULT / 2 / 4;
/// Bytes of such a question: names and numbers of what would not fit into that record are refused unasked.
pub const ADMIT_BYTES_MAX: usize = 2 * MIB;
/// Partitions of all transactions that one message of markers ends. They are appended in one go.
pub const MARKERS_PARTITIONS_MAX: usize = 2_000;
/// Messages of markers under way to one node.
pub const MARKERS_MESSAGES_MAX: usize = 4;
/// Bytes that a compressed batch may decompress to, whatever it claims.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 * MIB;
/// Largest message body between nodes for consensus: the entries of one append, of which one command must fit.
pub const PEER_RAFT_BODY_BYTES_MAX: usize = 2 * COMMAND_BYTES_MAX;
/// The same for ledger entries: one holds at most a largest batch.
pub const PEER_LEDGER_BODY_BYTES_MAX: usize = BATCH_BYTES_MAX + MIB;
/// The same for control: a command that is forwarded to the leader.
pub const PEER_CONTROL_BODY_BYTES_MAX: usize = COMMAND_BYTES_MAX + MIB;
/// The same for bulk: tails that are copied, a largest batch among them, and pieces of snapshots.
pub const PEER_BULK_BODY_BYTES_MAX: usize = BATCH_BYTES_MAX + MIB;
/// Entries in one message about a ledger.
pub const LEDGER_MESSAGE_ENTRIES_MAX: usize = 4096;
/// Bytes of the entries in one answer to a read of a ledger; one largest entry always fits.
pub const LEDGER_READ_BYTES_MAX: usize = 4 * MIB;
/// Bytes of the entries that one node reads for others at once.
pub const LEDGER_READS_BYTES_MAX: usize = 2 * PEER_BULK_BODY_BYTES_MAX;
/// Requests that are under way on one connection between nodes.
pub const PEER_REQUESTS_MAX: usize = 1024;
/// Bytes of requests, and of answers not yet written, that are under way on one connection between nodes: twice a
/// largest body, so that the next one is on its way while one is worked on.
pub const PEER_RAFT_BYTES_MAX: usize = 2 * PEER_RAFT_BODY_BYTES_MAX;
pub const PEER_LEDGER_BYTES_MAX: usize = 2 * PEER_LEDGER_BODY_BYTES_MAX;
pub const PEER_CONTROL_BYTES_MAX: usize = 2 * PEER_CONTROL_BODY_BYTES_MAX;
pub const PEER_BULK_BYTES_MAX: usize = 2 * PEER_BULK_BODY_BYTES_MAX;
/// Connections of other nodes that have said who they are: one for each node and class.
pub const PEER_CONNECTIONS_MAX: usize = 4096;
/// Connections on the peer listener that have not said who they are yet; of more, the oldest are cut.
pub const PEER_GREETINGS_MAX: usize = 256;
/// Connections of the node's own tools, which come under its own identity.
pub const PEER_TOOLS_MAX: usize = 8;
/// Bytes of a hello between nodes, and of its answer.
pub const PEER_HELLO_BYTES_MAX: usize = 1024;
/// Bytes of the sentence in which a node says why it refuses.
pub const PEER_REFUSAL_BYTES_MAX: usize = 768;
/// Bytes of a stored object in one message between nodes.
pub const STORE_PIECE_BYTES: usize = 4 * MIB;
/// Longest thing that the bundled store keeps: a snapshot with its envelope.
pub const STORED_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + MIB;
/// Copies from other nodes that are on their way to this one's disk.
pub const STORE_UPLOADS_MAX: usize = 64;
/// Names in one listing between nodes.
pub const STORE_LIST_MAX: usize = 4096;
/// Largest join bundle, sealed.
pub const JOIN_BUNDLE_BYTES_MAX: usize = 512 * KIB;
/// Alignment of WAL blocks: a torn write of one block cannot touch its predecessor's sectors.
pub const WAL_BLOCK_ALIGN: usize = 4 * KIB;

const _: () = assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < REQUEST_BYTES_MAX, "a largest batch must fit in a frame");
const _: () = assert!(REQUEST_BYTES_MAX < CONNECTION_BYTES_MAX, "one largest frame must be admitted");
const _: () = assert!(LISTING_ANSWER_BYTES < CONNECTION_BYTES_MAX);
const _: () = assert!(CONNECTION_ANSWER_BYTES_MAX < CONNECTION_BYTES_MAX);
const _: () = assert!(DESCRIPTION_ANSWER_BYTES * CONNECTION_REQUESTS_MAX <= CONNECTION_BYTES_MAX);
const _: () = assert!(DESCRIPTION_ANSWER_BYTES < DESCRIPTIONS_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX < i32::MAX as usize);
const _: () = assert!(COMMAND_PARTITIONS_MAX >= TOPIC_PARTITIONS_MAX, "a topic is created by one command");
const _: () = assert!(PEER_RAFT_BODY_BYTES_MAX > COMMAND_BYTES_MAX && PEER_CONTROL_BODY_BYTES_MAX > COMMAND_BYTES_MAX);
const _: () = assert!(RAFT_ENTRIES_BYTES_MAX + MIB <= PEER_RAFT_BODY_BYTES_MAX, "an append fits into its message");
const _: () = assert!(SNAPSHOT_PIECE_BYTES + MIB <= PEER_RAFT_BODY_BYTES_MAX, "a piece fits into its message");
const _: () = assert!(PEER_LEDGER_BODY_BYTES_MAX > BATCH_BYTES_MAX, "a largest batch must fit in an entry's message");
const _: () = assert!(LEDGER_READ_BYTES_MAX + MIB < PEER_BULK_BODY_BYTES_MAX && LEDGER_MESSAGE_ENTRIES_MAX * 8 < MIB);
const _: () = assert!(PEER_BULK_BODY_BYTES_MAX > COMMAND_BYTES_MAX && PEER_BULK_BODY_BYTES_MAX > BATCH_BYTES_MAX);
const _: () = assert!(STORE_PIECE_BYTES + MIB <= PEER_BULK_BODY_BYTES_MAX, "a piece fits into its message");
const _: () = assert!(64 * STORE_LIST_MAX <= PEER_BULK_BODY_BYTES_MAX, "a listing fits into its message");
const _: () = assert!(PEER_LEDGER_BODY_BYTES_MAX < i32::MAX as usize);
const _: () = assert!(PEER_BULK_BODY_BYTES_MAX < i32::MAX as usize);
const _: () =
    assert!(PEER_RAFT_BODY_BYTES_MAX <= PEER_RAFT_BYTES_MAX && PEER_CONTROL_BODY_BYTES_MAX <= PEER_CONTROL_BYTES_MAX);
const _: () = assert!(ADMIT_BYTES_MAX < PEER_CONTROL_BODY_BYTES_MAX && ADMIT_PARTITIONS_MAX < ADMIT_BYTES_MAX);
const _: () =
    assert!(MARKERS_PARTITIONS_MAX * 64 < PEER_CONTROL_BODY_BYTES_MAX, "a marker on one partition takes 47 bytes");
const _: () = assert!(PEER_REFUSAL_BYTES_MAX + 64 <= PEER_HELLO_BYTES_MAX, "a refusal answers a hello");
