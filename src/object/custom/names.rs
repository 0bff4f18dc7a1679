//! The order of versions, and which names of a definition are still free.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::super::{KINDS, Object};

/// Which of two versions clients should prefer: `v2` before `v1` before `v1beta2` before `v1alpha1`, and anything else after them by
/// name.
pub fn prefer(one: &str, two: &str) -> Ordering {
    /// Smaller is better: stability, then the numbers backwards.
    fn rank(version: &str) -> Option<(u8, std::cmp::Reverse<u64>, std::cmp::Reverse<u64>)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(digits);
        let major = std::cmp::Reverse(major.parse().ok()?);
        let minor = |text: &str| text.parse().ok().map(std::cmp::Reverse);
        if rest.is_empty() {
            return Some((0, major, std::cmp::Reverse(0)));
        }
        match rest.strip_prefix("beta") {
            Some(number) => Some((1, major, minor(number)?)),
            None => Some((2, major, minor(rest.strip_prefix("alpha")?)?)),
        }
    }
    match (rank(one), rank(two)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(two),
    }
}

/// The names that a definition asks for and another kind of the same group has: a sentence, and the reason Kubernetes gives for it.
/// `others` are the other definitions.
pub fn conflict<'a>(definition: &Value, others: impl Iterator<Item = &'a Object>) -> Option<(&'static str, String)> {
    let spec = &definition["spec"];
    let group = spec["group"].as_str().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    let mut kinds: Vec<String> = Vec::new();
    for kind in KINDS.iter().filter(|k| k.group == group) {
        words.extend([kind.plural, kind.singular].iter().chain(kind.short).map(|w| (*w).to_owned()));
        kinds.extend([kind.kind.to_owned(), format!("{}List", kind.kind)]);
    }
    for other in others {
        let other = other.value();
        if other["spec"]["group"] != group {
            continue;
        }
        let accepted = &other["status"]["acceptedNames"];
        let text = |name: &str| accepted[name].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        words.extend(["plural", "singular"].iter().filter_map(|n| text(n)));
        words.extend(accepted["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        kinds.extend(["kind", "listKind"].iter().filter_map(|n| text(n)));
    }
    let names = &spec["names"];
    let text = |name: &str| names[name].as_str().unwrap_or_default();
    let short = names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|w| ("ShortNamesConflict", w));
    let asked = [("PluralConflict", text("plural")), ("SingularConflict", text("singular"))].into_iter().chain(short);
    for (reason, word) in asked {
        if words.iter().any(|taken| taken == word) {
            return Some((reason, format!("{word:?} is already in use")));
        }
    }
    let asked = [("KindConflict", text("kind")), ("ListKindConflict", text("listKind"))];
    asked
        .into_iter()
        .find(|(_, word)| kinds.iter().any(|taken| taken == word))
        .map(|(reason, word)| (reason, format!("{word:?} is already in use")))
}

/// The status that follows from a definition and the others: which names it has, whether its kind may be used, which versions are
/// stored. `now` is in the form of the API.
pub fn status<'a>(definition: &Value, others: impl Iterator<Item = &'a Object>, full: bool, now: &str) -> Value {
    let spec = &definition["spec"];
    let before = &definition["status"];
    let refused = conflict(definition, others);
    let condition = |r#type: &str, truth: bool, reason: &str, message: &str| {
        let status = if truth { "True" } else { "False" };
        let old = before["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == r#type);
        let since = match old {
            Some(old) if old["status"] == status => old["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        json!({"type": r#type, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    };
    let was_established =
        before["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True");
    let accepted = match &refused {
        None => condition("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => condition("NamesAccepted", false, reason, message),
    };
    let established = match &refused {
        _ if full => condition("Established", false, "Full", &super::Full.to_string()),
        None => condition("Established", true, "InitialNamesAccepted", "the initial names have been accepted"),
        // Names that were good once are not taken away from the objects that have them.
        Some(_) if was_established => {
            condition("Established", true, "InitialNamesAccepted", "the initial names have been accepted")
        }
        Some(_) => condition("Established", false, "NotAccepted", "not all names are accepted"),
    };
    let names = match &refused {
        None => spec["names"].clone(),
        Some(_) => before["acceptedNames"].clone(),
    };
    let mut conditions = vec![accepted, established];
    let ours = |c: &&Value| !matches!(c["type"].as_str(), Some("NamesAccepted" | "Established"));
    conditions.extend(before["conditions"].as_array().into_iter().flatten().filter(ours).cloned());
    let mut stored: Vec<Value> = before["storedVersions"].as_array().cloned().unwrap_or_default();
    let storage = spec["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true).map(|v| v["name"].clone());
    stored.extend(storage.filter(|v| !stored.contains(v)));
    json!({"acceptedNames": names, "conditions": conditions, "storedVersions": stored})
}
