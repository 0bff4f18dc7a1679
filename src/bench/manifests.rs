//! A repository of very many manifests, with many pods: what a look at the next commit costs, and how soon one changed file is written.
//!
//! A real server, hollow hosts, and one commit that brings it all. Then, at rest: `portolan plan` as a process of its own, and pushes of
//! one changed ConfigMap, timed from the moment at which the branch moves until somebody who watches sees the object change.
//!
//! You will not find here: how hosts and pods live (that is the fleet's).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::fleet::seen::{Line, List};
use super::fleet::wire::{Lines, Wire};
use super::fleet::{Ground, Size, deployment};
use super::{Figure, Options, rest};

/// Teams share the repository: each has a namespace and a directory.
const TEAMS: usize = 20;
/// How long the first commit and its pods may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What comes after a commit (statuses, events) is over by then.
const CALM: Duration = Duration::from_secs(10);
/// What is pushed, again and again: a ConfigMap that no pod reads.
const CHANGED: &str = "pushed";

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in &options.fleet {
        let ground = Ground::start(options).await?;
        let measured = measure(options, &ground, *size, say).await;
        figures.extend(measured.with_context(|| ground.trouble())?);
    }
    Ok(figures)
}

async fn measure(options: &Options, ground: &Ground, size: Size, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let house = &ground.house;
    let what = format!("{} manifests, {} pods, {} hosts", options.manifests, size.pods, size.hosts);
    say(&format!("{} hosts join", size.hosts));
    let _hosts = ground.join(size.hosts).await?;

    say(&format!("{what}, from one commit"));
    let files = repository(options.manifests, size);
    let (begun, ticks) = (Instant::now(), rest::ticks(house.server)?);
    let first = house.commit("All of them", &files)?;
    ground.ready("1", size.pods).await?;
    let all = Figure::new(&format!("first commit, until all pods are Ready ({what})"), "s").with(begun.elapsed().as_secs_f64());
    while house.portolan(&["wait", "--commit", &first, "--timeout", "60s"]).await.is_err() {
        ensure!(begun.elapsed() < PATIENCE, "the first commit does not become good");
    }
    tokio::time::sleep(CALM).await;
    let cpu = (rest::ticks(house.server)? - ticks) as f64 / rest::TICKS_PER_SECOND;
    let all_cpu =
        Figure::new(&format!("server CPU: first commit, until it is good and all is at rest ({what})"), "CPU s").with(cpu);
    let memory = Figure::new(&format!("server memory at rest ({what})"), "MB").with(rest::resident(house.server)?);
    let mut figures = vec![all, all_cpu, memory];

    let config = house.change("One ConfigMap", &place(0, CHANGED), &config_map(0, CHANGED, "planned"))?;
    let name = workload(0);
    let more = house.change("One Deployment", &place(0, &name), &deployment(&name, &team(0), size.replicas(0), "2"))?;
    let to = |commit: &str| -> Vec<String> {
        let repository = house.repository().display().to_string();
        ["plan", "--detailed-exitcode", "--repo", &repository, "--path", "apps", "--to", commit].map(str::to_owned).into()
    };
    let offline = |commit: &str| [to(commit), vec!["--from".to_owned(), first.clone()]].concat();
    for (plan, args) in [
        ("plan, one ConfigMap changed", to(&config)),
        ("plan, one Deployment changed", to(&more)),
        ("plan without a server, one ConfigMap changed", offline(&config)),
    ] {
        let mut took = Figure::new(&format!("{plan} ({what})"), "ms");
        let mut cpu = Figure::new(&format!("server CPU: {plan} ({what})"), "ms");
        for run in 0..options.runs {
            say(&format!("{plan}: {} of {}", run + 1, options.runs));
            let (before, begun) = (rest::ticks(house.server)?, Instant::now());
            planned(ground, &args).await?;
            took.add(begun.elapsed().as_secs_f64() * 1e3);
            cpu.add((rest::ticks(house.server)? - before) as f64 / rest::TICKS_PER_SECOND * 1e3);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        figures.push(took);
        if !args.iter().any(|a| a == "--from") {
            figures.push(cpu);
        }
    }

    let mut seen = Figure::new(&format!("push of one changed ConfigMap, until a watch shows it ({what})"), "ms");
    let mut cpu = Figure::new(&format!("server CPU: push of one changed ConfigMap, until a watch shows it ({what})"), "ms");
    let mut good = Figure::new(&format!("server CPU: push of one changed ConfigMap, until the commit is good ({what})"), "ms");
    let namespace = team(0);
    let wire = Wire::open(&ground.server, ground.admin.clone(), None).await?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps?fieldSelector=metadata.name%3D{CHANGED}");
    for run in 0..options.runs {
        say(&format!("push of one changed ConfigMap: {} of {}", run + 1, options.runs));
        let value = format!("run {run}");
        let commit = house.change(&value, &place(0, CHANGED), &config_map(0, CHANGED, &value))?;
        let list: List<Config> = wire.json(Method::GET, &path, &Value::Null).await?;
        let watch = format!("{path}&watch=true&resourceVersion={}", list.metadata.resource_version);
        let mut lines = Lines::new(wire.begin(Method::GET, &watch, "application/json", Vec::new()).await?);
        let (before, begun) = (rest::ticks(house.server)?, Instant::now());
        house.push(&commit)?;
        loop {
            let line = tokio::time::timeout(Duration::from_secs(60), lines.next()).await.context("wait for the change")?;
            let line: Line<Config> = serde_json::from_slice(&line.context("the watch ended")?)?;
            if line.object.data.value == value {
                break;
            }
        }
        seen.add(begun.elapsed().as_secs_f64() * 1e3);
        cpu.add((rest::ticks(house.server)? - before) as f64 / rest::TICKS_PER_SECOND * 1e3);
        house.healthy(&commit).await?;
        good.add((rest::ticks(house.server)? - before) as f64 / rest::TICKS_PER_SECOND * 1e3);
        // The next run begins at rest.
        tokio::time::sleep(CALM / 5).await;
    }
    figures.extend([seen, cpu, good]);
    figures.push(Figure::new(&format!("peak memory of the server ({what})"), "MB").with(rest::peak(house.server)?));
    Ok(figures)
}

/// Runs a plan, which has to find exactly one change.
async fn planned(ground: &Ground, args: &[String]) -> Result<()> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(args).env("PORTOLAN_DATA_DIR", ground.house.dir.join("server")).stdin(std::process::Stdio::null());
    let out = command.output().await.context("run portolan plan")?;
    let said = String::from_utf8_lossy(&out.stdout);
    let sum = said.lines().last().unwrap_or_default();
    let right = out.status.code() == Some(2) && sum.starts_with("1 to change,");
    ensure!(right, "portolan plan: {}: {sum}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// What is read of the ConfigMap that is pushed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    value: String,
}

fn team(n: usize) -> String {
    format!("team-{:02}", n % TEAMS)
}

fn workload(n: usize) -> String {
    format!("service-{n:05}")
}

/// Where a file is: a directory for each team, and in it one for a part of its names.
fn place(n: usize, name: &str) -> String {
    format!("{}/{:02}/{name}.yaml", team(n), n / TEAMS % 10)
}

/// A ConfigMap of a usual size, a kilobyte.
fn config_map(n: usize, name: &str, value: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {}\n  labels:\n    app: {name}\ndata:\n  \
         value: \"{value}\"\n",
        team(n)
    );
    for line in 0..12 {
        let _ = writeln!(text, "  setting.{line}: the value number {line} of {name}, as long as such values are");
    }
    text
}

/// All files: namespaces, Deployments with a Service each, and for the rest what repositories are full of.
fn repository(manifests: usize, size: Size) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = (0..TEAMS)
        .map(|n| {
            let name = team(n);
            (format!("{name}/namespace.yaml"), format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"))
        })
        .collect();
    files.push((place(0, CHANGED), config_map(0, CHANGED, "first")));
    for n in 0..size.deployments {
        let (name, namespace) = (workload(n), team(n));
        files.push((place(n, &name), deployment(&name, &namespace, size.replicas(n), "1")));
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  selector: {{app: {name}}}\n  \
             ports:\n    - {{name: http, port: 80, targetPort: 8080}}\n"
        );
        files.push((place(n, &format!("{name}-service")), service));
    }
    for n in 0..manifests.saturating_sub(files.len()) {
        let (name, namespace) = (format!("thing-{n:05}"), team(n));
        let text = match n % 10 {
            0 => format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n"),
            1 => format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: Opaque\nstringData:\n  \
                 user: {name}\n  password: not a secret at all\n"
            ),
            2 => format!(
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}, namespace: {namespace}}}\nrules:\n  \
                 - apiGroups: [\"\"]\n    resources: [configmaps]\n    verbs: [get, list, watch]\n"
            ),
            _ => config_map(n, &name, "first"),
        };
        files.push((place(n, &name), text));
    }
    files
}
