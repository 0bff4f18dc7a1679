//! The environment, the command and the arguments of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use super::spec;
use super::volume::TokenWish;
use crate::object::quantity::Quantity;

/// Values of a ConfigMap or Secret, by key.
pub type Values = BTreeMap<String, Vec<u8>>;

/// What a pod's containers can refer to.
pub struct Sources<'a> {
    /// The values of a ConfigMap in the pod's namespace; `None` when there is none.
    pub config_map: &'a dyn Fn(&str) -> Option<&'a Values>,
    /// The values of a Secret in the pod's namespace; `None` when there is none.
    pub secret: &'a dyn Fn(&str) -> Option<&'a Values>,
    /// A token of the pod's service account, under [`TOKEN`](super::volume::TOKEN); `None` while there is none.
    pub token: &'a dyn Fn(&TokenWish) -> Option<&'a Values>,
    /// Where programs in pods find the API: a host and a port.
    pub api: Option<(&'a str, &'a str)>,
    /// Whether the server is away, so that what it gives unasked may come later.
    pub away: bool,
    /// The node's name.
    pub node: &'a str,
    /// The host's address.
    pub node_ip: &'a str,
    /// The pod's address, once it has one.
    pub pod_ip: Option<&'a str>,
    /// What a container without a limit may use: processors and bytes.
    pub host: (u32, u64),
}

/// Which ConfigMaps (`false`) and Secrets (`true`) a pod's environment and volumes refer to, by name.
pub fn references(pod: &Pod) -> Vec<(bool, String)> {
    let mut found = std::collections::BTreeSet::new();
    let ephemerals = spec::ephemerals(pod);
    for container in spec::inits(pod).iter().chain(spec::apps(pod)).chain(&ephemerals) {
        for from in container.env_from.iter().flatten() {
            found.extend(from.config_map_ref.iter().map(|r| (false, r.name.clone())));
            found.extend(from.secret_ref.iter().map(|r| (true, r.name.clone())));
        }
        for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            found.extend(from.config_map_key_ref.iter().map(|r| (false, r.name.clone())));
            found.extend(from.secret_key_ref.iter().map(|r| (true, r.name.clone())));
        }
    }
    found.extend(super::volume::references(pod));
    let pull = spec::spec(pod).and_then(|s| s.image_pull_secrets.as_ref());
    found.extend(pull.into_iter().flatten().map(|r| (true, r.name.clone())));
    found.retain(|(_, name)| !name.is_empty());
    found.into_iter().collect()
}

/// The environment in order. The error is a sentence for `CreateContainerConfigError`.
pub fn environment(pod: &Pod, container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |values: &mut BTreeMap<String, String>, name: String, value: String| {
        if values.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    if let Some((host, port)) = sources.api {
        for (name, value) in
            [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port), ("KUBERNETES_SERVICE_PORT_HTTPS", port)]
        {
            put(&mut values, name.to_owned(), value.to_owned());
        }
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (found, optional, what) = if let Some(map) = &from.config_map_ref {
            ((sources.config_map)(&map.name), map.optional, format!("configmap \"{}\" not found", map.name))
        } else if let Some(secret) = &from.secret_ref {
            ((sources.secret)(&secret.name), secret.optional, format!("secret \"{}\" not found", secret.name))
        } else {
            continue;
        };
        match found {
            Some(found) => {
                for (key, value) in found.iter().filter(|(key, _)| is_env_name(key)) {
                    put(&mut values, format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
                }
            }
            None if optional == Some(true) => {}
            None => return Err(what),
        }
    }
    let mut length = 0;
    for var in container.env.iter().flatten() {
        if length > ENVIRONMENT_MAX {
            return Err(format!("the environment is longer than {} MiB", ENVIRONMENT_MAX >> 20));
        }
        let value = match &var.value_from {
            None => Some(expand(var.value.as_deref().unwrap_or_default(), &values)),
            Some(_) => value_from(pod, container, var, sources)?,
        };
        if let Some(value) = value {
            length += value.len();
            put(&mut values, var.name.clone(), value);
        }
    }
    Ok(order.into_iter().map(|name| (name.clone(), values.remove(&name).unwrap_or_default())).collect())
}

/// Kubernetes takes any printable name without `=`; others it leaves out.
fn is_env_name(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn value_from(pod: &Pod, container: &Container, var: &EnvVar, sources: &Sources<'_>) -> Result<Option<String>, String> {
    let Some(from) = &var.value_from else { return Ok(None) };
    let key_of = |values: Option<&Values>, kind: &str, name: &str, key: &str, optional: Option<bool>| match values {
        Some(values) if values.contains_key(key) => Ok(Some(String::from_utf8_lossy(&values[key]).into_owned())),
        _ if optional == Some(true) => Ok(None),
        Some(_) => Err(format!("couldn't find key {key} in {kind} {}/{name}", spec::namespace(pod))),
        None => Err(format!("{} \"{name}\" not found", kind.to_lowercase())),
    };
    if let Some(r) = &from.config_map_key_ref {
        return key_of((sources.config_map)(&r.name), "ConfigMap", &r.name, &r.key, r.optional);
    }
    if let Some(r) = &from.secret_key_ref {
        return key_of((sources.secret)(&r.name), "Secret", &r.name, &r.key, r.optional);
    }
    if let Some(r) = &from.field_ref {
        return field(pod, &r.field_path, sources).map(Some);
    }
    if let Some(r) = &from.resource_field_ref {
        let of = match r.container_name.as_deref().filter(|n| !n.is_empty()) {
            Some(name) => spec::container(pod, name).ok_or_else(|| format!("container \"{name}\" not found"))?,
            None => container,
        };
        return resource(of, &r.resource, r.divisor.as_ref().map(|d| d.0.as_str()), sources).map(Some);
    }
    Ok(Some(String::new()))
}

/// A field of the pod, as `fieldRef` and the downward API name them.
pub fn field(pod: &Pod, path: &str, sources: &Sources<'_>) -> Result<String, String> {
    let meta = &pod.metadata;
    let lines = |map: &Option<BTreeMap<String, String>>| {
        map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("field path {path} is not supported")),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => sources.node.to_owned(),
        "spec.serviceAccountName" => {
            spec::spec(pod).and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" | "status.hostIPs" => sources.node_ip.to_owned(),
        "status.podIP" | "status.podIPs" => sources.pod_ip.ok_or("the pod has no address yet")?.to_owned(),
        _ => return Err(format!("field path {path} is not supported")),
    })
}

/// Whether the environment refers to the pod's address, so that the container has to wait for it.
pub fn needs_address(container: &Container) -> bool {
    container
        .env
        .iter()
        .flatten()
        .filter_map(|e| e.value_from.as_ref()?.field_ref.as_ref())
        .any(|f| f.field_path.starts_with("status.podIP"))
}

/// A resource of a container, as `resourceFieldRef` names them: in units of the divisor, rounded up.
pub fn resource(container: &Container, name: &str, divisor: Option<&str>, sources: &Sources<'_>) -> Result<String, String> {
    let (list, resource) = name.split_once('.').ok_or_else(|| format!("resource {name} is not supported"))?;
    let resources = container.resources.as_ref();
    let find = |list: &str| {
        let list = match list {
            "limits" => resources?.limits.as_ref()?,
            _ => resources?.requests.as_ref()?,
        };
        list.get(resource).map(Quantity::from_k8s)
    };
    let value = match (list, find(list)) {
        (_, Some(value)) => value,
        ("limits", None) if resource == "cpu" => Quantity::of(i64::from(sources.host.0)),
        ("limits", None) if resource == "memory" => Quantity::bytes(i64::try_from(sources.host.1).unwrap_or(i64::MAX)),
        ("requests", None) => find("limits").unwrap_or_default(),
        ("limits", None) => Quantity::ZERO,
        _ => return Err(format!("resource {name} is not supported")),
    };
    let divisor = match divisor {
        None | Some("" | "0") => Quantity::of(1),
        Some(text) => Quantity::parse(text).map_err(|_| format!("divisor {text} is no quantity"))?,
    };
    let (value, by) = (value.nano(), divisor.nano().max(1));
    Ok((value.saturating_add(by - 1) / by).to_string())
}

/// How long an environment may be. Linux starts no program with more than six.
const ENVIRONMENT_MAX: usize = 8 << 20;
/// How long a text may become by what is put into it. Linux takes an eighth of that; variables made of variables made of variables could
/// become all memory there is.
const EXPANDED_MAX: usize = 1 << 20;

/// Replaces `$(NAME)` by the value of NAME; `$$` is a dollar sign; what is not known stays as it is, and so does what would make the text
/// longer than a megabyte.
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Behind the last one nothing has an end that could be looked for.
    let last = text.rfind(')').map_or(usize::MAX, |at| text.len() - at);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if rest.len() > last
            && let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')'))
        {
            match values.get(name).filter(|value| out.len() + value.len() <= EXPANDED_MAX) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// Entrypoint and arguments for the engine, with the environment put in.
pub fn command(container: &Container, environment: &[(String, String)]) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let values: BTreeMap<String, String> = environment.iter().cloned().collect();
    let expand_all = |list: &Option<Vec<String>>| {
        list.as_ref().filter(|l| !l.is_empty()).map(|l| l.iter().map(|text| expand(text, &values)).collect::<Vec<_>>())
    };
    (expand_all(&container.command), expand_all(&container.args))
}
