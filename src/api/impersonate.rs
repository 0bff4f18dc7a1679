//! Acting for somebody else: `kubectl --as`, and what Kubernetes calls impersonation.
//!
//! Each part of whom somebody wants to be (user, groups, uid, extra) takes the right to impersonate that part. Nothing of who really asks
//! is left over in the rights of who is acted for.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::Api;
use super::auth::rbac::{account_groups, account_of};
use super::auth::{AUTHENTICATED, Attributes, Identity, What};
use super::failure::Failure;
use super::path::decode;

/// More groups or extra values than any client sends.
const PARTS_MAX: usize = 1000;
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Who has proved nothing.
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Whom a request wants to be.
#[derive(Debug, Default, PartialEq)]
struct Wish {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wish {
    fn read(headers: &HeaderMap) -> Result<Option<Wish>, Failure> {
        let mut wish = Wish::default();
        let mut parts = 0;
        for (name, value) in headers {
            let Some(part) = name.as_str().strip_prefix("impersonate-") else { continue };
            parts += 1;
            let text = value.to_str().ok().filter(|_| parts <= PARTS_MAX);
            let text = text.ok_or_else(|| Failure::bad_request("the impersonation headers cannot be read"))?.to_owned();
            match part {
                "user" if wish.user.is_empty() => wish.user = text,
                "group" => wish.groups.push(text),
                "uid" if wish.uid.is_empty() => wish.uid = text,
                _ => {
                    // What we do not know must not be ignored: it may be meant to take rights away.
                    let key = part.strip_prefix("extra-").and_then(|key| decode(key, false)).filter(|key| !key.is_empty());
                    let key =
                        key.ok_or_else(|| Failure::bad_request(format!("the header {name} says nothing that is known here")))?;
                    wish.extra.entry(key).or_default().push(text);
                }
            }
        }
        match (parts, wish.user.is_empty()) {
            (0, _) => Ok(None),
            (_, true) => {
                Err(Failure::bad_request("requested impersonation of groups, a uid or extra without impersonating a user"))
            }
            _ => Ok(Some(wish)),
        }
    }
}

impl Api {
    /// Who a request is from when it is done: whom it acts for, or who sent it.
    pub(super) fn impersonate(&self, real: Identity, headers: &HeaderMap) -> Result<Identity, Failure> {
        let Some(mut wish) = Wish::read(headers)? else { return Ok(real) };
        let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
            let what = What::Resource { group, resource, subresource, namespace, name, fields: "" };
            self.decide(&real, &Attributes { verb: "impersonate", what }).map(drop).map_err(|_| {
                let of = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
                let place = if namespace.is_empty() {
                    " at the cluster scope".to_owned()
                } else {
                    format!(" in the namespace {namespace:?}")
                };
                let subject = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                Failure::forbidden_words(&format!(
                    "{subject} {name:?} is forbidden: User {:?} cannot impersonate resource {of:?} in API group {group:?}{place}",
                    real.name
                ))
            })
        };
        let account = account_of(&wish.user);
        match account {
            Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
            None => may("", "users", "", "", &wish.user)?,
        }
        for group in &wish.groups {
            may("", "groups", "", "", group)?;
        }
        if !wish.uid.is_empty() {
            may(AUTHENTICATION, "uids", "", "", &wish.uid)?;
        }
        for (key, values) in &wish.extra {
            for value in values {
                may(AUTHENTICATION, "userextras", key, "", value)?;
            }
        }
        if let Some((namespace, _)) = account.filter(|_| wish.groups.is_empty()) {
            wish.groups = account_groups(namespace);
        }
        let last = if wish.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !wish.groups.iter().any(|g| g == last) {
            wish.groups.push(last.to_owned());
        }
        Ok(Identity {
            name: wish.user,
            uid: wish.uid,
            groups: wish.groups,
            extra: wish.extra,
            by: Some(Box::new(real)),
            ..Identity::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[(&'static str, &'static str)]) -> Result<Option<Wish>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in rows {
            headers.append(*name, value.parse().unwrap());
        }
        Wish::read(&headers).map_err(|f| f.code)
    }

    #[test]
    fn headers() {
        assert_eq!(read(&[("accept", "x")]), Ok(None));
        let wish = read(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
            ("impersonate-extra-acme.com%2fproject", "y"),
        ]);
        let extra = BTreeMap::from([("acme.com/project".to_owned(), vec!["x".to_owned(), "y".to_owned()])]);
        let wanted = Wish { user: "jane".into(), groups: vec!["a".into(), "b".into()], uid: "7".into(), extra };
        assert_eq!(wish, Ok(Some(wanted)));
        for bad in [
            &[("impersonate-group", "a")][..],
            &[("impersonate-uid", "a")],
            &[("impersonate-user", "")],
            &[("impersonate-user", "a"), ("impersonate-user", "b")],
            &[("impersonate-user", "a"), ("impersonate-role", "b")],
            &[("impersonate-user", "a"), ("impersonate-extra-%zz", "b")],
            &[("impersonate-user", "a"), ("impersonate-extra-", "b")],
        ] {
            assert_eq!(read(bad), Err(400), "{bad:?}");
        }
    }
}
