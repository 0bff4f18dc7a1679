//! Very long lists: nothing takes longer than they are long.

use super::*;
use crate::object::schema::{self, Form, Text, Type};

/// One list in one kind.
#[derive(Clone, Debug)]
struct Place {
    kind: &'static Kind,
    path: Vec<&'static str>,
}

/// Every list of every structure, once.
fn lists() -> Vec<Place> {
    fn walk(
        kind: &'static Kind,
        of: Type,
        path: &mut Vec<&'static str>,
        seen: &mut Vec<&'static schema::Struct>,
        found: &mut Vec<Place>,
    ) {
        match of.form() {
            Form::Struct(shape) if path.len() < 12 && !seen.iter().any(|known| std::ptr::eq(*known, shape)) => {
                seen.push(shape);
                for (name, field) in &shape.fields {
                    path.push(name);
                    walk(kind, field.of, path, seen, found);
                    path.pop();
                }
            }
            Form::List(item) => {
                found.push(Place { kind, path: path.clone() });
                path.push("");
                walk(kind, *item, path, seen, found);
                path.pop();
            }
            _ => {}
        }
    }
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    for kind in KINDS.iter().filter(|kind| kind.alias.is_none()) {
        walk(kind, schema::of(kind), &mut Vec::new(), &mut seen, &mut found);
    }
    found
}

/// Something of a type, as unlike others of it as it can be.
fn sample(of: Type, number: usize, depth: usize) -> Value {
    match of.form() {
        Form::Any | Form::Open => json!({}),
        Form::Boolean => (number % 2 == 1).into(),
        Form::Integer(least, most) => ((number as i64 + 1).max(*least).min(i64::try_from(*most).unwrap_or(i64::MAX))).into(),
        Form::Number | Form::IntOrText => (number + 1).into(),
        Form::Quantity => number.to_string().into(),
        Form::Text(Text::Plain) => format!("x{number}").into(),
        Form::Text(Text::Bytes) => "eA==".into(),
        Form::Text(Text::Time(_)) => "2026-11-21T10:00:00Z".into(),
        Form::Text(Text::OneOf(words)) => words[number % words.len()].as_str().into(),
        Form::Map(of) => json!({format!("x{number}"): sample(*of, number, depth + 1)}),
        Form::List(of) => json!([sample(*of, number, depth + 1)]),
        Form::Struct(shape) => {
            let plain = |field: &schema::Field| {
                !matches!(field.of.form(), Form::Struct(_) | Form::List(_) | Form::Map(_) | Form::Any | Form::Open)
            };
            let fields = shape.fields.iter().filter(|(_, field)| depth < 3 && (field.required || plain(field)));
            Value::Object(fields.map(|(name, field)| (name.clone(), sample(field.of, number, depth + 1))).collect())
        }
    }
}

/// An object that is nothing but one long list.
fn long(place: &Place, length: usize, salt: usize) -> Value {
    fn build(of: Type, path: &[&str], length: usize, salt: usize) -> Value {
        match (of.form(), path.split_first()) {
            (Form::List(item), None) => (0..length).map(|n| sample(*item, n + salt, 0)).collect(),
            (Form::List(item), Some((_, rest))) => {
                let mut one = sample(*item, 0, 0);
                if let (Value::Object(one), Value::Object(more)) = (&mut one, build(*item, rest, length, salt)) {
                    one.extend(more);
                }
                json!([one])
            }
            (_, Some((name, rest))) => {
                let field = of.field(name).expect("the walk was here");
                json!({*name: build(field.of, rest, length, salt)})
            }
            _ => Value::Null,
        }
    }
    let mut value = build(schema::of(place.kind), &place.path, length, salt);
    let mut meta = value["metadata"].as_object().cloned().unwrap_or_default();
    meta.entry("name").or_insert("a".into());
    if place.kind.namespaced {
        meta.entry("namespace").or_insert("shop".into());
    }
    value["metadata"] = meta.into();
    value["apiVersion"] = place.kind.api_version().into();
    value["kind"] = place.kind.kind.into();
    value
}

/// What takes a moment for ten elements takes no minute for as many as fit into a request: nothing compares each with each. Compiled
/// without optimisation, each of these is a second; what is quadratic is some hundred.
#[test]
#[allow(clippy::disallowed_methods)] // only a test may look at the clock here
fn long_lists_take_no_longer_than_they_are_long() {
    const LENGTH: usize = 15_000;
    let mut places = lists();
    assert!(places.len() > 150, "{}", places.len());
    if times().is_none() {
        places = places.into_iter().skip(7).step_by(40).collect();
    }
    let mut slow = Vec::new();
    for place in places {
        let (old, new) = (long(&place, LENGTH, 0), long(&place, LENGTH, LENGTH / 2));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let kind = place.kind;
        let mut step = |what: &str, run: &mut dyn FnMut()| {
            let begin = std::time::Instant::now();
            run();
            if begin.elapsed() > std::time::Duration::from_secs(60) {
                slow.push(format!("{what} of {} {}: {:?}", kind.kind, place.path.join("."), begin.elapsed()));
            }
        };
        step("shape", &mut || drop(admit::shape(kind, &mut new.clone(), Coerce::Json)));
        let mut prepared = old.clone();
        step("prepare", &mut || admit::prepare(kind, &mut prepared));
        step("assign", &mut || drop(admit::assign(kind, &mut new.clone(), Some(&old), "u", &Nothing)));
        step("validate", &mut || drop(admit::create(kind, prepared.clone(), &Stamp { uid: "u".to_owned(), now })));
        let stored = crate::object::Draft::new(kind, prepared.clone()).seal(1);
        step("update", &mut || drop(admit::update(&stored, new.clone(), None, now)));
        step("status", &mut || drop(admit::update(&stored, new.clone(), Some("status"), now)));
        step("strategic merge", &mut || drop(patch::strategic(kind, &old, &new)));
        step("merge", &mut || drop(patch::merge_patch(&old, &new)));
        let mut applied = old.clone();
        step("first apply", &mut || {
            if let Ok(value) = apply::apply(kind, None, &old, "m", true, now) {
                applied = value;
            }
        });
        step("apply", &mut || drop(apply::apply(kind, Some(&applied), &new, "m", true, now)));
        step("track", &mut || managed::track(kind, Some(&applied), &mut new.clone(), "n", managed::Operation::Update, None, now));
        step("three ways", &mut || drop(patch::three_way(kind, Some(&old), &new, &applied)));
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
