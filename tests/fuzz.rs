//! Mutated input for every parser that faces a peer or a disk: none may panic, hang, or take memory by a claim.
//!
//! Seeds are valid inputs, mutated by a seeded generator, so a failure repeats. `make test` gives each parser some
//! thousand inputs, `make fuzz` a minute each. An input that fails is kept as a file and named.

#![forbid(unsafe_code)]

#[path = "it/batch.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which decode batches too")]
mod batch;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/requests.rs"]
mod requests;

use bytes::Bytes;
use casemate::base::Offset;
use casemate::base::{ObjectId, ProducerId};
use casemate::batch::{
    EndMarker, StoredBatch, check_produced, compression, end_marker, first_at_or_after, looks_transactional,
    parse_end_marker, split_batches, with_max_timestamp,
};
use casemate::object::{Listed, PartitionState, Shelf, StoredKey, Sums};
use casemate::security::bundle::{Bundle, Sealed};
use casemate::{base, cluster, kafka, kv, metadata, net, peer, quorum, security, store};
use mutate::{Rng, mutate};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Inputs of a short run, each up to a few kilobytes.
const INPUTS: u64 = 20_000;
/// No input of this size may keep a parser this long.
const SLOW: Duration = Duration::from_secs(2);
/// What the process may grow by: claims are not memory.
const GROWTH_KIB: u64 = 512 << 10;

/// Feeds mutations of the seeds to `parse`, for a number of inputs or for CASEMATE_TEST_FUZZ_SECONDS.
fn fuzz(name: &str, seeds: &[Vec<u8>], parse: impl Fn(&[u8])) {
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds.iter().for_each(|seed| parse(seed));
    let seconds =
        std::env::var("CASEMATE_TEST_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    // A long run begins elsewhere each time; a short one is the same on every machine.
    let start = seconds.map_or(1, |_| u64::from(std::process::id()));
    let (began, before, mut inputs) = (Instant::now(), peak_kib(), 0);
    while seconds.map_or(inputs < INPUTS, |s| began.elapsed() < s) {
        let mut rng = Rng::new(start << 40 | inputs);
        let input = mutate(seeds, &mut rng);
        let at = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| parse(&input)));
        if outcome.is_err() || at.elapsed() > SLOW {
            let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{start}-{inputs}"));
            std::fs::write(&file, &input).expect("the input can be kept");
            let what = if outcome.is_err() { "panicked" } else { "was slow" };
            panic!("{name} {what} on {} bytes, kept in {}", input.len(), file.display());
        }
        inputs += 1;
    }
    let grown = peak_kib().saturating_sub(before);
    println!(
        "{name}: {inputs} inputs from {} seeds in {:?}, peak memory grew by {grown} KiB",
        seeds.len(),
        began.elapsed()
    );
    assert!(grown < GROWTH_KIB, "{name}: memory grew by {grown} KiB");
}

/// The most memory that the process ever held.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next());
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Batches of all codecs: some whose packed records are right, some whose attributes lie.
fn batches() -> Vec<Vec<u8>> {
    let values: Vec<Vec<u8>> = (0..20).map(|n| vec![n; n as usize * 7]).collect();
    let plain = batch::encode(&values, batch::Producer { id: 5, epoch: 0 }, 7, 1_700_000_000_000);
    let stored = StoredBatch::from_contiguous(Bytes::from(plain.clone())).expect("the tests' own batch parses");
    let packed = compression::Compression::ALL
        .iter()
        .filter_map(|codec| compression::recompress(&stored, *codec, None).ok().map(|b| b.to_contiguous().to_vec()));
    let mut seeds: Vec<Vec<u8>> = packed.collect();
    for attributes in [1, 2, 3, 4, 5, 0x28] {
        seeds.push(batch::encode_body(&plain[61..], 20, attributes, batch::NO_PRODUCER, -1, 5));
    }
    seeds.push([plain.clone(), plain].concat());
    seeds
}

/// Puts the right checksum on a mutated batch, so that what is behind the check is reached too.
fn with_checksum(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if bytes.len() > 61 {
        let length = (bytes.len() as u32 - 12).to_be_bytes();
        bytes[8..12].copy_from_slice(&length);
        let crc = batch::crc32c(&bytes[21..]).to_be_bytes();
        bytes[17..21].copy_from_slice(&crc);
    }
    bytes
}

fn parse_batch(bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    let _ = split_batches(bytes.clone());
    let _ = (parse_end_marker(&bytes), looks_transactional(&bytes));
    if let Ok((header, stored)) = check_produced(bytes) {
        let _ = with_max_timestamp(&stored);
        let _ = first_at_or_after(&stored, Offset(0), header.max_timestamp.saturating_sub(1));
        for codec in compression::Compression::ALL {
            let _ = compression::recompress(&stored, codec, None);
        }
    }
}

#[test]
fn requests() {
    fuzz("requests", &requests::frames(), |input| {
        kafka::request::walk_fuzz(input);
    });
}

#[test]
fn produced_batches() {
    fuzz("batches", &batches(), |input| {
        parse_batch(input.to_vec());
        parse_batch(with_checksum(input));
    });
}

#[test]
fn end_markers() {
    let marker = |commit| {
        let marker = EndMarker { commit, coordinator_epoch: 3 };
        end_marker(ProducerId(5), 1, marker, 7).expect("small").to_contiguous().to_vec()
    };
    fuzz("markers", &[marker(false), marker(true)], |input| {
        let _ = parse_end_marker(input);
        let _ = parse_end_marker(&with_checksum(input));
    });
}

/// The checksum stands at the end of a state: mutated states get the right one, so that what is behind it is reached.
#[test]
fn kept_states_of_producers() {
    let seed = PartitionState::default().to_bytes(Offset(9)).to_vec();
    fuzz("states", &[seed[..seed.len() - 4].to_vec()], |input| {
        let sealed = [input, &batch::crc32c(input).to_be_bytes()].concat();
        if let Ok(state) = PartitionState::from_bytes(&sealed, Offset(9)) {
            assert_eq!(PartitionState::from_bytes(&state.to_bytes(Offset(9)), Offset(9)), Ok(state));
        }
    });
}

#[test]
fn packed_records() {
    let seeds: Vec<Vec<u8>> = batches().into_iter().map(|b| b[61..].to_vec()).collect();
    fuzz("compression", &seeds, |input| {
        for codec in compression::Compression::ALL {
            let _ = compression::decompress(codec, input, 1 << 20);
        }
    });
}

/// The committed encodings of one kind, which are hexadecimal.
fn fixtures(folder: &str) -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let files = std::fs::read_dir(path).expect("the fixtures are there").flatten();
    let texts = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
    let digits = texts.map(|t| t.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect::<Vec<_>>());
    digits.map(|d| d.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()).collect()
}

#[test]
fn metadata_commands_and_images() {
    fuzz("metadata", &fixtures("metadata/v1"), |input| {
        if let Ok(command) = metadata::Command::decode(input) {
            assert_eq!(
                metadata::Command::decode(&command.encode()).as_ref(),
                Ok(&command),
                "what is read is written the same"
            );
        }
        let _ = metadata::Image::decode(input);
    });
}

/// What a node says first, and what it is answered.
#[test]
fn hellos_between_nodes() {
    let hello = peer::Hello {
        cluster: casemate::base::ClusterId([7; 16]),
        generation: 1,
        sender: casemate::base::NodeId(2),
        target: casemate::base::NodeId(1),
        class: peer::Class::Raft.code(),
        process: 9,
        software: "0.1.0".to_owned(),
    };
    let accepted =
        peer::HelloAnswer::Accepted { protocol: 1, node: hello.target, process: 5, software: "x".to_owned() };
    let sentence = "another process is connected as node 2".into();
    let refused = peer::HelloAnswer::Refused(peer::Refusal { reason: peer::Reason::Process, sentence });
    let seeds = [hello.encode().to_vec(), accepted.encode().to_vec(), refused.encode().to_vec()];
    fuzz("hellos", &seeds, |input| {
        if let Ok((hello, protocol)) = peer::Hello::decode(input) {
            assert_eq!(peer::Hello::decode(&hello.encode()), Ok((hello, protocol)), "what is read is written the same");
        }
        if let Ok(answer) = peer::HelloAnswer::decode(input) {
            assert_eq!(peer::HelloAnswer::decode(&answer.encode()), Ok(answer), "what is read is written the same");
        }
    });
}

/// What nodes ask and tell each other about stored copies, and the sums that lie beside a copy.
#[test]
fn stored_copies_between_nodes() {
    let (object, snapshot) = (StoredKey::Object(ObjectId(7)), StoredKey::Snapshot { generation: 1, applied: 9 });
    let asks = [
        store::Ask::Piece { upload: 3, position: 0, bytes: vec![Bytes::from_static(b"piece")] },
        store::Ask::Commit { upload: 3, key: object, bytes: 5, digest: 4 },
        store::Ask::Read { key: snapshot, from: 4, bytes: 100 },
        store::Ask::List { shelf: Shelf::Objects(3), after: Some(object), limit: 10 },
        store::Ask::Delete { key: StoredKey::Probe(1) },
    ];
    let listed = vec![Listed { key: object, bytes: 8, modified_ms: 9 }; 3];
    let tells = [
        store::Tell::Listed { complete: true, copies: listed, more: false },
        store::Tell::Bytes { total: 9, bytes: Bytes::from_static(b"abc") },
        store::Tell::Stat { bytes: 1, digest: Some(4) },
        store::Tell::Full { reason: "voll".to_owned() },
    ];
    let seeds: Vec<Vec<u8>> =
        asks.into_iter().map(|a| a.encode().concat()).chain(tells.into_iter().map(|t| t.encode().concat())).collect();
    fuzz("stored copies", &seeds, |input| {
        let input = Bytes::copy_from_slice(input);
        if let Ok(ask) = store::Ask::decode(input.clone()) {
            assert_eq!(ask.encode().concat(), input, "what is read is written the same");
        }
        if let Ok(tell) = store::Tell::decode(input.clone()) {
            // A reason may be cut.
            let again = Bytes::from(tell.clone().encode().concat());
            assert!(again == input || matches!(tell, store::Tell::Full { .. } | store::Tell::Failed { .. }));
        }
    });
    let whole = Sums::of(&[vec![7; 100_000].into()]).encode().to_vec();
    fuzz("sums", &[whole], |input| {
        if let Ok(sums) = Sums::decode(input) {
            assert_eq!(sums.encode(), input, "what is read is written the same");
        }
        // With the right checksum, so that what is behind it is reached too.
        let mut sealed = input.to_vec();
        if let Some(body) = sealed.len().checked_sub(4) {
            let crc = casemate::base::checksum::crc32c(&sealed[..body]).to_be_bytes();
            sealed[body..].copy_from_slice(&crc);
            let _ = Sums::decode(&sealed);
        }
    });
}

/// A stream of frames between nodes: cut, decoded, and never larger in memory than what has arrived.
#[test]
fn frames_between_nodes() {
    let frame = |kind: u8, id: u64, body: &[u8]| {
        let length = (9 + body.len() as u32).to_be_bytes();
        [&length[..], &[kind], &id.to_be_bytes(), body].concat()
    };
    let seeds = [
        [frame(1, 1, b"request"), frame(4, 0, b""), frame(1, 2, &[7; 3000])].concat(),
        [frame(2, 1, b"answer"), frame(3, 2, "nö".as_bytes())].concat(),
    ];
    let max = peer::Options::default().class(peer::Class::Bulk).body_bytes_max;
    fuzz("frames", &seeds, |input| {
        let (mut reader, mut rest) = (net::FrameReader::new(max), input);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let (mut frames, mut bytes) = (0, 0);
        while let std::task::Poll::Ready(Ok(1..)) = reader.poll_read(&mut context, &mut rest) {
            while let Ok(Some(frame)) = reader.next_frame() {
                (frames, bytes) = (frames + 1, bytes + frame.len());
                let _ = peer::Frame::decode(frame);
            }
        }
        assert!(frames * 4 + bytes <= input.len());
    });
}

/// What nodes ask and answer about ledgers.
#[test]
fn messages_about_ledgers() {
    use casemate::base::{EntryId, LedgerId, NodeId, WalIncarnation};
    use casemate::ledger::core::{Identity, Reply};
    use casemate::ledger::wire::{Answer, Ask, Payload, Read, ReadAnswer, Request};

    let (to, ledger, one) = (WalIncarnation([7; 16]), LedgerId(9), EntryId(1));
    let payloads = vec![Payload::new([1; 40], Bytes::from(vec![2; 90])), Payload::new([3; 40], Bytes::new())];
    let append = Ask::Append { durable: one, first: one, payloads: payloads.clone() };
    let recover = Ask::Recover { durable: one, uploaded: one, first: one, payloads: payloads.clone() };
    let requests = [append, Ask::Seal, recover].map(|ask| Request { to, ledger, ask }.encode().to_bytes().to_vec());
    let from = Identity { node: NodeId(2), incarnation: to, boot: 5 };
    let sealed = Reply::SealAnswer { ledger, through: Some(one), uncertain_from: None, durable: one };
    let position = Reply::Position { ledger, first: one, synced: one, durable: one };
    let answers = [sealed, position].map(|reply| Answer { from, reply }.encode().to_vec());
    let read = Read { to, ledger, from: one, below: EntryId(7), max_bytes: 9 }.encode()[1..].to_vec();
    let entries = ReadAnswer::Entries { first: one, payloads }.encode().to_bytes().to_vec();
    let held = ReadAnswer::NotHeld { first: one, next: one }.encode().to_bytes().to_vec();
    let seeds = [&requests[..], &answers[..], &[read, entries, held]].concat();
    fuzz("ledgers", &seeds, |input| {
        let message = Bytes::copy_from_slice(input);
        if let Ok(request) = Request::decode(&message) {
            assert_eq!(request.encode().to_bytes(), message, "what is read is written the same");
        }
        if let Ok(answer) = Answer::decode(&message) {
            assert_eq!(answer.encode(), message, "what is read is written the same");
        }
        if let Ok(read) = Read::decode(&message) {
            assert_eq!(Read::decode(&read.encode()[1..]), Ok(read), "what is read is written the same");
        }
        if let Ok(answer) = ReadAnswer::decode(&message) {
            assert_eq!(answer.encode().to_bytes(), message, "what is read is written the same");
        }
    });
}

#[test]
fn requests_to_join_and_to_manage() {
    let (node, identity) = (base::NodeId(2), "CN=b".to_owned());
    let known = security::bundle::KnownNode { node, host: "b.example".to_owned(), port: 9094, identity };
    let token = security::bundle::Token::new([7; 32]);
    // The first byte names the kind, and is taken off by who dispatches.
    let ask = |bytes: bytes::Bytes| bytes[1..].to_vec();
    let mut seeds = vec![
        ask(cluster::JoinAsk::Join { token, directory: base::DirectoryId(3) }.encode()),
        cluster::JoinAnswer::NotLeader { leader: Some(node), nodes: vec![known] }.encode().to_vec(),
        cluster::JoinAnswer::Refused { for_good: true, why: "no".to_owned() }.encode().to_vec(),
        ask(cluster::Ask::Drain(node, true).encode(true)),
        cluster::Managed::Refused("no".to_owned()).encode().to_vec(),
    ];
    let image = metadata::Image::default();
    let quorum = quorum::QuorumStatus {
        leader: Some(node),
        term: 1,
        last_index: Some(4),
        committed: 5,
        applied: Some(4),
        voters: vec![node],
        learners: Vec::new(),
    };
    let status = cluster::Status::gather(node, &image, &quorum, None);
    seeds.push(cluster::Managed::Status(Box::new(status)).encode().to_vec());
    fuzz("requests to join and to manage", &seeds, |input| {
        if let Ok(asked) = cluster::JoinAsk::decode(input) {
            assert_eq!(cluster::JoinAsk::decode(&asked.encode()[1..]), Ok(asked), "what is read is written the same");
        }
        if let Ok(answer) = cluster::JoinAnswer::decode(input) {
            assert_eq!(cluster::JoinAnswer::decode(&answer.encode()), Ok(answer), "what is read is written the same");
        }
        if let Ok((asked, passed_on)) = cluster::Ask::decode(input) {
            let written = asked.encode(passed_on);
            assert_eq!(cluster::Ask::decode(&written[1..]), Ok((asked, passed_on)), "what is read is written the same");
        }
        if let Ok(managed) = cluster::Managed::decode(input) {
            assert_eq!(cluster::Managed::decode(&managed.encode()), Ok(managed), "what is read is written the same");
        }
    });
}

#[test]
fn join_bundles() {
    fuzz("bundles", &fixtures("join/v1"), |input| {
        let _ = Sealed::parse(input);
        let _ = Bundle::decode(input);
    });
}

#[test]
fn keys_and_values_of_the_embedded_store() {
    let seeds: Vec<Vec<u8>> = (0..200).step_by(8).map(|n| vec![0; n]).collect();
    fuzz("kv", &seeds, |input| {
        let (key, value) = input.split_at(input.len().min(29));
        let _ = kv::range::decode(key, value);
        let _ = kv::machine::MachineState::decode(input);
        for length in [8, 9] {
            let (key, value) = input.split_at(input.len().min(length));
            let _ = kv::object::decode(key, value);
            let _ = kv::raft_log::decode(key, value);
        }
    });
}
