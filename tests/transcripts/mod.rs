//! Transcripts: what a person types and what the terminal then shows, as text files that are reviewed like code.
//!
//! Each file beside this one is a story on a cluster of its own (a server and simulated hosts) and is told with every kubectl that
//! there is: the one on this machine, and an older one that `make test` fetches. This module only knows how to read and run them.
//!
//! ```text
//! # Why, in a comment.
//! == web.yaml                      a file, up to a line that says only `==`; `$NAME` is replaced
//! $ kubectl apply -f web.yaml      a command: no shell, but quotes, `$NAME`, settings before and `< file` after
//! deployment.apps/web created      what it prints (data, then talk), up to an empty line
//! ? 1                              its exit code, where that is not 0 (first line)
//! $~ kubectl get pods              asked again until the answer is the expected one
//! $[>=1.24] kubectl events         only with such a kubectl
//! let POD = kubectl get pods -o name
//! ```
//!
//! In what is expected, `[..]` stands for anything on a line and a line `...` for any lines. A command without expected lines has only
//! to succeed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Cluster, old_kubectl, text};

/// How long `$~` asks.
const PATIENCE: Duration = Duration::from_secs(60);

/// One step of a story.
enum Step {
    File { name: String, content: String },
    Let { name: String, command: String },
    Run { line: usize, command: String, again: bool, since: Option<Guard>, code: i32, expected: Vec<String> },
}

/// Which kubectl a step is for, by minor version.
#[derive(Clone, Copy)]
enum Guard {
    AtLeast(u32),
    Below(u32),
}

impl Guard {
    fn admits(self, minor: u32) -> bool {
        match self {
            Guard::AtLeast(from) => minor >= from,
            Guard::Below(to) => minor < to,
        }
    }
}

/// A kubectl, and its minor version.
struct Kubectl {
    path: PathBuf,
    minor: u32,
}

impl Kubectl {
    fn at(path: PathBuf) -> Option<Kubectl> {
        let out = Command::new(&path).args(["version", "--client", "-o", "json"]).stdin(Stdio::null()).output().ok()?;
        let said: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        let minor = said["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()?;
        Some(Kubectl { path, minor })
    }

    /// The one on the PATH and the older one, newest first.
    fn all(test: &str) -> Vec<Kubectl> {
        let here = Kubectl::at("kubectl".into()).expect("kubectl is installed");
        let old = old_kubectl(test).and_then(Kubectl::at);
        std::iter::once(here).chain(old).collect()
    }
}

/// Tells a story with every kubectl. All are told to their end; all that differs is shown.
fn tell(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name);
    let steps = read(&std::fs::read_to_string(path).unwrap());
    let mut wrong = Vec::new();
    for kubectl in Kubectl::all(&format!("transcripts::{name}")) {
        let mut cluster = Cluster::start("127.0.0.1", &[]);
        for node in ["n1", "n2"] {
            cluster.start_simulated(node);
        }
        cluster.await_nodes(2);
        let mut teller = Teller { cluster: &cluster, kubectl: &kubectl, names: BTreeMap::new() };
        for step in &steps {
            if let Err(difference) = teller.step(step) {
                wrong.push(format!("{name}, kubectl 1.{}, {difference}", kubectl.minor));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Teller<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    names: BTreeMap<String, String>,
}

impl Teller<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::File { name, content } => {
                let path = self.home().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, self.filled_in(content)).unwrap();
            }
            Step::Let { name, command } => {
                let (code, said) = self.run(command);
                if code != 0 {
                    return Err(format!("let {name} = {command}: exit code {code}\n{said}"));
                }
                let value = said.lines().next().unwrap_or_default().trim().to_owned();
                self.names.insert(name.clone(), value);
            }
            Step::Run { line, command, again, since, code, expected } => {
                if since.is_some_and(|s| !s.admits(self.kubectl.minor)) {
                    return Ok(());
                }
                let expected: Vec<String> = expected.iter().map(|line| self.filled_in(line)).collect();
                let end = Instant::now() + if *again { PATIENCE } else { Duration::ZERO };
                loop {
                    let (got, said) = self.run(command);
                    let said: Vec<&str> = said.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
                    let fits = expected.is_empty() || matches(&expected.iter().map(String::as_str).collect::<Vec<_>>(), &said);
                    if got == *code && fits {
                        break;
                    }
                    if Instant::now() >= end {
                        return Err(format!(
                            "line {line}: {command}\n--- expected (exit code {code})\n{}\n--- printed (exit code {got})\n{}\n",
                            expected.join("\n"),
                            said.join("\n")
                        ));
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        Ok(())
    }

    /// A text with the values of the names that are known by now.
    fn filled_in(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }

    /// The exit code, and what was printed: data first, then talk.
    fn run(&self, command: &str) -> (i32, String) {
        let mut words = split(command, &self.names);
        let input = words.iter().position(|w| w == "<").map(|at| {
            let file = words[at + 1].clone();
            words.truncate(at);
            std::fs::File::open(self.home().join(file)).unwrap()
        });
        let settings: Vec<(String, String)> =
            words.iter().map_while(|w| w.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect();
        words.drain(..settings.len());
        let program = match words[0].as_str() {
            "kubectl" => self.kubectl.path.clone(),
            "portolan" => crate::support::PORTOLAN.into(),
            other => other.into(),
        };
        let out = Command::new(program)
            .args(&words[1..])
            .current_dir(self.home())
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HOME", self.home())
            .envs(settings)
            .env("PORTOLAN_DATA_DIR", self.cluster.dir.join("server"))
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .output()
            .unwrap_or_else(|e| panic!("{command}: {e}"));
        (out.status.code().unwrap_or(-1), text(&out.stdout) + &text(&out.stderr))
    }

    /// Where files are written and commands run. One for each kubectl: they cache what they discover there.
    fn home(&self) -> &Path {
        &self.cluster.dir
    }
}

/// Whether printed lines fit the expected ones.
fn matches(expected: &[&str], printed: &[&str]) -> bool {
    match (expected, printed) {
        ([], []) => true,
        (["...", rest @ ..], _) => (0..=printed.len()).any(|skip| matches(rest, &printed[skip..])),
        ([want, rest @ ..], [got, others @ ..]) => fits(want, got) && matches(rest, others),
        _ => false,
    }
}

/// Whether a line fits, with `[..]` for anything; runs of blanks are alike.
fn fits(want: &str, got: &str) -> bool {
    let plain = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
    let (want, got) = (plain(want), plain(got));
    let mut parts = want.split("[..]");
    let Some(mut rest) = got.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (n, part) in parts.iter().enumerate() {
        if n + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Words as a shell would split them: quotes and names, nothing else.
fn split(command: &str, names: &BTreeMap<String, String>) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None | Some('"'), '$') if chars.peek().is_some_and(char::is_ascii_uppercase) => {
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_uppercase() || *c == '_') {
                    name.push(c);
                }
                let value = names.get(&name).unwrap_or_else(|| panic!("{command}: ${name} was not let"));
                word.get_or_insert_default().push_str(value);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Reads a story.
fn read(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if let Some(name) = line.strip_prefix("== ") {
            let content = lines.by_ref().map(|(_, l)| l).take_while(|l| *l != "==").fold(String::new(), |all, l| all + l + "\n");
            steps.push(Step::File { name: name.trim().to_owned(), content });
        } else if let Some(rest) = line.strip_prefix("let ") {
            let (name, command) = rest.split_once(" = ").expect("let NAME = command");
            steps.push(Step::Let { name: name.to_owned(), command: command.to_owned() });
        } else if let Some(rest) = line.strip_prefix('$') {
            let (again, rest) = rest.strip_prefix('~').map_or((false, rest), |r| (true, r));
            let (since, command) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                Some((guard, command)) => (Some(guard_of(guard)), command),
                None => (None, rest),
            };
            let mut expected = Vec::new();
            let mut code = 0;
            while let Some((_, l)) = lines.next_if(|(_, l)| !l.trim().is_empty()) {
                match l.strip_prefix("? ") {
                    Some(c) => code = c.trim().parse().expect("an exit code"),
                    None => expected.push(l.to_owned()),
                }
            }
            steps.push(Step::Run { line: number + 1, command: command.trim().to_owned(), again, since, code, expected });
        } else {
            assert!(line.trim().is_empty() || line.starts_with('#'), "line {}: what is {line:?}?", number + 1);
        }
    }
    steps
}

fn guard_of(text: &str) -> Guard {
    let minor = |v: &str| v.trim().trim_start_matches("1.").parse().expect("a version such as 1.24");
    match text.strip_prefix(">=") {
        Some(v) => Guard::AtLeast(minor(v)),
        None => Guard::Below(minor(text.strip_prefix('<').expect(">= or <"))),
    }
}

#[test]
fn lines_fit() {
    for (want, got) in [("a [..] c", "a b c"), ("[..]", ""), ("a   b", "a b"), ("x[..]y[..]z", "x1y2y3z"), ("a[..]", "a")] {
        assert!(fits(want, got), "{want:?} {got:?}");
    }
    for (want, got) in [("a", "ab"), ("a[..]c", "ab"), ("a b", "ab")] {
        assert!(!fits(want, got), "{want:?} {got:?}");
    }
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]));
    assert!(!matches(&["a", "...", "c"], &["a", "b"]));
    let names = BTreeMap::from([("POD".to_owned(), "pod/a".to_owned())]);
    assert_eq!(
        split("kubectl get $POD -p '{\"a\": 1}' \"x $POD\"", &names),
        ["kubectl", "get", "pod/a", "-p", "{\"a\": 1}", "x pod/a"]
    );
}

/// One test for each story.
macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                tell(concat!(stringify!($name), ".txt"));
            }
        )*
        #[test]
        fn every_story_is_told() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|f| f.unwrap().file_name().into_string().unwrap())
                .filter_map(|f| f.strip_suffix(".txt").map(str::to_owned))
                .collect();
            files.sort();
            let mut told = vec![$(stringify!($name)),*];
            told.sort_unstable();
            assert_eq!(files, told);
        }
    };
}

stories!(accounts, changing, creating, custom_resources, git_and_hands, looking, measuring, nodes, rollouts, study_notes);
