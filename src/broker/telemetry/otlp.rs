//! Reads OpenTelemetry's metrics, protobuf's wire format (the message `MetricsData` of opentelemetry-proto), as far as
//! clients of Kafka use it: gauges and sums of numbers; of a histogram its sum and its count.
//!
//! Nothing is allocated by a claimed length, nesting is as deep as the format and no deeper, and what is too much is
//! left out, not believed.

/// Values that one push may hold; further ones are left out.
const VALUES_MAX: usize = 4_096;
/// Attributes of one value, with those of its resource; further ones are left out.
const ATTRIBUTES_MAX: usize = 16;
/// Characters of a name or of an attribute's text; what is longer is cut.
const TEXT_CHARS_MAX: usize = 128;

/// How values of one metric follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Gauge,
    /// It only grows.
    Counter,
}

/// One number that a client measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub name: String,
    pub kind: Kind,
    /// To be added to what was pushed before.
    pub delta: bool,
    /// Key and text of each, as they were given; keys may repeat.
    pub attributes: Vec<(String, String)>,
    pub number: f64,
}

/// Bytes that are no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    #[error("a field is cut off")]
    Truncated,
    #[error("a number has more than 64 bits")]
    Overlong,
    #[error("wire type {0} is not used")]
    WireType(u8),
    #[error("a text is not UTF-8")]
    Utf8,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Takes fields off the front of a message.
#[derive(Clone)]
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn byte(&mut self) -> Result<u8, OtlpError> {
        let (first, rest) = self.0.split_first().ok_or(OtlpError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], OtlpError> {
        let length = usize::try_from(length).map_err(|_| OtlpError::Truncated)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(OtlpError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, OtlpError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(OtlpError::Overlong)
    }

    fn fixed64(&mut self) -> Result<u64, OtlpError> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(OtlpError::Truncated)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// Number and value of the next field.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, OtlpError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Fixed32)?,
            other => return Err(OtlpError::WireType(other as u8)),
        };
        Ok(Some((tag >> 3, field)))
    }

    /// Calls `each` for every submessage or text of the field `number`.
    fn each(mut self, number: u64, mut each: impl FnMut(&'a [u8]) -> Result<(), OtlpError>) -> Result<(), OtlpError> {
        while let Some((found, field)) = self.next()? {
            if let (true, Some(bytes)) = (found == number, field.bytes()) {
                each(bytes)?;
            }
        }
        Ok(())
    }

    /// The last submessage or text of the field `number`.
    fn last(self, number: u64) -> Result<&'a [u8], OtlpError> {
        let mut last: &[u8] = &[];
        self.each(number, |bytes| {
            last = bytes;
            Ok(())
        })?;
        Ok(last)
    }
}

fn text(bytes: &[u8]) -> Result<String, OtlpError> {
    let text = std::str::from_utf8(bytes).map_err(|_| OtlpError::Utf8)?;
    Ok(text.chars().take(TEXT_CHARS_MAX).collect())
}

/// The numbers of one `MetricsData`.
pub fn read(bytes: &[u8]) -> Result<Vec<Value>, OtlpError> {
    let mut values = Vec::new();
    Message(bytes).each(1, |resource_metrics| {
        let mut shared = Vec::new();
        let resource = Message(resource_metrics).last(1)?;
        Message(resource).each(1, |attribute| push_attribute(&mut shared, attribute))?;
        Message(resource_metrics)
            .each(2, |scope| Message(scope).each(2, |metric| read_metric(metric, &shared, &mut values)))
    })?;
    Ok(values)
}

fn read_metric(metric: &[u8], shared: &[(String, String)], values: &mut Vec<Value>) -> Result<(), OtlpError> {
    let name = text(Message(metric).last(1)?)?;
    let mut fields = Message(metric);
    while let Some((number, field)) = fields.next()? {
        let Some(data) = field.bytes() else { continue };
        match number {
            5 => {
                let like =
                    Value { name: name.clone(), kind: Kind::Gauge, delta: false, attributes: vec![], number: 0.0 };
                read_points(data, &like, shared, values)?;
            }
            7 => {
                let (delta, monotonic) = sum_traits(data)?;
                let kind = if monotonic { Kind::Counter } else { Kind::Gauge };
                let like = Value { name: name.clone(), kind, delta, attributes: vec![], number: 0.0 };
                read_points(data, &like, shared, values)?;
            }
            9 => read_histogram(data, &name, shared, values)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether the numbers are differences, and whether they only grow.
fn sum_traits(sum: &[u8]) -> Result<(bool, bool), OtlpError> {
    let (mut delta, mut monotonic) = (false, false);
    let mut fields = Message(sum);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (2, Field::Varint(temporality)) => delta = temporality == 1,
            (3, Field::Varint(flag)) => monotonic = flag != 0,
            _ => {}
        }
    }
    Ok((delta, monotonic))
}

fn read_points(
    data: &[u8],
    like: &Value,
    shared: &[(String, String)],
    values: &mut Vec<Value>,
) -> Result<(), OtlpError> {
    Message(data).each(1, |point| {
        let (mut attributes, mut number) = (shared.to_vec(), None);
        let mut fields = Message(point);
        while let Some(field) = fields.next()? {
            match field {
                (4, Field::Fixed64(bits)) => number = Some(f64::from_bits(bits)),
                (6, Field::Fixed64(bits)) => number = Some(bits as i64 as f64),
                (7, Field::Bytes(attribute)) => push_attribute(&mut attributes, attribute)?,
                _ => {}
            }
        }
        if let (Some(number), true) = (number, values.len() < VALUES_MAX) {
            values.push(Value { attributes, number, ..like.clone() });
        }
        Ok(())
    })
}

fn read_histogram(
    data: &[u8],
    name: &str,
    shared: &[(String, String)],
    values: &mut Vec<Value>,
) -> Result<(), OtlpError> {
    let (delta, _) = sum_traits(data)?;
    Message(data).each(1, |point| {
        let (mut attributes, mut count, mut sum) = (shared.to_vec(), None, None);
        let mut fields = Message(point);
        while let Some(field) = fields.next()? {
            match field {
                (4, Field::Fixed64(bits)) => count = Some(bits as f64),
                (5, Field::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
                (9, Field::Bytes(attribute)) => push_attribute(&mut attributes, attribute)?,
                _ => {}
            }
        }
        for (suffix, number) in [("count", count), ("sum", sum)] {
            if let (Some(number), true) = (number, values.len() < VALUES_MAX) {
                let name = format!("{name}.{suffix}");
                values.push(Value { name, kind: Kind::Counter, delta, attributes: attributes.clone(), number });
            }
        }
        Ok(())
    })
}

/// One `KeyValue`; a value that is no single text, number or flag is left out.
fn push_attribute(attributes: &mut Vec<(String, String)>, bytes: &[u8]) -> Result<(), OtlpError> {
    if attributes.len() >= ATTRIBUTES_MAX {
        return Ok(());
    }
    let key = text(Message(bytes).last(1)?)?;
    let mut value = None;
    let mut fields = Message(Message(bytes).last(2)?);
    while let Some(field) = fields.next()? {
        value = match field {
            (1, Field::Bytes(given)) => Some(text(given)?),
            (2, Field::Varint(flag)) => Some((flag != 0).to_string()),
            (3, Field::Varint(number)) => Some((number as i64).to_string()),
            (4, Field::Fixed64(bits)) => Some(f64::from_bits(bits).to_string()),
            _ => value,
        };
    }
    attributes.extend(value.map(|value| (key, value)));
    Ok(())
}

/// Writes messages, for tests.
#[cfg(test)]
pub mod write {
    pub fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    pub fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
        [&varint(number << 3 | 2), &varint(value.len() as u64), value].concat()
    }

    pub fn number(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    pub fn fixed64(number: u64, bits: u64) -> Vec<u8> {
        [&varint(number << 3 | 1)[..], &bits.to_le_bytes()].concat()
    }

    pub fn attribute(key: &str, value: &str) -> Vec<u8> {
        [bytes(1, key.as_bytes()), bytes(2, &bytes(1, value.as_bytes()))].concat()
    }

    /// A `MetricsData` of these metrics.
    pub fn data(resource: &[Vec<u8>], metrics: &[Vec<u8>]) -> Vec<u8> {
        let resource: Vec<u8> = resource.iter().flat_map(|attribute| bytes(1, attribute)).collect();
        let scope: Vec<u8> = metrics.iter().flat_map(|metric| bytes(2, metric)).collect();
        bytes(1, &[bytes(1, &resource), bytes(2, &scope)].concat())
    }

    pub fn gauge(name: &str, value: f64, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut point = fixed64(4, value.to_bits());
        attributes.iter().for_each(|attribute| point.extend(bytes(7, attribute)));
        [bytes(1, name.as_bytes()), bytes(5, &bytes(1, &point))].concat()
    }

    pub fn sum(name: &str, value: i64, delta: bool, monotonic: bool) -> Vec<u8> {
        let point = fixed64(6, value as u64);
        let sum = [bytes(1, &point), number(2, if delta { 1 } else { 2 }), number(3, monotonic.into())].concat();
        [bytes(1, name.as_bytes()), bytes(7, &sum)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::write::*;
    use super::*;

    fn sample() -> Vec<u8> {
        let histogram =
            [bytes(1, &[fixed64(4, 3), fixed64(5, 1.5f64.to_bits()), bytes(6, &[0; 16])].concat()), number(2, 2)]
                .concat();
        data(
            &[attribute("group_id", "g")],
            &[
                gauge("org.apache.kafka.consumer.lag", 7.5, &[attribute("topic", "t")]),
                sum("connection.creation.total", -3, true, true),
                [bytes(1, b"latency"), bytes(9, &histogram)].concat(),
            ],
        )
    }

    #[test]
    fn gauges_sums_and_histograms_are_read() {
        let values = read(&sample()).unwrap();
        let shown: Vec<_> = values.iter().map(|v| (v.name.as_str(), v.kind, v.delta, v.number)).collect();
        assert_eq!(
            shown,
            [
                ("org.apache.kafka.consumer.lag", Kind::Gauge, false, 7.5),
                ("connection.creation.total", Kind::Counter, true, -3.0),
                ("latency.count", Kind::Counter, false, 3.0),
                ("latency.sum", Kind::Counter, false, 1.5),
            ]
        );
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(values[0].attributes, [pair("group_id", "g"), pair("topic", "t")]);
        assert_eq!(read(&[]), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_or_overlong_is_refused_and_nothing_panics() {
        let whole = sample();
        for length in 1..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        assert_eq!(read(&[0xff; 11]), Err(OtlpError::Overlong));
        assert_eq!(read(&bytes(1, &[0x0b])), Err(OtlpError::WireType(3)));
        // A claimed length of 2^63 − 1.
        assert_eq!(read(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), Err(OtlpError::Truncated));
        assert_eq!(read(&data(&[], &[bytes(1, &[0xff])])), Err(OtlpError::Utf8));
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let many = vec![gauge("m", 1.0, &vec![attribute(&"k".repeat(500), "v"); 100]); VALUES_MAX + 10];
        let values = read(&data(&[], &many)).unwrap();
        assert_eq!(values.len(), VALUES_MAX);
        assert_eq!(values[0].attributes.len(), ATTRIBUTES_MAX);
        assert_eq!(values[0].attributes[0].0.len(), TEXT_CHARS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(at in 0usize..200, to in proptest::num::u8::ANY) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = read(&bytes);
        }
    }
}
