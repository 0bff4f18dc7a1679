//! A part of a JSON document: the fields that are wanted, or all but one, without building a tree of the others.
//!
//! What is left out is checked for its syntax all the same: a document that passes is JSON as a whole.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What is wanted of a value.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// These fields of it, each as far as it is wanted itself.
    fields: Vec<(&'static str, Wanted)>,
    /// And all others.
    others: bool,
}

impl Wanted {
    /// The values at these paths. Where a path leads through something that is no object, there is nothing.
    pub(super) fn paths(paths: impl IntoIterator<Item = &'static str>) -> Wanted {
        let mut wanted = Wanted::default();
        for path in paths {
            let mut at = &mut wanted;
            for step in path.split('.') {
                if at.whole() {
                    break;
                }
                let place = at.fields.iter().position(|(name, _)| *name == step).unwrap_or_else(|| {
                    at.fields.push((step, Wanted::default()));
                    at.fields.len() - 1
                });
                at = &mut at.fields[place].1;
            }
            *at = Wanted { fields: Vec::new(), others: true };
        }
        wanted
    }

    /// All of an object but one of its fields.
    pub(super) fn but(field: &'static str) -> Wanted {
        Wanted { fields: vec![(field, Wanted::default())], others: true }
    }

    fn whole(&self) -> bool {
        self.fields.is_empty() && self.others
    }

    fn nothing(&self) -> bool {
        self.fields.is_empty() && !self.others
    }

    /// Reads a document.
    pub(super) fn of(&self, json: &[u8]) -> serde_json::Result<Value> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let value = self.deserialize(&mut reader)?;
        reader.end().map(|()| value)
    }
}

impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        if self.whole() { serde::Deserialize::deserialize(reader) } else { reader.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for &Wanted {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.fields.iter().find(|(wanted, _)| *wanted == name) {
                Some((_, wanted)) if wanted.nothing() => drop(map.next_value::<IgnoredAny>()?),
                Some((name, wanted)) => drop(found.insert((*name).to_owned(), map.next_value_seed(wanted)?)),
                None if self.others => drop(found.insert(name.into_owned(), map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(found))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_read_and_nothing_else() {
        let wanted = Wanted::paths([
            "spec.node.of",
            "metadata.name",
            "metadata.labels",
            "spec.node",
            "spec.node.too",
            "spec.deep.er",
            "list.of",
            "text.of",
            "kind",
        ]);
        let json = br#"{"kind":"K","metadata":{"name":"a\"b","labels":{"x":"y"},"managedFields":[{"deep":[1,2.5,null]}]},
            "spec":{"node":["all",{"of":"it"}],"deep":3,"other":true},"list":[{"of":1}],"text":"of","more":{}}"#;
        let found = json!({
            "kind": "K", "metadata": {"name": "a\"b", "labels": {"x": "y"}}, "spec": {"node": ["all", {"of": "it"}], "deep": null},
            "list": null, "text": null,
        });
        assert_eq!(wanted.of(json).unwrap(), found);
    }

    #[test]
    fn one_field_is_left_out_at_the_top_only() {
        let text = br#"{"a":{"status":1},"status":{"b":["}",{}]},"z":null}"#;
        assert_eq!(Wanted::but("status").of(text).unwrap(), json!({"a": {"status": 1}, "z": null}));
        assert_eq!(Wanted::but("x").of(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
        assert!(Wanted::but("status").of(br#"{"status":{]}}"#).is_err());
    }

    #[test]
    fn what_is_left_out_must_be_json_too() {
        let wanted = Wanted::paths(["kind"]);
        for bad in [
            &br#"{"kind":"K","more":{]}"#[..],
            br#"{"kind":"K","more":tru}"#,
            br#"{"kind":"K"} x"#,
            b"",
            br#"{"kind":"K","more":"\u12"}"#,
        ] {
            assert!(wanted.of(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
