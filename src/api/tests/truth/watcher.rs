//! One client that watches: what it is told, held against the model, event by event.

use axum::body::Body;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::Value;

use super::model::{Filter, Model, Name, Thing, seen, told};

/// More than the store keeps for a watcher that does not take its events.
const MUCH: usize = 16 << 20;

pub(super) struct Watcher {
    pub(super) filter: Filter,
    pub(super) partial: bool,
    pub(super) bookmarks: bool,
    /// `None`: it is not connected.
    body: Option<Body>,
    text: Vec<u8>,
    /// What it must be told first: what was there when it came.
    initial: Vec<(Name, Thing)>,
    marks_initial: bool,
    /// The next step of the model that it may be told of.
    place: usize,
    /// The newest revision that it knows it has everything up to: where it goes on.
    pub(super) last: u64,
}

impl Watcher {
    pub(super) fn new(filter: Filter, partial: bool, bookmarks: bool) -> Watcher {
        Watcher {
            filter,
            partial,
            bookmarks,
            body: None,
            text: Vec::new(),
            initial: Vec::new(),
            marks_initial: false,
            place: 0,
            last: 0,
        }
    }

    pub(super) fn connected(&self) -> bool {
        self.body.is_some()
    }

    /// Whether it has heard all of what was there when it came, so that it can go on.
    pub(super) fn knows_all(&self) -> bool {
        self.initial.is_empty() && !self.marks_initial
    }

    /// It begins with everything that is there.
    pub(super) fn begin(&mut self, body: Body, model: &Model, marks: bool) {
        self.begin_at(model, model.durable, marks);
        self.body = Some(body);
    }

    /// The same, told afterwards.
    pub(super) fn begin_at(&mut self, model: &Model, revision: u64, marks: bool) {
        self.resume_at(model, revision);
        self.initial = model.select(&self.filter, revision);
        self.initial.reverse();
        self.marks_initial = marks;
    }

    /// It goes on after a revision.
    pub(super) fn resume(&mut self, body: Body, model: &Model, after: u64) {
        self.resume_at(model, after);
        self.body = Some(body);
    }

    /// The same, told afterwards.
    pub(super) fn resume_at(&mut self, model: &Model, after: u64) {
        self.initial.clear();
        self.marks_initial = false;
        self.text.clear();
        self.place = model.place(after);
        self.last = after;
    }

    pub(super) fn leave(&mut self) {
        self.body = None;
    }

    /// Hears what there is now, at most so many pieces.
    pub(super) fn hear(&mut self, model: &mut Model, pieces: usize) {
        for _ in 0..pieces {
            let Some(body) = self.body.as_mut() else { return };
            match body.frame().now_or_never() {
                None => return,
                Some(None) => {
                    assert!(self.text.is_empty(), "an event was cut in the middle");
                    self.body = None;
                }
                Some(Some(frame)) => {
                    self.text.extend_from_slice(&frame.expect("a watch does not fail").into_data().expect("data"));
                    let mut bookmarks = 0;
                    while let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                        let line: Vec<u8> = self.text.drain(..=end).collect();
                        bookmarks += usize::from(self.event(model, &serde_json::from_slice(&line).expect("JSON in each line")));
                        if self.body.is_none() {
                            return;
                        }
                    }
                    if bookmarks > 0 && self.last >= model.durable {
                        // It would go on with bookmarks for ever.
                        return;
                    }
                }
            }
        }
    }

    /// Takes one event. True: it was a bookmark.
    pub(super) fn event(&mut self, model: &mut Model, event: &Value) -> bool {
        let object = &event["object"];
        let what = format!("{:?} after {}: {}", self.filter, self.last, event["type"]);
        match event["type"].as_str().expect("a type") {
            "ERROR" => {
                assert_eq!(object["code"], 410, "{what}: {object}");
                let waits: usize =
                    model.steps[self.place..].iter().filter(|s| s.name.0 == self.filter.plural).map(|s| s.weight).sum();
                assert!(waits > MUCH * 9 / 10, "WA6: cut off, but only {waits} bytes waited");
                self.body = None;
                false
            }
            "BOOKMARK" => {
                let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).expect("a revision");
                self.bookmark(model, revision, object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true", &what);
                true
            }
            kind => {
                let seen = seen(self.filter.plural, object);
                if let Some((name, thing)) = self.initial.pop() {
                    assert_eq!(kind, "ADDED", "{what}");
                    model.check(&what, &seen, &name, &thing);
                    return false;
                }
                assert!(!self.marks_initial, "{what}: the end of what was there was not marked");
                let next = model.steps[self.place..]
                    .iter()
                    .enumerate()
                    .find_map(|(at, step)| Some((at, step.clone(), told(&self.filter, step)?)));
                let (at, step, (wanted_kind, thing)) =
                    next.unwrap_or_else(|| panic!("WA1: {what}: nothing more happened: {seen:?}"));
                assert_eq!((kind, seen.thing.revision), (wanted_kind, step.revision), "WA1, WA4: {what}: {seen:?} for {step:?}");
                model.check(&what, &seen, &step.name, &thing);
                self.place += at + 1;
                self.last = step.revision;
                false
            }
        }
    }

    fn bookmark(&mut self, model: &mut Model, revision: u64, initial: bool, what: &str) {
        assert!(self.bookmarks, "{what}: nobody asked for it");
        assert!(self.initial.is_empty(), "WA2: {what}: not all of what was there was told");
        assert_eq!(initial, std::mem::take(&mut self.marks_initial), "{what}: the mark of the end of what was there");
        assert!(revision >= self.last, "WA2: {what}: back to {revision}");
        let skipped =
            model.steps[self.place..].iter().take_while(|s| s.revision <= revision).find(|s| told(&self.filter, s).is_some());
        assert!(skipped.is_none(), "WA2: {what} {revision}: it comes before {skipped:?}");
        model.show(what, revision);
        self.place = self.place.max(model.place(revision));
        self.last = revision;
    }

    /// Everything is on disk and it heard until there was nothing more: then it has been told everything.
    pub(super) fn must_be_complete(&self, model: &Model) {
        if self.connected() {
            self.must_know_everything(model);
            assert!(
                !self.bookmarks || self.last == model.durable,
                "WA2: {:?}: its bookmark stays behind {}",
                self.filter,
                model.durable
            );
        }
    }

    /// There is nothing that it has not been told.
    pub(super) fn must_know_everything(&self, model: &Model) {
        let what = format!("{:?} after {}", self.filter, self.last);
        assert!(
            self.initial.is_empty() && !self.marks_initial,
            "WA7: {what}: {} of what was there is missing",
            self.initial.len()
        );
        let missing = model.steps[self.place..].iter().find(|s| told(&self.filter, s).is_some());
        assert!(missing.is_none(), "WA1: {what}: it was never told of {missing:?}");
    }

    /// Whether it must have been cut off: more waited than the store keeps.
    pub(super) fn starved(&self, model: &Model) -> bool {
        let steps = model.steps[self.place..].iter().filter(|s| told(&self.filter, s).is_some());
        steps.map(|s| s.weight).sum::<usize>() > MUCH * 11 / 10
    }
}
