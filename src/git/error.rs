//! How reading a repository fails, in words that carry no credentials and no control characters.

use std::error::Error;
use std::fmt;

/// Why a repository could not be read. `Display` says what was attempted, the cause is in `source()`; no credentials in either.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct FetchError {
    /// What a caller may branch on.
    pub kind: FetchErrorKind,
    /// What was attempted, in a few words.
    pub attempt: String,
    /// What went wrong, in one sentence.
    pub source: Box<dyn Error + Send + Sync>,
    /// What may help.
    pub hint: Option<String>,
}

/// What a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchErrorKind {
    /// The address is not one that we open.
    BadAddress,
    /// Nobody answered, the answer broke off, or the time was up.
    Unreachable,
    /// The credentials are missing or were refused, or the host's key is not known.
    Denied,
    /// There is no such repository.
    NoSuchRepository,
    /// The repository has no such branch, tag or commit.
    NoSuchRevision,
    /// The commit has no such directory.
    NoSuchPath,
    /// A limit was reached.
    TooLarge,
    /// The disk or the mirror failed.
    Local,
}

impl FetchErrorKind {
    /// Whether trying again without a change may help.
    pub fn transient(self) -> bool {
        matches!(self, FetchErrorKind::Unreachable | FetchErrorKind::Local)
    }
}

impl FetchError {
    pub(super) fn new(kind: FetchErrorKind, attempt: impl fmt::Display, cause: impl fmt::Display) -> Self {
        FetchError { kind, attempt: clean(&attempt.to_string()), source: Box::new(Said(clean(&cause.to_string()))), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Attempt and causes in one line, for a status field.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.attempt, self.source)
    }
}

/// A cause in words.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Said {}

/// Text from outside made fit for a line of output: control characters and text direction marks go, length is bounded, and whatever
/// stands between `//` and `@` in something that looks like an address is hidden.
pub(super) fn clean(text: &str) -> String {
    const LONGEST: usize = 500; // a server's answer is quoted, not published
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .filter(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}'))
        .take(LONGEST)
        .collect();
    let mut from = 0;
    while let Some(at) = line[from..].find("://") {
        let start = from + at + 3;
        let end =
            line[start..].find(|c: char| c.is_whitespace() || matches!(c, '/' | '\'' | '"')).map_or(line.len(), |n| start + n);
        if let Some(sign) = line[start..end].rfind('@') {
            line.replace_range(start..start + sign, "***");
        }
        from = start;
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_hides_what_must_not_be_shown() {
        let rows = [
            ("plain text", "plain text"),
            ("https://user:tok@host/x failed", "https://***@host/x failed"),
            ("a\r\nb\u{1b}[31m", "a  b [31m"),
            ("x\u{202e}y", "xy"),
            ("https://a/b@c ssh://u@h/p", "https://a/b@c ssh://***@h/p"),
        ];
        for (input, expected) in rows {
            assert_eq!(clean(input), expected, "{input:?}");
        }
    }
}
