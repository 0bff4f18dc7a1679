//! Protobuf request bodies: what kubectl from 1.32 on and controllers in Go send for the kinds that they know. Decoded into the JSON tree
//! that the same client would have sent as JSON, by a table of fields ([`fields.txt`](self), made by `derive.py`).
//!
//! Go writes fields that are not pointers even when they are zero; JSON leaves most of them out, and so does this. Fields that the table
//! does not have are passed over, as in Kubernetes.
//!
//! You will not find here: encoding. Answers are JSON, which every client takes.

pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::failure::Failure;
use wire::{Malformed, Reader, Wire};

/// The media type of such bodies.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may be nested. Kubernetes' own types need a dozen.
const DEPTH_MAX: usize = 64;
/// How many values a body may hold. The size of a body is bounded already, but an empty message takes two bytes there and a hundred here.
const VALUES_MAX: usize = 400_000;

/// One field of a message.
struct Field {
    number: u32,
    /// The name in JSON; empty for an inlined message.
    name: &'static str,
    shape: Shape,
    /// Whether a zero means something.
    keep: bool,
    of: Of,
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    One,
    List,
    /// By text.
    Map,
    /// Its fields belong to the message around it.
    Inline,
}

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Text,
    Boolean,
    Integer,
    Double,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrText,
    Raw,
    Texts,
    Message(&'static str),
}

/// The messages by name: `apps/v1.Deployment`. Read when the first protobuf body comes; most servers see none for long.
fn table() -> &'static HashMap<String, Vec<Field>> {
    static TABLE: OnceLock<HashMap<String, Vec<Field>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("fields.txt").lines().filter(|l| !l.starts_with('#'));
        lines
            .map(|line| {
                let (message, fields) = line.split_once(' ').unwrap_or((line, ""));
                (message.to_owned(), fields.split_whitespace().map(field).collect())
            })
            .collect()
    })
}

/// Reads `6!revisionHistoryLimit:i`. The table is ours and a test reads all of it.
fn field(text: &'static str) -> Field {
    let (head, of) = text.split_once(':').expect("a field has a type");
    let digits = head.find(|c: char| !c.is_ascii_digit()).unwrap_or(head.len());
    let (number, rest) = head.split_at(digits);
    let name = rest.trim_start_matches(['*', '%', '^', '!']);
    let flags = &rest[..rest.len() - name.len()];
    let shape = match flags {
        _ if flags.contains('*') => Shape::List,
        _ if flags.contains('%') => Shape::Map,
        _ if flags.contains('^') => Shape::Inline,
        _ => Shape::One,
    };
    let of = match of {
        "s" => Of::Text,
        "b" => Of::Boolean,
        "i" => Of::Integer,
        "d" => Of::Double,
        "y" => Of::Bytes,
        "T" => Of::Time,
        "M" => Of::MicroTime,
        "q" => Of::Quantity,
        "x" => Of::IntOrText,
        "r" => Of::Raw,
        "l" => Of::Texts,
        message => Of::Message(message),
    };
    Field { number: number.parse().expect("a field has a number"), name, shape, keep: flags.contains('!'), of }
}

/// Decodes a body: an envelope that names the type, and the object in it.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, Failure> {
    let wrong = |why: Malformed| {
        Failure::bad_request(format!("the object provided is unrecognized: couldn't parse it as protobuf: {why}"))
    };
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(|| wrong(Malformed("it does not begin with k8s\\x00")))?;
    let envelope = Envelope::read(envelope).map_err(wrong)?;
    let Envelope { api_version, kind, raw } = envelope;
    let group_version = match kind.as_str() {
        // Clients send these in the group and version of whatever they delete.
        "DeleteOptions" | "Status" => "meta.k8s.io/v1",
        _ => api_version.as_str(),
    };
    let message = format!("{group_version}.{kind}");
    let Some((name, fields)) = table().get_key_value(&message) else {
        return Err(Failure::bad_request(format!(
            "no kind {kind:?} of version {api_version:?} is known in protobuf; send it as JSON or YAML (kubectl apply does)"
        )));
    };
    let mut decoder = Decoder { values: VALUES_MAX };
    let mut object = Map::new();
    decoder.message(name, fields, raw, DEPTH_MAX, &mut object).map_err(wrong)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// `runtime.Unknown`: what comes after the magic number.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next()? {
            match (number, wire) {
                (1, Wire::Bytes(types)) => {
                    let mut types = Reader::new(types);
                    while let Some((number, wire)) = types.next()? {
                        match number {
                            1 => envelope.api_version = wire.text()?.to_owned(),
                            2 => envelope.kind = wire.text()?.to_owned(),
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                // Neither is used by any client that is known; to guess would be to store something else than was sent.
                (3 | 4, Wire::Bytes(said)) if !said.is_empty() && said != MEDIA_TYPE.as_bytes() => {
                    return Err(Malformed("its envelope says that the object is encoded in another way"));
                }
                _ => {}
            }
        }
        match envelope.kind.is_empty() {
            true => Err(Malformed("its envelope does not name a kind")),
            false => Ok(envelope),
        }
    }
}

struct Decoder {
    /// How many more values there may be.
    values: usize,
}

impl Decoder {
    /// Adds the fields of one message to `out`. `name` tells in which group and version unqualified types are.
    fn message(
        &mut self,
        name: &'static str,
        fields: &'static [Field],
        bytes: &[u8],
        depth: usize,
        out: &mut Map<String, Value>,
    ) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("it is nested too deeply"))?;
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next()? {
            let Some(field) = fields.iter().find(|f| f.number == number) else { continue };
            self.values = self.values.checked_sub(1).ok_or(Malformed("it holds too many values"))?;
            match field.shape {
                Shape::One => {
                    let value = self.value(name, field.of, wire, depth)?;
                    if field.keep && !value.is_null() || !is_zero(&value) {
                        out.insert(field.name.to_owned(), value);
                    }
                }
                Shape::List => {
                    let value = self.value(name, field.of, wire, depth)?;
                    match out.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) {
                        Value::Array(items) => items.push(value),
                        _ => return Err(Malformed("a field occurs in two shapes")),
                    }
                }
                Shape::Map => {
                    let (mut key, mut value) = (String::new(), None);
                    let mut entry = Reader::new(wire.bytes()?);
                    while let Some((number, wire)) = entry.next()? {
                        match number {
                            1 => key = wire.text()?.to_owned(),
                            2 => value = Some(self.value(name, field.of, wire, depth)?),
                            _ => {}
                        }
                    }
                    // An entry without a value has the type's zero.
                    let value = match value {
                        Some(value) => value,
                        None => self.value(name, field.of, Wire::Bytes(&[]), depth)?,
                    };
                    match out.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                        Value::Object(entries) => drop(entries.insert(key, value)),
                        _ => return Err(Malformed("a field occurs in two shapes")),
                    }
                }
                Shape::Inline => {
                    let (name, fields) = target(name, field.of)?;
                    self.message(name, fields, wire.bytes()?, depth, out)?;
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, around: &'static str, of: Of, wire: Wire<'_>, depth: usize) -> Result<Value, Malformed> {
        Ok(match of {
            Of::Text => wire.text()?.into(),
            Of::Boolean => (wire.varint()? != 0).into(),
            Of::Integer => wire.integer()?.into(),
            Of::Double => match wire {
                Wire::Fixed64(bits) => {
                    let number = serde_json::Number::from_f64(f64::from_bits(bits));
                    Value::Number(number.ok_or(Malformed("a number is not finite"))?)
                }
                _ => return Err(wire::OTHER_TYPE),
            },
            Of::Bytes => BASE64_STANDARD.encode(wire.bytes()?).into(),
            Of::Time => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
            Of::MicroTime => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
            Of::Quantity => {
                let text = last(wire.bytes()?, 1)?.map_or(Ok(""), |w| w.text())?;
                if text.is_empty() { "0".into() } else { text.into() }
            }
            Of::IntOrText => {
                let bytes = wire.bytes()?;
                let number = |n: u32| last(bytes, n)?.map_or(Ok(0), |w| w.integer());
                match number(1)? {
                    0 => number(2)?.into(),
                    _ => last(bytes, 3)?.map_or(Ok(""), |w| w.text())?.into(),
                }
            }
            Of::Raw => match last(wire.bytes()?, 1)?.map_or(Ok(&[][..]), |w| w.bytes())? {
                [] => Value::Null,
                raw => serde_json::from_slice(raw).map_err(|_| Malformed("an embedded object is not JSON"))?,
            },
            Of::Texts => {
                let mut texts = Vec::new();
                let mut reader = Reader::new(wire.bytes()?);
                while let Some((number, wire)) = reader.next()? {
                    if number == 1 {
                        self.values = self.values.checked_sub(1).ok_or(Malformed("it holds too many values"))?;
                        texts.push(Value::from(wire.text()?));
                    }
                }
                texts.into()
            }
            Of::Message(_) => {
                let (name, fields) = target(around, of)?;
                let mut inner = Map::new();
                self.message(name, fields, wire.bytes()?, depth, &mut inner)?;
                inner.into()
            }
        })
    }
}

/// The message that a field of the message `around` is made of.
fn target(around: &'static str, of: Of) -> Result<(&'static str, &'static [Field]), Malformed> {
    let Of::Message(name) = of else { return Err(wire::OTHER_TYPE) };
    let found = match name.strip_prefix('.') {
        // `v1.Pod`, `meta.k8s.io/v1.ObjectMeta`: the last dot is before the name.
        Some(local) => {
            let (package, _) = around.rsplit_once('.').unwrap_or((around, ""));
            table().get_key_value(&format!("{package}.{local}"))
        }
        None => table().get_key_value(name),
    };
    found.map(|(name, fields)| (name.as_str(), fields.as_slice())).ok_or(Malformed("its type is not in the table"))
}

/// The last occurrence of one field.
fn last(bytes: &[u8], wanted: u32) -> Result<Option<Wire<'_>>, Malformed> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == wanted {
            found = Some(wire);
        }
    }
    Ok(found)
}

/// A time as text; null for none, which Go writes as an empty message.
fn time(bytes: &[u8], format: &str) -> Result<Value, Malformed> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |n: u32| last(bytes, n)?.map_or(Ok(0), |w| w.integer());
    let nanos = i32::try_from(number(2)?).map_err(|_| Malformed("a time is out of range"))?;
    let at = Timestamp::new(number(1)?, nanos).map_err(|_| Malformed("a time is out of range"))?;
    Ok(at.strftime(format).to_string().into())
}

/// What JSON leaves out when the field is not a pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
