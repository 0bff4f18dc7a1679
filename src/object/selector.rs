//! Label selectors and field selectors: what they mean, and the text forms that kubectl sends.
//!
//! Which objects to look through, and with which index, is the business of the store and of whoever asks.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Typed;

use serde_json::Value;

use super::{Key, Kind, Meta, Object, field_text};

/// A text or a typed selector that says nothing sensible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A condition on labels: every requirement must hold. Without requirements it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

/// The text form. What selects nothing has none, and is written as a requirement that no object meets.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nothing {
            return f.write_str("nothing,!nothing");
        }
        for (n, Requirement { key, test }) in self.requirements.iter().enumerate() {
            f.write_str(if n > 0 { "," } else { "" })?;
            match test {
                Test::In(values) => write!(f, "{key} in ({})", values.join(",")),
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
                Test::Exists => write!(f, "{key}"),
                Test::Absent => write!(f, "!{key}"),
                Test::Above(bound) => write!(f, "{key}>{bound}"),
                Test::Below(bound) => write!(f, "{key}<{bound}"),
            }?;
        }
        Ok(())
    }
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        LabelSelector::default()
    }
    /// Selects nothing. What an absent selector of a Deployment means.
    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }
    /// All of these labels with these values: a Service's or an old-style selector, a node selector.
    pub fn of_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement { key: key.clone(), test: Test::In(vec![value.clone()]) })
            .collect();
        LabelSelector { requirements, nothing: false }
    }
    /// The typed form of a Deployment or an affinity term. An unknown operator is an error.
    pub fn of(typed: &Typed) -> Result<Self, SelectorError> {
        let mut selector = LabelSelector::of_map(typed.match_labels.iter().flatten());
        for expression in typed.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            selector.requirements.push(Requirement::of(&expression.key, &expression.operator, values)?);
        }
        Ok(selector)
    }
    /// One more requirement, as node affinity and label selectors write it: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub fn and(mut self, key: &str, operator: &str, values: &[String]) -> Result<Self, SelectorError> {
        self.requirements.push(Requirement::of(key, operator, values.to_vec())?);
        Ok(self)
    }
    /// The text form: `app=web,tier in (a,b),!legacy`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        let mut scan = Scan { rest: text.trim() };
        while !scan.rest.is_empty() {
            requirements.push(scan.requirement().map_err(|why| SelectorError(format!("unable to parse requirement: {why}")))?);
            scan.space();
            if scan.rest.is_empty() {
                break;
            }
            if !scan.take(",") {
                return Err(SelectorError(format!(
                    "unable to parse requirement: found '{}', expected: ',' or 'end of string'",
                    scan.rest
                )));
            }
            scan.space();
            if scan.rest.is_empty() {
                return Err(SelectorError("unable to parse requirement: found '', expected: identifier after ','".to_owned()));
            }
        }
        Ok(LabelSelector { requirements, nothing: false })
    }
    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    /// A label and the only value of it that what is selected may have, if there is one: for an index.
    pub fn anchor(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|r| match &r.test {
            Test::In(values) if values.len() == 1 => Some((r.key.as_str(), values[0].as_str())),
            _ => None,
        })
    }
    /// Whether an object is selected.
    pub fn matches(&self, meta: &Meta) -> bool {
        self.matches_labels(&meta.labels)
    }
    /// Whether these labels are selected.
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.holds(labels.get(&r.key).map(String::as_str)))
    }
}

impl Requirement {
    fn of(key: &str, operator: &str, values: Vec<String>) -> Result<Self, SelectorError> {
        let number = |values: &[String]| match values {
            [one] => one.parse().map_err(|_| SelectorError(format!("for '{operator}' operator, the value must be an integer"))),
            _ => Err(SelectorError(format!("for '{operator}' operator, exactly one value is required"))),
        };
        let test = match operator {
            "In" | "NotIn" if values.is_empty() => {
                return Err(SelectorError(format!("for '{operator}' operator, values set can't be empty")));
            }
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::Absent,
            "Gt" => Test::Above(number(&values)?),
            "Lt" => Test::Below(number(&values)?),
            _ => return Err(SelectorError(format!("{operator:?} is not a valid label selector operator"))),
        };
        Ok(Requirement { key: key.to_owned(), test })
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            // As in Kubernetes, an object without the label satisfies `notin` and `!=`.
            Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Above(bound) => number().is_some_and(|v| v > *bound),
            Test::Below(bound) => number().is_some_and(|v| v < *bound),
        }
    }
}

/// Reads a label selector's text from left to right.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
    fn word(&mut self) -> &'a str {
        self.space();
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!<>(),".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
    fn requirement(&mut self) -> Result<Requirement, String> {
        self.space();
        if self.take("!") {
            let key = self.key()?;
            return Ok(Requirement { key, test: Test::Absent });
        }
        let key = self.key()?;
        self.space();
        let test = if self.rest.is_empty() || self.rest.starts_with(',') {
            Test::Exists
        } else if self.take("==") || self.take("=") {
            Test::In(vec![self.value()?])
        } else if self.take("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.take(">") {
            Test::Above(self.number(">")?)
        } else if self.take("<") {
            Test::Below(self.number("<")?)
        } else {
            match self.word() {
                "in" => Test::In(self.values()?),
                "notin" => Test::NotIn(self.values()?),
                other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
            }
        };
        Ok(Requirement { key, test })
    }
    fn key(&mut self) -> Result<String, String> {
        let word = self.word();
        if word.is_empty() {
            return Err(format!("found '{}', expected: identifier", self.rest));
        }
        match super::admit::names::qualified(word).into_iter().next() {
            None => Ok(word.to_owned()),
            Some(why) => Err(format!("key: Invalid value: {word:?}: {why}")),
        }
    }
    fn value(&mut self) -> Result<String, String> {
        let word = self.word();
        match super::admit::names::label_value(word).into_iter().next() {
            None => Ok(word.to_owned()),
            Some(why) => Err(format!("values[0]: Invalid value: {word:?}: {why}")),
        }
    }
    fn number(&mut self, operator: &str) -> Result<i64, String> {
        let word = self.word();
        word.parse()
            .map_err(|_| format!("values[0]: Invalid value: {word:?}: for '{operator}' operator, the value must be an integer"))
    }
    fn values(&mut self) -> Result<Vec<String>, String> {
        self.space();
        if !self.take("(") {
            return Err(format!("found '{}', expected: '('", self.rest));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            self.space();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(format!("found '{}', expected: ',' or ')'", self.rest));
            }
        }
    }
}

/// A condition on fields that a kind makes selectable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    path: String,
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// The place in `Kind::selectable` and in `Meta::fields`.
    Nth(usize),
    /// What a definition makes selectable. It is looked up in the object: which fields those are may change after that was written.
    Defined,
}

impl FieldSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        FieldSelector::default()
    }
    /// The text form: `status.phase!=Failed,spec.nodeName=harbour-1`. A field that the kind does not make selectable is an error.
    pub fn parse(kind: &'static Kind, text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) = part.split_once("==") {
                (path, true, value)
            } else if let Some((path, value)) = part.split_once('=') {
                (path, true, value)
            } else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            let path = path.trim();
            let field = match path {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                _ => match kind.selectable.iter().position(|known| *known == path) {
                    Some(place) => Field::Nth(place),
                    None if kind.version_of().is_some_and(|v| v.selectable.iter().any(|known| known == path)) => Field::Defined,
                    None => return Err(SelectorError(format!("field label not supported: {path}"))),
                },
            };
            // Objects are found under the names that the stored kind has for its fields.
            let path = match field {
                Field::Nth(n) => kind.stored().selectable[n],
                _ => path,
            };
            terms.push(Term { path: path.to_owned(), field, value: value.trim().replace("\\,", ",").replace("\\=", "="), equal });
        }
        Ok(FieldSelector { terms })
    }
    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
    /// The one value that this field must have, if the selector says so: what an index can be asked for.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.path == path).map(|t| t.value.as_str())
    }
    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_parts(&object.key, &object.meta, || object.value())
    }

    fn matches_parts(&self, key: &Key, meta: &Meta, value: impl Fn() -> Value) -> bool {
        let whole = OnceCell::new();
        self.terms.iter().all(|term| {
            let defined;
            let found = match term.field {
                Field::Name => &*key.name,
                Field::Namespace => &*key.namespace,
                Field::Nth(n) => meta.fields.get(n).unwrap_or_default(),
                Field::Defined => {
                    defined = field_text(whole.get_or_init(&value), &term.path);
                    defined.as_str()
                }
            };
            (found == term.value) == term.equal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn label_selectors() {
        let rows = [
            ("", "app=web", true),
            ("app=web", "app=web tier=a", true),
            ("app==web", "app=web", true),
            ("app=web", "app=db", false),
            ("app=web", "", false),
            ("app!=web", "", true),
            ("app!=web", "app=web", false),
            ("app", "app=", true),
            ("app", "", false),
            ("!app", "", true),
            ("! app", "app=x", false),
            ("app in (web, db)", "app=db", true),
            ("app in (web,db),tier", "app=db", false),
            ("app notin (web)", "", true),
            ("app notin (web,db)", "app=db", false),
            ("app in ()", "app=", true),
            ("app=", "app=", true),
            ("n>3", "n=4", true),
            ("n>3", "n=x", false),
            ("n<3", "n=2", true),
            ("app.kubernetes.io/name=web", "app.kubernetes.io/name=web", true),
            ("app = web , tier != b", "app=web tier=a", true),
        ];
        for (selector, having, wanted) in rows {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches_labels(&labels(having)), wanted, "{selector:?} on {having:?}");
        }
    }

    #[test]
    fn label_selectors_refused() {
        for text in
            ["=web", "app=web,", "app in web", "app in (web", "app web", "-app=1", "app=-", "a b=c", "app>x", ",", "a=b c"]
        {
            assert!(LabelSelector::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn typed_selectors() {
        let typed = |text: &str| serde_json::from_str::<Typed>(text).unwrap();
        let one =
            LabelSelector::of(&typed(r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"t","operator":"Exists"}]}"#));
        assert!(one.as_ref().is_ok_and(|s| s.matches_labels(&labels("app=web t=1")) && !s.matches_labels(&labels("app=web"))));
        assert!(LabelSelector::of(&typed(r#"{"matchExpressions":[{"key":"t","operator":"Near"}]}"#)).is_err());
        assert!(LabelSelector::of(&typed("{}")).is_ok_and(|s| s.is_everything()));
        assert!(!LabelSelector::nothing().matches_labels(&labels("app=web")));
    }

    #[test]
    fn field_selectors() {
        let kind = Kind::of("v1", "Pod").unwrap();
        let draft = super::super::Draft::new(
            kind,
            serde_json::json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "h1"}, "status": {"phase": "Running"}}),
        );
        let rows = [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name!=web", false),
            ("metadata.namespace=shop,spec.nodeName=h1", true),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("spec.nodeName=", false),
        ];
        for (text, wanted) in rows {
            let selector = FieldSelector::parse(kind, text).unwrap();
            assert_eq!(selector.matches_parts(&draft.key, &draft.meta, || draft.value()), wanted, "{text}");
        }
        assert_eq!(FieldSelector::parse(kind, "spec.nodeName=h1").unwrap().exact("spec.nodeName"), Some("h1"));
        assert_eq!(
            FieldSelector::parse(kind, "spec.hostname=x").unwrap_err().to_string(),
            "field label not supported: spec.hostname"
        );
        assert!(FieldSelector::parse(kind, "spec.nodeName").is_err());
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for text in ["", "app in (web)", "app in (a,b),tier notin (c),!old,new,cpu>3,cpu<9"] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!((selector.to_string().as_str(), LabelSelector::parse(&selector.to_string())), (text, Ok(selector)));
        }
        let nothing = LabelSelector::parse(&LabelSelector::nothing().to_string()).unwrap();
        assert!(!nothing.matches_labels(&BTreeMap::new()));
        assert!(!nothing.matches_labels(&BTreeMap::from([("nothing".to_owned(), "x".to_owned())])));
    }
}
