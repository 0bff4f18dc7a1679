//! How much looking at elements of lists a patch costs, counted in tests only: so that a walk through a list for each of its elements is
//! noticed by its number of steps, which no busy machine changes. What is too much is for tests to say.

#[cfg(test)]
thread_local! {
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// An element is looked at.
#[inline(always)]
pub(super) fn tick() {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
}

/// How often elements were looked at while something ran in this thread.
#[cfg(test)]
pub(super) fn of(run: impl FnOnce()) -> usize {
    let before = LOOKS.get();
    run();
    LOOKS.get() - before
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{apply, managed, strategic, three_way};
    use crate::object::{KINDS, Kind};

    fn pod(names: std::ops::Range<usize>) -> Value {
        let env: Vec<Value> = names.map(|n| json!({"name": format!("N{n}"), "value": n.to_string()})).collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b", "finalizers": ["a/b"]},
            "spec": {"containers": [{"name": "c", "image": "i", "env": env}]}})
    }

    fn patched(kind: &'static Kind, n: usize) -> [usize; 5] {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let (old, new) = (pod(0..n), pod(n / 2..n + n / 2));
        let live = apply::apply(kind, None, &old, "m", true, now).unwrap();
        let mut order = new.clone();
        let names: Vec<Value> = (0..n).rev().map(|n| json!({"name": format!("N{n}")})).collect();
        order["spec"]["containers"][0]["$setElementOrder/env"] = names.into();
        let mut deleted = new.clone();
        for entry in deleted["spec"]["containers"][0]["env"].as_array_mut().unwrap() {
            entry["$patch"] = "delete".into();
        }
        [
            super::of(|| drop(strategic(kind, &old, &order).unwrap())),
            super::of(|| drop(strategic(kind, &old, &deleted).unwrap())),
            super::of(|| drop(apply::apply(kind, Some(&live), &new, "m", true, now).unwrap())),
            super::of(|| managed::track(kind, Some(&live), &mut new.clone(), "n", managed::Operation::Update, None, now)),
            super::of(|| drop(three_way(kind, Some(&old), &new, &live))),
        ]
    }

    #[test]
    fn twice_as_long_costs_twice_as_much() {
        let kind = KINDS.iter().find(|k| k.kind == "Pod").unwrap();
        let (once, twice) = (patched(kind, 1000), patched(kind, 2000));
        for (once, twice) in once.into_iter().zip(twice) {
            assert!((1000..30_000).contains(&once), "{once} looks at a thousand elements");
            assert!(twice < once * 5 / 2, "{once} looks at a thousand elements, {twice} at two thousand");
        }
    }
}
