//! What an Application manages, by key: large, mostly the same from one version of its status to the next, and therefore shared.
//!
//! On the wire it is a list of items in the order of their keys.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::sync::Arc;

use super::Key;
use super::ours::InventoryItem;

/// The managed objects. A copy costs nothing, a change what it changes.
#[derive(Clone, Debug, Default)]
pub struct Inventory(OrdMap<Key, Arc<InventoryItem>>);

impl Inventory {
    /// How many objects are managed.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether nothing is managed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// What is known of an object.
    pub fn get(&self, key: &Key) -> Option<&Arc<InventoryItem>> {
        self.0.get(key)
    }
    /// Whether an object is managed.
    pub fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }
    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<InventoryItem>)> {
        self.0.iter()
    }
    /// Their keys.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }
    /// What is known of them.
    pub fn items(&self) -> impl Iterator<Item = &Arc<InventoryItem>> {
        self.0.values()
    }
    /// Puts what is known of an object in the place of what was.
    pub fn put(&mut self, key: Key, item: InventoryItem) {
        self.0.insert(key, Arc::new(item));
    }
    /// Forgets an object.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

impl FromIterator<InventoryItem> for Inventory {
    /// Items of kinds that nobody knows are left out.
    fn from_iter<I: IntoIterator<Item = InventoryItem>>(items: I) -> Inventory {
        Inventory(items.into_iter().filter_map(|item| Some((item.key()?, Arc::new(item)))).collect())
    }
}

impl PartialEq for Inventory {
    fn eq(&self, other: &Inventory) -> bool {
        // What both share is not looked at.
        self.0.ptr_eq(&other.0)
            || (self.0.len() == other.0.len()
                && self.0.diff(&other.0).all(|step| match step {
                    DiffItem::Update { old, new } => old.1 == new.1,
                    DiffItem::Add(..) | DiffItem::Remove(..) => false,
                }))
    }
}

impl Serialize for Inventory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.values().map(|item| &**item))
    }
}

impl<'de> Deserialize<'de> for Inventory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Inventory, D::Error> {
        Vec::<InventoryItem>::deserialize(deserializer).map(Inventory::from_iter)
    }
}

impl JsonSchema for Inventory {
    fn schema_name() -> Cow<'static, str> {
        Vec::<InventoryItem>::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<InventoryItem>::json_schema(generator)
    }
    fn inline_schema() -> bool {
        Vec::<InventoryItem>::inline_schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: &str, name: &str, uid: &str) -> InventoryItem {
        let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" }.to_owned();
        let (kind, name, uid) = (kind.to_owned(), name.to_owned(), uid.to_owned());
        InventoryItem { api_version, kind, namespace: "shop".to_owned(), name, uid, ..InventoryItem::default() }
    }

    #[test]
    fn it_is_a_list_on_the_wire() {
        let items =
            [item("Deployment", "web", "1"), item("ConfigMap", "b", "2"), item("ConfigMap", "a", "3"), item("Nothing", "x", "4")];
        let inventory: Inventory = items.into_iter().collect();
        let json = serde_json::to_string(&inventory).unwrap();
        let names: Vec<InventoryItem> = serde_json::from_str(&json).unwrap();
        assert_eq!(
            names.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            ["a", "b", "web"],
            "in order; the unknown kind is left out"
        );
        assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
    }

    #[test]
    fn a_difference_is_seen_wherever_it_is() {
        let all: Inventory = (0..500).map(|n| item("ConfigMap", &format!("c{n:03}"), "u")).collect();
        let key = all.keys().nth(333).unwrap().clone();
        let (mut less, mut other, mut same) = (all.clone(), all.clone(), all.clone());
        less.forget(&key);
        other.put(key.clone(), item("ConfigMap", "c333", "v"));
        same.put(key.clone(), item("ConfigMap", "c333", "u"));
        assert_ne!(all, less);
        assert_ne!(less, all);
        assert_ne!(all, other);
        assert_eq!(all, same);
        less.put(key, item("ConfigMap", "c333", "u"));
        assert_eq!(less, all);
    }
}
