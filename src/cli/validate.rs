//! `validate`: render without a server, and show every problem in its place.

use std::collections::BTreeMap;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::json;

use super::args::Validate;
use super::print::{BOLD, GOOD, Print, clean};
use super::{Context, Outcome};
use crate::git::read_dir;
use crate::object::source::{Entry, Tree};
use crate::render::{Options, Problem, render};

pub(super) fn run(cx: &Context, args: &Validate) -> Outcome {
    // Several paths are one commit: a namespace in one serves the objects in the other, and duplicates are found across them.
    let mut tree = Tree::default();
    for path in &args.paths {
        let prefix = prefix(path, args.paths.len() > 1);
        for (name, entry) in read_dir(path)?.entries {
            tree.entries.insert(format!("{prefix}{name}"), entry);
        }
    }
    let result = render(&tree, &Options { namespace: args.namespace.clone(), ..Options::default() });
    if args.output == "json" {
        let problems: Vec<_> = result.as_ref().err().into_iter().flatten().map(problem_json).collect();
        let objects = result.as_ref().map_or(0, |r| r.objects.len());
        let digest = result.as_ref().ok().map(|r| r.digest.clone());
        let text = serde_json::to_string_pretty(
            &json!({"valid": result.is_ok(), "objects": objects, "digest": digest, "problems": problems}),
        )?;
        cx.print.line(text);
        return Ok(u8::from(result.is_err()));
    }
    match result {
        Ok(rendered) => {
            let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
            for object in &rendered.objects {
                *kinds.entry(object.key.kind.kind).or_default() += 1;
            }
            let count = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", ");
            let good = cx.print.paint_talk(GOOD, "valid:");
            match rendered.objects.len() {
                0 => cx.print.say("no manifest was found: files end in .yaml, .yml or .json, and hidden ones are skipped"),
                1 => cx.print.say(format_args!("{good} 1 object ({count})")),
                n => cx.print.say(format_args!("{good} {n} objects ({count})")),
            }
            Ok(0)
        }
        Err(problems) => {
            show(&cx.print, &tree, &problems);
            Ok(1)
        }
    }
}

/// What stands before the names of a path's files, so that they can be opened from here.
fn prefix(path: &Path, several: bool) -> String {
    let text = path.display().to_string();
    let text = text.trim_start_matches("./").trim_end_matches('/');
    let dir = if path.is_file() { path.parent().map_or(String::new(), |p| p.display().to_string()) } else { text.to_owned() };
    // Names within a tree are relative; a leading slash or `..` would not be, and is told by the caller's own words.
    let plain = !dir.is_empty() && dir != "." && !dir.starts_with('/') && !dir.split('/').any(|p| p == "..");
    match (plain, several) {
        (true, _) => format!("{dir}/"),
        (false, true) => format!("{}/", dir.rsplit('/').find(|p| !p.is_empty() && *p != "..").unwrap_or("files")),
        (false, false) => String::new(),
    }
}

/// Prints problems in the compiler's manner: the message, the place, the lines, the hint.
pub(super) fn show(print: &Print, tree: &Tree, problems: &[Problem]) {
    let renderer = if print.talk_color() { Renderer::styled() } else { Renderer::plain() };
    for problem in problems {
        let text = match tree.entries.get(&*problem.origin.file) {
            Some(Entry::File { content, .. }) => std::str::from_utf8(content).ok().filter(|t| !t.contains('\0')),
            _ => None,
        };
        print.say(format_args!("{}\n", snippet(&renderer, text, problem)));
    }
    let files: std::collections::BTreeSet<&str> = problems.iter().map(|p| &*p.origin.file).collect();
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let sum = format!("{} in {}", plural(problems.len(), "problem"), plural(files.len(), "file"));
    print.say(print.paint_talk(BOLD, sum));
}

fn snippet(renderer: &Renderer, text: Option<&str>, problem: &Problem) -> String {
    let message = clean(&problem.message);
    let hint = problem.hint.as_deref().map(clean);
    let file = clean(&problem.origin.file);
    let mut group = Level::ERROR.primary_title(message.as_str());
    let source = text.and_then(|text| span(text, problem.origin.line, problem.origin.column).map(|span| (text, span)));
    let cleaned;
    let mut report = Vec::new();
    match source {
        Some((text, (start, end))) => {
            // Only a few lines are shown, so only they are made harmless; places before them must not move.
            let from = text[..start].rfind('\n').map_or(0, |n| n + 1);
            let from = text[..from].trim_end_matches('\n').rfind('\n').map_or(0, |n| n + 1);
            let to = text[end..].find('\n').map_or(text.len(), |n| end + n);
            let line = text[..from].matches('\n').count() + 1;
            let harmless = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c };
            let raw = &text[from..to];
            let (head, body, tail) = (&raw[..start - from], &raw[start - from..end - from], &raw[end - from..]);
            let [head, body, tail] = [head, body, tail].map(|part| part.chars().map(harmless).collect::<String>());
            let span = head.len()..head.len() + body.len();
            cleaned = [head, body, tail].concat();
            report.push(
                group.element(
                    Snippet::source(cleaned.as_str())
                        .line_start(line)
                        .path(file.as_str())
                        .annotation(AnnotationKind::Primary.span(span)),
                ),
            );
        }
        None => {
            group = Level::ERROR.primary_title(message.as_str());
            let mut origin = annotate_snippets::Origin::path(file.as_str());
            if problem.origin.line > 0 {
                origin = origin.line(problem.origin.line as usize);
            }
            report.push(group.element(origin));
        }
    }
    if let Some(hint) = &hint {
        report.push(Level::HELP.primary_title(hint.as_str()).elements(Vec::<annotate_snippets::Origin<'_>>::new()));
    }
    renderer.render(&report)
}

/// The bytes of the word at a place. Lines and columns count from 1, columns in characters.
fn span(text: &str, line: u32, column: u32) -> Option<(usize, usize)> {
    let text = text.strip_prefix('\u{feff}').map_or((text, 0), |rest| (rest, 3));
    let (text, skipped) = text;
    let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)? as usize).map(str::len).sum();
    let rest = text.get(start..)?.lines().next().unwrap_or_default();
    let column = column.max(1) as usize - 1;
    let before: usize = rest.chars().take(column).map(char::len_utf8).sum();
    let word = rest.get(before..)?;
    let quoted = word.starts_with(['"', '\'']).then(|| word[1..].find(&word[..1]).map(|n| n + 2)).flatten();
    let length = quoted.unwrap_or_else(|| word.find([':', ',', '}', ']', ' ', '#']).unwrap_or(word.len()));
    let end = before + length.max(word.chars().next().map_or(0, char::len_utf8));
    Some((skipped + start + before, skipped + start + end))
}

/// A problem for tools.
pub(super) fn problem_json(problem: &Problem) -> serde_json::Value {
    let origin = &problem.origin;
    json!({"file": &*origin.file, "line": origin.line, "column": origin.column, "message": problem.message, "hint": problem.hint})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Color, Global};

    fn validate(files: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let (print, captured) = Print::captured();
        let cx = Context { global: Global { color: Color::Never, ..Global::default() }, print };
        let args = Validate { paths: vec![dir.path().to_owned()], namespace: "default".into(), output: "text".into() };
        let code = run(&cx, &args).unwrap();
        let captured = captured.lock();
        format!("{}{}exit {code}\n", captured.0, captured.1)
    }

    #[test]
    fn problems_are_shown_in_their_place() {
        let web = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: \"three\"
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: web, volumnMounts: []}
";
        expect_test::expect![[r#"
            error: the file contains a NUL byte, so it is not text
            --> big.yaml:1

            error: Deployment web: spec.replicas: expected a whole number, found the string "three"
             --> web.yaml:5:13
              |
            5 |   replicas: "three"
              |             ^^^^^^^

            error: Deployment web: spec.template.spec.containers[0].volumnMounts: unknown field "volumnMounts"
              --> web.yaml:11:35
               |
            11 |         - {name: web, image: web, volumnMounts: []}
               |                                   ^^^^^^^^^^^^
               |
            help: did you mean `volumeMounts`?

            3 problems in 2 files
            exit 1
        "#]]
        .assert_eq(&validate(&[("web.yaml", web), ("big.yaml", "a\0b")]));
    }

    #[test]
    fn what_is_well_is_counted() {
        let text =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
        expect_test::expect![[r#"
            valid: 2 objects (2 ConfigMap)
            exit 0
        "#]]
        .assert_eq(&validate(&[("a.yaml", text)]));
        expect_test::expect![[r#"
            no manifest was found: files end in .yaml, .yml or .json, and hidden ones are skipped
            exit 0
        "#]]
        .assert_eq(&validate(&[("a.md", text)]));
    }
}
