//! What becomes of CustomResourceDefinitions: their names are accepted or not, their kinds are established, and when one is deleted, its
//! objects go first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::custom::{CLEANUP, Definition, definitions, names};
use crate::object::{Key, Object, time};
use crate::store::{Conflict, Txn, View};

/// How many objects are deleted in one transaction.
const BATCH: usize = 64;

/// The loop for definitions.
#[derive(Default)]
pub(super) struct Definitions {
    cursor: Cursor,
    keys: Keys,
}

impl Definitions {
    fn notice(&mut self, view: &View, key: &Key, gone: bool) {
        if key.kind == definitions() {
            self.keys.add(key.clone());
            // Names that are given back may be what another definition waits for.
            if gone {
                view.list(definitions()).for_each(|other| self.keys.add(other.key.clone()));
            }
        } else if key.kind.custom.is_some() && gone {
            // Perhaps the last object that a definition waited for.
            self.keys.add(Key::new(definitions(), "", &format!("{}.{}", key.kind.plural, key.kind.group)));
        }
    }
}

impl Loop for Definitions {
    fn name(&self) -> &'static str {
        "definition"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => view.list(definitions()).for_each(|object| self.notice(&view, &object.key, false)),
            News::Changes(changes) => {
                let view = cx.store.view();
                for change in &changes {
                    self.notice(&view, &change.key, change.new.is_none());
                }
            }
        }
        self.keys.run("definition", cx.now, |key| look(cx, key).map(|()| None))
    }
}

fn look(cx: &mut Context<'_>, key: &Key) -> Result<(), Trouble> {
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned() else { return Ok(()) };
    let definition = object.typed::<Definition>()?;
    if object.meta.deleting() {
        return clean_up(cx, &view, &object, &definition);
    }
    let value = object.value();
    let others = view.list(definitions()).filter(|other| other.key != *key).map(|other| &**other);
    let status = names::status(&value, others, definition.full, &time::seconds(cx.now));
    if status != value["status"] {
        let mut txn = Txn::new();
        txn.update(write::edited(&object, |value| write::set_status(value, &status)), object.revision);
        cx.store.commit(txn)?;
    }
    Ok(())
}

/// Deletes the objects of a definition that is being deleted, and lets it go when there are none.
fn clean_up(cx: &mut Context<'_>, view: &View, object: &Arc<Object>, definition: &Definition) -> Result<(), Trouble> {
    if !object.meta.finalizers.iter().any(|f| f == CLEANUP) {
        return Ok(());
    }
    let left: Vec<&Arc<Object>> = definition.stored.map(|kind| view.list(kind).collect()).unwrap_or_default();
    if left.is_empty() {
        let draft = write::edited(object, |value| {
            if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|f| f != CLEANUP);
            }
        });
        let mut txn = Txn::new();
        write::write_or_remove(&mut txn, object, draft);
        cx.store.commit(txn)?;
        return Ok(());
    }
    let news: Vec<_> = left.into_iter().filter(|o| !o.meta.deleting()).collect();
    for batch in news.chunks(BATCH) {
        let mut txn = Txn::new();
        for one in batch {
            write::delete(&mut txn, one, None, None, cx.now);
        }
        if !txn.is_empty() {
            cx.store.commit(txn)?;
        }
    }
    let said = object.value()["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Terminating"));
    if !said {
        let since = time::seconds(cx.now);
        let draft = write::edited(object, |value| {
            let condition = json!({
                "type": "Terminating", "status": "True", "reason": "InstanceDeletionInProgress",
                "message": "CustomResource deletion is in progress", "lastTransitionTime": since,
            });
            match value["status"]["conditions"].as_array_mut() {
                Some(conditions) => conditions.push(condition),
                None => value["status"]["conditions"] = Value::Array(vec![condition]),
            }
        });
        let mut txn = Txn::new();
        txn.update(draft, object.revision);
        cx.store.commit(txn)?;
    }
    Ok(())
}
