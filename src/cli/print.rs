//! Words on a terminal: data to stdout, talk to stderr, progress where somebody watches.
//!
//! Colour is never the only sign, and text from the cluster never controls the terminal. Nothing else in this program prints.
#![allow(clippy::print_stdout, clippy::print_stderr)] // this is the one place

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::args::Color;

/// What takes longer is accompanied by progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// Good news.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Bad news.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something to look at.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// Less important.
pub(super) const DIM: Style = Style::new().dimmed();
/// More important.
pub(super) const BOLD: Style = Style::new().bold();
/// Added lines.
pub(super) const ADDED: Style = AnsiColor::Green.on_default();
/// Removed lines.
pub(super) const REMOVED: Style = AnsiColor::Red.on_default();

/// Where words go, and how.
#[derive(Clone)]
pub(super) struct Print {
    /// Whether stdout takes colour.
    pub(super) color: bool,
    color_talk: bool,
    /// Whether somebody watches stderr.
    watched: bool,
    /// Whether stdout is a terminal.
    pub(super) terminal: bool,
    /// For tests: what was written to stdout and stderr.
    captured: Option<Arc<Mutex<(String, String)>>>,
}

impl Print {
    /// For this process.
    pub(super) fn new(color: Color) -> Print {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let wanted =
            std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let decide = |terminal| match color {
            Color::Auto => terminal && wanted,
            Color::Always => true,
            Color::Never => false,
        };
        Print { color: decide(out), color_talk: decide(err), watched: err, terminal: out, captured: None }
    }

    /// For tests: keeps what is written.
    #[cfg(test)]
    pub(super) fn captured() -> (Print, Arc<Mutex<(String, String)>>) {
        let captured = Arc::new(Mutex::default());
        (
            Print { color: false, color_talk: false, watched: false, terminal: false, captured: Some(Arc::clone(&captured)) },
            captured,
        )
    }

    /// Writes data to stdout, as it is. A reader that has gone away (`| head`) is no error.
    pub(super) fn out(&self, text: impl Display) {
        if let Some(captured) = &self.captured {
            captured.lock().0.push_str(&text.to_string());
            return;
        }
        let mut out = std::io::stdout().lock();
        if write!(out, "{text}").and_then(|()| out.flush()).is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
            std::process::exit(0);
        }
    }

    /// Writes a line of data to stdout.
    pub(super) fn line(&self, text: impl Display) {
        self.out(format_args!("{text}\n"));
    }

    /// Writes a line of talk to stderr.
    pub(super) fn say(&self, text: impl Display) {
        if let Some(captured) = &self.captured {
            captured.lock().1.push_str(&format!("{text}\n"));
            return;
        }
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "{text}");
    }

    /// Text in a style, where stdout takes it.
    pub(super) fn paint(&self, style: Style, text: impl Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// Text in a style, where stderr takes it.
    pub(super) fn paint_talk(&self, style: Style, text: impl Display) -> String {
        if self.color_talk { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// Whether stderr takes colour.
    pub(super) fn talk_color(&self) -> bool {
        self.color_talk
    }

    /// Whether somebody watches stderr.
    pub(super) fn watched(&self) -> bool {
        self.watched
    }

    /// Prints an error with its causes and a hint.
    pub(super) fn error(&self, failure: &super::Failure) {
        let mut last = String::new();
        for (n, cause) in failure.error.chain().enumerate() {
            let text = clean(&cause.to_string());
            // Foreign errors often repeat their cause; once is enough.
            if n > 0 && last.contains(&text) {
                continue;
            }
            let label = if n == 0 { self.paint_talk(BAD, "error:") } else { self.paint_talk(BOLD, "caused by:") };
            self.say(format_args!("{label} {text}"));
            last = text;
        }
        if let Some(hint) = failure.hint() {
            self.say(format_args!("\n{} {}", self.paint_talk(GOOD, "hint:"), clean(&hint)));
        }
    }

    /// Begins something that may take a while.
    pub(super) fn progress(&self, what: impl Into<String>) -> Progress {
        let what = what.into();
        let bar = self.watched.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}").expect("the template is constant");
            bar.set_style(style.tick_strings(&["-", "\\", "|", "/", " "]));
            bar.set_message(what.clone());
            bar
        });
        Progress { print: self.clone(), begun: Instant::now(), bar, shown: false, said: String::new(), what }
    }
}

/// Something that takes a while: a line that moves on a terminal, plain lines elsewhere.
pub(super) struct Progress {
    print: Print,
    begun: Instant,
    bar: Option<ProgressBar>,
    shown: bool,
    said: String,
    what: String,
}

impl Progress {
    /// Says what it waits for now. Call it as often as you like.
    pub(super) fn set(&mut self, message: &str) {
        let message = clean(message).replace('\n', " ");
        if self.begun.elapsed() < PATIENCE {
            self.what = message;
            return;
        }
        match &self.bar {
            Some(bar) => {
                if !self.shown {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(Duration::from_millis(200));
                    self.shown = true;
                }
                bar.set_message(message);
            }
            None if message != self.said => {
                self.print.say(&message);
                self.said = message;
            }
            None => {}
        }
    }

    /// Says again what it is about: for loops that have nothing new to tell.
    pub(super) fn tick(&mut self) {
        let what = self.what.clone();
        if self.said.is_empty() {
            self.set(&what);
        }
    }

    /// A line above the moving one.
    pub(super) fn note(&self, text: impl Display) {
        match &self.bar {
            Some(bar) if self.shown => bar.suspend(|| self.print.say(text)),
            _ => self.print.say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Text from elsewhere made harmless: what controls a terminal or changes the direction of text goes; line breaks and tabs stay.
pub(super) fn clean(text: &str) -> String {
    let bad = |c: &char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    text.chars().filter(|c| !bad(c)).collect()
}

/// A log line for a terminal: colours stay, everything else that could move the cursor goes.
pub(super) fn clean_log(text: &str) -> String {
    let mut clean_text = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\u{1b}' {
            let sequence = rest.strip_prefix("\u{1b}[").and_then(|r| {
                let end = r.find(|c: char| !c.is_ascii_digit() && c != ';')?;
                r[end..].starts_with('m').then(|| &rest[..2 + end + 1])
            });
            if let Some(sequence) = sequence {
                clean_text.push_str(sequence);
                rest = &rest[sequence.len()..];
                continue;
            }
        }
        if !c.is_control() || matches!(c, '\n' | '\t') {
            clean_text.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    clean_text
}

/// Rows under a heading, aligned, without lines: what `kubectl get` looks like, and what `awk` can read.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    use comfy_table::{ContentArrangement, Table};
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|h| (*h).to_owned()));
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell).replace('\n', " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// How long ago, as kubectl writes it: `5s`, `3m10s`, `4h`, `2d`.
pub(super) fn ago(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let s = now.duration_since(then).as_secs().max(0);
    match s {
        0..=119 => format!("{s}s"),
        120..=599 if s % 60 != 0 => format!("{}m{}s", s / 60, s % 60),
        120..=10_799 => format!("{}m", s / 60),
        10_800..=28_799 if s / 60 % 60 != 0 => format!("{}h{}m", s / 3600, s / 60 % 60),
        10_800..=172_799 => format!("{}h", s / 3600),
        172_800..=691_199 if s / 3600 % 24 != 0 => format!("{}d{}h", s / 86_400, s / 3600 % 24),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_h_text_from_elsewhere_does_not_control_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\u{7}c\u{202e}d\n\te\u{9b}"), "a[2Jbcd\n\te");
        assert_eq!(clean_log("\u{1b}[31mred\u{1b}[0m \u{1b}[2J\u{1b}]0;title\u{7}x\n"), "\u{1b}[31mred\u{1b}[0m [2J]0;titlex\n");
        assert_eq!(clean_log("\u{1b}"), "");
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["web-1".to_owned(), "Running".to_owned()], vec!["a".to_owned(), "x\u{1b}y\nz".to_owned()]];
        expect_test::expect![[r#"
            NAME   STATUS
            web-1  Running
            a      xy z
        "#]]
        .assert_eq(&table(&["NAME", "STATUS"], &rows));
    }

    #[test]
    fn ages() {
        let at = |s: i64| jiff::Timestamp::from_second(s).unwrap();
        let rows = [
            (5, "5s"),
            (119, "119s"),
            (130, "2m10s"),
            (3600, "60m"),
            (4 * 3600 + 120, "4h2m"),
            (90_000, "25h"),
            (864_000, "10d"),
        ];
        for (seconds, text) in rows {
            assert_eq!(ago(at(0), at(seconds)), text);
        }
    }
}
