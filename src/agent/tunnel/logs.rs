//! Logs with Kubernetes' flags, made of the engine's entries.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Failure;
use super::query::{Query, invalid};
use crate::docker::{Channel, Engine, EngineError, Flow, LogEntry, LogOptions};

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) options: LogOptions,
    pub(super) previous: bool,
    timestamps: bool,
    limit: Option<u64>,
}

impl Wanted {
    pub(super) fn parse(query: &Query, now: Timestamp) -> Result<Wanted, Failure> {
        let seconds = query.number("sinceSeconds")?;
        let time = query.get("sinceTime").filter(|text| !text.is_empty());
        let since = match (seconds, time) {
            (Some(_), Some(_)) => {
                return Err(Failure::new(StatusCode::BAD_REQUEST, "at most one of sinceTime or sinceSeconds may be specified"));
            }
            // A span longer than time itself is everything.
            (Some(seconds), None) => {
                let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                Some(now.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH))
            }
            (None, Some(text)) => Some(text.parse().map_err(|_| invalid("sinceTime", text))?),
            (None, None) => None,
        };
        let stream = query.get("stream").unwrap_or("All");
        if !["All", "Stdout", "Stderr", ""].contains(&stream) {
            return Err(invalid("stream", stream));
        }
        let previous = query.flag("previous")?;
        let options = LogOptions {
            // The run before this one has ended: there is nothing to wait for.
            follow: query.flag("follow")? && !previous,
            tail: query.number("tailLines")?,
            since,
            stdout: stream != "Stderr",
            stderr: stream != "Stdout",
        };
        Ok(Wanted { options, previous, timestamps: query.flag("timestamps")?, limit: query.number("limitBytes")? })
    }
}

/// Entries as text: with times if wanted, cut where the limit is.
pub(super) fn text(entries: Flow<LogEntry>, wanted: &Wanted) -> impl Stream<Item = Result<Bytes, EngineError>> + Send + 'static {
    let state = Some((entries, wanted.limit, [true, true]));
    let timestamps = wanted.timestamps;
    stream::unfold(state, move |state| async move {
        let (mut entries, limit, mut at_start) = state?;
        if limit == Some(0) {
            return None;
        }
        let entry = match entries.next().await? {
            Ok(entry) => entry,
            Err(error) => return Some((Err(error), None)),
        };
        // A long line comes in pieces; only the first has a time.
        let start = &mut at_start[usize::from(entry.channel == Channel::Stderr)];
        let mut bytes = match entry.at.filter(|_| timestamps && *start) {
            Some(at) => stamped(at, &entry.bytes),
            None => entry.bytes,
        };
        *start = bytes.last() == Some(&b'\n');
        let limit = limit.map(|limit| {
            bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            limit - bytes.len() as u64
        });
        Some((Ok(bytes), Some((entries, limit, at_start))))
    })
}

fn stamped(at: Timestamp, line: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(32 + line.len());
    // Always nine digits, so that the times of two lines can be compared as text.
    out.put_slice(at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes());
    out.put_slice(line);
    out.freeze()
}

/// The end of a container's log with times, at most `limit` bytes in whole lines: to keep when the container is removed.
pub async fn saved_log(engine: &dyn Engine, id: &str, limit: usize) -> Result<Bytes, EngineError> {
    // Lines are rarely shorter than this.
    let tail = (limit / 16).max(1) as u64;
    let mut entries = engine.logs(id, &LogOptions { tail: Some(tail), ..LogOptions::default() }).await?;
    let mut lines = std::collections::VecDeque::new();
    let mut length = 0;
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let line = entry.at.map_or_else(|| entry.bytes.clone(), |at| stamped(at, &entry.bytes));
        length += line.len();
        lines.push_back(line);
        while length > limit {
            let Some(first) = lines.pop_front() else { break };
            length -= first.len();
        }
    }
    Ok(Vec::from(lines).concat().into())
}

/// A saved log as if the engine told it. Which output a line came from was not saved.
pub(super) fn replay(text: &Bytes, options: &LogOptions) -> Flow<LogEntry> {
    let mut entries: Vec<LogEntry> = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let space = line.iter().take(40).position(|byte| *byte == b' ');
            let at = space.and_then(|space| std::str::from_utf8(&line[..space]).ok()).and_then(|text| text.parse().ok());
            let line = match (space, at) {
                (Some(space), Some(_)) => &line[space + 1..],
                _ => line,
            };
            LogEntry { channel: Channel::Stdout, at, bytes: text.slice_ref(line) }
        })
        .filter(|entry| options.since.is_none_or(|since| entry.at.is_none_or(|at| at >= since)))
        .collect();
    if let Some(tail) = options.tail {
        entries.drain(..entries.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
    }
    stream::iter(entries.into_iter().map(Ok)).boxed()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use futures_util::FutureExt;

    use super::*;

    const LOG: &[u8] =
        b"2026-11-21T04:00:00.5Z one\n2026-11-21T04:00:01Z two\nno time\n2026-11-21T04:00:02.25Z three, unfinished";

    fn check(query: &str, expect: Expect) {
        let now = "2026-11-21T04:00:03Z".parse().unwrap();
        let shown = match Wanted::parse(&Query::parse(query), now) {
            Err(failure) => format!("{} {}", failure.code, failure.message),
            Ok(wanted) => {
                let lines = text(replay(&Bytes::from_static(LOG), &wanted.options), &wanted).map(Result::unwrap);
                let bytes: Vec<u8> = lines.collect::<Vec<_>>().now_or_never().unwrap().concat();
                String::from_utf8(bytes).unwrap()
            }
        };
        expect.assert_eq(&shown);
    }

    #[test]
    fn flags() {
        check(
            "",
            expect![[r#"
            one
            two
            no time
            three, unfinished"#]],
        );
        check(
            "timestamps=true",
            expect![[r#"
            2026-11-21T04:00:00.500000000Z one
            2026-11-21T04:00:01.000000000Z two
            no time
            2026-11-21T04:00:02.250000000Z three, unfinished"#]],
        );
        check(
            "tailLines=2",
            expect![[r#"
            no time
            three, unfinished"#]],
        );
        check("tailLines=0", expect![[""]]);
        check(
            "sinceSeconds=2",
            expect![[r#"
            two
            no time
            three, unfinished"#]],
        );
        check(
            "sinceTime=2026-11-21T04:00:02Z",
            expect![[r#"
            no time
            three, unfinished"#]],
        );
        check(
            "sinceSeconds=99999999999999",
            expect![[r#"
            one
            two
            no time
            three, unfinished"#]],
        );
        check(
            "limitBytes=6",
            expect![[r#"
            one
            tw"#]],
        );
        check("limitBytes=6&timestamps=1", expect!["2026-1"]);
        check("previous=true&follow=true&tailLines=1", expect!["three, unfinished"]);
    }

    #[test]
    fn refusals() {
        check("tailLines=-1", expect![[r#"400 Bad Request invalid value for tailLines: "-1""#]]);
        check("sinceTime=yesterday", expect![[r#"400 Bad Request invalid value for sinceTime: "yesterday""#]]);
        check(
            "sinceSeconds=1&sinceTime=2026-11-21T04:00:02Z",
            expect!["400 Bad Request at most one of sinceTime or sinceSeconds may be specified"],
        );
        check("follow=perhaps", expect![[r#"400 Bad Request invalid value for follow: "perhaps""#]]);
        check("stream=Stdin", expect![[r#"400 Bad Request invalid value for stream: "Stdin""#]]);
    }

    #[test]
    fn pieces_of_one_line_have_one_time() {
        let entry = |bytes: &'static str| {
            Ok(LogEntry { channel: Channel::Stdout, at: Some("2026-11-21T04:00:00Z".parse().unwrap()), bytes: bytes.into() })
        };
        let entries = stream::iter([entry("a long "), entry("line\n"), entry("next\n")]).boxed();
        let wanted = Wanted::parse(&Query::parse("timestamps"), Timestamp::UNIX_EPOCH).ok().unwrap();
        let bytes = text(entries, &wanted).map(Result::unwrap).collect::<Vec<_>>().now_or_never().unwrap().concat();
        expect![[r#"
            2026-11-21T04:00:00.000000000Z a long line
            2026-11-21T04:00:00.000000000Z next
        "#]]
        .assert_eq(std::str::from_utf8(&bytes).unwrap());
    }
}
