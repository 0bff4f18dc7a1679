//! `portolan plan` on a repository of 1,000 manifests, offline, with one of them changed.

use std::time::Instant;

use anyhow::Result;

use super::house::deployment;
use super::{Figure, Options};

const MANIFESTS: usize = 1000;

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let dir = std::env::temp_dir().join(format!("portolan-bench-plan-{}", std::process::id()));
    let repository = super::house::repository(&dir)?;
    let mut files: Vec<_> =
        (0..MANIFESTS).map(|n| (format!("app-{n}.yaml"), deployment(&format!("app-{n}"), 1, &options.image, "1"))).collect();
    let from = super::house::commit_files(&repository, "A thousand", &files)?;
    files[0].1 = deployment("app-0", 2, &options.image, "2");
    let to = super::house::commit_files(&repository, "One changed", &files)?;
    let mut figure = Figure::new("plan, 1,000 manifests, one changed", "ms");
    for run in 0..options.runs {
        say(&format!("plan {} of {}", run + 1, options.runs));
        let before = Instant::now();
        let out = tokio::process::Command::new(std::env::current_exe()?)
            .args(["plan", "--path", "apps", "--from", &from, "--to", &to, "--repo"])
            .arg(repository.path())
            .output()
            .await?;
        anyhow::ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        figure.add(before.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(vec![figure])
}
