//! A definition's schema as a [`Type`], so that patches, server-side apply and the search for misspelt fields treat defined kinds like
//! any other.

use serde_json::Value;

use crate::object::schema::{Field, Form, ListKind, Struct, Text, Type, facts, metadata};

// What most places of a schema are is there once.
static TEXT: Form = Form::Text(Text::Plain);
static WHOLE_NUMBER: Form = Form::Integer(i64::MIN, i64::MAX as u64);
static NUMBER: Form = Form::Number;
static BOOLEAN: Form = Form::Boolean;
static INT_OR_TEXT: Form = Form::IntOrText;

/// The type of a defined kind's objects: its schema, and what every object has.
pub(super) fn root(kind: &str, schema: &Value) -> Type {
    let mut shape = structure(schema, kind);
    let text = Type::fixed(&TEXT);
    for (name, of, required) in [("apiVersion", text, true), ("kind", text, true), ("metadata", metadata(), false)] {
        shape.fields.insert(name.to_owned(), Field { of, required, nullable: false, fact: facts::PLAIN });
    }
    Type::made(Form::Struct(shape))
}

fn structure(schema: &Value, name: &str) -> Struct {
    let mut fields = std::collections::BTreeMap::new();
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        let fact = facts::Fact { list: list_kind(schema), atomic: schema["x-kubernetes-map-type"] == "atomic", ..facts::PLAIN };
        // What must be there is said in validation's words.
        let field_type = Field { of: of(schema), required: false, nullable: schema["nullable"] == true, fact };
        fields.insert(field.clone(), field_type);
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        let text = Type::fixed(&TEXT);
        for (name, of) in [("apiVersion", text), ("kind", text), ("metadata", metadata())] {
            fields.insert(name.to_owned(), Field { of, required: false, nullable: false, fact: facts::PLAIN });
        }
    }
    Struct {
        name: name.to_owned(),
        fields,
        atomic: schema["x-kubernetes-map-type"] == "atomic",
        open: schema["x-kubernetes-preserve-unknown-fields"] == true,
    }
}

fn list_kind(schema: &Value) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
            ListKind::Map(keys.map(super::leak).collect::<Vec<_>>().leak())
        }
        _ => ListKind::Atomic,
    }
}

fn of(schema: &Value) -> Type {
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::fixed(&INT_OR_TEXT);
    }
    match schema["type"].as_str() {
        Some("object") => Type::made(match &schema["additionalProperties"] {
            values @ Value::Object(_) => Form::Map(of(values)),
            Value::Bool(true) => Form::Map(Type::open()),
            _ => Form::Struct(structure(schema, "")),
        }),
        Some("array") => Type::made(Form::List(of(&schema["items"]))),
        Some("string") => Type::fixed(&TEXT),
        Some("integer") => Type::fixed(&WHOLE_NUMBER),
        Some("number") => Type::fixed(&NUMBER),
        Some("boolean") => Type::fixed(&BOOLEAN),
        _ => Type::open(),
    }
}
