//! What the types of all kinds look like: one compact tree, built once from what `schemars` says about the Rust types and from a small
//! table of [facts] that Rust types cannot say (merge keys, kinds of lists).
//!
//! Descriptions are not kept: whoever publishes documents (`api`) asks `schemars` itself.

pub mod facts;
pub mod shape;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{KINDS, Kind};
pub use facts::ListKind;

/// A type. Cheap to copy and to look into; lives as long as the program.
#[derive(Clone, Copy, Debug)]
pub struct Type(Place);

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Among the forms of the program's kinds.
    Ours(u32),
    /// A form of a kind that somebody defined.
    Made(&'static Form),
}

/// What a type is made of.
#[derive(Debug)]
pub enum Form {
    /// Anything; server-side apply sees it as one value.
    Any,
    /// Anything; server-side apply looks into objects.
    Open,
    /// `true` or `false`.
    Boolean,
    /// A whole number between these two.
    Integer(i64, u64),
    /// Any number.
    Number,
    /// A text.
    Text(Text),
    /// A whole number or a text (`25%`, a port's name).
    IntOrText,
    /// An amount: a text or a number.
    Quantity,
    /// Named fields.
    Struct(Struct),
    /// Any names, one type of values.
    Map(Type),
    /// A list of one type.
    List(Type),
}

/// What a text must be.
#[derive(Debug, PartialEq, Eq)]
pub enum Text {
    /// Anything.
    Plain,
    /// Base64.
    Bytes,
    /// RFC 3339, written with so many digits after the second where Kubernetes has one way of writing it: 0 for a `Time`, 6 for a
    /// `MicroTime`.
    Time(Option<usize>),
    /// One of these.
    OneOf(Vec<String>),
}

/// A structure with named fields.
#[derive(Debug)]
pub struct Struct {
    /// The last part of its name: `PodSpec`.
    pub name: String,
    /// Its fields.
    pub fields: BTreeMap<String, Field>,
    /// Whether server-side apply sees it as one value.
    pub atomic: bool,
    /// Whether it may have other fields as well.
    pub open: bool,
}

/// One field of a structure.
#[derive(Debug)]
pub struct Field {
    /// Its type.
    pub of: Type,
    /// Whether it must be there.
    pub required: bool,
    /// Whether null is a value of its own; elsewhere it means "absent".
    pub nullable: bool,
    /// What else is known about it.
    pub fact: facts::Fact,
}

struct Schemas {
    forms: Vec<Form>,
    roots: Vec<(&'static Kind, Type)>,
}

static SCHEMAS: OnceLock<Schemas> = OnceLock::new();

impl Type {
    /// What it is made of.
    pub fn form(self) -> &'static Form {
        match self.0 {
            Place::Ours(place) => &schemas().forms[place as usize],
            Place::Made(form) => form,
        }
    }
    /// A type of a kind that somebody defined. It is never given back: see [`custom`](super::custom).
    pub(in crate::object) fn made(form: Form) -> Type {
        Type(Place::Made(Box::leak(Box::new(form))))
    }
    /// A type whose form is in the program.
    pub(in crate::object) const fn fixed(form: &'static Form) -> Type {
        Type(Place::Made(form))
    }
    /// The type of what nothing is known of.
    pub(in crate::object) fn open() -> Type {
        static OPEN: Form = Form::Open;
        Type::fixed(&OPEN)
    }
    fn place(self) -> usize {
        match self.0 {
            Place::Ours(place) => place as usize,
            Place::Made(_) => unreachable!("the program's kinds are not made of anybody's definitions"),
        }
    }
    /// The structure, if it is one.
    pub fn as_struct(self) -> Option<&'static Struct> {
        match self.form() {
            Form::Struct(s) => Some(s),
            _ => None,
        }
    }
    /// The field of a structure.
    pub fn field(self, name: &str) -> Option<&'static Field> {
        self.as_struct()?.fields.get(name)
    }
}

/// The type of `metadata`.
pub(in crate::object) fn metadata() -> Type {
    of(&KINDS[0]).field("metadata").expect("objects have metadata").of
}

/// The type of a kind's objects.
pub fn of(kind: &'static Kind) -> Type {
    if let Some(custom) = kind.custom {
        // Of a stored object whose definition is not there, nothing is known.
        return custom.version.as_ref().map_or_else(Type::open, |version| version.root);
    }
    // Two versions of a kind are equal as kinds, and look different.
    let found = schemas().roots.iter().find(|(k, _)| std::ptr::eq(*k, kind) || (*k == kind && k.version == kind.version));
    found.expect("every kind of KINDS has a schema").1
}

fn schemas() -> &'static Schemas {
    SCHEMAS.get_or_init(build)
}

/// Asks schemars once about all kinds together, so that shared types are converted once, and lets its answer go.
fn build() -> Schemas {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let roots: Vec<_> = KINDS.iter().map(|kind| (kind, (kind.schema)(&mut generator).to_value())).collect();
    let definitions = generator.take_definitions(false);
    let mut builder = Builder { forms: Vec::new(), named: BTreeMap::new(), definitions: &definitions };
    let roots = roots
        .iter()
        .map(|(kind, schema)| {
            let root = builder.convert(schema, "");
            let text = builder.add(Form::Text(Text::Plain));
            if let Form::Struct(s) = &mut builder.forms[root.place()] {
                for name in ["apiVersion", "kind"] {
                    s.fields.entry(name.to_owned()).or_insert(Field {
                        of: text,
                        required: false,
                        nullable: false,
                        fact: facts::PLAIN,
                    });
                }
            }
            (*kind, root)
        })
        .collect();
    Schemas { forms: builder.forms, roots }
}

struct Builder<'a> {
    forms: Vec<Form>,
    named: BTreeMap<&'a str, Type>,
    definitions: &'a serde_json::Map<String, Value>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, form: Form) -> Type {
        self.forms.push(form);
        Type(Place::Ours(self.forms.len() as u32 - 1))
    }

    fn convert(&mut self, schema: &'a Value, name: &str) -> Type {
        if let Some(name) = schema["$ref"].as_str().map(|r| r.rsplit('/').next().unwrap_or(r)) {
            if let Some(known) = self.named.get(name) {
                return *known;
            }
            // Reserved first: a type may contain itself.
            let place = self.add(Form::Any);
            self.named.insert(name, place);
            let (_, short) = name.rsplit_once('.').unwrap_or(("", name));
            let form = match short {
                "Quantity" => Form::Quantity,
                "IntOrString" => Form::IntOrText,
                "Time" => Form::Text(Text::Time(Some(0))),
                "MicroTime" => Form::Text(Text::Time(Some(6))),
                "FieldsV1" | "RawExtension" | "JSON" => Form::Any,
                _ => self.definitions.get(name).map_or(Form::Any, |definition| self.form(definition, short)),
            };
            self.forms[place.place()] = form;
            return place;
        }
        let form = self.form(schema, name);
        self.add(form)
    }

    fn form(&mut self, schema: &'a Value, name: &str) -> Form {
        // `Option<T>` is "T or null", and null is the same as absent here.
        for choice in ["anyOf", "oneOf"] {
            let Some(branches) = schema[choice].as_array() else { continue };
            let branches: Vec<&Value> = branches.iter().filter(|b| b["type"] != "null").collect();
            if let Some(texts) = branches.iter().map(|b| texts(b)).collect::<Option<Vec<_>>>() {
                return Form::Text(Text::OneOf(texts.concat()));
            }
            if let [one] = branches.as_slice() {
                return match one["$ref"].as_str() {
                    Some(_) => {
                        let target = self.convert(one, name);
                        self.copy(target, one)
                    }
                    None => self.form(one, name),
                };
            }
            return Form::Any;
        }
        let kind = match &schema["type"] {
            Value::String(one) => one.as_str(),
            Value::Array(many) => many.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or(""),
            _ => "",
        };
        match kind {
            "boolean" => Form::Boolean,
            "integer" => match schema["format"].as_str() {
                Some("int32") => Form::Integer(i32::MIN.into(), i32::MAX as u64),
                Some("uint32") => Form::Integer(0, u32::MAX.into()),
                Some("uint64" | "uint") => Form::Integer(0, u64::MAX),
                _ => Form::Integer(i64::MIN, i64::MAX as u64),
            },
            "number" => Form::Number,
            "string" => match (schema["format"].as_str(), texts(schema)) {
                (_, Some(texts)) => Form::Text(Text::OneOf(texts)),
                (Some("byte"), _) => Form::Text(Text::Bytes),
                (Some("date-time"), _) => Form::Text(Text::Time(None)),
                _ => Form::Text(Text::Plain),
            },
            "array" => Form::List(self.convert(&schema["items"], "")),
            "object" => match (schema["properties"].as_object(), &schema["additionalProperties"]) {
                (Some(properties), _) => {
                    let required: Vec<&str> =
                        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    let mut fields = BTreeMap::new();
                    for (field, schema) in properties {
                        let of = self.convert(schema, "");
                        let fact = facts::of(name, field);
                        fields.insert(
                            field.clone(),
                            Field { of, required: required.contains(&field.as_str()), nullable: false, fact },
                        );
                    }
                    Form::Struct(Struct {
                        name: name.to_owned(),
                        fields,
                        atomic: facts::ATOMIC_TYPES.contains(&name),
                        open: false,
                    })
                }
                (None, values @ Value::Object(_)) => Form::Map(self.convert(values, "")),
                _ => Form::Any,
            },
            _ => Form::Any,
        }
    }

    /// The form of "a named type or null". Structures are rebuilt, because their fields refer to forms by place anyway.
    fn copy(&mut self, target: Type, schema: &'a Value) -> Form {
        let reference = schema["$ref"].as_str().unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let short = name.rsplit('.').next().unwrap_or(name);
        match &self.forms[target.place()] {
            Form::Quantity => Form::Quantity,
            Form::IntOrText => Form::IntOrText,
            Form::Text(Text::Time(digits)) => Form::Text(Text::Time(*digits)),
            _ => self.definitions.get(name).map_or(Form::Any, |definition| self.form(definition, short)),
        }
    }
}

/// The values of an enumeration, if the schema is one.
fn texts(schema: &Value) -> Option<Vec<String>> {
    if let Some(one) = schema["const"].as_str() {
        return Some(vec![one.to_owned()]);
    }
    schema["enum"].as_array()?.iter().filter(|v| !v.is_null()).map(|v| v.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: &str, path: &str) -> &'static Field {
        let kind = KINDS.iter().find(|k| k.kind == kind).unwrap();
        let (mut at, mut found) = (of(kind), None);
        for step in path.split('.') {
            at = match at.form() {
                Form::List(of) | Form::Map(of) => *of,
                _ => at,
            };
            let field = at.field(step).unwrap_or_else(|| panic!("{kind:?} has no {path} ({step})"));
            at = field.of;
            found = Some(field);
        }
        found.unwrap()
    }

    #[test]
    fn every_kind_is_a_structure_with_metadata() {
        for kind in KINDS {
            let root = of(kind).as_struct().unwrap_or_else(|| panic!("{kind:?}: {:?}", of(kind).form()));
            assert!(root.fields.contains_key("metadata") && root.fields.contains_key("apiVersion"), "{kind:?}");
            assert!(at(kind.kind, "metadata.labels").of.as_struct().is_none());
        }
    }

    #[test]
    fn forms() {
        assert!(matches!(at("Deployment", "spec.replicas").of.form(), Form::Integer(_, 2147483647)));
        assert!(
            matches!(at("Pod", "spec.containers.resources.limits").of.form(), Form::Map(of) if matches!(of.form(), Form::Quantity))
        );
        assert!(matches!(at("Deployment", "spec.strategy.rollingUpdate.maxSurge").of.form(), Form::IntOrText));
        assert!(matches!(at("Secret", "data").of.form(), Form::Map(of) if matches!(of.form(), Form::Text(Text::Bytes))));
        assert!(matches!(at("Pod", "metadata.creationTimestamp").of.form(), Form::Text(Text::Time(Some(0)))));
        assert!(matches!(at("Lease", "spec.renewTime").of.form(), Form::Text(Text::Time(Some(6)))));
        assert!(matches!(at("Pod", "spec.hostNetwork").of.form(), Form::Boolean));
        assert!(at("Pod", "spec.containers").required && at("Pod", "spec.containers.name").required);
        assert_eq!(at("Pod", "spec.containers.ports").fact.list, ListKind::Map(&["containerPort", "protocol"]));
        assert_eq!(at("Pod", "spec.containers.ports").fact.merge, Some("containerPort"));
        assert!(at("Deployment", "spec.selector").of.as_struct().unwrap().atomic);
        assert!(
            matches!(at("Application", "spec.policy.onFailure").of.form(), Form::Text(Text::OneOf(words)) if words.len() == 3)
        );
        assert!(matches!(at("Application", "spec.policy.selfHeal").of.form(), Form::Boolean));
        assert!(matches!(at("Application", "spec.pin.expires").of.form(), Form::Text(Text::Time(_))));
        assert!(matches!(at("Rendering", "objects.object").of.form(), Form::Any));
    }

    #[test]
    fn every_fact_speaks_of_a_field_that_exists() {
        let structs: Vec<&Struct> =
            schemas().forms.iter().filter_map(|f| if let Form::Struct(s) = f { Some(s) } else { None }).collect();
        for (name, field, _) in facts::FIELDS {
            let fits = structs.iter().any(|s| s.name == *name && s.fields.contains_key(*field));
            assert!(fits, "{name}.{field}");
        }
        for name in facts::ATOMIC_TYPES {
            assert!(structs.iter().any(|s| s.name == *name), "{name}");
        }
    }
}
