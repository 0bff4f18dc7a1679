//! What can be told of an object's JSON by its bytes alone, because a [`Draft`](super::Draft) wrote it: without spaces,
//! `apiVersion` and `kind` first, then `metadata`, then all others. For what is asked of very many objects, or very often.
//!
//! You will not find here: anything that takes other people's JSON. What needs a parser is for [`sieve`](super::sieve).

use std::borrow::Cow;

use super::{Kind, fields};

/// The row of a record that begins as a draft writes it; of any other, and of a kind that is not in the program, none.
pub(super) fn kind(json: &[u8]) -> Option<&'static Kind> {
    let (api_version, rest) = text_after(json, b"{\"apiVersion\":\"")?;
    let (kind, _) = text_after(rest, b"\"kind\":\"")?;
    Kind::of(api_version, kind)
}

/// The plain text that follows `name` at the beginning of `json`, and what comes behind its end and the comma.
fn text_after<'a>(json: &'a [u8], name: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let rest = json.strip_prefix(name)?;
    let end = rest.iter().position(|b| *b == b'"')?;
    Some((std::str::from_utf8(&rest[..end]).ok()?, rest[end..].strip_prefix(b"\",")?))
}

/// A document of ours without its `managedFields`. The name in quotes is found nowhere inside of a text, where quotes are escaped, and
/// `metadata` comes before everything that could have another list of that name.
pub(super) fn unmanaged(json: &[u8]) -> Cow<'_, [u8]> {
    const NAME: &[u8] = b",\"managedFields\":[";
    let Some(start) = json.windows(NAME.len()).position(|w| w == NAME) else { return Cow::Borrowed(json) };
    // What has no end is left alone.
    match fields::pass(json, start + NAME.len() - 1) {
        Some(end) => Cow::Owned([&json[..start], &json[end..]].concat()),
        None => Cow::Borrowed(json),
    }
}

/// How often a container of a pod was restarted at most.
pub(super) fn restarts(json: &[u8]) -> i32 {
    const COUNT: &[u8] = b"\"restartCount\":";
    const STATUS: &[u8] = b"\"status\":{";
    // The status comes last. Within a text its quotes would be escaped.
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|part| part == what);
    let Some(mut rest) = json.windows(STATUS.len()).rposition(|part| part == STATUS).map(|at| &json[at..]) else { return 0 };
    let mut most = 0;
    while let Some(at) = find(rest, COUNT) {
        rest = &rest[at + COUNT.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        most = most.max(digits.fold(0i32, |n, digit| n.saturating_mul(10).saturating_add(i32::from(digit - b'0'))));
    }
    most
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::super::{Draft, kind_of};
    use super::*;

    #[test]
    fn the_kind_of_what_a_draft_wrote() {
        let written = |value: Value| Draft::new(Kind::of_value(&value).unwrap(), value).seal(7);
        let web = written(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}));
        assert_eq!(kind(&web.json()), Some(web.key.kind));
        for other in [
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#,
            r#"{"apiVersion": "v1","kind":"Pod","metadata":{}}"#,
            r#"{"apiVersion":"v1","kind":"Nothing","metadata":{}}"#,
            r#"{"apiVersion":"v1","kind":"Po"#,
            "",
        ] {
            assert_eq!(kind(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn managed_fields_are_cut_out_whatever_their_texts_say() {
        for (json, expected) in [
            (r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":"a"}}"#),
            (r#"{"metadata":{"l":"x","managedFields":[],"name":"a"}}"#, r#"{"metadata":{"l":"x","name":"a"}}"#),
            (r#"{"metadata":{"l":"x","managedFields":[{"m":"]}\"\\"},["]"]]}}"#, r#"{"metadata":{"l":"x"}}"#),
            (r#"{"metadata":{"l":",\"managedFields\":["}}"#, r#"{"metadata":{"l":",\"managedFields\":["}}"#),
            // Only the first list of that name is the system's.
            (
                r#"{"m":{"l":1,"managedFields":[1]},"s":{"l":1,"managedFields":[2]}}"#,
                r#"{"m":{"l":1},"s":{"l":1,"managedFields":[2]}}"#,
            ),
            // What has no end is left alone.
            (r#"{"metadata":{"l":"x","managedFields":[{"#, r#"{"metadata":{"l":"x","managedFields":[{"#),
        ] {
            assert_eq!(String::from_utf8_lossy(&unmanaged(json.as_bytes())), expected, "{json}");
        }
    }

    #[test]
    fn restarts_are_read_off_any_version_of_a_pod() {
        let pod = |status: Value| {
            let spec = json!({"containers": [{"name": "c", "env": [{"name": "X", "value": "\"status\":{\"restartCount\":9"}]}]});
            let metadata = json!({"name": "p", "namespace": "default", "annotations": {"restartCount": "7"}});
            Draft::new(kind_of::<Pod>(), json!({"metadata": metadata, "spec": spec, "status": status})).seal(1).json()
        };
        let of =
            |counts: &[i32]| counts.iter().map(|n| json!({"name": "c", "restartCount": n, "message": "}"})).collect::<Vec<_>>();
        for (status, most) in [
            (json!({}), 0),
            (json!({"phase": "Running", "containerStatuses": of(&[0])}), 0),
            (json!({"containerStatuses": of(&[1, 12, 3]), "initContainerStatuses": of(&[2])}), 12),
            (json!({"containerStatuses": of(&[1]), "initContainerStatuses": of(&[20])}), 20),
            (json!({"message": "\"restartCount\":5", "containerStatuses": of(&[i32::MAX])}), i32::MAX),
        ] {
            assert_eq!(restarts(&pod(status.clone())), most, "{status}");
        }
        let none = Draft::new(kind_of::<Pod>(), json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {}})).seal(1);
        assert_eq!(restarts(&none.json()), 0);
    }
}
