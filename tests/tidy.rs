//! Holds the house rules that a compiler does not: which room may look into which, and how a file begins.
//!
//! It reads text, so a macro that builds a path would escape it; good enough for a house of friends. To open a new arrow, change the
//! table here and in docs/ARCHITECTURE.md in the same commit, and say why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Room, and the rooms that it may look into.
const FLOOR_PLAN: &[(&str, &[&str])] = &[
    ("object", &[]),
    ("render", &["object"]),
    ("plan", &["object"]),
    ("store", &["object"]),
    ("api", &["object", "store"]),
    ("client", &["object"]),
    ("git", &["object"]),
    ("docker", &[]),
    ("clock", &[]),
    ("control", &["object", "render", "plan", "store", "git", "clock"]),
    ("agent", &["object", "plan", "client", "docker", "clock"]),
    ("cli", &["object", "render", "plan", "client", "git", "clock", "server", "agent", "sim", "bench"]),
    ("server", &["object", "store", "api", "control", "git", "clock"]),
    ("sim", &["object", "render", "plan", "store", "control", "agent", "docker", "git"]),
    ("bench", &["object", "render", "plan", "store", "control", "agent", "docker", "git", "client", "clock"]),
];

/// Rooms that every room may look into: a switch for planted mutants and the counts of what was done are part of none.
const EVERYWHERE: &[&str] = &["mutant", "count"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(below)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// `src/plan/pod.rs` is in the room `plan`; `src/lib.rs` and `src/main.rs` are in none.
fn room(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let first = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(first, "lib" | "main")).then(|| first.to_owned())
}

/// A file of tests may look anywhere.
fn is_test(path: &Path) -> bool {
    name(path).split('/').any(|part| part.trim_end_matches(".rs").ends_with("tests"))
}

/// The code of a file: without comments, strings left as they are, tests cut off (a test may look anywhere).
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The rooms that a piece of code names: `crate::plan::x`, `crate::{plan, store::Store}`.
fn looks_into(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut seen = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        seen.insert(word(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            seen.insert(word(rest));
        }
    }
    seen
}

#[test]
fn rooms_look_only_where_the_floor_plan_lets_them() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let Some(room) = room(&path) else { continue };
        if EVERYWHERE.contains(&room.as_str()) || is_test(&path) {
            continue;
        }
        let Some((_, allowed)) = FLOOR_PLAN.iter().find(|(r, _)| *r == room) else {
            wrong.push(format!("{}: the floor plan has no room {room}", name(&path)));
            continue;
        };
        let rooms: BTreeSet<&str> = FLOOR_PLAN.iter().map(|(r, _)| *r).collect();
        for other in looks_into(&code(&std::fs::read_to_string(&path).unwrap())) {
            if rooms.contains(other.as_str())
                && other != room
                && !allowed.contains(&other.as_str())
                && !EVERYWHERE.contains(&&*other)
            {
                wrong.push(format!("{}: {room} may not look into {other}", name(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> = ["src", "tests"]
        .iter()
        .flat_map(|dir| rust_files(dir))
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| name(&path))
        .collect();
    assert!(silent.is_empty(), "these begin without `//!`:\n{}", silent.join("\n"));
}

#[test]
fn decisions_have_no_clock_and_no_dice() {
    // Clippy's lint is not transitive and knows no `async`; this looks at the words.
    let forbidden = [
        "async fn",
        ".await",
        "tokio::",
        "Timestamp::now",
        "SystemTime",
        "Instant::now",
        "getrandom",
        "HashMap",
        "std::fs",
        "TcpStream",
        "UdpSocket",
    ];
    let mut wrong = Vec::new();
    for path in ["src/object", "src/render", "src/plan"].iter().flat_map(|dir| rust_files(dir)) {
        if is_test(&path) {
            continue;
        }
        let code = code(&std::fs::read_to_string(&path).unwrap());
        for word in forbidden.iter().filter(|word| code.contains(**word)) {
            wrong.push(format!("{}: {word}", name(&path)));
        }
    }
    assert!(wrong.is_empty(), "a decision is a pure function of its arguments:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_unfinished_or_skipped_in_silence() {
    // Written in two halves, so that this file does not find itself.
    let forbidden = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("XX", "X "),
    ];
    let mut wrong = Vec::new();
    for path in ["src", "tests"].iter().flat_map(|dir| rust_files(dir)) {
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            if forbidden.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", name(&path), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_from_outside_reaches_a_shell() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let code = code(&std::fs::read_to_string(&path).unwrap());
        for shell in ["Command::new(\"sh\")", "Command::new(\"bash\")", "Command::new(\"/bin/sh\")"] {
            if code.contains(shell) {
                wrong.push(format!("{}: {shell}", name(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_floor_plan_is_the_one_in_the_architecture_page() {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let mut wrong = Vec::new();
    for (room, allowed) in FLOOR_PLAN {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{room}` |")));
        // `| owns | may look into | you will never find here |`, and of the second the names of rooms.
        let cell = row.and_then(|row| row.split('|').nth(1)).unwrap_or("no row");
        let words: BTreeSet<&str> = cell.split(|c: char| !c.is_alphanumeric()).collect();
        let said: BTreeSet<&str> = FLOOR_PLAN.iter().map(|(other, _)| *other).filter(|other| words.contains(other)).collect();
        if row.is_none() || said != allowed.iter().copied().collect() {
            wrong.push(format!("{room}: {cell}"));
        }
    }
    assert!(wrong.is_empty(), "docs/ARCHITECTURE.md says otherwise of:\n{}", wrong.join("\n"));
}
