//! Memory and CPU of server and agents when nothing happens: 30 pods that run and are healthy, and nobody pushes.

use std::time::Duration;

use anyhow::{Context, Result};

use super::house::{House, deployment};
use super::{Figure, Options};

const PODS: usize = 30;
/// Enough: these figures hardly differ from run to run.
const RUNS: usize = 3;
/// Long enough for two rounds of leases.
const WATCHED: Duration = Duration::from_secs(20);

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let house = House::start(options, &options.hosts).await?;
    say("30 pods");
    let commit = house.commit("Thirty pods", &[("thirty.yaml", &deployment("thirty", PODS, &options.image, "0"))])?;
    house.healthy(&commit).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let of = format!("at rest, {} hosts and {PODS} pods", options.hosts.len());
    let mut server_memory = Figure::new(&format!("server memory (RSS) {of}"), "MB");
    let mut agent_memory = Figure::new(&format!("agent memory (RSS, the largest) {of}"), "MB");
    let mut server_cpu = Figure::new(&format!("server CPU {of}"), "% of a core");
    let mut agents_cpu = Figure::new(&format!("agents' CPU together {of}"), "% of a core");
    let runs = options.runs.min(RUNS);
    for run in 0..runs {
        say(&format!("at rest, {} of {runs}", run + 1));
        let before = (ticks(house.server)?, all_ticks(&house.agents)?);
        tokio::time::sleep(WATCHED).await;
        let after = (ticks(house.server)?, all_ticks(&house.agents)?);
        let percent = |ticks: u64| ticks as f64 / TICKS_PER_SECOND / WATCHED.as_secs_f64() * 100.0;
        server_cpu.add(percent(after.0 - before.0));
        agents_cpu.add(percent(after.1 - before.1));
        server_memory.add(resident(house.server)?);
        agent_memory
            .add(house.agents.iter().map(|pid| resident(*pid)).try_fold(0.0, |most, rss| rss.map(|rss| f64::max(most, rss)))?);
    }
    house.end(&options.hosts).await?;
    Ok(vec![server_memory, agent_memory, server_cpu, agents_cpu])
}

/// Linux counts CPU time for user space in hundredths of a second on every machine that Docker runs on.
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of a process so far.
pub(super) fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read a process's times")?;
    // After the name in parentheses, which may hold anything, utime and stime are the 12th and 13th fields.
    let fields = stat.rsplit(')').next().context("its fields")?;
    Ok(fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum())
}

fn all_ticks(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| ticks(*pid)).sum()
}

/// What a process has in memory now, in MB.
pub(super) fn resident(pid: u32) -> Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most that a process ever had in memory, in MB.
pub(super) fn peak(pid: u32) -> Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's memory")?;
    let line = status.lines().find(|l| l.starts_with(field)).context("its resident memory")?;
    let kb: f64 = line.split_whitespace().nth(1).context("a number")?.parse().context("a number")?;
    Ok(kb / 1024.0)
}
