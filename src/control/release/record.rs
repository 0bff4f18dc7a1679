//! Releases and Renderings: the record of every attempt, good or failed, and the objects that a release consists of.
//!
//! A release is recorded before its first write to anything else, and its objects stay in the store for as long as somebody may want to
//! go back to it: neither git nor a registry is needed for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use xxhash_rust::xxh3::xxh3_64;

use super::look::Pass;
use crate::control::Context;
use crate::control::keyed::Trouble;
use crate::control::write;
use crate::object::admit::Refused;
use crate::object::custom::plural_of;
use crate::object::manifest::{Digest, Manifest};
use crate::object::ours::{
    Application, ORIGIN_ANNOTATION, Release, ReleaseSpec, ReleaseStatus, RenderedObject, Rendering, Verdict, release_name,
};
use crate::object::source::Origin;
use crate::object::{Draft, Key, Kind, Object, kind_of};
use crate::plan::sync::Wanted;
use crate::store::View;

/// The size in bytes of one Rendering's objects. Small enough that a record, a watch event and a page of a list stay handy.
const PIECE: usize = 384 << 10;
/// How many finished releases are kept where the author says nothing.
const HISTORY: i64 = 20;

/// The objects of one release, decoded once.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) number: i64,
    pub(super) digest: String,
    pub(super) commit: String,
    pub(super) wanted: Vec<Wanted>,
    /// What the release did not want, but what stayed when it was judged good because it could not be pruned: as it was then.
    pub(super) kept: Vec<Wanted>,
}

impl Content {
    /// What a release consists of that was just recorded: as it will be read.
    pub(super) fn new(number: i64, spec: &ReleaseSpec, wanted: &[Wanted]) -> Content {
        let recorded = |wanted: &Wanted| Wanted { origin: Origin { column: 0, ..wanted.origin.clone() }, ..wanted.clone() };
        let (digest, commit) = (spec.digest.clone(), spec.commit.clone());
        let mut content = Content { number, digest, commit, wanted: wanted.iter().map(recorded).collect(), ..Content::default() };
        content.order();
        content
    }
    /// What the release says about one object.
    pub(super) fn value(&self, key: &Key) -> Option<&Manifest> {
        self.wanted.binary_search_by(|wanted| wanted.key.cmp(key)).ok().map(|at| &self.wanted[at].value)
    }
    /// The same for somebody who expects it at this place, with the place where it is.
    pub(super) fn near(&self, place: usize, key: &Key) -> Option<(usize, &Manifest)> {
        let at = match self.wanted.get(place).filter(|wanted| wanted.key == *key) {
            Some(_) => place,
            None => self.wanted.binary_search_by(|wanted| wanted.key.cmp(key)).ok()?,
        };
        Some((at, &self.wanted[at].value))
    }
    pub(super) fn wants(&self, key: &Key) -> bool {
        self.value(key).is_some()
    }
    /// Objects are found by their keys. Renderings have them in that order already.
    fn order(&mut self) {
        if !self.wanted.is_sorted_by(|a, b| a.key < b.key) {
            self.wanted.sort_by(|a, b| a.key.cmp(&b.key));
        }
    }
}

/// The key of a release of an Application.
pub(super) fn key(application: &Key, name: &str) -> Key {
    Key::of::<Release>(&application.namespace, name)
}

/// One release, if it is there and belongs to this Application.
pub(super) fn release(view: &View, application: &Key, name: &str) -> Option<Arc<Release>> {
    if name.is_empty() {
        return None;
    }
    let release = view.get(&key(application, name))?.typed::<Release>().ok()?;
    (release.spec.application == *application.name).then_some(release)
}

/// All releases of an Application, oldest first.
pub(super) fn releases(view: &View, application: &Key) -> Vec<(Arc<Object>, Arc<Release>)> {
    let mut found: Vec<_> = view
        .by_field(kind_of::<Release>(), "spec.application", &application.name)
        .filter(|object| object.key.namespace == application.namespace)
        .filter_map(|object| Some((object.clone(), object.typed::<Release>().ok()?)))
        .collect();
    found.sort_by_key(|(_, release)| release.spec.number);
    found
}

/// Reads a release's objects.
pub(super) fn read(view: &View, application: &Key, name: &str) -> Result<Content, Trouble> {
    let release =
        release(view, application, name).ok_or_else(|| Trouble::Bad(format!("the record of release {name:?} is not there")))?;
    let spec = &release.spec;
    let mut content =
        Content { number: spec.number, digest: spec.digest.clone(), commit: spec.commit.clone(), ..Content::default() };
    for piece in &spec.renderings {
        let object = view
            .get(&Key::of::<Rendering>(&application.namespace, piece))
            .ok_or_else(|| Trouble::Bad(format!("rendering {piece:?} of release {name:?} is not there")))?;
        let rendering = object.typed::<Rendering>()?;
        content.wanted.extend(objects(&rendering));
    }
    content.order();
    content.kept = noted(view, application, name, Note::Kept)?;
    Ok(content)
}

/// The objects of a rendering.
fn objects(rendering: &Rendering) -> Vec<Wanted> {
    let object = |rendered: &RenderedObject| {
        Some(Wanted {
            key: rendered.key()?,
            value: rendered.object.clone().into(),
            origin: Origin { file: rendered.file.as_str().into(), line: rendered.line, column: 0 },
        })
    };
    rendering.objects.iter().filter_map(object).collect()
}

/// What is noted with a release beside its own objects, each in Renderings of its own: `<release>-<note>-<n>`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    /// Objects that it did not want and that stayed, as they were when it was judged good.
    Kept,
    /// Objects that it took over from nobody, as they were before.
    Before,
}

impl Note {
    fn piece(self, release: &str, number: usize) -> String {
        let word = match self {
            Note::Kept => "kept",
            Note::Before => "before",
        };
        format!("{release}-{word}-{number}")
    }
}

/// What was noted with a release.
pub(super) fn noted(view: &View, application: &Key, release: &str, note: Note) -> Result<Vec<Wanted>, Trouble> {
    let mut found = Vec::new();
    let pieces = (0..).map(|n| Key::of::<Rendering>(&application.namespace, &note.piece(release, n)));
    for piece in pieces.map_while(|key| view.get(&key)) {
        let rendering = piece.typed::<Rendering>()?;
        found.extend(objects(&rendering));
    }
    Ok(found)
}

/// Notes live objects with a release, in the look's transaction. They are noted without status.
pub(super) fn note(
    cx: &mut Context<'_>,
    pass: &mut Pass<'_>,
    release: &str,
    note: Note,
    live: &[Arc<Object>],
) -> Result<(), Refused> {
    let application = pass.object.key.clone();
    let Some(owner) = pass.view.get(&key(&application, release)).cloned() else { return Ok(()) };
    let wanted: Vec<Wanted> = live
        .iter()
        .map(|object| Wanted {
            key: object.key.clone(),
            value: crate::object::patch::wish(&object.value()).into(),
            origin: origin(object),
        })
        .collect();
    let there = |n: &usize| pass.view.get(&Key::of::<Rendering>(&application.namespace, &note.piece(release, *n))).is_some();
    let first = (0..).take_while(there).count();
    for (n, part) in pieces(&wanted).into_iter().enumerate() {
        let name = note.piece(release, first + n);
        let objects = part.iter().map(rendered).collect();
        let metadata = owned(&application.namespace, &name, kind_of::<Release>(), release, &owner.meta.uid);
        pass.txn.create(write::new_object(cx, &Rendering { metadata, objects })?);
    }
    Ok(())
}

/// Where a live object was written, as it says itself.
fn origin(object: &Object) -> Origin {
    let text = object.meta.annotations.get(ORIGIN_ANNOTATION).map_or("", String::as_str);
    let (file, line) = text.rsplit_once(':').unwrap_or((text, ""));
    Origin { file: file.into(), line: line.parse().unwrap_or(0), column: 0 }
}

fn owned(namespace: &str, name: &str, kind: &'static Kind, owner: &str, uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        owner_references: Some(vec![OwnerReference {
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            name: owner.to_owned(),
            uid: uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// Adds a new release and its renderings to the look's transaction. Gives its name.
pub(super) fn write(
    cx: &mut Context<'_>,
    pass: &mut Pass<'_>,
    mut spec: ReleaseSpec,
    wanted: &[Wanted],
    status: &ReleaseStatus,
) -> Result<String, Trouble> {
    let application = &pass.object.key;
    let known = releases(&pass.view, application).last().map_or(0, |(_, r)| r.spec.number);
    spec.number = pass.status.releases.max(known) + 1;
    spec.application = application.name.to_string();
    let name = release_name(&spec.application, spec.number);
    let pieces = pieces(wanted);
    spec.renderings = pieces.iter().map(|part| piece_name(application, &pass.object.meta.uid, part)).collect();
    spec.objects = wanted.len() as i64;
    let names = spec.renderings.clone();
    pass.opened = Some((name.clone(), Content::new(spec.number, &spec, wanted)));
    let space = application.namespace.to_string();
    let metadata = owned(&space, &name, kind_of::<Application>(), &application.name, &pass.object.meta.uid);
    let draft = write::new_object(cx, &Release { metadata, spec, status: None }).map_err(refused)?;
    let mut value = draft.value();
    write::set_status(&mut value, status);
    pass.txn.create(Draft::new(kind_of::<Release>(), value));
    for (piece, part) in names.iter().zip(pieces) {
        let key = Key::of::<Rendering>(&space, piece);
        if let Some(there) = pass.view.get(&key) {
            // An earlier release has the same piece. It must still be there when this one is recorded.
            pass.txn.expect(key, Some(there.revision));
            continue;
        }
        let metadata = owned(&space, piece, kind_of::<Application>(), &application.name, &pass.object.meta.uid);
        let rendering = Rendering { metadata, objects: part.iter().map(rendered).collect() };
        pass.txn.create(write::new_object(cx, &rendering).map_err(refused)?);
    }
    pass.status.releases = known.max(pass.status.releases) + 1;
    Ok(name)
}

fn refused(refused: Refused) -> Trouble {
    Trouble::Bad(refused.to_string())
}

/// Objects in pieces of bounded size; an object that is larger has a piece of its own.
///
/// Where a piece begins is told by the object that it begins with, not by how many there are before it: so a release that changes one
/// object has all pieces in common with the one before but that one.
fn pieces(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    let mut pieces = Vec::new();
    let (mut from, mut size) = (0, 0);
    let mut text = String::new();
    for (at, wanted_here) in wanted.iter().enumerate() {
        let length = wanted_here.value.size();
        if at > from && (size + length > PIECE || begins(&wanted_here.key, &mut text)) {
            pieces.push(&wanted[from..at]);
            (from, size) = (at, 0);
        }
        size += length;
    }
    if from < wanted.len() {
        pieces.push(&wanted[from..]);
    }
    pieces
}

/// Whether a piece begins with this object: one in so many does. `text` is room for its name.
fn begins(key: &Key, text: &mut String) -> bool {
    const ONE_IN: u64 = 32;
    text.clear();
    for part in [key.kind.group, "/", key.kind.plural, "/", &key.namespace, "/", &key.name] {
        text.push_str(part);
    }
    xxh3_64(text.as_bytes()).is_multiple_of(ONE_IN)
}

/// The name of a piece: by what is in it, so that equal pieces of an Application's releases are one.
fn piece_name(application: &Key, uid: &str, part: &[Wanted]) -> String {
    let mut all = uid.as_bytes().to_vec();
    for wanted in part {
        all.extend_from_slice(wanted.value.digest().bytes());
        all.extend_from_slice(&wanted.origin.line.to_le_bytes());
        for text in [&*wanted.origin.file, wanted.key.kind.plural] {
            all.extend_from_slice(text.as_bytes());
            all.push(0);
        }
    }
    format!("{}-{}", application.name, Digest::of(&all))
}

/// An object as a piece holds it.
fn rendered(wanted: &Wanted) -> RenderedObject {
    RenderedObject {
        file: wanted.origin.file.to_string(),
        line: wanted.origin.line,
        plural: plural_of(wanted.key.kind),
        object: wanted.value.value().clone(),
    }
}

/// Changes a release's status in the look's transaction. A release that is gone has no story to tell.
pub(super) fn tell(pass: &mut Pass<'_>, name: &str, change: impl FnOnce(&mut ReleaseStatus)) {
    let Some(object) = pass.view.get(&key(&pass.object.key, name)).cloned() else { return };
    let Ok(release) = object.typed::<Release>() else { return };
    let known = release.status.clone().unwrap_or_default();
    let before = pass.told.get(name).cloned().unwrap_or(known);
    let mut status = before.clone();
    change(&mut status);
    if status.finished.is_some() {
        status.waiting_on.clear();
    }
    if status != before {
        pass.told.insert(name.to_owned(), status.clone());
        pass.txn.update(write::with_status(&object, &status), object.revision);
    }
}

/// Deletes the oldest finished releases beyond the limit, in the look's transaction. What one may go back to, or what the next merge is
/// computed from, stays.
pub(super) fn prune(pass: &mut Pass<'_>) {
    let limit = pass.spec().policy.history_limit.unwrap_or(HISTORY).max(0) as usize;
    let status = &pass.status;
    let mut needed: BTreeSet<&str> = [&status.last_good, &status.trial, &status.target].map(String::as_str).into();
    needed.extend(status.inventory.items().map(|item| item.release.as_str()));
    needed.extend(status.rollout.iter().flat_map(|r| [r.release.as_str(), r.back_from.as_str()]));
    needed.extend(pass.spec().pin.iter().map(|pin| pin.release.as_str()));
    let all = releases(&pass.view, &pass.object.key);
    let finished: Vec<_> = all
        .iter()
        .filter(|(object, release)| {
            !needed.contains(&*object.key.name) && release.status.as_ref().is_some_and(|s| s.verdict.is_some())
        })
        .collect();
    let mut txn = std::mem::take(&mut pass.txn);
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for (object, _) in &finished[..finished.len().saturating_sub(limit)] {
        for rendering in pass.view.owned_by(&object.meta.uid).filter(|o| o.key.kind == kind_of::<Rendering>()) {
            txn.delete(rendering.key.clone(), Some(rendering.revision));
        }
        txn.delete(object.key.clone(), Some(object.revision));
        gone.insert(&object.key.name);
    }
    // Pieces that no release has any more. Of one that is being recorded nothing is known here: then it waits for the next time.
    if !gone.is_empty() && pass.opened.is_none() {
        let stay = all.iter().filter(|(object, _)| !gone.contains(&*object.key.name));
        let used: BTreeSet<&str> = stay.flat_map(|(_, release)| release.spec.renderings.iter().map(String::as_str)).collect();
        let pieces = pass.view.owned_by(&pass.object.meta.uid).filter(|o| o.key.kind == kind_of::<Rendering>());
        for piece in pieces.filter(|piece| !used.contains(&*piece.key.name)) {
            txn.delete(piece.key.clone(), Some(piece.revision));
        }
    }
    pass.txn = txn;
}

/// Whether this commit was refused already, so that it is recorded once.
pub(super) fn already_rejected(view: &View, application: &Key, commit: &str, digest: &str) -> bool {
    releases(view, application).iter().rev().any(|(_, release)| {
        release.spec.commit == commit
            && release.spec.digest == digest
            && release.status.as_ref().and_then(|s| s.verdict) == Some(Verdict::Rejected)
    })
}
