//! The shapes of all requests: the fields of each, in wire order, with the versions that have them. One file per family
//! of APIs.
//!
//! Written as constants, so that the compiler checks the table. A test holds it against kafka-protocol's encoder for
//! every API and version.

pub mod admin;
pub mod data;
pub mod group;
pub mod quota;
pub mod telemetry;
pub mod transaction;

/// What a field looks like on the wire. Strings, bytes and arrays are compact in flexible versions. Whether null is
/// allowed is left to the decoder: it costs no memory.
#[derive(Debug)]
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    String,
    /// Bytes that are not looked into; record batches too.
    Bytes,
    /// An array of fixed-width values.
    FixedArray(usize),
    StringArray,
    Array(&'static Struct),
    /// A struct behind a presence byte.
    Optional(&'static Struct),
    /// A struct in place; only as a tagged field.
    Struct(&'static Struct),
}

/// A field and the versions that have it.
#[derive(Debug)]
pub struct Field {
    pub kind: Kind,
    pub since: i16,
    pub until: i16,
}

/// Fields in wire order. In flexible versions every struct ends with tagged fields.
#[derive(Debug)]
pub struct Struct {
    pub fields: &'static [Field],
    /// Tagged fields that the decoder looks into; it passes over all others.
    pub tagged: &'static [(u32, Field)],
}

impl Field {
    const fn since(self, since: i16) -> Field {
        Field { since, ..self }
    }

    const fn until(self, until: i16) -> Field {
        Field { until, ..self }
    }

    pub fn exists_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

const fn field(kind: Kind) -> Field {
    Field { kind, since: 0, until: i16::MAX }
}

const fn plain(fields: &'static [Field]) -> Struct {
    Struct { fields, tagged: &[] }
}

const fn array(of: &'static Struct) -> Field {
    field(Kind::Array(of))
}

const BOOL: Field = field(Kind::Fixed(1));
const I8: Field = field(Kind::Fixed(1));
const I16: Field = field(Kind::Fixed(2));
const I32: Field = field(Kind::Fixed(4));
const I64: Field = field(Kind::Fixed(8));
const UUID: Field = field(Kind::Fixed(16));
const STRING: Field = field(Kind::String);
const BYTES: Field = field(Kind::Bytes);
const I32_ARRAY: Field = field(Kind::FixedArray(4));
const STRING_ARRAY: Field = field(Kind::StringArray);

/// Name and partitions of a topic, as many requests have them.
const NAMED_PARTITIONS: Struct = plain(&[STRING, I32_ARRAY]);
/// Id and partitions of a topic.
const UUID_PARTITIONS: Struct = plain(&[UUID, I32_ARRAY]);
