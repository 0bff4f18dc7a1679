//! How git's wishes meet what runs.

use serde_json::{Map, Value, json};

use super::fields::{Partners, first_places, identity, under};
use super::strategic::order;
use crate::object::schema::{self, Field, Form, ListKind, Type, facts};
use crate::object::{Kind, admit};

/// The live object with what we wanted before removed and what we want now set. Fields that nobody here ever wanted are kept.
///
/// `last` is what was wanted at the last time, if anything is known about it. Defaults are filled into both wishes first, so that a
/// changed choice (another kind of volume, another strategy) takes its defaults along. The status and the server's own metadata are
/// always the live ones. Doing it twice changes nothing more.
pub fn three_way(kind: &'static Kind, last: Option<&Value>, wanted: &Value, live: &Value) -> Value {
    let wish = |manifest: &Value| {
        let mut value = super::wish(manifest);
        admit::prepare(kind, &mut value);
        value
    };
    let (last, wanted) = (last.map_or_else(|| json!({}), wish), wish(wanted));
    let mut result = live.clone();
    set(Some(schema::of(kind)), None, Some(&last), &wanted, &mut result);
    result
}

fn atomic(of: Option<Type>, field: Option<&Field>) -> bool {
    field.is_some_and(|f| f.fact.atomic) || matches!(of.map(Type::form), Some(Form::Struct(shape)) if shape.atomic)
}

fn list_kind(field: Option<&Field>) -> ListKind {
    field.map_or(facts::PLAIN.list, |f| f.fact.list)
}

fn set(of: Option<Type>, field: Option<&'static Field>, last: Option<&Value>, wanted: &Value, live: &mut Value) {
    match (wanted, &mut *live) {
        (Value::Object(wanted), Value::Object(live)) if !atomic(of, field) => {
            let last = last.and_then(Value::as_object);
            for (name, value) in last.into_iter().flatten() {
                if !wanted.contains_key(name) {
                    let (of, field) = under(of, name);
                    unset_in(of, field, value, name, live);
                }
            }
            for (name, value) in wanted {
                let (of, field) = under(of, name);
                let last = last.and_then(|l| l.get(name));
                match live.get_mut(name) {
                    Some(there) => set(of, field, last, value, there),
                    None => drop(live.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(wanted), Value::Array(live)) if list_kind(field) != ListKind::Atomic => {
            let kind = list_kind(field);
            let item_type = match of.map(Type::form) {
                Some(Form::List(item)) => Some(*item),
                _ => None,
            };
            let what = |item: &Value| identity(kind, item);
            let last = last.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let (in_last, in_wanted) = (first_places(last.iter().map(what)), first_places(wanted.iter().map(what)));
            let before = std::mem::take(live);
            let mut items = before.clone();
            items.retain(|item| what(item).is_none_or(|what| !in_last.contains_key(&what) || in_wanted.contains_key(&what)));
            let mut partners = Partners::of(kind, &items);
            for element in wanted {
                match partners.take(element) {
                    Some(place) => {
                        let last = what(element).and_then(|what| last.get(*in_last.get(&what)?));
                        set(item_type, None, last, element, &mut items[place]);
                    }
                    None => items.push(element.clone()),
                }
            }
            *live = order(items, wanted, &before, what);
        }
        _ => *live = wanted.clone(),
    }
}

/// Takes what we wanted out of what is there, and the field itself when nothing of somebody else remains in it.
fn unset_in(of: Option<Type>, field: Option<&'static Field>, last: &Value, name: &str, live: &mut Map<String, Value>) {
    let rest = match (last, live.get_mut(name)) {
        (_, None) => return,
        (Value::Object(last), Some(Value::Object(there))) if !atomic(of, field) => {
            for (name, value) in last {
                let (of, field) = under(of, name);
                unset_in(of, field, value, name, there);
            }
            !there.is_empty()
        }
        (Value::Array(last), Some(Value::Array(there))) if list_kind(field) != ListKind::Atomic => {
            let kind = list_kind(field);
            let gone = first_places(last.iter().map(|item| identity(kind, item)));
            there.retain(|item| identity(kind, item).is_none_or(|what| !gone.contains_key(&what)));
            !there.is_empty()
        }
        _ => false,
    };
    if !rest {
        live.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::KINDS;

    fn kind(name: &str) -> &'static Kind {
        KINDS.iter().find(|k| k.kind == name).unwrap()
    }

    fn deployment(containers: Value) -> Value {
        json!({
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}},
        })
    }

    #[test]
    fn what_was_wanted_goes_and_what_others_added_stays() {
        let last = deployment(json!([
            {"name": "a", "image": "a:1", "env": [{"name": "OLD", "value": "1"}, {"name": "KEPT", "value": "1"}], "livenessProbe": {"httpGet": {"port": 80}}},
            {"name": "gone", "image": "g"},
        ]));
        let mut wanted = deployment(json!([{"name": "a", "image": "a:2", "env": [{"name": "KEPT", "value": "2"}]}]));
        wanted["metadata"]["labels"] = json!({"app": "web", "tier": "front"});
        let mut live = last.clone();
        admit::prepare(kind("Deployment"), &mut live);
        live["metadata"]["uid"] = "u".into();
        live["metadata"]["annotations"] = json!({"theirs": "x"});
        live["spec"]["replicas"] = 7.into();
        live["status"] = json!({"replicas": 7});
        live["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"name": "sidecar", "image": "s"}));
        live["spec"]["template"]["spec"]["containers"][1]["env"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "THEIRS", "value": "x"}));

        let result = three_way(kind("Deployment"), Some(&last), &wanted, &live);
        assert_eq!(
            result["metadata"],
            json!({
                "name": "web", "uid": "u", "labels": {"app": "web", "tier": "front"}, "annotations": {"theirs": "x"},
            })
        );
        assert_eq!(result["status"], json!({"replicas": 7}));
        assert_eq!(result["spec"]["replicas"], 1, "a default that we want is a wish");
        let containers = &result["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers[0], json!({"name": "sidecar", "image": "s"}));
        assert_eq!(containers[1]["image"], "a:2");
        assert_eq!(containers[1]["env"], json!([{"name": "KEPT", "value": "2"}, {"name": "THEIRS", "value": "x"}]));
        assert!(containers[1].get("livenessProbe").is_none() && containers.as_array().unwrap().len() == 2);
        assert_eq!(three_way(kind("Deployment"), Some(&wanted), &wanted, &result), result);
    }

    #[test]
    fn a_changed_choice_leaves_nothing_behind() {
        let volumes = |v: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [v]}});
        let last = volumes(json!({"name": "v", "configMap": {"name": "c"}}));
        let wanted = volumes(json!({"name": "v", "secret": {"secretName": "s"}}));
        let mut live = last.clone();
        admit::prepare(kind("Pod"), &mut live);
        let result = three_way(kind("Pod"), Some(&last), &wanted, &live);
        assert_eq!(result["spec"]["volumes"], json!([{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}]));
    }

    #[test]
    fn annotations_of_others_survive_our_last_one() {
        let with = |a: Value| json!({"metadata": {"name": "c", "annotations": a}});
        let result = three_way(
            kind("ConfigMap"),
            Some(&with(json!({"ours": "1"}))),
            &json!({"metadata": {"name": "c"}}),
            &with(json!({"ours": "1", "theirs": "2"})),
        );
        assert_eq!(result, with(json!({"theirs": "2"})));
    }

    /// What git wants and what was created from it are the same, for every kind: nothing is written without need.
    #[test]
    fn what_was_just_created_is_in_sync() {
        let mut wishes = [
            deployment(json!([{"name": "a", "image": "a", "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"}],
                "resources": {"limits": {"cpu": "1000m"}}, "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]}])),
            json!({"metadata": {"name": "shop"}}),
            json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}),
            json!({"metadata": {"name": "c"}, "data": {"a": "b"}}),
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a", "resources": {"limits": {"cpu": 1}}}], "volumes": [{"name": "v"}]}}),
            json!({"metadata": {"name": "a"}, "spec": {"source": {"repository": "/r"}}}),
        ];
        let kinds = ["Deployment", "Namespace", "Secret", "ConfigMap", "Pod", "Application"];
        for (wish, name) in wishes.iter_mut().zip(kinds) {
            let kind = kind(name);
            if kind.namespaced {
                wish["metadata"]["namespace"] = "shop".into();
            }
            let stamp = admit::Stamp { uid: "u".to_owned(), now: jiff::Timestamp::UNIX_EPOCH };
            let live = admit::create(kind, wish.clone(), &stamp).unwrap_or_else(|e| panic!("{e}")).seal(1);
            for last in [None, Some(&*wish)] {
                let result = three_way(kind, last, wish, &live.value());
                assert_eq!(result, live.value(), "{name}");
                let update = admit::update(&live, result, None, jiff::Timestamp::UNIX_EPOCH).unwrap_or_else(|e| panic!("{e}"));
                assert!(update.is_none(), "{name}");
            }
        }
    }

    fn data() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-e]", "[xyz]", 0..4)
            .prop_map(|data| json!({"metadata": {"name": "c", "labels": data}, "data": data}))
    }

    proptest! {
        #[test]
        fn wishes_hold_others_stay_and_twice_is_once(last in data(), wanted in data(), live in data()) {
            let k = kind("ConfigMap");
            let result = three_way(k, Some(&last), &wanted, &live);
            for (key, value) in live["data"].as_object().unwrap() {
                if last["data"].get(key).is_none() && wanted["data"].get(key).is_none() {
                    prop_assert_eq!(&result["data"][key], value);
                }
            }
            for (key, value) in wanted["data"].as_object().unwrap() {
                prop_assert_eq!(&result["data"][key], value);
            }
            for key in last["data"].as_object().unwrap().keys() {
                prop_assert!(wanted["data"].get(key).is_some() || result["data"].get(key).is_none());
            }
            prop_assert_eq!(&three_way(k, Some(&wanted), &wanted, &result), &result);
        }
    }
}
