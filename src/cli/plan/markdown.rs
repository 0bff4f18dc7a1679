//! A plan for a pull request: short at first sight, everything one click away.

use super::made::{Made, Verdict};
use super::text::{hunks, movements};
use crate::cli::app::seven;
use crate::cli::print::clean;
use crate::plan::sync::Action;

/// GitHub takes so many characters in a comment.
const LONGEST: usize = 65_536;
/// Kept for the words at the end.
const RESERVE: usize = 400;

pub(super) fn write(made: &Made) -> String {
    let mut text = format!("<!-- portolan-plan {} -->\n", made.application);
    let to = if made.to.commit.is_empty() { made.to.revision.clone() } else { seven(&made.to.commit).to_owned() };
    let head = match made.verdict {
        Verdict::Unchanged => format!("### ✅ `{to}` changes nothing"),
        Verdict::Changes => format!("### 🚢 `{to}`: {}", made.sum()),
        Verdict::Waits => format!("### ⏳ `{to}`: {}, but not now", made.sum()),
        Verdict::Rejected => format!(
            "### ❌ `{to}` would be rejected: {} problem{}",
            made.problems.len(),
            if made.problems.len() == 1 { "" } else { "s" }
        ),
    };
    text +=
        &format!("{head}\n\n`{}` → `{}` for {}\n", plain(&made.from.label()), plain(&made.to.label()), plain(&made.application));
    let mut parts: Vec<String> = Vec::new();
    for note in made.notes.iter().chain(&made.waits) {
        parts.push(format!("\n> {}\n", escape(note)));
    }
    if !made.problems.is_empty() {
        let mut list = String::from("\n");
        for problem in &made.problems {
            let place = if problem.line > 0 { format!("{}:{}", problem.file, problem.line) } else { problem.file.clone() };
            let hint = problem.hint.as_ref().map_or_else(String::new, |h| format!("<br>💡 {}", escape(h)));
            list += &format!("- `{}` {}{hint}\n", plain(&place), escape(&problem.message));
        }
        parts.push(list);
    }
    if let Some(seen) = &made.pods {
        let mut list = String::new();
        for (workload, line) in movements(seen) {
            list += &format!("- {}: {}\n", escape(&workload), escape(&line));
        }
        for wait in &seen.waiting {
            list += &format!("- ⚠️ {} pods of {} find no host: {}\n", wait.pods, escape(&wait.workload), escape(&wait.why));
        }
        if !list.is_empty() {
            parts.push(format!("\n**Pods**\n\n{list}"));
        }
    }
    if !made.prune.is_empty() || !made.kept.is_empty() {
        let mut list = String::from("\n**Pruned**\n\n");
        made.prune.iter().for_each(|p| list += &format!("- 🗑️ {}\n", escape(&p.name.to_string())));
        made.kept.iter().for_each(|k| list += &format!("- {} stays: {}\n", escape(&k.name.to_string()), escape(&k.why)));
        parts.push(list);
    }
    if !made.warnings.is_empty() {
        let list: String = made.warnings.iter().map(|w| format!("- {}\n", escape(w))).collect();
        parts.push(format!(
            "\n<details><summary>Not in the repository, so it must be in the cluster ({})</summary>\n\n{list}\n</details>\n",
            made.warnings.len()
        ));
    }
    for change in made.waves.iter().flat_map(|w| &w.changes) {
        let word = match change.action {
            Action::Create => "create",
            Action::Patch => "change",
            Action::Adopt => "adopt",
        };
        parts.push(format!(
            "\n<details><summary>{word} <b>{}</b> <code>{}</code></summary>\n\n{}\n</details>\n",
            escape(&change.name.to_string()),
            escape(&change.origin),
            fenced(&clean(hunks(&change.diff))),
        ));
    }
    let mut length = text.chars().count();
    for (n, part) in parts.iter().enumerate() {
        let more = part.chars().count();
        if length + more > LONGEST - RESERVE {
            let left = parts.len() - n;
            text += &format!("\n… and {left} more parts that do not fit here; `portolan plan` prints them all.\n");
            break;
        }
        text += part;
        length += more;
    }
    text
}

/// A diff in a fence that nothing within can close.
fn fenced(diff: &str) -> String {
    let longest = diff.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}diff\n{}{fence}\n", if diff.ends_with('\n') { diff.to_owned() } else { format!("{diff}\n") })
}

/// Text from a repository within Markdown: nothing in it makes a link, mentions anybody, or opens a tag.
fn escape(text: &str) -> String {
    let mut safe = String::new();
    for c in clean(text).replace('\n', " ").chars() {
        match c {
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '&' => safe += "&amp;",
            '@' => safe += "@\u{200b}",
            '*' | '_' | '`' | '[' | ']' | '#' | '|' | '~' | '\\' | '!' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Text within backticks.
fn plain(text: &str) -> String {
    clean(text).replace('`', "'").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_h_nothing_from_a_repository_becomes_markup() {
        assert_eq!(escape("<script>[a](javascript:x) @all `*"), "&lt;script&gt;\\[a\\](javascript:x) @\u{200b}all \\`\\*");
        assert_eq!(plain("a`b\nc\u{1b}"), "a'b c");
        assert_eq!(fenced("a\n```\nb"), "````diff\na\n```\nb\n````\n");
    }
}
