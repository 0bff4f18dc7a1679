//! Kinds that people define: what a CustomResourceDefinition says, made into rows like those of `KINDS`.
//!
//! A row is made once for each content and lives as long as the program, so that a key can name it as it names any other row. Making it
//! says nothing about whether it is served: that is what the definitions in a store say ([`Kinds`]), and two stores in one process do
//! not see each other's. What rows may hold together is bounded ([`HELD_AT_MOST`]).
//!
//! Expressions in a schema (`x-kubernetes-validations`) are not evaluated: whoever writes such a definition is warned.

pub mod jsonpath;
pub mod names;
pub(in crate::object) mod schema;
pub(in crate::object) mod structural;
pub(in crate::object) mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::since;
use super::kind::PLAIN;
use super::schema::Type;
use super::{KINDS, Kind, Object, kind_of};
use jsonpath::Path;

/// The group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";
/// What holds a definition that is being deleted until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How many bytes of memory rows may take, about, in the life of a program: those of a cluster with a hundred operators take a third of
/// that. Whoever defines a kind anew for ever comes to it, and from then on new or changed definitions are not established.
const HELD_AT_MOST: usize = if cfg!(test) { 96 << 20 } else { 512 << 20 };
/// How many different kinds may be defined in the life of a program.
const KINDS_AT_MOST: usize = 4096;

/// The row of definitions themselves.
pub fn definitions() -> &'static Kind {
    kind_of::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>()
}

/// What a row has that was not in the program.
pub struct Custom {
    /// The place among all kinds that were defined in this process, from 0; the same for all versions.
    pub slot: usize,
    /// The row of the version that is stored, if that is another one.
    pub stored: Option<&'static Kind>,
    /// What the version looks like; `None` for a row of which only stored objects have been seen.
    pub version: Option<Version>,
}

/// One version of a kind that somebody defined.
pub struct Version {
    /// The schema as it was written.
    pub schema: Value,
    /// The same as a type.
    pub(in crate::object) root: Type,
    /// What patterns in it mean.
    pub(in crate::object) patterns: structural::Patterns,
    /// What `kubectl get` shows beside the name.
    columns: Vec<PrinterColumn>,
    /// Where a scale is.
    pub scale: Option<Scale>,
    /// By which fields its objects can be selected: dotted paths without the first dot.
    pub selectable: Vec<String>,
    /// What is said to whoever uses a deprecated version.
    pub warning: Option<String>,
    /// Tells this content from any other.
    pub digest: String,
}

/// A column of `kubectl get`.
struct PrinterColumn {
    name: String,
    r#type: String,
    format: String,
    description: String,
    priority: i64,
    path: Path,
}

/// Where a scale is: dotted paths without the first dot.
pub struct Scale {
    /// The number that is wished for.
    pub replicas: String,
    /// The number that is there.
    pub status_replicas: String,
    /// A selector as text, if the kind has one.
    pub selector: Option<String>,
}

/// A heading of a table.
pub struct Heading {
    /// As kubectl prints it, in capitals.
    pub name: String,
    /// `string`, `integer`, `date`…
    pub r#type: String,
    /// `name` for the name.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always shown.
    pub priority: i64,
}

impl Kind {
    /// The headings of its tables.
    pub fn headings(&self) -> Vec<Heading> {
        if let Some(version) = self.version_of() {
            let name = Heading {
                name: "Name".to_owned(),
                r#type: "string".to_owned(),
                format: "name".to_owned(),
                description: format!("Name of the {}", self.kind),
                priority: 0,
            };
            let rest = version.columns.iter().map(|c| Heading {
                name: c.name.clone(),
                r#type: c.r#type.clone(),
                format: c.format.clone(),
                description: c.description.clone(),
                priority: c.priority,
            });
            return std::iter::once(name).chain(rest).collect();
        }
        let heading = |column: &super::columns::Column| Heading {
            name: column.name.to_owned(),
            r#type: column.r#type.to_owned(),
            format: if column.name == "Name" { "name" } else { "" }.to_owned(),
            description: format!("{} of the {}", column.name, self.kind),
            priority: column.priority.into(),
        };
        self.columns.iter().map(heading).collect()
    }

    /// The cells of an object's row in a table.
    pub fn cells(&self, value: &Value, now: Timestamp) -> Vec<Value> {
        match self.version_of() {
            Some(version) => {
                let cell = |column: &PrinterColumn| column.cell(value, now);
                std::iter::once(value["metadata"]["name"].clone()).chain(version.columns.iter().map(cell)).collect()
            }
            None => self.columns.iter().map(|column| (column.cell)(value, now)).collect(),
        }
    }

    /// What its definition says of this version, if it has one.
    pub fn version_of(&self) -> Option<&'static Version> {
        self.custom.and_then(|custom| custom.version.as_ref())
    }
}

impl PrinterColumn {
    fn read(column: &Value) -> Option<PrinterColumn> {
        let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
        Some(PrinterColumn {
            name: text("name"),
            r#type: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: Path::parse(column["jsonPath"].as_str()?).ok()?,
        })
    }

    fn cell(&self, value: &Value, now: Timestamp) -> Value {
        let found = self.path.find(value);
        let Some(first) = found.first() else { return Value::Null };
        match (self.r#type.as_str(), *first) {
            ("integer", Value::Number(number)) => number.as_i64().map_or_else(|| json!(number), Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
            ("integer" | "number" | "boolean", _) => Value::Null,
            ("date", time) => since(time, now).into(),
            (_, Value::String(text)) if found.len() == 1 => text.as_str().into(),
            (_, Value::Null) => Value::Null,
            _ => {
                found.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ").into()
            }
        }
    }
}

/// All rows that were made, and what they hold.
struct Known {
    rows: BTreeMap<String, &'static Kind>,
    slots: BTreeMap<(String, String), usize>,
    held: usize,
}

static KNOWN: RwLock<Known> = RwLock::new(Known { rows: BTreeMap::new(), slots: BTreeMap::new(), held: 0 });

/// Why there is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much was defined since this server started: restart it to make room")]
pub struct Full;

/// What a row is made of.
struct Content<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    plural: &'a str,
    singular: &'a str,
    short: Vec<&'a str>,
    categories: Vec<&'a str>,
    namespaced: bool,
    /// The definition's entry of this version; null when it is not known.
    entry: &'a Value,
    stored: Option<&'static Kind>,
}

impl Content<'_> {
    fn row(&self) -> Result<&'static Kind, Full> {
        let text = json!([
            self.group,
            self.version,
            self.kind,
            self.plural,
            self.singular,
            self.short,
            self.categories,
            self.namespaced,
            self.entry,
            self.stored.and_then(|s| s.version_of()).map(|v| &v.digest),
        ])
        .to_string();
        let digest: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02X}")).collect();
        if let Some(row) = KNOWN.read().rows.get(&digest) {
            return Ok(row);
        }
        let mut known = KNOWN.write();
        if let Some(row) = known.rows.get(&digest) {
            return Ok(row);
        }
        let place = (self.group.to_owned(), self.plural.to_owned());
        let free = known.slots.len();
        let weight = text.len() + weight(self.entry);
        if known.held + weight > HELD_AT_MOST || (free >= KINDS_AT_MOST && !known.slots.contains_key(&place)) {
            return Err(Full);
        }
        let slot = *known.slots.entry(place).or_insert(free);
        let row: &'static Kind = Box::leak(Box::new(self.build(slot, &digest)));
        known.held += weight + row.version_of().map_or(0, |version| version.patterns.bytes);
        known.rows.insert(digest, row);
        Ok(row)
    }

    fn build(&self, slot: usize, digest: &str) -> Kind {
        let version = (!self.entry.is_null()).then(|| Version::read(self, digest));
        let mut subresources: Vec<&'static str> = Vec::new();
        for name in ["status", "scale"] {
            if !self.entry["subresources"][name].is_null() {
                subresources.push(name);
            }
        }
        let leak_all = |texts: &[&str]| -> &'static [&'static str] { texts.iter().map(|t| leak(t)).collect::<Vec<_>>().leak() };
        Kind {
            group: leak(self.group),
            version: leak(self.version),
            kind: leak(self.kind),
            plural: leak(self.plural),
            singular: leak(self.singular),
            short: leak_all(&self.short),
            categories: leak_all(&self.categories),
            namespaced: self.namespaced,
            subresources: subresources.leak(),
            custom: Some(Box::leak(Box::new(Custom { slot, stored: self.stored, version }))),
            ..PLAIN
        }
    }
}

/// About what the rows of a version's entry take: the entry as a tree, and what is made of it. The numbers are measured.
fn weight(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| 320 + name.len() + weight(value)).sum::<usize>() + 320,
        Value::Array(items) => items.iter().map(|item| 40 + weight(item)).sum(),
        Value::String(text) => 40 + text.len(),
        _ => 0,
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

impl Version {
    fn read(content: &Content<'_>, digest: &str) -> Version {
        let entry = content.entry;
        let schema = entry["schema"]["openAPIV3Schema"].clone();
        let path = |name: &str| {
            let text = entry["subresources"]["scale"][name].as_str()?;
            Some(text.trim_start_matches('.').to_owned())
        };
        let scale = (|| {
            Some(Scale {
                replicas: path("specReplicasPath")?,
                status_replicas: path("statusReplicasPath")?,
                selector: path("labelSelectorPath"),
            })
        })();
        let fields = entry["selectableFields"].as_array().into_iter().flatten().filter_map(|field| field["jsonPath"].as_str());
        let selectable = fields.map(|path| path.trim_start_matches('.').to_owned()).collect();
        let given = entry["additionalPrinterColumns"].as_array();
        let columns = match given {
            Some(columns) if !columns.is_empty() => columns.iter().filter_map(PrinterColumn::read).collect(),
            _ => PrinterColumn::read(&json!({
                "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                "description": "How long ago the object was created.",
            }))
            .into_iter()
            .collect(),
        };
        let warning = (entry["deprecated"] == true).then(|| {
            let said = entry["deprecationWarning"].as_str().map(str::to_owned);
            said.unwrap_or_else(|| format!("{}/{} {} is deprecated", content.group, content.version, content.kind))
        });
        let (root, patterns) = (schema::root(content.kind, &schema), structural::Patterns::of(&schema));
        Version { root, patterns, schema, columns, scale, selectable, warning, digest: digest.to_owned() }
    }
}

/// The row for a stored object of a kind that is not in the program: what its record says. It will do until a definition is read.
pub fn stored_row(api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Result<&'static Kind, Full> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let singular = kind.to_ascii_lowercase();
    let (short, categories) = (Vec::new(), Vec::new());
    Content {
        group,
        version,
        kind,
        plural,
        singular: &singular,
        short,
        categories,
        namespaced,
        entry: &Value::Null,
        stored: None,
    }
    .row()
}

/// The row for what a record of ours says of an object's kind. Without a `plural` only the program's own kinds are found.
pub fn row_named(api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Option<&'static Kind> {
    let defined = || if plural.is_empty() { None } else { stored_row(api_version, kind, plural, namespaced).ok() };
    Kind::of(api_version, kind).or_else(defined)
}

/// The plural of a kind as such records keep it.
pub fn plural_of(kind: &Kind) -> String {
    if kind.custom.is_some() { kind.plural.to_owned() } else { String::new() }
}

/// What a definition says. Read from the JSON of a CustomResourceDefinition that was admitted.
#[derive(Debug)]
pub struct Definition {
    /// The rows of its served versions, the one that clients should prefer first.
    pub served: Vec<&'static Kind>,
    /// The row of the version that is stored.
    pub stored: Option<&'static Kind>,
    /// Whether its kinds may be used.
    pub established: bool,
    /// Whether it is being deleted: nothing new is created then.
    pub terminating: bool,
    /// That there was no room for its rows.
    pub full: bool,
}

impl Definition {
    /// Reads a definition.
    pub fn read(definition: &Value) -> Definition {
        let spec = &definition["spec"];
        let names = &spec["names"];
        let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let (group, kind, plural, singular) =
            (text(&spec["group"]), text(&names["kind"]), text(&names["plural"]), text(&names["singular"]));
        let (short, categories) = (texts(&names["shortNames"]), texts(&names["categories"]));
        let condition = |name: &str| {
            let conditions = definition["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == name && c["status"] == "True")
        };
        let mut entries: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
        entries.sort_by(|a, b| names::prefer(a["name"].as_str().unwrap_or(""), b["name"].as_str().unwrap_or("")));
        let row = |entry: &Value, stored: Option<&'static Kind>| {
            Content {
                group: &group,
                version: entry["name"].as_str().unwrap_or_default(),
                kind: &kind,
                plural: &plural,
                singular: &singular,
                short: short.iter().map(String::as_str).collect(),
                categories: categories.iter().map(String::as_str).collect(),
                namespaced: spec["scope"] == "Namespaced",
                entry,
                stored,
            }
            .row()
        };
        let storage = entries.iter().find(|e| e["storage"] == true).map(|entry| row(entry, None));
        let stored = storage.and_then(Result::ok);
        let mut full = storage.is_some_and(|s| s.is_err());
        let mut served = Vec::new();
        for entry in entries.iter().filter(|e| e["served"] == true && stored.is_some()) {
            let made = if entry["storage"] == true { stored.ok_or(Full) } else { row(entry, stored) };
            match made {
                Ok(row) => served.push(row),
                Err(Full) => full = true,
            }
        }
        Definition {
            served,
            stored,
            established: condition("Established"),
            terminating: !definition["metadata"]["deletionTimestamp"].is_null(),
            full,
        }
    }
}

/// So that it is read once for each version of the object, and kept with it.
impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Definition::read(&value))
    }
}

impl PartialEq for Kinds {
    fn eq(&self, other: &Self) -> bool {
        self.custom.len() == other.custom.len() && self.custom.iter().zip(&other.custom).all(|(a, b)| std::ptr::eq(*a, *b))
    }
}
impl Eq for Kinds {}

/// The kinds of one cluster, or of one tree of files: those of the program and those that definitions add.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    custom: Vec<&'static Kind>,
}

impl Kinds {
    /// The kinds that these stored definitions add: those that are established.
    pub fn established<'a>(definitions: impl Iterator<Item = &'a Arc<Object>>) -> Kinds {
        let read = definitions.filter_map(|object| object.typed::<Definition>().ok());
        Kinds { custom: read.filter(|d| d.established).flat_map(|d| d.served.clone()).collect() }
    }
    /// The same with the kinds that a definition adds, established or not, in place of what was known of them.
    pub fn with(mut self, definition: &Definition) -> Kinds {
        self.custom.retain(|known| definition.served.iter().all(|row| *row != *known));
        self.custom.extend(&definition.served);
        self
    }
    /// The row by whose rules an object under this key is admitted now: what is defined may have been defined anew since.
    pub fn rules(&self, key: &super::Key, value: &Value) -> &'static Kind {
        let defined = || self.of_value(value).filter(|row| *row == key.kind);
        key.kind.custom.and_then(|_| defined()).unwrap_or(key.kind)
    }
    /// All rows, those of the program first.
    pub fn all(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        KINDS.iter().chain(self.custom.iter().copied())
    }
    /// The rows that definitions added.
    pub fn custom(&self) -> &[&'static Kind] {
        &self.custom
    }
    /// The row for a manifest's `apiVersion` and `kind`.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let custom = || self.custom.iter().copied().find(|k| k.group == group && k.version == version && k.kind == kind);
        Kind::of(api_version, kind).or_else(custom)
    }
    /// The row for an object's own `apiVersion` and `kind`.
    pub fn of_value(&self, value: &Value) -> Option<&'static Kind> {
        self.of(value["apiVersion"].as_str()?, value["kind"].as_str()?)
    }
    /// The row for a path's group, version and plural.
    pub fn of_path(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        let custom = || self.custom.iter().copied().find(|k| k.group == group && k.version == version && k.plural == plural);
        Kind::of_path(group, version, plural).or_else(custom)
    }
}

/// What to say to whoever writes this definition: things that are accepted and have no effect here.
pub fn warnings(definition: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, version) in definition["spec"]["versions"].as_array().into_iter().flatten().enumerate() {
        if let Some(at) = structural::expressions(&version["schema"]["openAPIV3Schema"]) {
            warnings.push(format!(
                "spec.versions[{i}].schema.openAPIV3Schema{at}.x-kubernetes-validations: accepted, but expressions are not evaluated by this server"
            ));
        }
    }
    warnings
}
