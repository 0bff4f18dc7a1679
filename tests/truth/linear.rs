//! Whether what concurrent clients saw of one key could have happened one call after the other (Wing and Gong's search, with a memory).
//!
//! It believes no revision: each write has a mark of its own, and a version is named by the mark that it carries. Revisions only have to
//! agree with the order that was found.

use std::collections::HashSet;

/// What a client asked of the key. Writes carry their mark; conditional ones name the mark that they were decided from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Act {
    Get,
    Create(u64),
    Update { read: u64, write: u64 },
    Patch(u64),
    Delete,
    DeleteIf(u64),
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Told {
    /// The mark that is there; `None`: nothing is there.
    Seen(Option<u64>),
    Done,
    Exists,
    Missing,
    Changed,
    /// Nothing: it may have happened, now or later or never.
    Unknown,
}

/// One call: when it began and ended (in any unit), what was asked and told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) act: Act,
    pub(crate) told: Told,
    /// The revision of the write, when one was told.
    pub(crate) revision: Option<u64>,
}

type State = Option<u64>;

/// The state after a call, if it could have been told this in this state.
fn apply(call: &Call, state: State) -> Option<State> {
    let effect = match (call.act, state) {
        (Act::Get, _) => None,
        (Act::Create(write), None) => Some(Some(write)),
        (Act::Update { read, write }, Some(is)) if is == read => Some(Some(write)),
        (Act::Patch(write), Some(_)) => Some(Some(write)),
        (Act::Delete, Some(_)) => Some(None),
        (Act::DeleteIf(read), Some(is)) if is == read => Some(None),
        _ => None,
    };
    match call.told {
        Told::Seen(mark) => (mark == state).then_some(state),
        Told::Done => effect,
        Told::Exists => state.is_some().then_some(state),
        Told::Missing => state.is_none().then_some(state),
        Told::Changed => (state.is_some() && effect.is_none()).then_some(state),
        Told::Unknown => effect,
    }
}

/// Looks for an order. An error names the calls behind the longest one that could be found.
pub(crate) fn check(calls: &[Call]) -> Result<(), String> {
    let mut calls: Vec<Call> = calls.to_vec();
    for call in &mut calls {
        if call.told == Told::Unknown {
            call.end = u64::MAX;
        }
    }
    calls.sort_by_key(|c| (c.begin, c.end));
    let known = calls.iter().filter(|c| c.told != Told::Unknown).count();
    let mut best = (0, Vec::new());
    let mut been = HashSet::new();
    let mut open = vec![(vec![0u64; calls.len().div_ceil(64)], None::<u64>, 0u64, 0usize)];
    while let Some((mut done, state, newest, mut count)) = open.pop() {
        let has = |done: &[u64], at: usize| done[at / 64] >> (at % 64) & 1 == 1;
        // What changes nothing and fits now may as well be now.
        let candidates = loop {
            let left = || (0..calls.len()).filter(|at| !has(&done, *at));
            let first_end = left().map(|at| calls[at].end).min().unwrap_or(u64::MAX);
            let next: Vec<usize> = left().take_while(|at| calls[*at].begin <= first_end).collect();
            let quiet = next.iter().find(|at| {
                let call = &calls[**at];
                !matches!(call.told, Told::Done | Told::Unknown) && apply(call, state) == Some(state)
            });
            match quiet {
                Some(at) => {
                    done[at / 64] |= 1 << (at % 64);
                    count += 1;
                }
                None => break next,
            }
        };
        if count == known {
            return Ok(());
        }
        if count >= best.0 {
            let stuck = candidates.iter().take(8).map(|at| format!("{:?}", calls[*at])).collect();
            best =
                (count, vec![format!("state {state:?}, newest revision {newest}")].into_iter().chain::<Vec<_>>(stuck).collect());
        }
        if !been.insert((done.clone(), state)) {
            continue;
        }
        for at in candidates.into_iter().rev() {
            let call = &calls[at];
            let Some(after) = apply(call, state) else { continue };
            // A later write has a later revision.
            if call.revision.is_some_and(|revision| revision <= newest) {
                continue;
            }
            let mut then = done.clone();
            then[at / 64] |= 1 << (at % 64);
            let counted = usize::from(call.told != Told::Unknown);
            open.push((then, after, newest.max(call.revision.unwrap_or(0)), count + counted));
        }
    }
    Err(format!("{} of {known} calls fit, then none:\n  {}", best.0, best.1.join("\n  ")))
}

fn call(begin: u64, end: u64, act: Act, told: Told) -> Call {
    Call { begin, end, act, told, revision: None }
}

#[test]
fn what_can_happen_one_after_the_other_is_accepted() {
    use Act::*;
    use Told::*;
    let fits: &[&[Call]] = &[
        &[],
        &[call(0, 1, Create(1), Done), call(2, 3, Get, Seen(Some(1))), call(4, 5, Delete, Done), call(6, 7, Get, Seen(None))],
        // At the same time, in either order.
        &[call(0, 9, Create(1), Done), call(0, 9, Get, Seen(None)), call(0, 9, Get, Seen(Some(1)))],
        &[call(0, 9, Create(1), Exists), call(0, 9, Create(2), Done), call(10, 11, Get, Seen(Some(2)))],
        &[
            call(0, 1, Create(1), Done),
            call(2, 9, Update { read: 1, write: 2 }, Done),
            call(2, 9, Update { read: 1, write: 3 }, Changed),
        ],
        // Unknown: never, at once, or long after.
        &[call(0, 1, Create(1), Unknown), call(2, 3, Get, Seen(None)), call(4, 5, Get, Seen(None))],
        &[call(0, 1, Create(1), Unknown), call(2, 3, Get, Seen(Some(1)))],
        &[call(0, 1, Create(1), Unknown), call(2, 3, Get, Seen(None)), call(4, 5, Get, Seen(Some(1)))],
        &[call(0, 1, Create(1), Done), call(2, 3, Patch(2), Unknown), call(4, 5, DeleteIf(1), Changed)],
    ];
    for calls in fits {
        check(calls).unwrap_or_else(|why| panic!("{calls:?}: {why}"));
    }
}

#[test]
fn what_cannot_is_refused() {
    use Act::*;
    use Told::*;
    let wrong: &[&[Call]] = &[
        // A stale read, an unseen write, a lost write.
        &[call(0, 1, Create(1), Done), call(2, 3, Get, Seen(None))],
        &[call(0, 1, Get, Seen(Some(1))), call(2, 3, Create(1), Done)],
        &[call(0, 1, Create(1), Done), call(2, 3, Patch(2), Done), call(4, 5, Get, Seen(Some(1)))],
        // Back in time between two readers.
        &[
            call(0, 1, Create(1), Done),
            call(2, 9, Patch(2), Done),
            call(3, 4, Get, Seen(Some(2))),
            call(5, 6, Get, Seen(Some(1))),
        ],
        // Two that both won.
        &[call(0, 9, Create(1), Done), call(0, 9, Create(2), Done)],
        &[
            call(0, 1, Create(1), Done),
            call(2, 9, Update { read: 1, write: 2 }, Done),
            call(2, 9, Update { read: 1, write: 3 }, Done),
        ],
        // Refused for no reason.
        &[call(0, 1, Create(1), Exists)],
        &[call(0, 1, Create(1), Done), call(2, 3, Update { read: 1, write: 2 }, Changed)],
        &[call(0, 1, Create(1), Done), call(2, 3, Delete, Missing)],
        // Unknown once, and seen to happen twice.
        &[
            call(0, 1, Create(1), Unknown),
            call(2, 3, Get, Seen(Some(1))),
            call(4, 5, Delete, Done),
            call(6, 7, Get, Seen(Some(1))),
        ],
    ];
    for calls in wrong {
        assert!(check(calls).is_err(), "{calls:?}");
    }
    // A later write with an earlier revision.
    let with = |call: Call, revision| Call { revision: Some(revision), ..call };
    let calls = [with(call(0, 1, Create(1), Done), 7), with(call(2, 3, Patch(2), Done), 6)];
    assert!(check(&calls).is_err());
}
