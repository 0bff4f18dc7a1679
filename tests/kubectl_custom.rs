//! Kinds that people define, with the real kubectl and from git.

use serde_json::Value;

use crate::support::{Cluster, eventually, items, text};

const DEFINITION: &str = r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: boats.sea.example
spec:
  group: sea.example
  scope: Namespaced
  names: {plural: boats, kind: Boat, shortNames: [bt], categories: [all]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources:
        status: {}
        scale: {specReplicasPath: .spec.crew, statusReplicasPath: .status.crew}
      additionalPrinterColumns:
        - {name: Sails, type: integer, jsonPath: .spec.sails}
      schema:
        openAPIV3Schema:
          type: object
          description: A boat under sail.
          properties:
            spec:
              type: object
              required: [sails]
              properties:
                sails: {type: integer, minimum: 1, description: How many sails she carries.}
                crew: {type: integer, default: 2}
            status:
              type: object
              properties: {crew: {type: integer}}
";

const BOAT: &str = "apiVersion: sea.example/v1\nkind: Boat\nmetadata: {name: anna, namespace: default}\nspec: {sails: 3}\n";

fn file(cluster: &Cluster, name: &str, content: &str) -> String {
    let path = cluster.dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// kubectl keeps what it discovered; a new kind is looked for anew when the old list does not have it.
fn refused(cluster: &Cluster, args: &[&str]) -> String {
    let out = cluster.try_kubectl(args);
    assert!(!out.status.success(), "{args:?}: {}", text(&out.stdout));
    text(&out.stderr)
}

#[test]
fn a_definition_and_its_objects() {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    let (definition, boat) = (file(&cluster, "boats.yaml", DEFINITION), file(&cluster, "anna.yaml", BOAT));
    assert!(refused(&cluster, &["apply", "-f", &boat]).contains("no matches for kind \"Boat\""));
    assert!(
        cluster
            .kubectl(&["apply", "-f", &definition])
            .contains("customresourcedefinition.apiextensions.k8s.io/boats.sea.example created")
    );
    cluster.kubectl(&["wait", "--for=condition=established", "crd/boats.sea.example", "--timeout=20s"]);
    assert!(cluster.kubectl(&["get", "crd"]).contains("CREATED AT"));
    assert_eq!(cluster.kubectl(&["apply", "-f", &boat]).trim(), "boat.sea.example/anna created");
    assert_eq!(cluster.kubectl(&["apply", "-f", &boat]).trim(), "boat.sea.example/anna unchanged");
    assert_eq!(cluster.kubectl(&["diff", "-f", &boat]), "");
    let table = cluster.kubectl(&["get", "bt"]);
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["NAME", "SAILS", "anna", "3"]);
    assert!(cluster.kubectl(&["get", "all"]).contains("boat.sea.example/anna"));
    let explained = cluster.kubectl(&["explain", "boats.spec.sails"]);
    assert!(explained.contains("How many sails she carries.") && explained.contains("<integer>"), "{explained}");
    assert!(cluster.kubectl(&["describe", "boat", "anna"]).contains("Sails:"));
    assert!(cluster.kubectl(&["api-resources", "--api-group=sea.example"]).contains("sea.example/v1"));

    let wrong = file(&cluster, "wrong.yaml", &BOAT.replace("sails: 3", "sails: 0, mast: 1"));
    assert!(refused(&cluster, &["apply", "-f", &wrong]).contains("unknown field \"spec.mast\""));
    let said = refused(&cluster, &["apply", "--validate=false", "-f", &wrong]);
    assert!(said.contains("spec.sails in body should be greater than or equal to 1"), "{said}");
    cluster.kubectl(&["patch", "boat", "anna", "--type=merge", "-p", r#"{"spec":{"sails":4}}"#]);
    assert!(
        refused(&cluster, &["patch", "boat", "anna", "-p", r#"{"spec":{"sails":5}}"#])
            .contains("is not supported by sea.example/v1, Kind=Boat")
    );
    cluster.kubectl(&["scale", "boat/anna", "--replicas=7"]);
    let anna = cluster.json(&["get", "boat", "anna"]);
    assert_eq!((&anna["spec"]["sails"], &anna["spec"]["crew"]), (&4.into(), &7.into()));
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &boat]);
    cluster.kubectl(&["label", "boat", "anna", "harbour=kiel"]);

    // Objects are there before the definition is read.
    cluster.kill_server();
    cluster.start_server();
    assert_eq!(items(&cluster.json(&["get", "boats", "-A", "-l", "harbour=kiel"])).count(), 1);

    cluster.kubectl(&["delete", "crd", "boats.sea.example", "--timeout=30s"]);
    let said = refused(&cluster, &["get", "boats"]);
    assert!(
        said.contains("the server doesn't have a resource type") || said.contains("could not find the requested resource"),
        "{said}"
    );
    // The same kind again begins empty.
    cluster.kubectl(&["apply", "-f", &definition]);
    cluster.kubectl(&["wait", "--for=condition=established", "crd/boats.sea.example", "--timeout=20s"]);
    assert_eq!(items(&cluster.json(&["get", "boats", "-A"])).count(), 0);
}

#[test]
fn a_commit_brings_a_definition_and_objects_of_it() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    cluster.repo.write("apps/anna.yaml", &BOAT.replace("sails: 3", "sail: 3"));
    cluster.repo.write("apps/boats.yaml", DEFINITION);
    let commit = cluster.repo.push("A misspelt boat");
    assert_eq!(cluster.wait(&commit, 60), 4);
    let out = cluster.output(&["status"]);
    let status = format!("{}{}", text(&out.stdout), text(&out.stderr));
    assert!(status.contains("anna.yaml:4:") && status.contains("`sails`"), "{status}");

    cluster.repo.write("apps/anna.yaml", BOAT);
    let commit = cluster.repo.push("A boat and what boats are");
    assert_eq!(cluster.wait(&commit, 60), 0);
    let anna = cluster.json(&["get", "boat", "anna"]);
    assert_eq!((&anna["spec"]["sails"], &anna["spec"]["crew"]), (&3.into(), &2.into()), "{anna}");

    cluster.repo.edit("apps/anna.yaml", "sails: 3", "sails: 5");
    let commit = cluster.repo.push("More sails");
    assert_eq!(cluster.wait(&commit, 60), 0);
    assert_eq!(cluster.json(&["get", "boat", "anna"])["spec"]["sails"], 5);

    // They go when the repository no longer has them.
    cluster.repo.write("apps/berta.yaml", &BOAT.replace("anna", "berta"));
    std::fs::remove_file(cluster.repo.dir.join("apps/anna.yaml")).unwrap();
    let commit = cluster.repo.push("Another boat");
    assert_eq!(cluster.wait(&commit, 60), 0);
    eventually(20, "anna is gone", || {
        let names: Vec<Value> = items(&cluster.json(&["get", "boats"])).map(|b| b["metadata"]["name"].clone()).collect();
        (names == ["berta"]).then_some(())
    });
}

#[test]
fn everything_is_explained() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    let resources = cluster.kubectl(&["api-resources", "--verbs=list", "--no-headers"]);
    let mut kinds = 0;
    for line in resources.lines() {
        // NAME, perhaps SHORTNAMES, APIVERSION, NAMESPACED, KIND. Some names are in two groups.
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, version) = (words[0], words[words.len() - 3]);
        let explained = cluster.kubectl(&["explain", name, "--api-version", version, "--recursive"]);
        assert!(explained.contains("FIELDS:") && explained.contains("apiVersion"), "{name}: {explained}");
        kinds += 1;
    }
    assert!(kinds > 20, "{resources}");
    let field = cluster.kubectl(&["explain", "pods.spec.containers.imagePullPolicy"]);
    assert!(field.contains("DESCRIPTION:") && field.contains("image"), "{field}");
    assert!(cluster.kubectl(&["cluster-info"]).contains("is running at"));
    assert!(cluster.kubectl(&["api-versions"]).contains("apps/v1"));
}
