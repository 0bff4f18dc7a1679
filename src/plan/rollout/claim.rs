//! Who belongs to whom: a controller adopts what its selector matches and nobody controls, and lets go of what it no longer matches.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

/// What an object is to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Controlled by it, and rightly so.
    Mine,
    /// Matches and is controlled by nobody: take it.
    Adopt,
    /// Controlled by it, but it does not match any more: let it go.
    Release,
    /// None of its business.
    Foreign,
}

/// What an object is to the controller with this metadata and selector. A controller on its way out adopts nothing and lets nothing go.
pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let controller = object.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    let matching = matches(selector, object.labels.as_ref());
    let leaving = owner.deletion_timestamp.is_some();
    match controller {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if matching || leaving => Claim::Mine,
        Some(_) => Claim::Release,
        None if matching && !leaving && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Foreign,
    }
}

/// The owner references of an object after it was adopted.
pub fn adopted(object: &ObjectMeta, by: OwnerReference) -> Vec<OwnerReference> {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != by.uid);
    owners.push(by);
    owners
}

/// The owner references of an object after it was let go.
pub fn released(object: &ObjectMeta, by: &str) -> Vec<OwnerReference> {
    object.owner_references.iter().flatten().filter(|o| o.uid != by).cloned().collect()
}

/// Whether labels satisfy a selector. A selector without any requirement matches nothing: an empty list must not mean "everything".
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key));
    let wanted = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    if selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && expressions.is_empty() {
        return false;
    }
    wanted.into_iter().all(|(key, wanted)| value(key) == Some(wanted))
        && expressions.iter().all(|e| {
            let listed = || value(&e.key).is_some_and(|v| e.values.iter().flatten().any(|w| w == v));
            match e.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value(&e.key).is_some(),
                "DoesNotExist" => value(&e.key).is_none(),
                _ => false,
            }
        })
}
