//! What is stored and does nothing yet: kinds whose part in Kubernetes this version does not play.
//!
//! An object of such a kind counts as well, because it is what its author wrote; but nobody is to believe that it works.

use std::collections::BTreeMap;

use crate::object::Key;

/// How many objects of a kind are named.
const NAMED: usize = 3;

/// What is to be said about objects, one sentence per kind: `StatefulSet shop/db is stored, but no controller makes its pods yet`.
pub fn told<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Vec<String> {
    let mut by_kind: BTreeMap<(&str, &str), Vec<&Key>> = BTreeMap::new();
    for key in keys {
        if !key.kind.idle.is_empty() {
            by_kind.entry((key.kind.kind, key.kind.idle)).or_default().push(key);
        }
    }
    let sentence = |((kind, idle), mut keys): ((&str, &str), Vec<&Key>)| {
        keys.sort();
        let name = |key: &&Key| match &*key.namespace {
            "" => key.name.to_string(),
            namespace => format!("{namespace}/{}", key.name),
        };
        let mut names: Vec<String> = keys.iter().take(NAMED).map(name).collect();
        if keys.len() > NAMED {
            names.push(format!("{} more", keys.len() - NAMED));
        }
        let verb = if keys.len() == 1 { "is" } else { "are" };
        format!("{kind} {} {verb} stored, but {idle}", names.join(", "))
    };
    by_kind.into_iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    #[test]
    fn one_sentence_per_kind() {
        let key = |version: &str, kind: &str, name: &str| Key::new(Kind::of(version, kind).unwrap(), "shop", name);
        let mut keys = vec![key("apps/v1", "Deployment", "web"), key("v1", "ConfigMap", "c")];
        assert!(told(&keys).is_empty());
        let idle = Kind::all_stored().find(|kind| !kind.idle.is_empty() && kind.namespaced);
        let Some(idle) = idle else { return };
        keys.extend((0..5).map(|n| Key::new(idle, "shop", &format!("o{n}"))));
        let said = told(&keys);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0], format!("{} shop/o0, shop/o1, shop/o2, 2 more are stored, but {}", idle.kind, idle.idle));
    }
}
