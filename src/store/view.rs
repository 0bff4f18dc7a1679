//! One immutable state of everything, at one revision.
//!
//! A view costs a few reference counts to take, because the maps underneath share their unchanged parts. Indexes that loops and watches
//! live on are here too: by owner, and by a few fields. Selectors by label are a filter over `list_in`: the caller's business.

use std::sync::{Arc, LazyLock};

use imbl::OrdMap;

use crate::object::admit::Around;
use crate::object::{KINDS, Key, Kind, Object, Revision};

/// Fields with an index: (group, plural, path). Other selectable fields are found by a scan of their kind.
const INDEXED: &[(&str, &str, &str)] =
    &[("", "pods", "spec.nodeName"), ("", "events", "involvedObject.uid"), ("portolan.dev", "releases", "spec.application")];

/// Namespace and name: the order in which objects of a kind are listed.
type Name = (Arc<str>, Arc<str>);

/// Everything, as it was at one revision. Cheap to clone and to keep for a while; what it shows never changes.
#[derive(Clone)]
pub struct View {
    pub(super) revision: Revision,
    tables: Arc<Vec<Table>>,
    /// By the uid of each owner.
    owned: OrdMap<(Arc<str>, Key), Arc<Object>>,
    /// Who holds what only one may hold.
    claims: OrdMap<Arc<str>, Key>,
}

/// Objects by the value of one of their fields.
type ByValue = OrdMap<(Arc<str>, Name), Arc<Object>>;

/// The objects of one kind.
#[derive(Clone, Default)]
struct Table {
    objects: OrdMap<Name, Arc<Object>>,
    /// For each indexed field: its place in `Meta::fields`, and objects by its value. Objects without the field are not in it.
    fields: Vec<(usize, ByValue)>,
}

/// The objects of one kind as they were at one time. Cheap to take and to keep.
#[derive(Clone, Default)]
pub struct Shelf(OrdMap<Name, Arc<Object>>);

/// One object before and after: both, or one of them.
pub type Step = (Option<Arc<Object>>, Option<Arc<Object>>);

impl Shelf {
    /// Whether nothing was written between the two. Costs a comparison of two addresses.
    pub fn same(&self, other: &Shelf) -> bool {
        self.0.ptr_eq(&other.0)
    }
    /// What has changed from here to another shelf of the same kind. Costs a walk over both.
    pub fn steps(&self, to: &Shelf) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut before, mut after) = (self.0.iter().peekable(), to.0.iter().peekable());
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return steps,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let old = if order.is_le() { before.next().map(|(_, o)| o) } else { None };
            let new = if order.is_ge() { after.next().map(|(_, o)| o) } else { None };
            if let (Some(old), Some(new)) = (old, new)
                && Arc::ptr_eq(old, new)
            {
                continue;
            }
            steps.push((old.cloned(), new.cloned()));
        }
    }
}

impl View {
    pub(super) fn empty() -> Self {
        let table = |kind: &Kind| Table {
            objects: OrdMap::new(),
            fields: INDEXED
                .iter()
                .filter(|(group, plural, _)| (*group, *plural) == (kind.group, kind.plural))
                .filter_map(|(_, _, path)| Some((kind.selectable.iter().position(|s| s == path)?, OrdMap::new())))
                .collect(),
        };
        View { revision: 0, tables: Arc::new(KINDS.iter().map(table).collect()), owned: OrdMap::new(), claims: OrdMap::new() }
    }

    /// The revision of the last write that this view contains.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.table(key.kind).objects.get(&name_of(key))
    }

    /// All objects of a kind, ordered by namespace and name.
    pub fn list(&self, kind: &'static Kind) -> impl Iterator<Item = &Arc<Object>> + '_ {
        self.table(kind).objects.values()
    }

    /// All objects of a kind in one namespace, ordered by name.
    pub fn list_in<'a>(&'a self, kind: &'static Kind, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let start: Name = (namespace.into(), "".into());
        self.table(kind).objects.range(start..).take_while(move |((ns, _), _)| &**ns == namespace).map(|(_, object)| object)
    }

    /// All objects of a kind after this namespace and name, in order: the next page of a list.
    pub fn list_after<'a>(
        &'a self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        use std::ops::Bound::{Excluded, Unbounded};
        let start: Name = (namespace.into(), name.into());
        self.table(kind).objects.range((Excluded(start), Unbounded)).map(|(_, object)| object)
    }

    /// All objects of a kind whose selectable field has this value, ordered by namespace and name.
    ///
    /// `spec.nodeName` of pods, `involvedObject.uid` of events and `spec.application` of releases are indexed, except for the empty
    /// value; anything else costs a scan of the kind. A path that is not selectable finds nothing.
    pub fn by_field<'a>(
        &'a self,
        kind: &'static Kind,
        path: &str,
        value: &'a str,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let table = self.table(kind);
        let Some(place) = kind.selectable.iter().position(|s| *s == path) else {
            return Box::new(std::iter::empty());
        };
        match table.fields.iter().find(|(at, _)| *at == place) {
            Some((_, index)) if !value.is_empty() => {
                let start: (Arc<str>, Name) = (value.into(), ("".into(), "".into()));
                Box::new(index.range(start..).take_while(move |((v, _), _)| &**v == value).map(|(_, object)| object))
            }
            _ => Box::new(table.objects.values().filter(move |o| o.meta.fields.get(place) == Some(value))),
        }
    }

    /// All objects, of any kind, that name this uid in their `ownerReferences`.
    pub fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let start: (Arc<str>, Key) = (uid.into(), Key::new(first_kind(), "", ""));
        self.owned.range(start..).take_while(move |((u, _), _)| &**u == uid).map(|(_, object)| object)
    }

    /// Who holds what only one may hold (`Meta::claims`).
    pub fn claimant(&self, claim: &str) -> Option<&Key> {
        self.claims.get(claim)
    }

    /// How many objects of a kind there are.
    pub fn len(&self, kind: &'static Kind) -> usize {
        self.table(kind).objects.len()
    }

    /// Whether there is no object of a kind.
    pub fn is_empty(&self, kind: &'static Kind) -> bool {
        self.table(kind).objects.is_empty()
    }

    /// The objects of one kind as they are here, for somebody who wants to know later what has changed.
    pub fn shelf(&self, kind: &'static Kind) -> Shelf {
        Shelf(self.table(kind).objects.clone())
    }

    /// The rows of all kinds of which there is an object.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.tables.iter().filter_map(|table| table.objects.values().next().map(|object| object.key.kind))
    }

    /// Everything, kind by kind in the order of `KINDS`.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Object>> + '_ {
        self.tables.iter().flat_map(|table| table.objects.values())
    }

    pub(super) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let name = name_of(&object.key);
        let (tables, slot) = (Arc::make_mut(&mut self.tables), slot(object.key.kind));
        if slot >= tables.len() {
            // A kind that somebody defined. The number of those is bounded where they are made.
            tables.resize_with(slot + 1, Table::default);
        }
        let table = &mut tables[slot];
        let old = table.objects.insert(name.clone(), object.clone());
        for (place, index) in &mut table.fields {
            let value = |o: &Object| o.meta.fields.get(*place).filter(|v| !v.is_empty()).map(Arc::<str>::from);
            let (before, after) = (old.as_deref().and_then(value), value(&object));
            if let Some(before) = before
                && after.as_ref() != Some(&before)
            {
                index.remove(&(before, name.clone()));
            }
            if let Some(after) = after {
                index.insert((after, name.clone()), object.clone());
            }
        }
        for owner in old.iter().flat_map(|o| o.meta.owners.iter()) {
            if !object.meta.owners.iter().any(|o| o.uid == owner.uid) {
                self.owned.remove(&(owner.uid.as_str().into(), object.key.clone()));
            }
        }
        for owner in object.meta.owners.iter() {
            self.owned.insert((owner.uid.as_str().into(), object.key.clone()), object.clone());
        }
        if let Some(old) = &old {
            self.let_go(old);
        }
        for claim in &object.meta.claims {
            self.claims.insert(claim.as_str().into(), object.key.clone());
        }
        old
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let name = name_of(key);
        let table = Arc::make_mut(&mut self.tables).get_mut(slot(key.kind))?;
        let old = table.objects.remove(&name)?;
        for (place, index) in &mut table.fields {
            if let Some(value) = old.meta.fields.get(*place) {
                index.remove(&(value.into(), name.clone()));
            }
        }
        for owner in old.meta.owners.iter() {
            self.owned.remove(&(owner.uid.as_str().into(), key.clone()));
        }
        self.let_go(&old);
        Some(old)
    }

    /// Takes back what an object held, unless somebody else was given it in the same transaction.
    fn let_go(&mut self, old: &Object) {
        for claim in &old.meta.claims {
            if self.claims.get(claim.as_str()) == Some(&old.key) {
                self.claims.remove(claim.as_str());
            }
        }
    }

    fn table(&self, kind: &'static Kind) -> &Table {
        static NOTHING: LazyLock<Table> = LazyLock::new(Table::default);
        self.tables.get(slot(kind)).unwrap_or(&NOTHING)
    }
}

impl Around for View {
    fn is_claimed(&self, claim: &str) -> bool {
        self.claims.contains_key(claim)
    }
    fn of_kind(&self, kind: &'static Kind) -> Vec<Arc<Object>> {
        self.list(kind).cloned().collect()
    }
    fn object(&self, key: &Key) -> Option<Arc<Object>> {
        self.get(key).cloned()
    }
}

fn name_of(key: &Key) -> Name {
    (key.namespace.clone(), key.name.clone())
}

/// The kind that sorts before all others, for the lower end of a range of keys.
fn first_kind() -> &'static Kind {
    KINDS.iter().min().expect("there are kinds")
}

/// A kind's place: in `KINDS`, or after them. Rows are compared by address first: nearly always right, and no strings are read.
pub(super) fn slot(kind: &'static Kind) -> usize {
    if let Some(custom) = kind.custom {
        return KINDS.len() + custom.slot;
    }
    KINDS
        .iter()
        .position(|k| std::ptr::eq(k, kind))
        .or_else(|| KINDS.iter().position(|k| k == kind))
        .expect("a key's kind is a row of KINDS")
}
