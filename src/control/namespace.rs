//! Empties namespaces that are being deleted, and then lets them go: first the pods, and only when the last of them has stopped what they
//! stand on. A pod that still runs keeps its NetworkPolicies, its ConfigMaps and its account (CVE-2024-7598).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::json;

use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::{Key, Object, kind_of};
use crate::plan::rollout::stamp;
use crate::store::{Conflict, Txn, View};

/// How many objects are deleted in one transaction. A conflict costs the batch a second look.
const BATCH: usize = 64;

/// The loop for namespaces.
#[derive(Default)]
pub(super) struct Namespaces {
    cursor: Cursor,
    keys: Keys,
}

impl Namespaces {
    fn notice(&mut self, view: &View, key: &Key, new: Option<&Arc<Object>>) {
        if key.kind == kind_of::<Namespace>() {
            if new.is_some_and(|o| o.meta.deleting()) {
                self.keys.add(key.clone());
            }
        } else if !key.namespace.is_empty() {
            let namespace = Key::of::<Namespace>("", &key.namespace);
            if view.get(&namespace).is_some_and(|o| o.meta.deleting()) {
                self.keys.add(namespace);
            }
        }
    }
}

impl Loop for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                for object in view.list(kind_of::<Namespace>()) {
                    self.notice(&view, &object.key, Some(object));
                }
            }
            News::Changes(changes) => {
                let view = cx.store.view();
                for change in &changes {
                    self.notice(&view, &change.key, change.new.as_ref());
                }
            }
        }
        self.keys.run("namespace", cx.now, |key| look(cx, key).map(|()| None))
    }
}

fn look(cx: &mut Context<'_>, key: &Key) -> Result<(), Trouble> {
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned().filter(|o| o.meta.deleting()) else { return Ok(()) };
    let mut conflict = None;
    let news: Vec<&Arc<Object>> = content(&view, &key.name).filter(|o| !o.meta.deleting()).collect();
    for batch in news.chunks(BATCH) {
        let mut txn = Txn::new();
        for object in batch {
            write::delete(&mut txn, object, None, None, cx.now);
        }
        if !txn.is_empty() {
            conflict = cx.store.commit(txn).err().or(conflict);
        }
    }
    if let Some(conflict) = conflict {
        return Err(conflict.into());
    }
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned().or(Some(object)) else { return Ok(()) };
    let mut remaining: BTreeMap<String, usize> = BTreeMap::new();
    for left in content(&view, &key.name) {
        *remaining.entry(left.key.kind.resource()).or_default() += 1;
    }
    let mut txn = Txn::new();
    if remaining.is_empty() {
        let draft = write::edited(&object, |value| {
            if let Some(finalizers) = value["spec"]["finalizers"].as_array_mut() {
                finalizers.retain(|f| f != "kubernetes");
                if finalizers.is_empty() {
                    value["spec"].as_object_mut().map(|spec| spec.remove("finalizers"));
                }
            }
        });
        write::write_or_remove(&mut txn, &object, draft);
    } else if let Some(draft) = says_what_remains(cx, &object, &remaining) {
        txn.update(draft, object.revision);
    }
    if !txn.is_empty() {
        cx.store.commit(txn)?;
    }
    Ok(())
}

/// What has to go next: pods as long as there are any, then everything.
fn content<'a>(view: &'a View, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
    let pods = kind_of::<Pod>();
    let populated = view.list_in(pods, namespace).next().is_some();
    let kinds = view.kinds().filter(move |kind| if populated { *kind == pods } else { kind.namespaced });
    kinds.flat_map(move |kind| view.list_in(kind, namespace))
}

/// The namespace with a condition that says what it waits for, unless it says so already.
fn says_what_remains(cx: &Context<'_>, object: &Object, remaining: &BTreeMap<String, usize>) -> Option<crate::object::Draft> {
    const KIND: &str = "NamespaceContentRemaining";
    let list: Vec<String> = remaining.iter().map(|(kind, n)| format!("{kind} has {n} resource instances")).collect();
    let message = format!("Some resources are remaining: {}", list.join(", "));
    let value = object.value();
    let conditions = value["status"]["conditions"].as_array();
    if conditions.into_iter().flatten().any(|c| c["type"] == KIND && c["message"] == message.as_str()) {
        return None;
    }
    Some(write::edited(object, |value| {
        let condition = json!({
            "type": KIND, "status": "True", "reason": "SomeResourcesRemain", "message": message,
            "lastTransitionTime": stamp(cx.now),
        });
        match value["status"]["conditions"].as_array_mut() {
            Some(conditions) => {
                conditions.retain(|c| c["type"] != KIND);
                conditions.push(condition);
            }
            None => value["status"]["conditions"] = json!([condition]),
        }
    }))
}
