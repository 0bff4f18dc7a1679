//! Compiles the sandbox's only program (src/docker/pause/pause.rs) so that it can be included in ours. See src/docker/pause/mod.rs.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/docker/pause/pause.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("pause");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    if !(target.contains("linux") && (target.starts_with("x86_64") || target.starts_with("aarch64"))) {
        // Everything but running pods works there: the server, the command line, the tests.
        std::fs::write(&out, []).expect("write an empty pause program");
        return;
    }
    let mut rustc = Command::new(std::env::var("RUSTC").expect("cargo sets RUSTC"));
    rustc.arg(SOURCE).arg("-o").arg(&out).args(["--target", &target, "--edition", "2024", "--crate-name", "pause"]);
    rustc.args(["-Cpanic=abort", "-Copt-level=z", "-Crelocation-model=static", "-Cstrip=symbols", "-Cdebuginfo=0"]);
    for argument in ["-nostartfiles", "-nodefaultlibs", "-static", "-Wl,--build-id=none", "-Wl,-z,noexecstack"] {
        rustc.arg(format!("-Clink-arg={argument}"));
    }
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let done = rustc.status().expect("run rustc for the pause program");
    assert!(done.success(), "rustc could not compile {SOURCE} for {target}");
}
