//! Tables of plans, and what holds for all of them.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::admit::{self, Stamp};
use crate::object::ours::InventoryItem;
use crate::object::{Draft, Kind};

/// What a row of a table describes, one thing per line: `want cm/a key=1 @wave=2`, `live cm/a key=2 @owner=x/y @uid=u`,
/// `last cm/a key=0`, `have cm/a @uid=u @created=3`, `policy prune-max=10 allow=Namespace/shop empty`, `back-to 3`,
/// `failed 4 5`, `give-back cm/a key=0`, `claims x/y`, `heir cm/a=x/y`.
#[derive(Clone, Default)]
struct Row {
    wanted: Vec<Wanted>,
    live: BTreeMap<Key, Arc<Object>>,
    last: BTreeMap<Key, Value>,
    inventory: Vec<InventoryItem>,
    policy: Policy,
    undo: Undo,
    settled: BTreeMap<Key, Settled>,
    claims: Vec<String>,
    heirs: BTreeMap<Key, String>,
}

fn key(name: &str) -> Key {
    let (kind, name) = name.split_once('/').unwrap();
    if kind == "namespace.sea" {
        // Somebody's own kind that is called what one of the program's is called.
        let defined = crate::object::custom::stored_row("sea.example/v1", "Namespace", "namespaces", true).unwrap();
        return Key::new(defined, "shop", name);
    }
    let (version, kind) = match kind {
        "cm" => ("v1", "ConfigMap"),
        "ns" => ("v1", "Namespace"),
        "secret" => ("v1", "Secret"),
        "deploy" => ("apps/v1", "Deployment"),
        _ => ("portolan.dev/v1alpha1", "Application"),
    };
    let kind = Kind::of(version, kind).unwrap();
    Key::new(kind, if kind.namespaced { "shop" } else { "" }, name)
}

fn value(key: &Key, words: &[&str]) -> Value {
    let mut value = json!({"apiVersion": key.kind.api_version(), "kind": key.kind.kind, "metadata": {"name": &*key.name}});
    if key.kind.namespaced {
        value["metadata"]["namespace"] = json!(&*key.namespace);
    }
    for word in words {
        let (name, text) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "@owner" => value["metadata"]["annotations"][OWNER_ANNOTATION] = json!(text),
            "@commit" => value["metadata"]["annotations"][COMMIT_ANNOTATION] = json!(text),
            "@wave" => value["metadata"]["annotations"][WAVE_ANNOTATION] = json!(text),
            "@prune" => value["metadata"]["annotations"][crate::object::ours::PRUNE_ANNOTATION] = json!(text),
            "@heal" => value["metadata"]["annotations"][SELF_HEAL_ANNOTATION] = json!(text),
            "@uid" => value["metadata"]["uid"] = json!(text),
            "@leaving" => value["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z"),
            "@controller" => {
                let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": text, "uid": "rs", "controller": true});
                value["metadata"]["ownerReferences"] = json!([owner]);
            }
            name if !name.starts_with('@') => value["data"][name] = json!(text),
            _ => {}
        }
    }
    value
}

fn read(text: &str) -> Row {
    let mut row = Row::default();
    for (number, line) in text.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let tag = |name: &str| words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        match words[0] {
            "want" => {
                let key = key(words[1]);
                let origin = Origin { file: "all.yaml".into(), line: number as u32 + 1, column: 1 };
                row.wanted.push(Wanted { value: value(&key, &words[2..]).into(), key, origin });
            }
            "live" => {
                let key = key(words[1]);
                row.live.insert(key.clone(), Arc::new(Draft::new(key.kind, value(&key, &words[2..])).seal(number as u64 + 1)));
            }
            "last" => {
                let key = key(words[1]);
                row.last.insert(key.clone(), value(&key, &words[2..]));
            }
            "have" => {
                let key = key(words[1]);
                row.inventory.push(InventoryItem {
                    api_version: key.kind.api_version(),
                    kind: key.kind.kind.to_owned(),
                    plural: crate::object::custom::plural_of(key.kind),
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    uid: tag("@uid").unwrap_or_default(),
                    release: String::new(),
                    created: tag("@created").map_or(1, |n| n.parse().unwrap()),
                });
            }
            "policy" => {
                row.policy.prune_max_percent = tag("prune-max").map(|n| n.parse().unwrap());
                row.policy.prune_allow = tag("allow").into_iter().collect();
                row.policy.allow_empty = words.contains(&"empty").then_some(true);
            }
            "back-to" => row.undo.back_to = Some(words[1].parse().unwrap()),
            "failed" => row.undo.failed = words[1..].iter().map(|n| n.parse().unwrap()).collect(),
            "give-back" => {
                let key = key(words[1]);
                row.undo.give_back.insert(key.clone(), value(&key, &words[2..]).into());
            }
            "claims" => row.claims.push(words[1].to_owned()),
            "heir" => {
                let (name, by) = words[1].split_once('=').unwrap();
                row.heirs.insert(key(name), by.to_owned());
            }
            other => panic!("{other}"),
        }
    }
    row
}

fn plan(row: &Row) -> SyncPlan {
    sync(&Input {
        application: "sys/app",
        commit: "c9",
        wanted: &row.wanted,
        live: &|key| row.live.get(key).cloned(),
        inventory: &row.inventory.iter().cloned().collect(),
        last: &|key| row.last.get(key).cloned().map(Into::into),
        policy: &row.policy,
        undo: &row.undo,
        settled: &row.settled,
        claimed: &|other, _| row.claims.iter().any(|c| c == other),
        heir: &|key| row.heirs.get(key).cloned(),
    })
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&plan(&read(text)).to_string());
}

#[test]
fn what_is_written() {
    check(
        "
        want deploy/web @wave=1
        want deploy/first
        want cm/settings key=1
        want ns/shop
        ",
        expect![[r#"
            wave namespaces
              create Namespace shop
            wave configuration
              create ConfigMap shop/settings
            wave workloads
              create Deployment shop/first
            wave workloads (1)
              create Deployment shop/web
            unchanged 0"#]],
    );
    // The same content from another commit, and a field that somebody else keeps: nothing to do.
    check(
        "
        want cm/a key=1
        live cm/a key=1 other=x @owner=sys/app @commit=c1 @uid=u
        last cm/a key=1
        have cm/a @uid=u
        ",
        expect!["unchanged 1"],
    );
    // What we wanted before and no longer want goes; what others added stays.
    check(
        "
        want cm/a key=2
        live cm/a key=1 gone=1 other=x @owner=sys/app @commit=c1 @uid=u
        last cm/a key=1 gone=1
        have cm/a @uid=u
        ",
        expect![[r#"
            wave configuration
              patch ConfigMap shop/a: data.gone, data.key
            unchanged 0"#]],
    );
    // Adopted, foreign, controlled, leaving.
    check(
        "
        want cm/adopted key=1
        live cm/adopted key=1
        want cm/theirs key=1
        live cm/theirs key=1 @owner=sys/other
        claims sys/other
        want cm/given key=1
        live cm/given key=1 @owner=sys/gone
        want cm/controlled key=1
        live cm/controlled @controller=web-1
        want cm/leaving
        live cm/leaving @owner=sys/app @leaving
        ",
        expect![[r#"
            problem all.yaml:3: ConfigMap shop/theirs belongs to Application sys/other
            problem all.yaml:8: ConfigMap shop/controlled exists already and is controlled by ReplicaSet web-1
            wave configuration
              adopt ConfigMap shop/adopted: metadata.annotations
              adopt ConfigMap shop/given: metadata.annotations.portolan.dev/application
            wait for ConfigMap shop/leaving: it is being deleted
            unchanged 0"#]],
    );
    // Drift is tolerated where the author says so, but a new wish is not drift.
    check(
        "
        want cm/drifted key=1 @heal=false
        last cm/drifted key=1 @heal=false
        live cm/drifted key=9 @owner=sys/app @heal=false
        want cm/changed key=2 @heal=false
        last cm/changed key=1 @heal=false
        live cm/changed key=9 @owner=sys/app @heal=false
        ",
        expect![[r#"
            wave configuration
              patch ConfigMap shop/changed: data.key
            leave ConfigMap shop/drifted: drift is tolerated
            unchanged 0"#]],
    );
}

#[test]
fn gi6_what_is_pruned_and_what_is_not() {
    // In reverse order; only with proof.
    check(
        "
        want cm/stays
        live cm/stays @owner=sys/app
        want cm/stays2
        want cm/stays3
        want cm/stays4
        have cm/stays @uid=1
        have cm/settings @uid=1
        live cm/settings @owner=sys/app @uid=1
        have deploy/web @uid=2
        live deploy/web @owner=sys/app @uid=2
        have cm/replaced @uid=3
        live cm/replaced @owner=sys/app @uid=99
        have cm/protected @uid=4
        live cm/protected @owner=sys/app @uid=4 @prune=false
        have cm/moved @uid=5
        live cm/moved @owner=sys/other @uid=5
        have cm/moving @uid=6
        live cm/moving @owner=sys/app @uid=6
        heir cm/moving=sys/other
        have cm/gone @uid=7
        have cm/leaving @uid=8
        live cm/leaving @owner=sys/app @uid=8 @leaving
        live cm/labelled @owner=sys/app @uid=9
        ",
        expect![[r#"
            wave configuration
              create ConfigMap shop/stays2
              create ConfigMap shop/stays3
              create ConfigMap shop/stays4
            prune Deployment shop/web
            prune ConfigMap shop/settings
            keep ConfigMap shop/gone: it is gone already
            keep ConfigMap shop/moved: it now belongs to Application sys/other
            keep ConfigMap shop/moving: Application sys/other is about to take it over
            keep ConfigMap shop/protected: it is protected from pruning
            keep ConfigMap shop/replaced: it is another object of the same name
            wait for ConfigMap shop/leaving: it is being deleted
            unchanged 1"#]],
    );
    let most = "
        want cm/stays
        have cm/a @uid=1
        live cm/a @owner=sys/app @uid=1
        have cm/b @uid=2
        live cm/b @owner=sys/app @uid=2
    ";
    check(
        most,
        expect![[r#"
        wave configuration
          create ConfigMap shop/stays
        keep ConfigMap shop/a: 2 of 3 objects would be deleted, more than 50 %: it needs `pruneAllow` or a higher `pruneMaxPercent`
        keep ConfigMap shop/b: 2 of 3 objects would be deleted, more than 50 %: it needs `pruneAllow` or a higher `pruneMaxPercent`
        unchanged 0"#]],
    );
    check(
        &format!("{most}\npolicy prune-max=70"),
        expect![[r#"
        wave configuration
          create ConfigMap shop/stays
        prune ConfigMap shop/b
        prune ConfigMap shop/a
        unchanged 0"#]],
    );
    check(
        &format!("{most}\npolicy allow=ConfigMap/a"),
        expect![[r#"
        wave configuration
          create ConfigMap shop/stays
        prune ConfigMap shop/a
        keep ConfigMap shop/b: 2 of 3 objects would be deleted, more than 50 %: it needs `pruneAllow` or a higher `pruneMaxPercent`
        unchanged 0"#]],
    );
    let namespace = "
        want cm/one
        want cm/two
        have ns/shop @uid=1
        live ns/shop @owner=sys/app @uid=1
    ";
    check(
        namespace,
        expect![[r#"
        wave configuration
          create ConfigMap shop/one
          create ConfigMap shop/two
        keep Namespace shop: deleting a Namespace takes what is in it: it needs `pruneAllow: [Namespace/shop]`
        unchanged 0"#]],
    );
    check(
        &format!("{namespace}\npolicy allow=Namespace/shop"),
        expect![[r#"
        wave configuration
          create ConfigMap shop/one
          create ConfigMap shop/two
        prune Namespace shop
        unchanged 0"#]],
    );
    let defined = "
        want cm/one
        want cm/two
        have namespace.sea/shop @uid=1
        live namespace.sea/shop @owner=sys/app @uid=1
    ";
    check(
        defined,
        expect![[r#"
        wave configuration
          create ConfigMap shop/one
          create ConfigMap shop/two
        prune Namespace shop/shop
        unchanged 0"#]],
    );
    for (consent, going) in
        [("Namespace/shop", false), ("Namespace.sea.example/shop", true), ("Namespace.sea.example/shop/shop", true)]
    {
        let plan = plan(&read(&format!("{defined}\npolicy prune-max=0 allow={consent}")));
        assert_eq!(plan.prune.len(), usize::from(going), "{consent}");
    }
    let empty = "
        have cm/a @uid=1
        live cm/a @owner=sys/app @uid=1
    ";
    check(
        empty,
        expect![[r#"
        keep ConfigMap shop/a: the commit has no object at all: deleting everything needs `allowEmpty: true`
        unchanged 0"#]],
    );
    check(
        &format!("{empty}\npolicy empty"),
        expect![[r#"
        prune ConfigMap shop/a
        unchanged 0"#]],
    );
}

#[test]
fn rb1_on_the_way_back_what_was_new_goes_without_asking_and_what_was_adopted_stays() {
    check(
        "
        back-to 3
        want cm/stays
        live cm/stays @owner=sys/app
        have cm/stays @created=1
        have cm/new @uid=1 @created=4
        live cm/new @owner=sys/app @uid=1
        have ns/shop @uid=2 @created=5
        live ns/shop @owner=sys/app @uid=2
        have cm/adopted @uid=3 @created=0
        live cm/adopted @owner=sys/app @uid=3
        have ns/old @uid=4 @created=2
        live ns/old @owner=sys/app @uid=4
        have cm/taken @uid=5 @created=0
        live cm/taken @owner=sys/app @commit=c4 @uid=5 key=new more=new others=2
        last cm/taken @owner=sys/app key=new more=new
        give-back cm/taken key=old
        have cm/given @uid=6 @created=0
        live cm/given @uid=6 key=old
        ",
        expect![[r#"
            wave configuration
              patch ConfigMap shop/taken: data.key, data.more, metadata.annotations
            prune ConfigMap shop/new
            prune Namespace shop
            keep ConfigMap shop/adopted: it was there before this Application
            keep ConfigMap shop/given: it was there before this Application
            keep Namespace old: deleting a Namespace takes what is in it: it needs `pruneAllow: [Namespace/old]`
            unchanged 1"#]],
    );
}

#[test]
fn what_failed_releases_created_goes_without_asking_unless_much_else_goes() {
    let failed = "
        failed 4 6
        want cm/stays
        live cm/stays @owner=sys/app
        have cm/stays @created=1
        have cm/new @uid=1 @created=4
        live cm/new @owner=sys/app @uid=1
        have cm/newer @uid=2 @created=6
        live cm/newer @owner=sys/app @uid=2
        have ns/shop @uid=3 @created=6
        live ns/shop @owner=sys/app @uid=3
        ";
    check(
        failed,
        expect![[r#"
            prune ConfigMap shop/newer
            prune ConfigMap shop/new
            keep Namespace shop: deleting a Namespace takes what is in it: it needs `pruneAllow: [Namespace/shop]`
            unchanged 1"#]],
    );
    // A release between them was stuck: what it created may have become dear to somebody.
    let old = format!("{failed}\nhave cm/old @uid=4 @created=5\nlive cm/old @owner=sys/app @uid=4");
    check(
        &old,
        expect![[r#"
        keep ConfigMap shop/new: 4 of 5 objects would be deleted, more than 50 %: it needs `pruneAllow` or a higher `pruneMaxPercent`
        keep ConfigMap shop/newer: 4 of 5 objects would be deleted, more than 50 %: it needs `pruneAllow` or a higher `pruneMaxPercent`
        keep ConfigMap shop/old: 4 of 5 objects would be deleted, more than 50 %: it needs `pruneAllow` or a higher `pruneMaxPercent`
        keep Namespace shop: deleting a Namespace takes what is in it: it needs `pruneAllow: [Namespace/shop]`
        unchanged 1"#]],
    );
    let nothing = failed.replace("want cm/stays", "");
    check(
        &nothing,
        expect![[r#"
        keep ConfigMap shop/new: the commit has no object at all: deleting everything needs `allowEmpty: true`
        keep ConfigMap shop/newer: the commit has no object at all: deleting everything needs `allowEmpty: true`
        keep ConfigMap shop/stays: the commit has no object at all: deleting everything needs `allowEmpty: true`
        keep Namespace shop: deleting a Namespace takes what is in it: it needs `pruneAllow: [Namespace/shop]`
        unchanged 0"#]],
    );
}

#[test]
fn failed_is_what_a_way_back_would_have_undone_and_what_is_overtaken() {
    use Verdict::{Good, Rejected, RolledBack, Stuck, Superseded};
    for (since, expected) in [
        (vec![], vec![]),
        (vec![Some(RolledBack)], vec![4]),
        (vec![Some(Superseded)], vec![4]),
        (vec![Some(Superseded), Some(Rejected)], vec![4]),
        // It may have served for long.
        (vec![Some(Superseded), Some(Superseded)], vec![5]),
        (vec![Some(Stuck)], vec![]),
        (vec![Some(Superseded), Some(Stuck)], vec![]),
        // A way back from the newest leads over all before.
        (vec![Some(Superseded), Some(Stuck), None, Some(RolledBack)], vec![4, 5, 6, 7]),
        (vec![Some(RolledBack), Some(Superseded), Some(Superseded)], vec![4, 6]),
        (vec![Some(Good), None], vec![]),
    ] {
        let since: Vec<_> = (4..).zip(since).collect();
        assert_eq!(failed(&since).into_iter().collect::<Vec<i64>>(), expected, "{since:?}");
    }
}

#[test]
fn secrets_are_masked_but_shown_as_changed() {
    let secret = |a: &str| json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": a, "b": "c2FtZQ=="}});
    let (old, new) = masked(Some(&secret("b25l")), Some(&secret("dHdv")));
    let (old, new) = (old.unwrap(), new.unwrap());
    assert_eq!(old["data"], json!({"a": "*** (before)", "b": "***"}));
    assert_eq!(new["data"], json!({"a": "*** (after)", "b": "***"}));
    assert_eq!(masked(None, Some(&secret("b25l"))).1.unwrap()["data"]["a"], "***");
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}});
    assert_eq!(masked(None, Some(&config)).1, Some(config));
}

#[test]
fn a_plan_is_data() {
    let row = read("want cm/a key=1\nlive cm/a key=0 @owner=sys/app");
    let text = serde_json::to_string_pretty(&plan(&row)).unwrap();
    expect![[r#"
        {
          "waves": [
            {
              "order": {
                "rank": 3,
                "wave": 0
              },
              "changes": [
                {
                  "apiVersion": "v1",
                  "kind": "ConfigMap",
                  "namespace": "shop",
                  "name": "a",
                  "origin": "all.yaml:1:1",
                  "action": "patch",
                  "old": {
                    "apiVersion": "v1",
                    "data": {
                      "key": "0"
                    },
                    "kind": "ConfigMap",
                    "metadata": {
                      "annotations": {
                        "portolan.dev/application": "sys/app"
                      },
                      "name": "a",
                      "namespace": "shop",
                      "resourceVersion": "2"
                    }
                  },
                  "new": {
                    "apiVersion": "v1",
                    "data": {
                      "key": "1"
                    },
                    "kind": "ConfigMap",
                    "metadata": {
                      "annotations": {
                        "portolan.dev/application": "sys/app",
                        "portolan.dev/commit": "c9",
                        "portolan.dev/origin": "all.yaml:1:1"
                      },
                      "name": "a",
                      "namespace": "shop",
                      "resourceVersion": "2"
                    }
                  },
                  "fields": [
                    "data.key"
                  ]
                }
              ]
            }
          ],
          "prune": [],
          "kept": [],
          "problems": [],
          "tolerated": [],
          "leaving": [],
          "unchanged": 0,
          "wanted": 1
        }"#]]
    .assert_eq(&text);
}

/// Carries a plan out, as the release loop does.
fn carry_out(row: &mut Row, plan: &SyncPlan, revision: &mut u64) {
    let now = "2026-11-21T00:00:00Z".parse().unwrap();
    for change in plan.changes() {
        let key = change.name.0.clone();
        *revision += 1;
        let draft = match row.live.get(&key) {
            None => {
                let stamp = Stamp { uid: format!("uid-{revision}"), now };
                Some(admit::create(key.kind, change.new.clone(), &stamp).unwrap())
            }
            Some(live) => admit::update(live, change.new.clone(), None, now).unwrap(),
        };
        if let Some(draft) = draft {
            let uid = draft.meta.uid.clone();
            row.live.insert(key.clone(), Arc::new(draft.seal(*revision)));
            row.inventory.retain(|i| i.name != *key.name || i.kind != key.kind.kind);
            row.inventory.push(InventoryItem {
                api_version: key.kind.api_version(),
                kind: key.kind.kind.to_owned(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid,
                ..InventoryItem::default()
            });
        }
    }
    for prune in &plan.prune {
        row.live.remove(&prune.name.0);
        row.inventory.retain(|i| i.name != *prune.name.0.name || i.kind != prune.name.0.kind.kind);
    }
    row.last = row.wanted.iter().map(|w| (w.key.clone(), w.value.value().clone())).collect();
}

fn wishes() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    proptest::collection::vec((0usize..4, 0u8..3, 0u8..3), 0..5)
}

fn want(wishes: &[(usize, u8, u8)]) -> Vec<Wanted> {
    let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
    for (name, field, text) in wishes {
        let web = *name == 0;
        let key = key(&if web { "deploy/web".to_owned() } else { format!("cm/{name}") });
        let mut value = value(&key, &[]);
        if web {
            let labels = json!({"app": "web"});
            let container =
                json!({"name": "c", "image": format!("web:{text}"), "env": [{"name": format!("E{field}"), "value": "1"}]});
            value["spec"] = json!({
                "replicas": field,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            });
        } else {
            value["data"][format!("f{field}")] = json!(text.to_string());
        }
        admit::prepare(key.kind, &mut value);
        wanted.insert(key.clone(), Wanted { key, value: value.into(), origin: Origin::default() });
    }
    wanted.into_values().collect()
}

#[test]
fn a_walk_finds_what_a_search_finds_or_says_that_it_has_passed() {
    let map: BTreeMap<Key, usize> =
        ["a", "c", "d", "f"].iter().enumerate().map(|(n, name)| (key(&format!("cm/{name}")), n)).collect();
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    for first in names {
        for second in names {
            for third in names {
                let mut walk = Walk::new(map.iter());
                for name in [first, second, third] {
                    let key = key(&format!("cm/{name}"));
                    let found = walk.find(&key);
                    assert_eq!(
                        found.or_else(|| map.get(&key).filter(|_| walk.passed)),
                        map.get(&key),
                        "{first} {second} {third}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was wanted before and whatever others changed in between: after a plan is carried out there is nothing left to plan, all
    /// that is wanted is there, and nothing of what others added is lost.
    #[test]
    fn planning_what_was_just_applied_plans_nothing(first in wishes(), second in wishes(), third in wishes(), drift in 0usize..4) {
        let mut row = Row { policy: Policy { allow_empty: Some(true), prune_max_percent: Some(100), ..Policy::default() }, ..Row::default() };
        let mut revision = 0;
        for wishes in [&first, &second, &third] {
            row.wanted = want(wishes);
            // Somebody adds a label to an object, and changes a field.
            let drifting = key(&format!("cm/{drift}"));
            if let Some(live) = row.live.get(&drifting) {
                let mut value = live.value();
                value["metadata"]["labels"]["by"] = json!("hand");
                value["data"]["f0"] = json!("drift");
                revision += 1;
                row.live.insert(drifting.clone(), Arc::new(Draft::new(drifting.kind, value).seal(revision)));
            }
            let labelled = row.live.get(&drifting).is_some_and(|o| o.meta.labels.contains_key("by"));
            let first_plan = plan(&row);
            // What is remembered of earlier comparisons changes nothing.
            let forgetful = plan(&Row { settled: BTreeMap::new(), ..row.clone() });
            prop_assert_eq!((first_plan.to_string(), first_plan.unchanged), (forgetful.to_string(), forgetful.unchanged));
            row.settled.extend(first_plan.settled.clone());
            carry_out(&mut row, &first_plan, &mut revision);
            let again = plan(&row);
            prop_assert!(again.is_empty(), "{first_plan}\nand again\n{again}");
            row.settled.extend(again.settled.clone());
            let third_plan = plan(&row);
            prop_assert!(third_plan.is_empty() && third_plan.settled.is_empty(), "nothing is compared twice");
            for wanted in &row.wanted {
                let live = row.live[&wanted.key].value();
                for (name, text) in wanted.value["data"].as_object().into_iter().flatten() {
                    prop_assert_eq!(&live["data"][name], text);
                }
                prop_assert_eq!(&live["spec"]["template"], &wanted.value["spec"]["template"]);
            }
            if labelled && let Some(live) = row.live.get(&drifting) {
                prop_assert_eq!(live.meta.labels.get("by").map(String::as_str), Some("hand"));
            }
            let names: BTreeSet<&Key> = row.wanted.iter().map(|w| &w.key).collect();
            prop_assert_eq!(names, row.live.keys().collect::<BTreeSet<_>>());
        }
    }
}
