//! The items of a list, each as it was sent, while the others are still on their way.
//!
//! A list may have a hundred megabytes. It is cut where its items end, as its bytes arrive; nothing of an item is read, and no more is
//! kept than whoever asked keeps. You will not find here: what an item is.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{Method, header};
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use super::{Client, Error, checked, garbled, late, timeout, unreachable};

/// How long a list may take as a whole.
const DEADLINE: Duration = Duration::from_secs(60);

/// A list on its way.
pub struct Items {
    body: BoxStream<'static, Result<Bytes, Error>>,
    until: Instant,
    cutter: Cutter,
    form: String,
}

impl Client {
    /// Asks for a list, in a form that is written as in `Accept`. Only the beginning of the answer has come when this returns.
    pub async fn items(&self, path: &str, accept: &str) -> Result<Items, Error> {
        let answer = timeout(self.send_for(Method::GET, path, super::JSON, Vec::new(), accept)).await??;
        let answer = checked(answer).await?;
        let form = answer.headers().get(header::CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or_default().to_owned();
        let body = answer.into_body().into_data_stream().map(|piece| piece.map_err(unreachable)).boxed();
        Ok(Items { body, until: Instant::now() + DEADLINE, cutter: Cutter::default(), form })
    }
}

impl Items {
    /// The form that the server chose: its `Content-Type`.
    pub fn form(&self) -> &str {
        &self.form
    }

    /// The items that came next, never none; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let mut items = Vec::new();
        while items.is_empty() {
            let Some(piece) = timeout_at(self.until, self.body.next()).await.map_err(|_| late(DEADLINE))? else {
                return Ok(None);
            };
            self.cutter.feed(&piece?, &mut items)?;
        }
        Ok(Some(items))
    }

    /// Where the next page begins, when the last item was given away; empty after the last page.
    pub fn more(self) -> Result<String, Error> {
        self.cutter.end()
    }
}

/// Goes along a JSON text once and cuts it between the elements of its field `items`.
#[derive(Default)]
struct Cutter {
    /// What is around the items.
    around: Vec<u8>,
    /// The beginning of an item whose end has not come.
    open: Vec<u8>,
    /// How many braces and brackets are open.
    depth: usize,
    /// Whether what comes is within a text, and behind a backslash there.
    text: bool,
    escaped: bool,
    /// Whether what comes is within `items`.
    inside: bool,
}

impl Cutter {
    fn feed(&mut self, piece: &Bytes, items: &mut Vec<Bytes>) -> Result<(), Error> {
        // Where what was not put anywhere begins.
        let mut from = 0;
        for (at, byte) in piece.iter().enumerate() {
            if self.text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.text = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == 2 && *byte == b'[' {
                        self.around.extend_from_slice(&piece[from..at]);
                        from = at;
                        self.inside = self.names_items();
                        if self.inside {
                            self.around.push(b'[');
                            from = at + 1;
                        }
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.checked_sub(1).ok_or_else(|| garbled("a list has an end too many"))?;
                    if self.depth == 1 && std::mem::take(&mut self.inside) {
                        self.give(piece.slice(from..at), items);
                        from = at;
                    }
                }
                b',' if self.depth == 2 && self.inside => {
                    self.give(piece.slice(from..at), items);
                    from = at + 1;
                }
                _ => {}
            }
        }
        let rest = if self.inside { &mut self.open } else { &mut self.around };
        rest.extend_from_slice(&piece[from..]);
        Ok(())
    }

    /// Whether what came so far ends with the name of the field in which the items are.
    fn names_items(&self) -> bool {
        let before = self.around.trim_ascii_end().strip_suffix(b":");
        before.is_some_and(|before| before.trim_ascii_end().ends_with(b"\"items\""))
    }

    /// An item ends here.
    fn give(&mut self, end: Bytes, items: &mut Vec<Bytes>) {
        let item = match self.open.is_empty() {
            true => end,
            false => {
                self.open.extend_from_slice(&end);
                std::mem::take(&mut self.open).into()
            }
        };
        let trimmed = item.trim_ascii();
        if !trimmed.is_empty() {
            items.push(item.slice_ref(trimmed));
        }
    }

    fn end(self) -> Result<String, Error> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Around {
            metadata: Place,
            items: Option<Vec<IgnoredAny>>,
        }
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Place {
            r#continue: String,
        }
        let around: Around = serde_json::from_slice(&self.around).map_err(garbled)?;
        debug_assert!(around.items.is_none_or(|items| items.is_empty()), "they were cut out");
        Ok(around.metadata.r#continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list that comes in pieces of so many bytes.
    fn cut(text: &str, size: usize) -> Result<(Vec<String>, String), Error> {
        let (mut cutter, mut items) = (Cutter::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            cutter.feed(&Bytes::copy_from_slice(piece), &mut items)?;
        }
        let items = items.iter().map(|i| String::from_utf8_lossy(i).into_owned()).collect();
        Ok((items, cutter.end()?))
    }

    #[test]
    fn a_list_is_taken_apart_wherever_its_pieces_end() {
        let text =
            r#" {"kind":"PodList", "items" : [ {"a":"]},{\""} ,{"b":[1,{}]}],"metadata":{"continue":"x\"y","other":["items"]}} "#;
        for size in 1..=text.len() {
            let (items, next) = cut(text, size).unwrap();
            assert_eq!(
                (items, next.as_str()),
                (vec![r#"{"a":"]},{\""}"#.to_owned(), r#"{"b":[1,{}]}"#.to_owned()], "x\"y"),
                "{size}"
            );
        }
        let rows = [
            (r#"{"items":[]}"#, 0),
            (r#"{"items":null}"#, 0),
            ("{}", 0),
            (r#"{"items":[1]}"#, 1),
            (r#"{"metadata":{"items":[1,2]},"rows":[3],"items":[4,5,6]}"#, 3),
        ];
        for (text, count) in rows {
            assert_eq!(cut(text, 5).unwrap().0.len(), count, "{text}");
        }
        for text in ["", "[1]", "{", r#"{"items":[{}"#, r#"{"items":[{}}"#, r#"{"items" []}"#, "nonsense", "}"] {
            assert!(cut(text, 3).is_err(), "{text}");
        }
    }
}
