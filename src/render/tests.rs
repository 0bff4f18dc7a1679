//! Tests of the whole room: manifest text in, objects or problems out.

use std::time::Instant;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::object::robust::cases;

/// A tree from text: `# file NAME` begins a file.
fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    for part in text.split("# file ").filter(|p| !p.trim().is_empty()) {
        let (name, content) = part.split_once('\n').unwrap();
        add(&mut tree, name.trim(), content.as_bytes());
    }
    tree
}

fn add(tree: &mut Tree, name: &str, content: &[u8]) {
    let blob: String = Sha256::digest(content).iter().take(20).map(|b| format!("{b:02x}")).collect();
    tree.entries.insert(name.to_owned(), Entry::File { content: bytes::Bytes::copy_from_slice(content), blob });
}

fn shown(result: &Result<Rendered, Vec<Problem>>) -> String {
    match result {
        Ok(rendered) => {
            let line = |l: &Located| format!("{} from {}\n", l.key, l.origin);
            rendered.objects.iter().map(line).collect()
        }
        Err(problems) => {
            let line = |p: &Problem| {
                format!("{}: {}\n{}", p.origin, p.message, p.hint.as_ref().map_or(String::new(), |h| format!("    {h}\n")))
            };
            problems.iter().map(line).collect()
        }
    }
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&shown(&render(&tree(text), &Options::default())));
}

const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web:1
";

#[test]
fn good_files_become_objects() {
    check(
        &format!(
            "# file deploy.yaml\n{WEB}\
# file config.yml
---
# only a comment
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
data: {{mode: \"0644\"}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
...
# file list.json
{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [
  {{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {{\"name\": \"b\"}}}},
  {{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {{\"name\": \"s\"}}, \"stringData\": {{\"k\": \"v\"}}}}
]}}
# file README.md
kind: nonsense
# file .github/workflows/plan.yml
on: push
"
        ),
        expect![[r#"
            configmaps default/a from config.yml:4:1
            configmaps default/b from list.json:2:3
            namespaces shop from config.yml:10:1
            secrets default/s from list.json:3:3
            deployments.apps shop/web from deploy.yaml:1:1
        "#]],
    );
}

#[test]
fn everything_wrong_is_said_at_once_with_places() {
    check(
        "# file a.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: three
  selectors: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web:1
          volumnMounts: []
---
apiVersion: apps/v1
kind: Deploymnt
metadata: {name: x}
---
apiVersion: v1
kind: Deployment
metadata: {name: y}
---
kind: ConfigMap
metadata: {name: z}
---
apiVersion: v1
kind: ConfigMap
metadata: {nmae: z}
---
just text
# file b.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
data:
  a: b
  a: c
---
apiVersion: v1
kind: ConfigMap
metadata:
\tname: tab
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two}
data: {on: yes, port: 8080, good: \"yes\"}
---
apiVersion: v1
kind: Namespace
metadata: {name: n, namespace: m}
---
apiVersion: v1
kind: Node
metadata: {name: n}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: forged
  ownerReferences: []
  annotations:
    portolan.dev/application: x/y
---
apiVersion: v1
kind: ConfigMap
metadata: {name: !secret x}
# file c.json
{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",
 \"metadata\": {\"name\": \"c\", \"name\": \"d\"}}
# file d.json
{\"apiVersion\": \"v1\",,}
",
        expect![[r#"
            a.yaml:6:13: Deployment web: spec.replicas: expected a whole number, found the string "three"
            a.yaml:7:3: Deployment web: spec.selectors: unknown field "selectors"
                did you mean `selector`?
            a.yaml:14:11: Deployment web: spec.template.spec.containers[0].volumnMounts: unknown field "volumnMounts"
                did you mean `volumeMounts`?
            a.yaml:17:7: unknown kind "Deploymnt" in "apps/v1"
                did you mean `Deployment` (apps/v1)?
            a.yaml:20:13: there is no Deployment in "v1"
                did you mean `apps/v1`?
            a.yaml:24:1: apiVersion is missing
                ConfigMap is served as v1
            a.yaml:29:1: ConfigMap: metadata: metadata.name is missing
            a.yaml:29:12: ConfigMap: metadata.nmae: unknown field "nmae"
                did you mean `name`?
            a.yaml:31:1: this is not an object
                every document of a manifest begins with apiVersion and kind
            b.yaml:6:3: the key "a" is here twice; the first is on line 5
            b.yaml:11:1: a tab is used for indentation
                YAML takes only spaces
            b.yaml:16:12: ConfigMap two: data.on: expected a string, but YAML 1.1 (kubectl) reads yes as a boolean: quote it
                write `"yes"`
            b.yaml:16:23: ConfigMap two: data.port: expected a string, found the number 8080
            b.yaml:20:18: Namespace n: metadata.name: expected a string, but YAML 1.1 (kubectl) reads n as a boolean: quote it
                write `"n"`
            b.yaml:20:32: Namespace n: metadata.namespace: objects of this kind have no namespace, found "m"
            b.yaml:23:7: Node: the cluster writes these itself; they do not come from git
            b.yaml:30:3: ConfigMap forged: metadata.ownerReferences: this does not come from git
                owners have uids, which only the cluster knows
            b.yaml:32:5: ConfigMap forged: metadata.annotations.portolan.dev/application: only the server writes this annotation
            b.yaml:36:18: the tag !secret has no meaning here
            c.json:2:28: the key "name" is here twice; the first is on line 2
            d.json:1:21: key must be a string
        "#]],
    );
}

#[test]
fn duplicates_name_both_places() {
    check(
        &format!("# file a.yaml\n{WEB}# file z/b.yaml\n{WEB}---\n{WEB}"),
        expect![[r#"
        z/b.yaml:1:1: deployments.apps shop/web is defined twice; the first is at a.yaml:1:1
            remove one of them, or give it another name or namespace
        z/b.yaml:14:1: deployments.apps shop/web is defined twice; the first is at a.yaml:1:1
            remove one of them, or give it another name or namespace
    "#]],
    );
}

#[test]
fn merges_and_anchors_mean_what_they_say() {
    check(
        "# file a.yaml
apiVersion: v1
kind: ConfigMap
metadata: &meta {name: a, labels: &labels {x: w}}
data: {a: b}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: b
  labels: &l {x: z}
  annotations:
    <<: *l
    v: z
",
        expect![[r#"
            configmaps default/a from a.yaml:1:1
            configmaps default/b from a.yaml:6:1
        "#]],
    );
}

#[test]
fn digest_depends_on_content_only() {
    let digest = |text: &str| render(&tree(text), &Options::default()).unwrap_or_else(|p| panic!("{}", shown(&Err(p)))).digest;
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: v}\n";
    let one = digest(&format!("# file a.yaml\n{WEB}# file b.yaml\n{config}"));
    assert_eq!(one, digest(&format!("# file z.yaml\n{config}---\n{WEB}")), "names and order of files");
    let explicit = config.replace("{name: a}", "{namespace: default, name: \"a\"}") + "immutable: null\n";
    assert_eq!(
        one,
        digest(&format!("# file z.yaml\n# comment\n{explicit}---\n{WEB}  revisionHistoryLimit: 10\n")),
        "what is the default"
    );
    let exported = config.replace("{name: a}", "{name: a, uid: u, resourceVersion: '7', creationTimestamp: null, generation: 2}");
    assert_eq!(one, digest(&format!("# file z.yaml\n{exported}---\n{WEB}")), "what the server sets");
    assert_ne!(one, digest(&format!("# file a.yaml\n{WEB}# file b.yaml\n{}", config.replace("x: v", "x: z"))));
    assert_ne!(one, digest(&format!("# file a.yaml\n{WEB}")));
    assert_eq!(digest(""), digest("# file a.yaml\n# nothing\n"));
}

#[test]
fn a_cache_changes_nothing_but_the_time() {
    let mut cache = Cache::default();
    let texts =
        [format!("# file a.yaml\n{WEB}# file b.yaml\nnope"), format!("# file a.yaml\n{WEB}"), format!("# file c.yaml\n{WEB}")];
    for text in texts.iter().chain(&texts) {
        let (cached, fresh) =
            (render_cached(&tree(text), &Options::default(), &mut cache), render(&tree(text), &Options::default()));
        assert_eq!(cached, fresh);
    }
    assert_eq!(cache.files.len(), 1, "what is not used is forgotten");
    let other = Options { namespace: "other".to_owned(), ..Options::default() };
    let config = "# file a.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    render_cached(&tree(config), &Options::default(), &mut cache).unwrap();
    assert_eq!(render_cached(&tree(config), &other, &mut cache), render(&tree(config), &other));
}

/// What is remembered of the order of objects is never believed where another commit has others.
#[test]
fn whatever_a_commit_moves_is_rendered_as_if_it_were_the_first() {
    let map = |name: &str, value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n---\n")
    };
    let file = |name: &str, maps: &[(&str, &str)]| {
        format!("# file {name}\n{}", maps.iter().map(|(name, value)| map(name, value)).collect::<String>())
    };
    let commits = [
        vec![file("a.yaml", &[("z", "1"), ("b", "1")]), file("b.yaml", &[("a", "1")])],
        // Another content, and nothing else.
        vec![file("a.yaml", &[("z", "1"), ("b", "2")]), file("b.yaml", &[("a", "1")])],
        // The same objects in another order, and in other files.
        vec![file("a.yaml", &[("b", "2"), ("z", "1")]), file("b.yaml", &[("a", "1")])],
        vec![file("a.yaml", &[("a", "1")]), file("b.yaml", &[("b", "2"), ("z", "1")])],
        // Contents that change places, under names that were there.
        vec![file("a.yaml", &[("b", "2"), ("z", "1")]), file("b.yaml", &[("a", "1")])],
        vec![file("c.yaml", &[("b", "2"), ("z", "1")]), file("d.yaml", &[("a", "1")])],
        // One twice, and twice again with another content, and then no longer.
        vec![file("c.yaml", &[("b", "2"), ("z", "1")]), file("d.yaml", &[("b", "1")])],
        vec![file("c.yaml", &[("b", "2"), ("z", "1")]), file("d.yaml", &[("b", "3")])],
        vec![file("c.yaml", &[("b", "2"), ("z", "1")]), file("d.yaml", &[("c", "3")]), file("e.yaml", &[("z", "4")])],
        vec![file("c.yaml", &[("b", "2"), ("z", "1")]), file("d.yaml", &[("c", "3")])],
        // One that is no manifest, and one less.
        vec![file("c.yaml", &[("b", "2"), ("z", "1")]), "# file d.yaml\n{\n".to_owned()],
        vec![file("c.yaml", &[("b", "2"), ("z", "1")])],
        vec![],
        vec![file("c.yaml", &[("b", "2"), ("z", "1")])],
    ];
    let mut cache = Cache::default();
    for (n, commit) in commits.iter().enumerate() {
        let tree = tree(&commit.concat());
        assert_eq!(render_cached(&tree, &Options::default(), &mut cache), render(&tree, &Options::default()), "{n}");
    }
}

/// What a cache knows of files, whatever becomes of them.
#[test]
fn a_cache_follows_files_wherever_they_go() {
    let config =
        |name: &str, text: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{x: {text}}}\n");
    let (a, b) = (config("a", "one"), config("b", "two"));
    let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "j"}}"#;
    let mut cache = Cache::default();
    for text in [
        format!("# file a.yaml\n{a}# file b.yaml\n{b}"),
        format!("# file a.yaml\n{}# file b.yaml\n{b}", config("a", "changed")),
        format!("# file deep/er/a.yaml\n{a}# file b.yaml\n{b}"),
        format!("# file a.yaml\n{a}# file again/a.yaml\n{a}"),
        format!("# file a.yaml\n{a}"),
        format!("# file a.yaml\n{json}"),
        format!("# file a.json\n{json}"),
        format!("# file a.json\n{a}"),
        format!("# file A.yaml\n{a}# file a.yaml\n{b}"),
        String::new(),
        format!("# file b.yaml\n{a}# file a.yaml\n{b}"),
    ] {
        for namespace in ["default", "other", "default"] {
            let options = Options { namespace: namespace.to_owned(), ..Options::default() };
            assert_eq!(render_cached(&tree(&text), &options, &mut cache), render(&tree(&text), &options), "{namespace}:\n{text}");
        }
    }
}

/// Many files are read side by side, and come out as if they were read one after the other.
#[test]
fn many_files_are_rendered_like_few() {
    let mut all = Tree::default();
    for n in 0..2 * MANY {
        let text = match n % 50 {
            7 => "kind: Nothing\n".to_owned(),
            _ => format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\ndata: {{x: v{n}}}\n"),
        };
        add(&mut all, &format!("{}/c{n}.yaml", n % 7), text.as_bytes());
    }
    let problems = render(&all, &Options::default()).unwrap_err();
    assert_eq!(problems.len(), 2 * MANY / 50);
    all.entries.retain(|_, entry| !matches!(entry, Entry::File { content, .. } if content.starts_with(b"kind: Nothing")));
    let together = render(&all, &Options::default()).unwrap();
    let mut cache = Cache::default();
    let mut few = Tree::default();
    for (path, entry) in &all.entries {
        few.entries.insert(path.clone(), entry.clone());
        if few.entries.len() % 100 == 0 {
            render_cached(&few, &Options::default(), &mut cache).unwrap();
        }
    }
    assert_eq!(render_cached(&few, &Options::default(), &mut cache).unwrap(), together);
    // Objects are found by their keys in the order in which they come.
    assert!(together.objects.is_sorted_by(|a, b| a.key < b.key));
}

/// What a record says that files hold is what they would be rendered to, and where it cannot be taken for that, it is not.
#[test]
fn a_record_stands_for_files_that_are_not_read() {
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ships.port.example}\nspec:\n  group: port.example\n  \
                      scope: Namespaced\n  names: {plural: ships, kind: Ship}\n  versions:\n    - name: v1\n      served: true\n      storage: true\n      schema:\n        \
                      openAPIV3Schema:\n          type: object\n          properties:\n            spec: {type: object, properties: {masts: {type: integer, default: 1}}}\n";
    let ship = "apiVersion: port.example/v1\nkind: Ship\nmetadata: {name: s}\nspec: {}\n";
    let options = Options::default();
    let text = |ship: &str, definition: &str| {
        format!("# file a.yaml\n{WEB}# file nothing.yaml\n# only words\n# file ship.yaml\n{ship}# file z.yaml\n{definition}")
    };
    let whole = tree(&text(ship, definition));
    let rendered = render(&whole, &options).unwrap();
    // As the record has it: no columns, files by name.
    let learn = || {
        let (mut files, mut rest) = (Vec::new(), Vec::new());
        for (path, entry) in &whole.entries {
            let Entry::File { blob, .. } = entry else { unreachable!() };
            let objects = rendered.objects.iter().filter(|o| *o.origin.file == **path);
            let objects: Vec<_> = objects.map(|o| (o.origin.line, o.key.clone(), o.value.clone())).collect();
            match objects.is_empty() {
                true => rest.push((blob.clone(), false)),
                false => files.push(Recorded { blob: blob.clone(), json: false, objects }),
            }
        }
        Cache::recorded(&options, files, rest)
    };
    let emptied = |mut tree: Tree, cache: &Cache| {
        let known: Vec<String> = whole
            .entries
            .values()
            .filter_map(|e| if let Entry::File { blob, .. } = e { Some(blob.clone()) } else { None })
            .collect();
        for entry in tree.entries.values_mut() {
            if let Entry::File { content, blob } = entry
                && known.contains(blob)
                && !cache.defines(blob)
            {
                *content = bytes::Bytes::new();
            }
        }
        tree
    };
    let mut cache = learn();
    let bare = emptied(whole.clone(), &cache);
    assert!(bare.entries.values().filter(|e| matches!(e, Entry::File { content, .. } if content.is_empty())).count() == 3);
    assert!(cache.covers(&bare, &options));
    let again = render_cached(&bare, &options, &mut cache).unwrap();
    assert_eq!(again.digest, rendered.digest);
    let values = |r: &Rendered| r.objects.iter().map(|o| (o.key.clone(), o.value.clone(), o.origin.line)).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&rendered));

    // One object more, the others not read.
    let more = format!("{}# file more.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: more}}\n", text(ship, definition));
    let mut cache = learn();
    let bare = emptied(tree(&more), &cache);
    assert!(cache.covers(&bare, &options));
    assert_eq!(values(&render_cached(&bare, &options, &mut cache).unwrap()), values(&render(&tree(&more), &options).unwrap()));

    // Another definition: what was read with the old one is not taken for what it would be with the new one.
    let other = text(ship, &definition.replace("default: 1", "default: 3"));
    let cache = learn();
    assert!(!cache.covers(&emptied(tree(&other), &cache), &options));
    let without = text(ship, "# gone");
    assert!(!cache.covers(&emptied(tree(&without), &cache), &options));
    // Another namespace for those that name none.
    let elsewhere = Options { namespace: "other".to_owned(), ..Options::default() };
    assert!(!cache.covers(&emptied(whole.clone(), &cache), &elsewhere));
    // The same content under a name by which it is read otherwise.
    let mut moved = emptied(whole.clone(), &cache);
    let web = moved.entries.remove("a.yaml").unwrap();
    moved.entries.insert("a.json".to_owned(), web);
    assert!(!cache.covers(&moved, &options));
}

/// Class C and F54: what was made to hurt is refused quickly, by name, and nothing else suffers.
#[test]
#[allow(clippy::disallowed_methods)] // how long it takes is what is tested
fn attack_c_bombs_are_defused() {
    let laughs = (0..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        let many = vec![format!("*a{n}"); 9].join(",");
        format!("{text}a{}: &a{} [{many}]\n", n + 1, n + 1)
    });
    let long_alias = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 2000].join(","));
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("billion laughs", laughs.into_bytes()),
        ("long aliases", long_alias.into_bytes()),
        ("self reference", b"a: &a [*a]\n".to_vec()),
        ("brackets", "[".repeat(1_000_000).into_bytes()),
        ("braces", "{a: ".repeat(250_000).into_bytes()),
        ("closed brackets", ["[".repeat(5000), "]".repeat(5000)].concat().into_bytes()),
        ("dashes", "- ".repeat(400_000).into_bytes()),
        ("question marks", "? ".repeat(400_000).into_bytes()),
        ("many values", ["a: [", &"1,".repeat(500_000), "]"].concat().into_bytes()),
        ("many documents", "---\na: 1\n".repeat(100_000).into_bytes()),
        (
            "utf-16",
            "a: 1".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().iter().copied().fold(
                vec![0xff, 0xfe],
                |mut v, b| {
                    v.push(b);
                    v
                },
            ),
        ),
        ("nul", b"a: 1\nb: \0\n".to_vec()),
        ("not utf-8", b"a: 1\nb: \xff\n".to_vec()),
        ("control", b"a: \x07\n".to_vec()),
        ("infinity", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: .inf}\n".to_vec()),
        ("long scalar", ["a: ", &"x".repeat(1_000_000)].concat().into_bytes()),
        ("long key", ["? ", &"x".repeat(1_000_000), "\n: 1\n"].concat().into_bytes()),
        ("binary", (0..=255_u8).cycle().skip(1).take(100_000).collect()),
        ("deep indent", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n % 500))).collect::<String>().into_bytes()),
    ];
    let mut text = String::new();
    for (name, content) in rows {
        let mut tree = Tree::default();
        add(&mut tree, "a.yaml", &content);
        let begun = Instant::now();
        let problems = render(&tree, &Options::default()).unwrap_err();
        let took = begun.elapsed();
        assert!(took.as_secs() < 2, "{name} took {took:?}");
        let message: String = problems[0].message.chars().take(100).collect();
        text += &format!("{name}: {}: {message}\n", problems[0].origin);
    }
    expect![[r#"
        billion laughs: a.yaml:6:10: the document has more than 100000 values once its aliases are replaced
        long aliases: a.yaml:2:26: the document's text is longer than 4 MiB once its aliases are replaced
        self reference: a.yaml:1:4: recursion limit exceeded
        brackets: a.yaml:1:256: recursion limit exceeded
        braces: a.yaml:1:1021: recursion limit exceeded
        closed brackets: a.yaml:1:256: recursion limit exceeded
        dashes: a.yaml:1:129: lists and maps are nested deeper than 64
        question marks: a.yaml:1:129: lists and maps are nested deeper than 64
        many values: a.yaml:1:199999: the document has more than 100000 values once its aliases are replaced
        many documents: a.yaml:2002: the file has more than 1000 documents
        utf-16: a.yaml: the file is UTF-16; manifests are UTF-8
        nul: a.yaml:2: the file contains a NUL byte, so it is not text
        not utf-8: a.yaml:2: the file is not valid UTF-8
        control: a.yaml:1:1: control characters are not allowed at position 3
        infinity: a.yaml:4:11: infinity and not-a-number are not values that JSON knows
        long scalar: a.yaml:1:1: this is not a manifest: it has neither apiVersion nor kind
        long key: a.yaml:1:1: this is not a manifest: it has neither apiVersion nor kind
        binary: a.yaml:2: the file contains a NUL byte, so it is not text
        deep indent: a.yaml:65:65: lists and maps are nested deeper than 64
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_fine() {
    let mut tree = Tree::default();
    add(&mut tree, "a.yaml", format!("\u{feff}{}", WEB.replace('\n', "\r\n")).as_bytes());
    expect![[r#"
        deployments.apps shop/web from a.yaml:1:1
    "#]]
    .assert_eq(&shown(&render(&tree, &Options::default())));
}

/// Class A and F55: nothing but plain files with plain names is ever taken.
#[test]
fn attack_a_names_links_and_submodules() {
    let mut tree = tree(&format!("# file Web.yaml\n{WEB}"));
    for name in ["web.yaml", "a/../b.yaml", "a\\b.yaml", "bad\u{1b}[31m.yaml", "not\u{fffd}utf8.yaml", "/abs.yaml"] {
        add(&mut tree, name, b"");
    }
    tree.entries.insert("big.yaml".into(), Entry::TooLarge(2_000_000));
    tree.entries.insert("link.yaml".into(), Entry::Symlink("/etc/passwd".into()));
    tree.entries.insert("dir".into(), Entry::Symlink("../other".into()));
    tree.entries.insert("README.md".into(), Entry::Symlink("docs/intro.md".into()));
    tree.entries.insert("sub".into(), Entry::Submodule);
    expect![[r#"
        /abs.yaml: the path leads out of the repository
        a/../b.yaml: the path leads out of the repository
        a\b.yaml: the name has control characters, backslashes or bytes that are not UTF-8
        bad�[31m.yaml: the name has control characters, backslashes or bytes that are not UTF-8
        big.yaml: the file has 2000000 bytes; a manifest has at most 1 MiB
            split the file; large data does not belong into manifests
        dir: this is a symbolic link to "../other", and those are never followed
            put the file itself here, or keep the link in a hidden directory
        link.yaml: this is a symbolic link to "/etc/passwd", and those are never followed
            put the file itself here, or keep the link in a hidden directory
        not�utf8.yaml: the name has control characters, backslashes or bytes that are not UTF-8
        sub: this is a submodule, and those are never fetched
            commit the files themselves, or give the other repository an Application of its own
        web.yaml: its name differs from "Web.yaml" only in case, so many machines cannot hold both
    "#]]
    .assert_eq(&shown(&render(&tree, &Options::default())));
}

/// A manifest in which every sort of thing is written in every way.
const MANY_WAYS: &str = "\
# a comment
%YAML 1.2
---
apiVersion: v1
kind: List
items:
- &pod
  apiVersion: v1
  kind: Pod
  metadata: {name: \"a\", namespace: 'shop', labels: {app: web, on: \"yes\"}}
  spec: &spec
    containers:
    - name: c
      image: >-
        i
      command: [sh, -c, |
        one
        two
      ]
      ports: [{containerPort: 0x50}]
- <<: *pod
  metadata: {name: b, namespace: shop}
---
{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"j\"}, \"data\": {\"k\": \"v\"}}
...
---
? apiVersion
: v1
? kind
: Secret
metadata: !!map {name: s}
stringData: {n: \"0644\"}
";

proptest! {
    #![proptest_config(cases(300))]
    /// Whatever is in a file, it is objects or problems with places.
    #[test]
    fn any_text_is_objects_or_problems(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..40, prop::sample::select(vec![
            "", "-", "- ", "? ", ": ", "&a ", "*a", "<<: *pod\n", "{", "}", "[", "]", ",", "\"", "'", "|\n", ">\n", "#", "!!str ", "!x ", "---\n", "...\n",
            "\t", "\n", "  ", "\u{feff}", "\0", "%", "~", "null", "1e999", ".inf", "\\u0000", "ü", "\r\n",
        ])), 0..6),
        json in any::<bool>(),
    ) {
        let mut text = MANY_WAYS.as_bytes().to_vec();
        for (at, cut, put) in changes {
            let at = at.index(text.len() + 1);
            text.splice(at..(at + cut).min(text.len()), put.bytes());
        }
        let mut files = Tree::default();
        add(&mut files, if json { "a.json" } else { "a.yaml" }, &text);
        match render(&files, &Options::default()) {
            Ok(rendered) => prop_assert_eq!(render(&files, &Options::default()).unwrap().digest, rendered.digest),
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|p| &*p.origin.file == "a.yaml" || json)),
        }
    }
}

/// A file with very many of something, and something wrong with it, is a second and not an hour.
#[test]
#[allow(clippy::disallowed_methods)] // only a test may look at the clock here
fn long_files_take_no_longer_than_they_are_long() {
    let keys: String = (0..60_000).map(|n| format!("  k{n}: v\n")).collect();
    let unknown: String = (0..30_000).map(|n| format!("  u{n}: v\n")).collect();
    let bad_labels: String = (0..30_000).map(|n| format!("    -k{n}: v\n")).collect();
    let merges: String =
        (0..9).map(|n| format!("m{}: &m{} {{<<: [{}]}}\n", n + 1, n + 1, vec![format!("*m{n}"); 4].join(", "))).collect();
    let files = [
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\nwrong: 1\ndata:\n{keys}"),
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n{unknown}"),
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels:\n{bad_labels}"),
        format!("apiVersion: v1\nkind: {}\nmetadata: {{name: a}}\n", "K".repeat(900_000)),
        format!("apiVersion: v1\nkind: Pod\nm0: &m0 {{a: b}}\n{merges}spec: {{<<: *m9, wrong: 1}}\n"),
    ];
    for text in files {
        let begin = Instant::now();
        let mut tree = Tree::default();
        add(&mut tree, "a.yaml", text.as_bytes());
        assert!(render(&tree, &Options::default()).is_err());
        assert!(begin.elapsed().as_secs() < 60, "{text:.60}: {:?}", begin.elapsed());
    }
}

#[test]
fn a_tree_may_define_its_own_kinds() {
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ships.port.example}\nspec:\n  group: port.example\n  \
                      scope: Namespaced\n  names: {plural: ships, kind: Ship}\n  versions:\n    - name: v1\n      served: true\n      storage: true\n      schema:\n        \
                      openAPIV3Schema:\n          type: object\n          properties:\n            spec: {type: object, properties: {masts: {type: integer, default: 1}, flag: {type: string, enum: [red, white]}}}\n";
    let ship = |spec: &str| format!("apiVersion: port.example/v1\nkind: Ship\nmetadata: {{name: s}}\nspec: {{{spec}}}\n");
    let tree = |definition: &str, ship: &str| {
        let file = |content: &str| Entry::File { content: content.as_bytes().to_vec().into(), blob: String::new() };
        let mut tree = Tree::default();
        tree.entries.insert("a/ship.yaml".to_owned(), file(ship));
        tree.entries.insert("z/ships.yaml".to_owned(), file(definition));
        tree
    };
    let good = render(&tree(definition, &ship("flag: red")), &Options::default()).unwrap();
    let made = good.objects.iter().find(|o| o.value["kind"] == "Ship").unwrap();
    assert_eq!(made.value["spec"], serde_json::json!({"flag": "red", "masts": 1}));
    let problems = render(&tree(definition, &ship("mast: 2, flag: blue")), &Options::default()).unwrap_err();
    let said: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.origin, p.message)).collect();
    assert!(said.iter().any(|s| s.starts_with("a/ship.yaml:4:") && s.contains("unknown field \"mast\"")), "{said:?}");
    assert!(
        said.iter().any(|s| s.starts_with("a/ship.yaml:4:") && s.contains("supported values: \"red\", \"white\"")),
        "{said:?}"
    );
    // A definition that is wrong defines nothing.
    let wrong = definition.replace("type: integer", "type: count");
    let problems = render(&tree(&wrong, &ship("")), &Options::default()).unwrap_err();
    let said: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.origin, p.message)).collect();
    assert!(said.iter().any(|s| s.starts_with("z/ships.yaml:") && s.contains("Unsupported value: \"count\"")), "{said:?}");
    assert!(said.iter().any(|s| s.starts_with("a/ship.yaml:")), "{said:?}");
}
