//! One value is checked: is it an object of a kind that may come from git, and is everything about it right?
//!
//! The rules are `object::admit`'s. Here their words get places.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Document, Fault, fault};
use super::places::{Places, steps};
use crate::object::admit::{self, Coerce, ShapeKind, Step, show_path};
use crate::object::custom::Kinds;
use crate::object::{KINDS, Kind, ours};

/// An object is stored and sent as a whole. In bytes; etcd draws its line at 1.5 MiB.
const LARGEST_OBJECT: usize = 1 << 20;

/// Kinds that the cluster writes about itself. Out of a repository they would be forgeries.
const NOT_FROM_GIT: &[&str] = &["Event", "Node", "Lease", "ControllerRevision", "Release", "Rendering"];

/// Annotations that only the server writes: they prove who owns an object.
const RESERVED: &[&str] = &[ours::OWNER_ANNOTATION, ours::COMMIT_ANNOTATION, ours::ORIGIN_ANNOTATION];

/// What `kubectl get -o yaml` shows and no author means.
const SERVER_SETS: &[&str] = &["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// Checks a document's value, adding to the objects or to the faults. Lists are taken apart.
pub(super) fn check(document: &Document<'_>, value: Value, namespace: &str, kinds: &Kinds, found: &mut Found) {
    let places = OnceCell::new();
    let one = One { document, places: &places, namespace, kinds };
    one.check(value, &mut Vec::new(), found);
}

/// What a file turned out to hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) objects: Vec<((u32, u32), &'static Kind, Value)>,
    pub(super) faults: Vec<Fault>,
}

struct One<'a> {
    document: &'a Document<'a>,
    places: &'a OnceCell<Places>,
    namespace: &'a str,
    kinds: &'a Kinds,
}

impl One<'_> {
    fn places(&self) -> &Places {
        self.places.get_or_init(|| Places::read(self.document.text))
    }

    /// The place of a path below `base`, in the file.
    fn at(&self, base: &[Step], path: &[Step], value: bool) -> (u32, u32) {
        let full = [base, path].concat();
        self.places().find(&full, value).map_or(self.document.at, |p| self.document.shift(p))
    }

    fn check(&self, mut value: Value, base: &mut Vec<Step>, found: &mut Found) {
        let field = |name: &str| vec![Step::Field(name.to_owned())];
        if !value.is_object() {
            let hint = "every document of a manifest begins with apiVersion and kind";
            found.faults.push(fault(self.at(base, &[], true), "this is not an object", Some(hint)));
            return;
        }
        let (version, name) = (value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default());
        if version.is_empty() || name.is_empty() {
            let missing = if version.is_empty() && name.is_empty() {
                "this is not a manifest: it has neither apiVersion nor kind"
            } else if version.is_empty() {
                "apiVersion is missing"
            } else {
                "kind is missing"
            };
            let known = KINDS.iter().find(|k| k.kind == name).map(|k| format!("{name} is served as {}", k.api_version()));
            let hint = known
                .unwrap_or_else(|| "other files may stay in a hidden directory, or outside of the Application's path".to_owned());
            found.faults.push(fault(self.at(base, &[], true), missing, Some(&hint)));
            return;
        }
        if name.ends_with("List") && value["items"].is_array() {
            let items = value["items"].take();
            let deep = base.len() > 8; // a list of lists of lists is nobody's manifest
            for (n, item) in items.as_array().into_iter().flatten().enumerate().take(if deep { 0 } else { usize::MAX }) {
                base.extend([Step::Field("items".to_owned()), Step::Index(n)]);
                self.check(item.clone(), base, found);
                base.truncate(base.len() - 2);
            }
            return;
        }
        let Some(kind) = self.kinds.of(version, name) else {
            let (step, message, hint) = unknown(version, name);
            found.faults.push(Fault { at: self.at(base, &field(step), true), message, hint });
            return;
        };
        if NOT_FROM_GIT.contains(&kind.kind) && kind.custom.is_none() {
            let at = self.at(base, &field("kind"), true);
            found.faults.push(fault(
                at,
                format!("{}: the cluster writes these itself; they do not come from git", kind.kind),
                None,
            ));
            return;
        }
        let at = self.document.at;
        let at = if base.is_empty() { at } else { self.at(base, &[], true) };
        let before = found.faults.len();
        self.object(kind, &mut value, base, &mut found.faults);
        if found.faults.len() == before {
            found.objects.push((at, kind.stored(), value));
        }
    }

    fn object(&self, kind: &'static Kind, value: &mut Value, base: &[Step], faults: &mut Vec<Fault>) {
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let who = if name.is_empty() { kind.kind.to_owned() } else { format!("{} {name}", kind.kind) };
        let path = |field: &str| steps(field);
        let mut say = |path: &[Step], value: bool, text: &str, hint: Option<String>| {
            let shown = show_path(path);
            let message = if shown.is_empty() { format!("{who}: {text}") } else { format!("{who}: {shown}: {text}") };
            faults.push(Fault { at: self.at(base, path, value), message, hint });
        };

        if let Some(fields) = value.as_object_mut() {
            fields.remove("status");
        }
        if let Some(meta) = value["metadata"].as_object_mut() {
            for field in SERVER_SETS {
                meta.remove(*field);
            }
        }

        // First the shape. In a list's items the scalars' own quotes are looked up below the item.
        let plain = |path: &[Step]| self.places().plain(&[base, path].concat());
        let mode = if self.document.json { Coerce::Json } else { Coerce::YamlPlain(&plain) };
        let misfits = admit::shape(kind, value, mode);
        let mut parents_mended: BTreeSet<Vec<Step>> = BTreeSet::new();
        for misfit in misfits.iter().filter(|m| m.kind == ShapeKind::Unknown) {
            if let (Some(meant), Some((_, parent))) = (&misfit.suggestion, misfit.path.split_last()) {
                parents_mended.insert([parent, &[Step::Field(meant.clone())]].concat());
            }
        }
        for misfit in &misfits {
            // A missing `selector` beside an unknown `selectors` is one mistake.
            if misfit.kind == ShapeKind::Missing && parents_mended.contains(&misfit.path) {
                continue;
            }
            let hint = misfit.suggestion.as_ref().map(|s| match s.starts_with('"') {
                true => format!("write `{s}`"),
                false => format!("did you mean `{s}`?"),
            });
            match (misfit.kind, misfit.path.split_last()) {
                (ShapeKind::Missing, Some((_, parent))) => say(parent, false, &misfit.message, hint),
                _ => say(&misfit.path, misfit.kind != ShapeKind::Unknown, &misfit.message, hint),
            }
        }

        // Then what a repository may not say, whatever the API would take.
        let meta = &value["metadata"];
        if name.is_empty() {
            let text = "metadata.name is missing";
            let hint = meta["generateName"].is_string().then(|| "generated names cannot be found again: give a name".to_owned());
            say(&path("metadata"), false, text, hint);
        }
        for (field, why) in [
            ("ownerReferences", "owners have uids, which only the cluster knows"),
            ("deletionTimestamp", "to delete an object, remove it from git"),
        ] {
            if !meta[field].is_null() {
                say(&path(&format!("metadata.{field}")), false, "this does not come from git", Some(why.to_owned()));
            }
        }
        for annotation in RESERVED {
            if !meta["annotations"][annotation].is_null() {
                let at = [path("metadata.annotations"), vec![Step::Field((*annotation).to_owned())]].concat();
                say(&at, false, "only the server writes this annotation", None);
            }
        }
        if !kind.namespaced {
            if let Some(fields) = value["metadata"].as_object_mut()
                && let Some(set) = fields.remove("namespace").filter(|n| n.as_str() != Some(""))
            {
                say(&path("metadata.namespace"), true, &format!("objects of this kind have no namespace, found {set}"), None);
            }
        } else if value["metadata"].is_object() && value["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
            value["metadata"]["namespace"] = self.namespace.into();
        }

        // Then what it means. Where the shape was wrong, what follows from that is not said again.
        if !value["metadata"].is_object() {
            return;
        }
        // From here on in the words in which it is stored.
        *value = kind.store(value.take());
        let kind = kind.rules();
        admit::prepare(kind, value);
        let mut said: Vec<String> = misfits.iter().map(|m| show_path(&m.path)).collect();
        said.extend(parents_mended.iter().map(|p| show_path(p)));
        if name.is_empty() {
            said.push("metadata.name".to_owned());
        }
        for cause in admit::problems(kind, value, None) {
            if said.iter().any(|s| cause.field.starts_with(s.as_str()) || s.starts_with(&cause.field)) {
                continue;
            }
            say(&steps(&cause.field), true, &cause.message, None);
        }
        let size = serde_json::to_vec(value).map_or(0, |v| v.len());
        if size > LARGEST_OBJECT {
            say(&[], false, &format!("the object is larger than {} MiB", LARGEST_OBJECT >> 20), None);
        }
    }
}

/// Which of apiVersion and kind to blame, what to say, and what may have been meant.
fn unknown(version: &str, name: &str) -> (&'static str, String, Option<String>) {
    let same: Vec<&Kind> = KINDS.iter().filter(|k| k.kind == name).collect();
    if !same.is_empty() {
        let served = same.iter().map(|k| k.api_version()).collect::<Vec<_>>().join(" or ");
        return ("apiVersion", format!("there is no {name} in {version:?}"), Some(format!("did you mean `{served}`?")));
    }
    // What is longer than any kind is near to none, and to compare it takes as long as it is.
    let close = KINDS.iter().filter(|k| k.kind.len().abs_diff(name.len()) <= 3);
    let near = |k: &&Kind| strsim::damerau_levenshtein(&k.kind.to_lowercase(), &name.to_lowercase());
    let nearest = close.map(|k| (near(&k), k)).min_by_key(|(d, _)| *d).filter(|(d, _)| *d <= (name.len() / 3).clamp(1, 3));
    let hint = match nearest {
        Some((_, kind)) => Some(format!("did you mean `{}` ({})?", kind.kind, kind.api_version())),
        None if matches!(name, "Kustomization" | "Chart") => {
            Some("this version of portolan renders plain manifests; render them before they are committed".to_owned())
        }
        None => Some("`portolan get --help` lists the kinds that are known".to_owned()),
    };
    ("kind", format!("unknown kind {name:?} in {version:?}"), hint)
}
