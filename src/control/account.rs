//! What is in every namespace from its beginning: the service account `default`, and the certificate of the authority for pods.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use serde_json::json;

use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::admit::{self, Stamp};
use crate::object::{Key, kind_of};
use crate::store::{Conflict, Txn};

/// The account of pods that name none.
const DEFAULT: &str = "default";
/// Kubernetes' name of the ConfigMap with the certificate.
const CERTIFICATE: &str = "kube-root-ca.crt";

/// The loop for what each namespace has.
pub(super) struct Accounts {
    /// The certificate of the authority, PEM; `None` in a house without one.
    certificate: Option<String>,
    cursor: Cursor,
    keys: Keys,
}

impl Accounts {
    pub(super) fn new(certificate: Option<String>) -> Self {
        Accounts { certificate, cursor: Cursor::default(), keys: Keys::default() }
    }
}

impl Loop for Accounts {
    fn name(&self) -> &'static str {
        "account"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        let (namespaces, accounts, maps) = (kind_of::<Namespace>(), kind_of::<ServiceAccount>(), kind_of::<ConfigMap>());
        match self.cursor.news(cx.store) {
            News::Everything(view) => view.list(namespaces).for_each(|object| self.keys.add(object.key.clone())),
            News::Changes(changes) => {
                for change in &changes {
                    let (kind, name) = (change.key.kind, &*change.key.name);
                    if kind == namespaces {
                        self.keys.add(change.key.clone());
                    } else if (kind == accounts && name == DEFAULT) || (kind == maps && name == CERTIFICATE) {
                        self.keys.add(Key::new(namespaces, "", &change.key.namespace));
                    }
                }
            }
        }
        let certificate = self.certificate.as_deref();
        self.keys.run("account", cx.now, |key| look(cx, key, certificate).map(|()| None))
    }
}

fn look(cx: &mut Context<'_>, key: &Key, certificate: Option<&str>) -> Result<(), Trouble> {
    let view = cx.store.view();
    // What is on its way out gets nothing new.
    let Some(namespace) = view.get(key).filter(|o| !o.meta.deleting()) else { return Ok(()) };
    let name = &*key.name;
    let mut txn = Txn::new();
    if view.get(&Key::of::<ServiceAccount>(name, DEFAULT)).is_none() {
        let account = json!({"metadata": {"name": DEFAULT, "namespace": name}});
        let stamp = Stamp { uid: cx.ids.uid(), now: cx.now };
        let draft = admit::create(kind_of::<ServiceAccount>(), account, &stamp).map_err(|r| Trouble::Bad(r.to_string()))?;
        txn.create(draft);
    }
    if let Some(certificate) = certificate {
        let data = json!({"ca.crt": certificate});
        match view.get(&Key::of::<ConfigMap>(name, CERTIFICATE)) {
            None => {
                let about = "The certificate with which pods check that they speak to this cluster's API.";
                let map = json!({
                    "metadata": {"name": CERTIFICATE, "namespace": name, "annotations": {"kubernetes.io/description": about}},
                    "data": data,
                });
                let stamp = Stamp { uid: cx.ids.uid(), now: cx.now };
                txn.create(admit::create(kind_of::<ConfigMap>(), map, &stamp).map_err(|r| Trouble::Bad(r.to_string()))?);
            }
            Some(old) if !old.meta.deleting() && old.value()["data"] != data => {
                txn.update(write::edited(old, |value| value["data"] = data), old.revision);
            }
            Some(_) => {}
        }
    }
    if !txn.is_empty() {
        txn.expect(key.clone(), Some(namespace.revision));
        cx.store.commit(txn)?;
    }
    Ok(())
}
