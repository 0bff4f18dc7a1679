//! A JSON object without one of its fields, which is passed over and not built.
//!
//! You will not find here: what is wanted of a document field by field (`sieve`).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Reads an object, all of it but one field.
pub(super) fn without(field: &str, json: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = But(field).deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

struct But<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for But<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for But<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                map.next_value::<IgnoredAny>()?;
            } else {
                found.insert(name, map.next_value()?);
            }
        }
        Ok(Value::Object(found))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_field_is_left_out_at_the_top_only() {
        let text = br#"{"a":{"status":1},"status":{"b":["}",{}]},"z":null}"#;
        assert_eq!(without("status", text).unwrap(), json!({"a": {"status": 1}, "z": null}));
        assert_eq!(without("x", text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
        assert!(without("status", br#"{"status":{]}}"#).is_err() && without("status", b"[]").is_err());
    }
}
