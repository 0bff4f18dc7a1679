//! Keeps ClusterRoles that are sums of others (`aggregationRule`) equal to that sum.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRole;

use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::{Key, Object, kind_of, rules};
use crate::store::{Conflict, Txn};

/// The loop for aggregated roles. There are few roles, so any change of one looks at all sums.
#[derive(Default)]
pub(super) struct Aggregate {
    cursor: Cursor,
    keys: Keys,
}

impl Loop for Aggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        let kind = kind_of::<ClusterRole>();
        let news = match self.cursor.news(cx.store) {
            News::Everything(_) => true,
            News::Changes(changes) => changes.iter().any(|c| c.key.kind == kind),
        };
        if news {
            for object in cx.store.view().list(kind) {
                if object.typed::<ClusterRole>().is_ok_and(|role| role.aggregation_rule.is_some()) {
                    self.keys.add(object.key.clone());
                }
            }
        }
        self.keys.run("aggregate", cx.now, |key| look(cx, key).map(|()| None))
    }
}

fn look(cx: &mut Context<'_>, key: &Key) -> Result<(), Trouble> {
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned().filter(|o| !o.meta.deleting()) else { return Ok(()) };
    let role = object.typed::<ClusterRole>()?;
    // A role that cannot be read adds nothing.
    let others: Vec<Arc<ClusterRole>> = view.list(key.kind).filter_map(|o: &Arc<Object>| o.typed().ok()).collect();
    let Some(sum) = rules::aggregate(&role, others.iter().map(|r| &**r)) else { return Ok(()) };
    if role.rules.as_deref().unwrap_or_default() == sum {
        return Ok(());
    }
    let draft = write::edited(&object, |value| value["rules"] = serde_json::to_value(&sum).expect("rules can be written"));
    let mut txn = Txn::new();
    txn.update(draft, object.revision);
    cx.store.commit(txn)?;
    Ok(())
}
