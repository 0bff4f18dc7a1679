//! The store against a plain model: random transactions, crashes at any step of the disk, and starting again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::engine::memory::Disk;
use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Several writes: key, what to do, and how old the version is that it was decided from.
    Commit(Vec<(u8, Act, u8)>),
    /// The disk does steps.
    Disk(u8),
    /// Power goes; of what is not synced this many groups survive.
    Crash(u8),
    /// The past is forgotten, except for this many revisions.
    Compact(u8),
    /// A watch begins this many revisions ago.
    Watch(u8),
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Create,
    Update,
    Put,
    Delete,
    Expect,
    Beat,
}

fn op() -> impl Strategy<Value = Op> {
    let act =
        prop_oneof![Just(Act::Create), Just(Act::Update), Just(Act::Put), Just(Act::Delete), Just(Act::Expect), Just(Act::Beat)];
    prop_oneof![
        8 => prop::collection::vec((0..4u8, act, 0..3u8), 1..4).prop_map(Op::Commit),
        4 => (1..4u8).prop_map(Op::Disk),
        1 => (0..3u8).prop_map(Op::Crash),
        1 => (0..10u8).prop_map(Op::Compact),
        1 => (0..10u8).prop_map(Op::Watch),
    ]
}

/// What a state should be: key to value and revision.
type State = BTreeMap<String, (u64, Revision)>;

fn state_of(view: &View) -> State {
    view.all()
        .map(|o| {
            let value =
                if o.key.kind.plural == "leases" { o.value()["spec"]["leaseTransitions"].as_u64().unwrap() } else { value(o) };
            (o.key.name.to_string(), (value, o.revision))
        })
        .collect()
}

struct World {
    disk: Disk,
    store: Store,
    steps: Stepped,
    /// The states after each revision since the last start.
    states: BTreeMap<Revision, State>,
    /// Revisions within a transaction: nothing was ever like that.
    middles: BTreeSet<Revision>,
    counter: u64,
    /// The highest revision that anybody was shown, also of writes that are not on disk.
    shown: Revision,
    watches: Vec<(Watch, State)>,
}

impl World {
    fn run(&mut self, op: &Op) {
        match op {
            Op::Commit(writes) => self.commit(writes),
            Op::Disk(steps) => {
                for _ in 0..*steps {
                    self.steps.step();
                }
            }
            Op::Crash(tail) => self.crash(*tail as usize),
            Op::Compact(keep) => self.store.compact(self.store.revision().saturating_sub(u64::from(*keep))),
            Op::Watch(back) => self.watch(self.store.durable().saturating_sub(u64::from(*back))),
        }
        self.check();
    }

    fn commit(&mut self, writes: &[(u8, Act, u8)]) {
        let before = self.states.values().next_back().unwrap().clone();
        let mut after = before.clone();
        let first = self.store.revision() + 1;
        let mut t = Txn::new();
        let mut allowed = true;
        // Of several writes to one key the last counts.
        let mut written: Vec<String> = Vec::new();
        for (key, act, age) in writes {
            self.counter += 1;
            let name = if matches!(act, Act::Beat) { format!("l{key}") } else { format!("k{key}") };
            let is = before.get(&name).map(|(_, r)| *r);
            let read = is.map_or(u64::from(*age) + 1, |r| r.saturating_sub(u64::from(*age)));
            let put = (self.counter, 0);
            if !matches!(act, Act::Expect) {
                written.retain(|w| *w != name);
                written.push(name.clone());
            }
            match act {
                Act::Create => {
                    t.create(map(&name, self.counter));
                    allowed &= is.is_none();
                    after.insert(name, put);
                }
                Act::Update => {
                    t.update(map(&name, self.counter), read);
                    allowed &= is == Some(read);
                    after.insert(name, put);
                }
                Act::Put => {
                    t.put(map(&name, self.counter));
                    after.insert(name, put);
                }
                Act::Beat => {
                    t.put(lease(&name, self.counter));
                    after.insert(name, put);
                }
                Act::Delete => {
                    t.delete(map_key(&name), (*age > 0).then_some(read));
                    allowed &= is.is_some() && (*age == 0 || is == Some(read));
                    after.remove(&name);
                }
                Act::Expect => {
                    t.expect(map_key(&name), (*age > 0).then_some(read));
                    allowed &= is == (*age > 0).then_some(read);
                }
            }
        }
        for (revision, name) in (first..).zip(&written) {
            if let Some(put) = after.get_mut(name) {
                put.1 = revision;
            }
        }
        match self.store.commit(t) {
            Ok(done) => {
                assert!(allowed, "ST6: it was decided from an old version");
                let last = first + written.len() as u64 - 1;
                assert_eq!(done.revision, last, "ST3: the next revisions, no gap");
                assert!(done.objects.iter().map(|o| o.revision).eq(first..=last), "ST3: one after the other");
                if !written.is_empty() {
                    self.states.insert(last, after);
                    self.middles.extend(first..last);
                    self.shown = self.shown.max(last);
                }
            }
            Err(conflict) => assert!(!allowed, "{conflict}, but the model allows it"),
        }
    }

    fn crash(&mut self, tail: usize) {
        let acknowledged = self.store.durable();
        self.disk = self.disk.crash(tail);
        (self.store, self.steps) = Store::stepped(self.disk.engine()).expect("what survives a crash opens");
        let now = state_of(&self.store.view());
        let (kept, _) =
            self.states.iter().rev().find(|(_, s)| **s == now).expect("ST2: a state that was, all of each transaction");
        // Several revisions may have the same state only if nothing was written between them.
        assert!(
            *kept >= acknowledged || self.states.range(kept + 1..=acknowledged).next().is_none(),
            "ST1: acknowledged and lost"
        );
        assert!(self.store.revision() >= self.shown, "ST3: a revision would be given out twice");
        self.states = BTreeMap::from([(self.store.revision(), now)]);
        self.watches.clear();
    }

    fn watch(&mut self, after: Revision) {
        match self.store.watch(Scope::all(kind_of::<ConfigMap>()), after) {
            Err(compacted) => assert!(after < self.store.floor(), "{compacted}"),
            Ok(watch) => {
                // The model only knows the states since the last start; a watch from before that is only checked for order.
                let from = self.states.range(..=after).next_back().map(|(_, s)| s.clone());
                if let Some(from) = from.filter(|_| !self.middles.contains(&after)) {
                    self.watches.push((watch, from));
                }
            }
        }
    }

    fn check(&mut self) {
        let newest = self.states.values().next_back().unwrap();
        assert_eq!(&state_of(&self.store.view()), newest);
        let durable = self.store.durable();
        let settled = self.states.range(..=durable).next_back().unwrap().1;
        assert_eq!(&state_of(&self.store.durable_view()), settled, "ST5: only what is on disk");
        for (watch, seen) in &mut self.watches {
            let mut last = 0;
            while let Some(change) = watch.try_next().unwrap() {
                assert!(change.revision > last && change.revision <= durable, "WA1");
                last = change.revision;
                let name = change.key.name.to_string();
                assert_eq!(change.old.as_ref().map(|o| o.revision), seen.get(&name).map(|(_, r)| *r), "WA1: no hole");
                match &change.new {
                    Some(new) => seen.insert(name, (value(new), new.revision)),
                    None => seen.remove(&name),
                };
            }
            assert_eq!(watch.complete(), durable, "WA2");
            let maps = settled.iter().filter(|(k, _)| k.starts_with('k')).map(|(k, v)| (k.clone(), *v)).collect::<State>();
            seen.retain(|k, _| k.starts_with('k'));
            assert_eq!(*seen, maps, "WA3");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn st1_st2_st3_st6_the_store_is_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let disk = Disk::new();
        let (store, steps) = Store::stepped(disk.engine()).unwrap();
        let states = BTreeMap::from([(store.revision(), State::new())]);
        let mut world = World { disk, store, steps, states, middles: BTreeSet::new(), counter: 0, shown: 0, watches: Vec::new() };
        for op in &ops {
            world.run(op);
        }
    }
}
