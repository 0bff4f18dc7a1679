//! A commit with any error is refused as a whole: every error at file:line, a suggestion where one is near, and nothing written.

use crate::support::{Cluster, items, text};

const GOOD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fine\ndata:\n  a: b\n";

/// A Deployment of which one line is replaced.
fn deployment(from: &str, to: &str) -> String {
    let whole = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  selector:\n    matchLabels:\n      app: web\n  \
                 template:\n    metadata:\n      labels:\n        app: web\n    spec:\n      containers:\n        - name: web\n          image: sim/web:1\n";
    assert!(from.is_empty() || whole.contains(from), "{from}");
    whole.replace(from, to)
}

/// What is wrong, in which file, what the message must contain (place first).
fn bad_files() -> Vec<(&'static str, String, &'static [&'static str])> {
    vec![
        ("syntax.yaml", "apiVersion: v1\nkind: [ConfigMap\n".into(), &["syntax.yaml:"]),
        ("misspelt.yaml", deployment("replicas: 2", "replcas: 2"), &["misspelt.yaml:6:", "replcas", "replicas"]),
        (
            "type.yaml",
            deployment("replicas: 2", "replicas: two").replace("name: web\nspec", "name: typed\nspec"),
            &["type.yaml:6:", "replicas"],
        ),
        ("kind.yaml", deployment("kind: Deployment", "kind: Deploymnet"), &["kind.yaml:2:", "Deploymnet", "Deployment"]),
        (
            "selector.yaml",
            deployment("      app: web\n  template", "      app: other\n  template")
                .replace("name: web\nspec", "name: selected\nspec"),
            &["selector.yaml:", "selector"],
        ),
        ("twice.yaml", format!("{0}---\n{0}", deployment("name: web\nspec", "name: twin\nspec")), &["twice.yaml:", "twin"]),
        (
            "key.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: key\ndata:\n  a: b\n  a: c\n".into(),
            &["key.yaml:7:", "twice"],
        ),
        (
            "mount.yaml",
            deployment("image: sim/web:1", "image: sim/web:1\n          volumeMounts: [{name: nowhere, mountPath: /x}]")
                .replace("name: web\nspec", "name: mounted\nspec"),
            &["mount.yaml:", "nowhere"],
        ),
        (
            "bomb.yaml",
            {
                let mut bomb =
                    String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\nx0: &x0 [a,a,a,a,a,a,a,a,a,a]\n");
                for n in 1..10 {
                    bomb += &format!("x{n}: &x{n} [{0}]\n", vec![format!("*x{}", n - 1); 10].join(","));
                }
                bomb
            },
            &["bomb.yaml"],
        ),
    ]
}

#[test]
fn gi4_every_error_at_once_and_nothing_written() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    cluster.repo.write("apps/good.yaml", GOOD);
    for (file, content, _) in bad_files() {
        cluster.repo.write(&format!("apps/{file}"), &content);
    }
    std::os::unix::fs::symlink("/etc/passwd", cluster.repo.dir.join("apps/link.yaml")).unwrap();

    let offline = cluster.output(&["validate", "apps"]);
    assert_eq!(offline.status.code(), Some(1), "{}", text(&offline.stderr));
    let offline = format!("{}{}", text(&offline.stdout), text(&offline.stderr));
    let commit = cluster.repo.push("Everything is wrong");
    assert_eq!(cluster.wait(&commit, 60), 4);
    let out = cluster.output(&["status"]);
    let status = format!("{}{}", text(&out.stdout), text(&out.stderr));
    for (_, _, words) in bad_files() {
        for word in words {
            assert!(offline.contains(word), "validate does not say {word:?}:\n{offline}");
            assert!(status.contains(word), "status does not say {word:?}:\n{status}");
        }
    }
    assert!(offline.contains("link.yaml") && status.contains("link.yaml"), "the symbolic link: {offline}");
    assert_eq!(
        items(&cluster.json(&["get", "configmaps"])).filter(|m| m["metadata"]["name"] != "kube-root-ca.crt").count(),
        0,
        "nothing is written"
    );
    assert_eq!(items(&cluster.json(&["get", "deployments"])).count(), 0, "nothing is written");

    // Mended, the same repository goes through.
    for (file, ..) in bad_files() {
        std::fs::remove_file(cluster.repo.dir.join(format!("apps/{file}"))).unwrap();
    }
    std::fs::remove_file(cluster.repo.dir.join("apps/link.yaml")).unwrap();
    let commit = cluster.repo.push("Only what is right");
    assert_eq!(cluster.wait(&commit, 60), 0);
    assert_eq!(cluster.json(&["get", "configmap", "fine"])["data"]["a"], "b");
}

#[test]
fn a_path_cannot_leave_the_repository() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    cluster.repo.write("apps/good.yaml", GOOD);
    cluster.repo.push("Fine");
    for path in ["../..", "/etc", "apps/../../x"] {
        let out = cluster.output(&["plan", "--repo", cluster.repo.url(), "--path", path, "--to", "main"]);
        assert_eq!(out.status.code(), Some(1), "{path}: {}", text(&out.stdout));
    }
}
