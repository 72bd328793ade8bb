//! The first words on a connection: who dials, who is meant, in which cluster, and which protocol both can speak.
//!
//! ```text
//! hello  = length (4) ‖ "CMPH" ‖ lowest, highest protocol (2 + 2) ‖ cluster (16) ‖ generation (8) ‖ sender (4)
//!          ‖ target (4) ‖ class (1) ‖ process (8) ‖ software (4 + n)
//! answer = length (4) ‖ "CMPA" ‖ 0 (1) ‖ protocol (2) ‖ node (4) ‖ process (8) ‖ software (4 + n)
//!        | length (4) ‖ "CMPA" ‖ reason (1) ‖ sentence (4 + n)
//! ```
//!
//! The layout up to the versions never changes. What a later protocol adds goes to the end, and is skipped by those
//! that do not know it. Judging is pure; nothing here reads or writes a socket.

use std::sync::Arc;

use bytes::Bytes;

use super::{Class, Standing};
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::PEER_REFUSAL_BYTES_MAX;
use crate::base::{ClusterId, NodeId};

/// The protocols that this release speaks.
pub const PROTOCOL_MIN: u16 = 1;
pub const PROTOCOL_MAX: u16 = 1;

const HELLO_MAGIC: [u8; 4] = *b"CMPH";
const ANSWER_MAGIC: [u8; 4] = *b"CMPA";
/// Bytes of the text that names a release.
const SOFTWARE_BYTES_MAX: usize = 64;

/// Who this node is to others.
#[derive(Debug, Clone)]
pub struct Own {
    pub cluster: ClusterId,
    /// A cluster that was restored from its bucket has a higher one; those of the old one are not of it.
    pub generation: u64,
    pub node: NodeId,
    /// Random, drawn at the start of this process: tells two processes of one node apart.
    pub process: u64,
    /// The release, for people.
    pub software: String,
}

/// What the dialling side says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub cluster: ClusterId,
    pub generation: u64,
    pub sender: NodeId,
    /// The node that was meant.
    pub target: NodeId,
    /// [`Class::code`], perhaps of a class that is not known here.
    pub class: u8,
    /// The sender's process.
    pub process: u64,
    pub software: String,
}

/// Why bytes are no hello that can be answered with an acceptance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    #[error("no hello of the peer protocol")]
    Magic,
    #[error("protocols {lowest} to {highest} are offered, {PROTOCOL_MIN} to {PROTOCOL_MAX} are spoken here")]
    Version { lowest: u16, highest: u16 },
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
}

impl Hello {
    pub(super) fn new(own: &Own, target: NodeId, class: Class) -> Hello {
        Hello {
            cluster: own.cluster,
            generation: own.generation,
            sender: own.node,
            target,
            class: class.code(),
            process: own.process,
            software: clean(&own.software, SOFTWARE_BYTES_MAX),
        }
    }

    /// Without its length.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.raw(&HELLO_MAGIC).u16(PROTOCOL_MIN).u16(PROTOCOL_MAX);
        out.raw(&self.cluster.0).u64(self.generation).i32(self.sender.0).i32(self.target.0);
        out.u8(self.class).u64(self.process).string(&self.software);
        out.finish()
    }

    /// Reads a hello; and the protocol that both sides speak.
    pub fn decode(bytes: &[u8]) -> Result<(Hello, u16), BadHello> {
        let mut input = Reader::new(bytes);
        if input.array() != Ok(HELLO_MAGIC) {
            return Err(BadHello::Magic);
        }
        let (lowest, highest) = (input.u16()?, input.u16()?);
        if lowest > highest || lowest > PROTOCOL_MAX || highest < PROTOCOL_MIN {
            return Err(BadHello::Version { lowest, highest });
        }
        let hello = Hello {
            cluster: ClusterId(input.array()?),
            generation: input.u64()?,
            sender: NodeId(input.i32()?),
            target: NodeId(input.i32()?),
            class: input.u8()?,
            process: input.u64()?,
            software: clean(&input.string("software")?, SOFTWARE_BYTES_MAX),
        };
        Ok((hello, highest.min(PROTOCOL_MAX)))
    }
}

/// Why a node is not served, by number on the wire; a number is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Malformed,
    Version,
    Cluster,
    Generation,
    /// The certificate's subject is not on the list of nodes.
    Subject,
    /// The certificate belongs to another node than the one that is claimed.
    Claim,
    /// Another node was meant.
    Target,
    /// The class is not known, or not served now.
    Class,
    /// A node that is joining may use the control class only.
    Joining,
    /// Another process is connected under the same node's name.
    Process,
    /// Too many connections.
    Full,
    /// A reason that this release does not know.
    Other,
}

impl Reason {
    pub const ALL: [Reason; 12] = [
        Reason::Malformed,
        Reason::Version,
        Reason::Cluster,
        Reason::Generation,
        Reason::Subject,
        Reason::Claim,
        Reason::Target,
        Reason::Class,
        Reason::Joining,
        Reason::Process,
        Reason::Full,
        Reason::Other,
    ];

    fn code(self) -> u8 {
        match self {
            Reason::Malformed => 1,
            Reason::Version => 2,
            Reason::Cluster => 3,
            Reason::Generation => 4,
            Reason::Subject => 5,
            Reason::Claim => 6,
            Reason::Target => 7,
            Reason::Class => 8,
            Reason::Joining => 9,
            Reason::Process => 10,
            Reason::Full => 11,
            Reason::Other => 255,
        }
    }

    fn from_code(code: u8) -> Reason {
        Reason::ALL.into_iter().find(|reason| reason.code() == code).unwrap_or(Reason::Other)
    }

    /// For metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Version => "version",
            Reason::Cluster => "cluster",
            Reason::Generation => "generation",
            Reason::Subject => "subject",
            Reason::Claim => "claim",
            Reason::Target => "target",
            Reason::Class => "class",
            Reason::Joining => "joining",
            Reason::Process => "process",
            Reason::Full => "full",
            Reason::Other => "other",
        }
    }
}

/// A refusal: for programs, and for people with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    pub reason: Reason,
    pub sentence: Arc<str>,
}

impl Refusal {
    pub(super) fn new(reason: Reason, sentence: String) -> Refusal {
        Refusal { reason, sentence: clean(&sentence, PEER_REFUSAL_BYTES_MAX).into() }
    }
}

/// What the answering side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloAnswer {
    Accepted {
        /// The protocol that both speak from now on.
        protocol: u16,
        node: NodeId,
        /// The answering process.
        process: u64,
        software: String,
    },
    Refused(Refusal),
}

impl HelloAnswer {
    pub(super) fn accepted(own: &Own, protocol: u16) -> HelloAnswer {
        let software = clean(&own.software, SOFTWARE_BYTES_MAX);
        HelloAnswer::Accepted { protocol, node: own.node, process: own.process, software }
    }

    /// Without its length.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.raw(&ANSWER_MAGIC);
        match self {
            HelloAnswer::Accepted { protocol, node, process, software } => {
                out.u8(0).u16(*protocol).i32(node.0).u64(*process).string(software);
            }
            HelloAnswer::Refused(refusal) => {
                out.u8(refusal.reason.code()).string(&refusal.sentence);
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<HelloAnswer, BadHello> {
        let mut input = Reader::new(bytes);
        if input.array() != Ok(ANSWER_MAGIC) {
            return Err(BadHello::Magic);
        }
        let code = input.u8()?;
        if code != 0 {
            return Ok(HelloAnswer::Refused(Refusal::new(Reason::from_code(code), input.string("sentence")?)));
        }
        let protocol = input.u16()?;
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&protocol) {
            return Err(BadHello::Version { lowest: protocol, highest: protocol });
        }
        let (node, process) = (NodeId(input.i32()?), input.u64()?);
        let software = clean(&input.string("software")?, SOFTWARE_BYTES_MAX);
        Ok(HelloAnswer::Accepted { protocol, node, process, software })
    }
}

/// The class for which a node with this certificate is served, with what serves it, or why it is not. Whether there is
/// room, and whether another process has the node's name, is for others to judge.
pub(super) fn judge<S>(
    hello: &Hello,
    subject: &str,
    standing: Standing,
    own: &Own,
    serves: impl Fn(Class) -> Option<S>,
) -> Result<(Class, S), Refusal> {
    let (sender, me) = (hello.sender, own.node);
    let refuse = |reason, sentence: String| Err(Refusal::new(reason, sentence));
    match standing.node() {
        None => return refuse(Reason::Subject, not_listed(subject)),
        Some(node) if node != sender => {
            let sentence = format!(
                "the certificate {subject} is that of node {node} and not of node {sender}: give each node the \
                 certificate that was made for it, or correct its node id"
            );
            return refuse(Reason::Claim, sentence);
        }
        Some(_) => {}
    }
    if hello.cluster != own.cluster {
        let sentence = format!(
            "node {sender} belongs to the cluster {}, node {me} to {}: correct the address that node {sender} dials, \
             or its cluster id",
            hello.cluster, own.cluster
        );
        return refuse(Reason::Cluster, sentence);
    }
    if hello.generation != own.generation {
        let sentence = format!(
            "node {sender} belongs to generation {} of the cluster, node {me} to {}: the lower one was replaced by a \
             restore; stop what is left of it",
            hello.generation, own.generation
        );
        return refuse(Reason::Generation, sentence);
    }
    if hello.target != me {
        let sentence = format!(
            "node {sender} meant node {} and reached node {me}: correct the peer address of node {}",
            hello.target, hello.target
        );
        return refuse(Reason::Target, sentence);
    }
    // A node's own tools come under its name.
    let class = Class::from_code(hello.class).filter(|class| sender != me || *class == Class::Control);
    let Some((class, service)) = class.and_then(|class| Some((class, serves(class)?))) else {
        let name = Class::from_code(hello.class).map_or_else(|| format!("number {}", hello.class), |c| c.to_string());
        let sentence = format!(
            "node {me} does not serve the class {name} to node {sender}: wait until it has started, or bring both to \
             the same release"
        );
        return refuse(Reason::Class, sentence);
    };
    if !standing.permits(sender, class) {
        let sentence =
            format!("node {sender} has not joined yet and may use the class control only: let it join first");
        return refuse(Reason::Joining, sentence);
    }
    Ok((class, service))
}

/// What is wrong with a certificate that no node has.
pub(super) fn not_listed(subject: &str) -> String {
    format!(
        "the certificate {subject} belongs to no node of this cluster: add the node to the cluster, or give it the \
         certificate that it was added with"
    )
}

/// Text of a peer for logs: without control characters, and not longer than `bytes_max`.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own { cluster: ClusterId([1; 16]), generation: 3, node: NodeId(1), process: 9, software: "0.1.0".to_owned() }
    }

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId([1; 16]),
            generation: 3,
            sender: NodeId(2),
            target: NodeId(1),
            class: Class::Raft.code(),
            process: 0x0102_0304_0506_0708,
            software: "0.1.0".to_owned(),
        }
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What releases before this one sent, and what they understand.
    #[test]
    fn the_bytes_of_protocol_1_stay_as_they_are() {
        let mut expected = "434d504800010001".to_owned() + &"01".repeat(16) + "0000000000000003";
        expected += "000000020000000101010203040506070800000005302e312e30";
        assert_eq!(hexadecimal(&hello().encode()), expected);
        let accepted = HelloAnswer::accepted(&own(), 1);
        assert_eq!(hexadecimal(&accepted.encode()), "434d504100000100000001000000000000000900000005302e312e30");
        let refused = HelloAnswer::Refused(Refusal::new(Reason::Process, "no".to_owned()));
        assert_eq!(hexadecimal(&refused.encode()), "434d50410a000000026e6f");
        for answer in [accepted, refused] {
            assert_eq!(HelloAnswer::decode(&answer.encode()), Ok(answer));
        }
        assert_eq!(Hello::decode(&hello().encode()), Ok((hello(), 1)));
    }

    #[test]
    fn what_a_later_protocol_adds_is_skipped() {
        let later = [&hello().encode()[..], b"more"].concat();
        assert_eq!(Hello::decode(&later), Ok((hello(), 1)));
        let mut wider = hello().encode().to_vec();
        wider[6..8].copy_from_slice(&7u16.to_be_bytes());
        assert_eq!(Hello::decode(&wider), Ok((hello(), 1)));
        let unknown = [&b"CMPA"[..], &[99, 0, 0, 0, 1, b'x']].concat();
        let Ok(HelloAnswer::Refused(refusal)) = HelloAnswer::decode(&unknown) else { panic!("a refusal") };
        assert_eq!(refusal, Refusal::new(Reason::Other, "x".to_owned()));
    }

    #[test]
    fn versions_that_do_not_meet_are_told_before_anything_else_is_read() {
        for (lowest, highest) in [(2u16, 9u16), (0, 0), (3, 1)] {
            let hello = [&b"CMPH"[..], &lowest.to_be_bytes(), &highest.to_be_bytes(), b"whatever"].concat();
            assert_eq!(Hello::decode(&hello), Err(BadHello::Version { lowest, highest }));
        }
        assert_eq!(Hello::decode(b"GET / HTTP/1.1"), Err(BadHello::Magic));
        assert_eq!(Hello::decode(b""), Err(BadHello::Magic));
        for end in 4..hello().encode().len() {
            assert!(matches!(Hello::decode(&hello().encode()[..end]), Err(BadHello::Malformed(_))), "{end}");
        }
    }

    #[test]
    fn each_fault_has_its_reason_and_a_remedy() {
        use Standing::{Joining, Known, Unknown};
        let node = NodeId(2);
        type Change = fn(&mut Hello);
        let cases: [(Standing, Change, Option<Reason>); 12] = [
            (Known(node), |_| {}, None),
            (Unknown, |_| {}, Some(Reason::Subject)),
            (Known(NodeId(3)), |_| {}, Some(Reason::Claim)),
            (Joining(NodeId(3)), |hello| hello.class = 3, Some(Reason::Claim)),
            (Known(node), |hello| hello.cluster = ClusterId([2; 16]), Some(Reason::Cluster)),
            (Known(node), |hello| hello.generation = 2, Some(Reason::Generation)),
            (Known(node), |hello| hello.target = NodeId(4), Some(Reason::Target)),
            (Known(node), |hello| hello.class = 0, Some(Reason::Class)),
            (Known(node), |hello| hello.class = Class::Bulk.code(), Some(Reason::Class)),
            (Joining(node), |_| {}, Some(Reason::Joining)),
            (Joining(node), |hello| hello.class = 3, None),
            // Its own tools: control only.
            (Known(NodeId(1)), |hello| hello.sender = NodeId(1), Some(Reason::Class)),
        ];
        for (standing, change, expected) in cases {
            let mut hello = hello();
            change(&mut hello);
            let judged = judge(&hello, "CN=x", standing, &own(), |class| (class != Class::Bulk).then_some(()));
            assert_eq!(judged.as_ref().err().map(|refusal| refusal.reason), expected, "{judged:?}");
            if let Err(refusal) = judged {
                assert!(refusal.sentence.contains(": ") && refusal.sentence.len() < 400, "{refusal}");
            }
        }
    }

    #[test]
    fn a_peers_text_cannot_break_a_log() {
        assert_eq!(clean("a\nb\u{1b}[31m", 100), "a b [31m");
        assert_eq!(clean("grün", 3), "gr");
        assert_eq!(Refusal::new(Reason::Other, "x".repeat(9999)).sentence.len(), PEER_REFUSAL_BYTES_MAX);
    }

    #[test]
    fn reasons_and_classes_have_numbers_of_their_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), reason);
            assert_ne!(reason.code(), 0);
        }
        for class in Class::ALL {
            assert_eq!((Class::from_code(class.code()), Class::ALL[class.index()]), (Some(class), class));
        }
    }
}
