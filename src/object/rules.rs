//! What the rules of roles allow, what a set of rules leaves uncovered of another, and what an aggregated role consists of.
//!
//! Pure sums over rules. Who is bound to which role, and what follows from that for a request, is not here: `api::auth` knows.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use super::selector::LabelSelector;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Objects of a kind.
    Resource {
        /// The API group; empty for the core group.
        group: &'a str,
        /// The plural.
        resource: &'a str,
        /// The subresource, or nothing.
        subresource: &'a str,
        /// The object's name; empty for a collection and for a name that is not known yet.
        name: &'a str,
    },
    /// A path that names no object: `/version`.
    Path(&'a str),
}

/// The most elementary rights that are compared for one rule. A rule of a thousand resources, verbs and groups each would be a billion.
const ELEMENTS_AT_MOST: usize = 10_000;

fn texts(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

fn all_or(list: &[String], wanted: &str) -> bool {
    list.iter().any(|found| found == "*" || found == wanted)
}

/// Whether a rule allows a verb on something.
pub fn allows(rule: &PolicyRule, verb: &str, subject: &Subject<'_>) -> bool {
    if !all_or(&rule.verbs, verb) {
        return false;
    }
    match subject {
        Subject::Path(path) => texts(&rule.non_resource_urls).iter().any(|url| url_covers(url, path)),
        Subject::Resource { group, resource, subresource, name } => {
            let names = texts(&rule.resource_names);
            all_or(texts(&rule.api_groups), group)
                && texts(&rule.resources).iter().any(|found| resource_covers(found, resource, subresource))
                && (names.is_empty() || names.iter().any(|found| found == name))
        }
    }
}

fn url_covers(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// `pods`, `pods/log`, `*/scale`, `*`.
fn resource_covers(found: &str, resource: &str, subresource: &str) -> bool {
    if found == "*" {
        return true;
    }
    match found.split_once('/') {
        None => subresource.is_empty() && found == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

/// What of `wanted` the rules of `owned` do not allow: elementary rules, their verbs together. Empty: everything is covered.
pub fn uncovered(owned: &[&PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut missing: BTreeMap<[String; 4], Vec<String>> = BTreeMap::new();
    let mut note = |group: &str, resource: &str, name: &str, url: &str, verb: &str| {
        let verbs = missing.entry([group, resource, name, url].map(str::to_owned)).or_default();
        if !verbs.iter().any(|v| v == verb) {
            verbs.push(verb.to_owned());
        }
    };
    let mut refused = Vec::new();
    for rule in wanted {
        if owned.iter().any(|owner| covers(owner, rule)) {
            continue;
        }
        let lists = [texts(&rule.api_groups), texts(&rule.resources), texts(&rule.resource_names), &rule.verbs];
        let elements = lists.iter().try_fold(1usize, |product, list| product.checked_mul(list.len().max(1)));
        if elements.is_none_or(|n| n > ELEMENTS_AT_MOST) {
            refused.push(rule.clone());
            continue;
        }
        for verb in &rule.verbs {
            for url in texts(&rule.non_resource_urls) {
                let one =
                    PolicyRule { verbs: vec![verb.clone()], non_resource_urls: Some(vec![url.clone()]), ..PolicyRule::default() };
                if !owned.iter().any(|owner| covers(owner, &one)) {
                    note("", "", "", url, verb);
                }
            }
            let names = texts(&rule.resource_names);
            for group in texts(&rule.api_groups) {
                for resource in texts(&rule.resources) {
                    for name in names.iter().map(Some).chain(names.is_empty().then_some(None)) {
                        let one = PolicyRule {
                            verbs: vec![verb.clone()],
                            api_groups: Some(vec![group.clone()]),
                            resources: Some(vec![resource.clone()]),
                            resource_names: name.map(|n| vec![n.clone()]),
                            ..PolicyRule::default()
                        };
                        if !owned.iter().any(|owner| covers(owner, &one)) {
                            note(group, resource, name.map_or("", String::as_str), "", verb);
                        }
                    }
                }
            }
        }
    }
    refused.extend(missing.into_iter().map(|([group, resource, name, url], verbs)| {
        let some = |text: String| (!text.is_empty()).then(|| vec![text]);
        if url.is_empty() {
            let api_groups = Some(vec![group]);
            PolicyRule { verbs, api_groups, resources: some(resource), resource_names: some(name), ..PolicyRule::default() }
        } else {
            PolicyRule { verbs, non_resource_urls: some(url), ..PolicyRule::default() }
        }
    }));
    refused
}

/// Whether one rule allows everything that another one does.
fn covers(owner: &PolicyRule, rule: &PolicyRule) -> bool {
    let each = |owner: &[String], wanted: &[String]| wanted.iter().all(|w| all_or(owner, w));
    let resource = |wanted: &String| {
        let (of, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
        // `*/scale` is covered by itself and by everything, not by the scale of one kind.
        texts(&owner.resources).iter().any(|found| found == wanted || (wanted != "*" && resource_covers(found, of, sub)))
    };
    let names = (texts(&owner.resource_names), texts(&rule.resource_names));
    let names = names.0.is_empty() || (!names.1.is_empty() && names.1.iter().all(|n| names.0.contains(n)));
    let urls = |wanted: &String| texts(&owner.non_resource_urls).iter().any(|url| url == wanted || url_covers(url, wanted));
    each(&owner.verbs, &rule.verbs)
        && each(texts(&owner.api_groups), texts(&rule.api_groups))
        && texts(&rule.resources).iter().all(resource)
        && names
        && texts(&rule.non_resource_urls).iter().all(urls)
}

/// A rule as messages show it: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
pub fn show(rule: &PolicyRule) -> String {
    let list = |list: &[String]| list.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" ");
    let parts = [
        ("APIGroups", texts(&rule.api_groups)),
        ("Resources", texts(&rule.resources)),
        ("ResourceNames", texts(&rule.resource_names)),
        ("NonResourceURLs", texts(&rule.non_resource_urls)),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(_, l)| !l.is_empty()).map(|(name, l)| format!("{name}:[{}]", list(l))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// The rules of an aggregated role: those of all roles that its selectors choose, by name, each once. `None`: it is not aggregated.
pub fn aggregate<'a>(role: &ClusterRole, others: impl Iterator<Item = &'a ClusterRole>) -> Option<Vec<PolicyRule>> {
    let wanted = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let selectors: Vec<LabelSelector> = wanted.iter().filter_map(|s| LabelSelector::of(s).ok()).collect();
    let empty = BTreeMap::new();
    let mut parts: Vec<&ClusterRole> = others
        .filter(|other| other.metadata.name != role.metadata.name)
        .filter(|other| selectors.iter().any(|s| s.matches_labels(other.metadata.labels.as_ref().unwrap_or(&empty))))
        .collect();
    parts.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.into_iter().flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
        let list = |l: &[&str]| (!l.is_empty()).then(|| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        PolicyRule {
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            verbs: list(verbs).unwrap_or_default(),
            ..PolicyRule::default()
        }
    }

    fn urls(urls: &[&str]) -> PolicyRule {
        let urls = urls.iter().map(|s| (*s).to_owned()).collect();
        PolicyRule { verbs: vec!["get".into()], non_resource_urls: Some(urls), ..PolicyRule::default() }
    }

    #[test]
    fn what_rules_allow() {
        // rule; verb group resource subresource name; allowed
        let rows = [
            (rule(&[""], &["pods"], &[], &["get"]), "get  pods  x", true),
            (rule(&[""], &["pods"], &[], &["get"]), "list  pods  x", false),
            (rule(&["apps"], &["pods"], &[], &["get"]), "get  pods  x", false),
            (rule(&["*"], &["*"], &[], &["*"]), "get apps deployments scale x", true),
            (rule(&[""], &["pods"], &[], &["*"]), "get  pods log x", false),
            (rule(&[""], &["pods/log"], &[], &["get"]), "get  pods log x", true),
            (rule(&[""], &["pods/log"], &[], &["get"]), "get  pods  x", false),
            (rule(&["apps"], &["*/scale"], &[], &["get"]), "get apps deployments scale x", true),
            (rule(&["apps"], &["*/scale"], &[], &["get"]), "get apps deployments status x", false),
            (rule(&["apps"], &["*/scale"], &[], &["get"]), "get apps deployments  x", false),
            (rule(&[""], &["secrets"], &["a", "b"], &["get"]), "get  secrets  b", true),
            (rule(&[""], &["secrets"], &["a", "b"], &["get"]), "get  secrets  c", false),
            (rule(&[""], &["secrets"], &["a"], &["list"]), "list  secrets  ", false),
            (rule(&[], &["pods"], &[], &["get"]), "get  pods  x", false),
            (rule(&[""], &[], &[], &["get"]), "get  pods  x", false),
            (rule(&[""], &["pods"], &[], &[]), "get  pods  x", false),
            (urls(&["*"]), "get  pods  x", false),
        ];
        for (rule, ask, wanted) in rows {
            let [verb, group, resource, subresource, name] = ask.split(' ').collect::<Vec<_>>()[..] else { panic!("{ask}") };
            assert_eq!(allows(&rule, verb, &Subject::Resource { group, resource, subresource, name }), wanted, "{ask}");
        }
        for (rule, path, wanted) in [
            (urls(&["/version"]), "/version", true),
            (urls(&["/version"]), "/versions", false),
            (urls(&["/api/*"]), "/api/v1", true),
            (urls(&["/api/*"]), "/api", false),
            (urls(&["*"]), "/anything", true),
            (rule(&["*"], &["*"], &[], &["*"]), "/version", false),
        ] {
            assert_eq!(allows(&rule, "get", &Subject::Path(path)), wanted, "{path}");
        }
    }

    #[test]
    fn what_is_not_covered() {
        let missing = |owned: &[PolicyRule], wanted: &[PolicyRule]| {
            let owned: Vec<&PolicyRule> = owned.iter().collect();
            uncovered(&owned, wanted).iter().map(show).collect::<Vec<_>>().join(" ")
        };
        let pods = rule(&[""], &["pods"], &[], &["get", "list"]);
        let everything = rule(&["*"], &["*"], &[], &["*"]);
        let rows: Vec<(Vec<PolicyRule>, PolicyRule, &str)> = vec![
            (vec![pods.clone()], rule(&[""], &["pods"], &[], &["get"]), ""),
            (vec![pods.clone()], rule(&[""], &["pods"], &["a"], &["get"]), ""),
            (
                vec![pods.clone()],
                rule(&[""], &["pods", "secrets"], &[], &["get", "list"]),
                "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}",
            ),
            (vec![pods.clone(), rule(&[""], &["secrets"], &[], &["get"])], rule(&[""], &["pods", "secrets"], &[], &["get"]), ""),
            (vec![pods.clone()], rule(&[""], &["pods"], &[], &["*"]), "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"*\"]}"),
            (vec![pods], rule(&[""], &["*"], &[], &["get"]), "{APIGroups:[\"\"], Resources:[\"*\"], Verbs:[\"get\"]}"),
            (vec![everything.clone()], rule(&["*"], &["*"], &[], &["*"]), ""),
            (vec![everything.clone()], rule(&["x"], &["y/z"], &["n"], &["escalate"]), ""),
            (vec![everything], urls(&["/metrics"]), "{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"),
            (vec![urls(&["/a/*"])], urls(&["/a/b", "/a/*"]), ""),
            (vec![urls(&["/a/*"])], urls(&["*"]), "{NonResourceURLs:[\"*\"], Verbs:[\"get\"]}"),
            (
                vec![rule(&[""], &["secrets"], &["a"], &["get"])],
                rule(&[""], &["secrets"], &[], &["get"]),
                "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}",
            ),
            (
                vec![rule(&["apps"], &["deployments/scale"], &[], &["get"])],
                rule(&["apps"], &["*/scale"], &[], &["get"]),
                "{APIGroups:[\"apps\"], Resources:[\"*/scale\"], Verbs:[\"get\"]}",
            ),
            (vec![rule(&["apps"], &["*/scale"], &[], &["get"])], rule(&["apps"], &["deployments/scale"], &[], &["get"]), ""),
        ];
        for (owned, wanted, show) in rows {
            assert_eq!(missing(&owned, std::slice::from_ref(&wanted)), show, "{wanted:?}");
        }
        // A rule that would be a billion elementary ones is refused whole, and quickly.
        let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let bomb =
            PolicyRule { verbs: many.clone(), api_groups: Some(many.clone()), resources: Some(many), ..PolicyRule::default() };
        assert_eq!(uncovered(&[], std::slice::from_ref(&bomb)).len(), 1);
    }

    #[test]
    fn aggregation() {
        let role = |value: Value| serde_json::from_value::<ClusterRole>(value).unwrap();
        let sum = role(json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"to": "sum"}}, {"matchExpressions": [{"key": "too", "operator": "Exists"}]}]}}));
        let part = |name: &str, label: &str, resource: &str| {
            role(json!({"metadata": {"name": name, "labels": {label: "sum"}},
                "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]}))
        };
        let others = [
            part("z", "to", "pods"),
            part("b", "too", "nodes"),
            part("c", "other", "secrets"),
            part("d", "to", "pods"),
            sum.clone(),
        ];
        let rules = aggregate(&sum, others.iter()).unwrap();
        assert_eq!(rules.iter().map(|r| texts(&r.resources)[0].as_str()).collect::<Vec<_>>(), ["nodes", "pods"]);
        assert_eq!(aggregate(&others[0], others.iter()), None);
    }
}
