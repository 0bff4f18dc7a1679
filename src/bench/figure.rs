//! Figures and how they are written down: every run's value, their median, and the machine.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What was measured, with every run's value.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// In which unit.
    pub unit: &'static str,
    /// Each run's value, in order.
    pub values: Vec<f64>,
    /// The value in the middle.
    pub median: f64,
}

impl Figure {
    /// A figure without values yet.
    pub fn new(name: &str, unit: &'static str) -> Self {
        Figure { name: name.to_owned(), unit, values: Vec::new(), median: 0.0 }
    }
    /// With one more value.
    pub fn with(mut self, value: f64) -> Self {
        self.add(value);
        self
    }
    /// Adds one run's value.
    pub fn add(&mut self, value: f64) {
        self.values.push(value);
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        self.median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    }
}

/// The value below which this part of sorted durations is, in milliseconds; zero if there are none.
pub(super) fn part(sorted: &[Duration], part: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * part) as usize;
    sorted.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

/// Where the figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// How many processors.
    pub cpus: usize,
    /// Which.
    pub processor: String,
    /// The kernel.
    pub kernel: String,
    /// Memory in MB.
    pub memory: u64,
    /// How many processes wanted a processor, on average over the minute before.
    pub load: f64,
    /// The engine of the first host, with its version; empty without hosts.
    pub engine: String,
    /// The version of portolan.
    pub version: &'static str,
}

impl Machine {
    /// This machine.
    pub fn look() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find(|l| l.starts_with(name))
                .and_then(|l| l.split_once(':'))
                .map(|(_, v)| v.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory: memory.split(' ').next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024,
            load: read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0),
            engine: String::new(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// All figures of one run of `portolan bench`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where they were taken.
    pub machine: Machine,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// How figures grow with what they depend on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charts: Vec<Chart>,
}

/// Values over a size.
#[derive(Clone, Debug, Serialize)]
pub struct Chart {
    /// Of what.
    pub title: String,
    /// What the size is of.
    pub over: &'static str,
    /// The sizes, in order.
    pub at: Vec<String>,
    /// In which unit the values are.
    pub unit: &'static str,
    /// Each line's values, one for each size.
    pub lines: Vec<Vec<f64>>,
}

/// A chart in Mermaid's words, which the pages of git hosts draw.
impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
        writeln!(f, "```mermaid\nxychart-beta\n  title \"{}\"", self.title)?;
        writeln!(f, "  x-axis \"{}\" [{}]", self.over, list(&mut self.at.iter().map(|at| format!("\"{at}\""))))?;
        let most = self.lines.iter().flatten().copied().fold(0.0, f64::max);
        writeln!(f, "  y-axis \"{}\" 0 --> {}", self.unit, short(most * 1.1))?;
        for line in &self.lines {
            writeln!(f, "  line [{}]", list(&mut line.iter().map(|value| short(*value))))?;
        }
        writeln!(f, "```")
    }
}

impl Report {
    /// A report without figures yet.
    pub fn new(machine: Machine) -> Self {
        Report { machine, figures: Vec::new(), charts: Vec::new() }
    }
}

/// A table in Markdown, ready for docs/benchmarks.md.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.machine;
        let engine = if m.engine.is_empty() { String::new() } else { format!(", {}", m.engine) };
        writeln!(f, "portolan {}, {} × {}, {} MB, Linux {}{engine}.", m.version, m.cpus, m.processor, m.memory, m.kernel)?;
        writeln!(f, "Load average when it began: {:.1}.\n", m.load)?;
        writeln!(f, "| what | median | unit | runs |\n|---|---:|---|---|")?;
        for figure in &self.figures {
            let runs: Vec<_> = figure.values.iter().map(|v| short(*v)).collect();
            writeln!(f, "| {} | {} | {} | {} |", figure.name, short(figure.median), figure.unit, runs.join(", "))?;
        }
        for chart in &self.charts {
            write!(f, "\n{chart}")?;
        }
        Ok(())
    }
}

/// Three digits are enough to compare.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_sizes_below_and_room_above() {
        let at = ["5000 on 100", "10000 on 200"].map(str::to_owned).into();
        let chart = Chart { title: "Time".to_owned(), over: "pods on hosts", at, unit: "s", lines: vec![vec![4.0, 10.0]] };
        let text = "```mermaid\nxychart-beta\n  title \"Time\"\n  x-axis \"pods on hosts\" [\"5000 on 100\", \"10000 on 200\"]\n  \
                    y-axis \"s\" 0 --> 11.0\n  line [4.00, 10.0]\n```\n";
        assert_eq!(chart.to_string(), text);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let figure = Figure::new("x", "ms").with(9.0).with(1.0).with(5.0);
        assert_eq!(figure.median, 5.0);
        assert_eq!(figure.with(6.0).median, 5.5);
    }
}
