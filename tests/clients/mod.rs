//! The client libraries that people write scripts, dashboards and controllers with, against a real server and a simulated host.
//!
//! `suite.py` and `suite.mjs` say what is asked of the Python and the Node client (both from their registries, put under `target/tools`
//! by `make test`); `rust.rs` does the same for the crate `kube`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Cluster, skip, text};

mod rust;

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

/// Runs a suite to its end, with a cluster of its own.
fn passes(program: &Path, suite: &str) {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    cluster.start_simulated("n1");
    cluster.await_nodes(1);
    let out = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(suite))
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HOME", &cluster.dir)
        .env("CLIENT_FOLDER", tools().join("node"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    assert!(text(&out.stdout).ends_with("ok everything went\n"), "{}", text(&out.stdout));
}

#[test]
fn the_python_client() {
    let python = tools().join("python/bin/python");
    let installed =
        python.exists() && Command::new(&python).args(["-c", "import kubernetes"]).status().is_ok_and(|s| s.success());
    match installed {
        true => passes(&python, "suite.py"),
        false => skip("clients::the_python_client", "target/tools/python holds no `kubernetes` (make test fetches it)"),
    }
}

#[test]
fn the_node_client() {
    match tools().join("node/node_modules/@kubernetes/client-node/package.json").exists() {
        true => passes(Path::new("node"), "suite.mjs"),
        false => skip("clients::the_node_client", "target/tools/node holds no @kubernetes/client-node (make test fetches it)"),
    }
}
