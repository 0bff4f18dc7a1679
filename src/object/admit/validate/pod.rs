//! What may be written in a pod's spec, and what of it may change.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::causes::{Causes, list, text, there};
use super::container::{Role, Shared, container, field_path, inner_path, security};
use super::names;
use crate::object::quantity::Quantity;

pub(super) fn spec(c: &mut Causes, at: &str, spec: &Value) {
    let mut volumes = BTreeSet::new();
    for (i, volume) in list(&spec["volumes"]) {
        let at = format!("{at}.volumes[{i}]");
        let name = text(&volume["name"]);
        c.required_name(&format!("{at}.name"), name, names::label);
        if !name.is_empty() && !volumes.insert(name) {
            c.duplicate(format!("{at}.name"), name);
        }
        self::volume(c, &at, volume);
    }
    let host_network = spec["hostNetwork"] == true;
    let mut shared = Shared { volumes, host_network, names: BTreeSet::new(), host_ports: BTreeSet::new() };
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        c.required(format!("{at}.containers"), "");
    }
    for (i, entry) in list(&spec["containers"]) {
        container(c, &format!("{at}.containers[{i}]"), entry, Role::Main, &mut shared);
    }
    // Init containers end before the others start, so that they may use the same host ports.
    let main_ports = std::mem::take(&mut shared.host_ports);
    for (i, entry) in list(&spec["initContainers"]) {
        shared.host_ports.clear();
        container(c, &format!("{at}.initContainers[{i}]"), entry, Role::Init, &mut shared);
    }
    drop(main_ports);
    c.one_of(&format!("{at}.restartPolicy"), &spec["restartPolicy"], &["Always", "Never", "OnFailure"]);
    c.one_of(&format!("{at}.dnsPolicy"), &spec["dnsPolicy"], &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    c.not_negative(&format!("{at}.terminationGracePeriodSeconds"), &spec["terminationGracePeriodSeconds"]);
    c.between(&format!("{at}.activeDeadlineSeconds"), &spec["activeDeadlineSeconds"], 1, i64::from(i32::MAX));
    c.labels(&format!("{at}.nodeSelector"), &spec["nodeSelector"]);
    for (field, rule) in [
        ("hostname", names::label as fn(&str) -> Vec<String>),
        ("subdomain", names::label),
        ("nodeName", names::subdomain),
        ("serviceAccountName", names::subdomain),
        ("priorityClassName", names::subdomain),
    ] {
        if !text(&spec[field]).is_empty() {
            c.name(&format!("{at}.{field}"), text(&spec[field]), rule);
        }
    }
    security(c, &format!("{at}.securityContext"), &spec["securityContext"]);
    for (i, toleration) in list(&spec["tolerations"]) {
        self::toleration(c, &format!("{at}.tolerations[{i}]"), toleration);
    }
    affinity(c, &format!("{at}.affinity"), &spec["affinity"]);
    for (i, spread) in list(&spec["topologySpreadConstraints"]) {
        let at = format!("{at}.topologySpreadConstraints[{i}]");
        if spread["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            c.invalid(format!("{at}.maxSkew"), spread["maxSkew"].clone(), "must be greater than zero");
        }
        c.required_name(&format!("{at}.topologyKey"), text(&spread["topologyKey"]), names::qualified);
        c.one_of(&format!("{at}.whenUnsatisfiable"), &spread["whenUnsatisfiable"], &["DoNotSchedule", "ScheduleAnyway"]);
        c.selector(&format!("{at}.labelSelector"), &spread["labelSelector"]);
    }
    for (i, alias) in list(&spec["hostAliases"]) {
        if text(&alias["ip"]).parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            c.invalid(format!("{at}.hostAliases[{i}].ip"), text(&alias["ip"]), detail);
        }
        for (_, name) in list(&alias["hostnames"]) {
            c.name(&format!("{at}.hostAliases[{i}].hostnames"), text(name), names::subdomain);
        }
    }
}

fn volume(c: &mut Causes, at: &str, volume: &Value) {
    let mut sources = volume.as_object().into_iter().flatten().filter(|(name, value)| *name != "name" && there(value));
    match sources.next() {
        None => c.required(at, "must specify a volume type"),
        Some(_) => {
            sources.for_each(|(second, _)| c.forbidden(format!("{at}.{second}"), "may not specify more than 1 volume type"))
        }
    }
    host_path(c, at, volume);
    let limit = text(&volume["emptyDir"]["sizeLimit"]);
    if limit.parse::<Quantity>().is_ok_and(Quantity::is_negative) {
        c.invalid(format!("{at}.emptyDir.sizeLimit"), limit, "SizeLimit field must be a valid resource quantity");
    }
    for (source, name) in [("configMap", "name"), ("secret", "secretName")] {
        let found = &volume[source];
        if there(found) {
            c.required_name(&format!("{at}.{source}.{name}"), text(&found[name]), names::subdomain);
            files(c, &format!("{at}.{source}"), found);
        }
    }
    if there(&volume["downwardAPI"]) {
        downward(c, &format!("{at}.downwardAPI"), &volume["downwardAPI"]);
    }
    if there(&volume["persistentVolumeClaim"]) {
        c.required_text(&format!("{at}.persistentVolumeClaim.claimName"), &volume["persistentVolumeClaim"]["claimName"]);
    }
    if there(&volume["nfs"]) {
        c.required_text(&format!("{at}.nfs.server"), &volume["nfs"]["server"]);
        c.required_text(&format!("{at}.nfs.path"), &volume["nfs"]["path"]);
    }
    if there(&volume["projected"]) {
        mode(c, &format!("{at}.projected.defaultMode"), &volume["projected"]["defaultMode"]);
    }
    for (i, source) in list(&volume["projected"]["sources"]) {
        let at = format!("{at}.projected.sources[{i}]");
        for kind in ["configMap", "secret"] {
            if there(&source[kind]) {
                c.required_name(&format!("{at}.{kind}.name"), text(&source[kind]["name"]), names::subdomain);
                files(c, &format!("{at}.{kind}"), &source[kind]);
            }
        }
        if there(&source["downwardAPI"]) {
            downward(c, &format!("{at}.downwardAPI"), &source["downwardAPI"]);
        }
        if there(&source["serviceAccountToken"]) {
            c.required_text(&format!("{at}.serviceAccountToken.path"), &source["serviceAccountToken"]["path"]);
        }
    }
}

/// A directory or file of a host, which pods and PersistentVolumes name alike.
pub(super) fn host_path(c: &mut Causes, at: &str, volume: &Value) {
    let host = &volume["hostPath"];
    if !there(host) {
        return;
    }
    let path = text(&host["path"]);
    if path.is_empty() {
        c.required(format!("{at}.hostPath.path"), "");
    } else if path.split('/').any(|part| part == "..") {
        c.invalid(format!("{at}.hostPath.path"), path, "must not contain '..'");
    }
    let types = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    c.one_of(&format!("{at}.hostPath.type"), &host["type"], &types);
}

/// The keys of a ConfigMap or Secret that become files.
fn files(c: &mut Causes, at: &str, source: &Value) {
    mode(c, &format!("{at}.defaultMode"), &source["defaultMode"]);
    for (i, item) in list(&source["items"]) {
        let at = format!("{at}.items[{i}]");
        c.required_name(&format!("{at}.key"), text(&item["key"]), names::config_key);
        file(c, &at, item);
    }
}

fn downward(c: &mut Causes, at: &str, source: &Value) {
    mode(c, &format!("{at}.defaultMode"), &source["defaultMode"]);
    let fields = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    for (i, item) in list(&source["items"]) {
        let at = format!("{at}.items[{i}]");
        file(c, &at, item);
        match (there(&item["fieldRef"]), there(&item["resourceFieldRef"])) {
            (true, false) => field_path(c, &format!("{at}.fieldRef.fieldPath"), &item["fieldRef"]["fieldPath"], &fields),
            (false, false) => c.required(at, "one of fieldRef and resourceFieldRef is required"),
            (true, true) => c.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"),
            (false, true) => {}
        }
    }
}

fn file(c: &mut Causes, at: &str, item: &Value) {
    c.required_text(&format!("{at}.path"), &item["path"]);
    inner_path(c, &format!("{at}.path"), text(&item["path"]));
    mode(c, &format!("{at}.mode"), &item["mode"]);
}

fn mode(c: &mut Causes, at: &str, mode: &Value) {
    if mode.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        c.invalid(at, mode.clone(), "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn toleration(c: &mut Causes, at: &str, toleration: &Value) {
    let (key, operator) = (text(&toleration["key"]), text(&toleration["operator"]));
    if !key.is_empty() {
        c.name(&format!("{at}.key"), key, names::qualified);
    } else if operator != "Exists" {
        c.invalid(
            format!("{at}.operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    match operator {
        "" | "Equal" => c.name(&format!("{at}.value"), text(&toleration["value"]), names::label_value),
        "Exists" if !text(&toleration["value"]).is_empty() => {
            c.invalid(format!("{at}.operator"), toleration["value"].clone(), "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        other => c.unsupported(format!("{at}.operator"), other, &["Equal", "Exists"]),
    }
    let effect = text(&toleration["effect"]);
    if !effect.is_empty() {
        c.one_of(&format!("{at}.effect"), &toleration["effect"], &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
    if there(&toleration["tolerationSeconds"]) && effect != "NoExecute" {
        c.invalid(format!("{at}.effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
}

fn affinity(c: &mut Causes, at: &str, affinity: &Value) {
    let node = &affinity["nodeAffinity"];
    let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
    let node_at = format!("{at}.nodeAffinity");
    if there(required) {
        node_selector(c, &format!("{node_at}.requiredDuringSchedulingIgnoredDuringExecution"), required);
    }
    for (i, preferred) in list(&node["preferredDuringSchedulingIgnoredDuringExecution"]) {
        let at = format!("{node_at}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
        c.between(&format!("{at}.weight"), &preferred["weight"], 1, 100);
        node_term(c, &format!("{at}.preference"), &preferred["preference"]);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in list(&affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]) {
            pod_term(c, &format!("{at}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{i}]"), term);
        }
        for (i, preferred) in list(&affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"]) {
            let at = format!("{at}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
            c.between(&format!("{at}.weight"), &preferred["weight"], 1, 100);
            pod_term(c, &format!("{at}.podAffinityTerm"), &preferred["podAffinityTerm"]);
        }
    }
}

/// Which nodes will do.
pub(super) fn node_selector(c: &mut Causes, at: &str, selector: &Value) {
    let at = format!("{at}.nodeSelectorTerms");
    if selector["nodeSelectorTerms"].as_array().is_none_or(Vec::is_empty) {
        c.required(&at, "must have at least one node selector term");
    }
    for (i, term) in list(&selector["nodeSelectorTerms"]) {
        node_term(c, &format!("{at}[{i}]"), term);
    }
}

fn pod_term(c: &mut Causes, at: &str, term: &Value) {
    c.required_name(&format!("{at}.topologyKey"), text(&term["topologyKey"]), names::qualified);
    c.selector(&format!("{at}.labelSelector"), &term["labelSelector"]);
}

fn node_term(c: &mut Causes, at: &str, term: &Value) {
    for list_name in ["matchExpressions", "matchFields"] {
        for (i, expression) in list(&term[list_name]) {
            let at = format!("{at}.{list_name}[{i}]");
            if list_name == "matchExpressions" {
                c.required_name(&format!("{at}.key"), text(&expression["key"]), names::qualified);
            }
            let values = expression["values"].as_array().map_or(0, Vec::len);
            match text(&expression["operator"]) {
                "In" | "NotIn" if values == 0 => {
                    c.required(format!("{at}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    c.forbidden(format!("{at}.values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
                "Gt" | "Lt" if values != 1 => {
                    c.required(format!("{at}.values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => c.invalid(format!("{at}.operator"), other, "not a valid selector operator"),
            }
        }
    }
}

/// What may change in a pod that exists: images, a shorter deadline, more tolerations, fewer scheduling gates.
pub(super) fn update(c: &mut Causes, old: &Value, new: &Value) {
    let mut rest = new.clone();
    for list_name in ["containers", "initContainers"] {
        let count = |spec: &Value| spec[list_name].as_array().map_or(0, Vec::len);
        if count(old) != count(new) {
            c.forbidden(format!("spec.{list_name}"), "pod updates may not add or remove containers");
            return;
        }
        for (i, container) in list(&old[list_name]) {
            let there = rest.get_mut(list_name).and_then(|list| list.get_mut(i)).and_then(Value::as_object_mut);
            if let (Some(image), Some(there)) = (container.get("image"), there) {
                there.insert("image".to_owned(), image.clone());
            }
        }
    }
    let deadline = |spec: &Value| spec["activeDeadlineSeconds"].as_i64();
    match (deadline(old), deadline(new)) {
        (Some(was), Some(is)) if is > was => {
            c.invalid("spec.activeDeadlineSeconds", is, "must be less than or equal to previous value");
        }
        (Some(_), None) => {
            c.invalid("spec.activeDeadlineSeconds", Value::Null, "must not update from a positive integer to nil value")
        }
        _ => {}
    }
    let all = |spec: &Value, name: &str| -> BTreeSet<String> { list(&spec[name]).map(|(_, one)| one.to_string()).collect() };
    if !all(old, "tolerations").is_subset(&all(new, "tolerations")) {
        c.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
    if !all(new, "schedulingGates").is_subset(&all(old, "schedulingGates")) {
        c.forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate");
    }
    let Some(fields) = rest.as_object_mut() else { return };
    for free in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match old.get(free) {
            Some(value) => drop(fields.insert(free.to_owned(), value.clone())),
            None => drop(fields.remove(free)),
        }
    }
    if &rest != old {
        let changed: Vec<&str> = names_of_differences(old, &rest);
        c.forbidden(
            "spec",
            &format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                 `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative) (changed: {})",
                changed.join(", ")
            ),
        );
    }
}

/// Ephemeral containers are for pods that exist.
pub(super) fn no_ephemeral(c: &mut Causes, at: &str, spec: &Value, why: &str) {
    if spec["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        c.forbidden(format!("{at}.ephemeralContainers"), why);
    }
}

/// Which ephemeral containers a pod may have after those that it had: more of them.
pub(super) fn ephemeral(c: &mut Causes, old: &Value, new: &Value) {
    let at = "spec.ephemeralContainers";
    let mut named: BTreeMap<&str, &Value> = BTreeMap::new();
    for (_, is) in list(&new["ephemeralContainers"]) {
        named.entry(text(&is["name"])).or_insert(is);
    }
    for (_, was) in list(&old["ephemeralContainers"]) {
        let name = text(&was["name"]);
        match named.get(name) {
            Some(is) if *is == was => {}
            Some(_) => c.forbidden(at, &format!("existing ephemeral containers {name:?} may not be changed\n")),
            None => c.forbidden(at, &format!("existing ephemeral containers {name:?} may not be removed\n")),
        }
    }
    let volumes = list(&new["volumes"]).map(|(_, volume)| text(&volume["name"])).collect();
    let host_network = new["hostNetwork"] == true;
    let mut shared = Shared { volumes, host_network, names: BTreeSet::new(), host_ports: BTreeSet::new() };
    let mut others = BTreeSet::new();
    for (_, other) in list(&new["containers"]).chain(list(&new["initContainers"])) {
        shared.names.insert(text(&other["name"]).to_owned());
        others.insert(text(&other["name"]));
    }
    for (i, entry) in list(&new["ephemeralContainers"]) {
        let at = format!("{at}[{i}]");
        container(c, &at, entry, Role::Main, &mut shared);
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resources",
            "resizePolicy",
            "restartPolicy",
        ] {
            let empty = match &entry[field] {
                Value::Object(fields) => fields.is_empty(),
                Value::Array(items) => items.is_empty(),
                value => !there(value),
            };
            if !empty {
                c.forbidden(format!("{at}.{field}"), "cannot be set for an Ephemeral Container");
            }
        }
        for (j, mount) in list(&entry["volumeMounts"]) {
            for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !text(&mount[*field]).is_empty()) {
                c.forbidden(format!("{at}.volumeMounts[{j}].{field}"), "cannot be set for an Ephemeral Container");
            }
        }
        let target = text(&entry["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            c.not_found(format!("{at}.targetContainerName"), target);
        }
    }
}

fn names_of_differences<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return Vec::new() };
    let mut names: Vec<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| old.get(*name) != new.get(*name));
    names
}

/// What a pod template may be: what a pod may be.
pub(super) fn template_parts(c: &mut Causes, at: &str, template: &Value) {
    c.labels(&format!("{at}.metadata.labels"), &template["metadata"]["labels"]);
    super::meta::annotations(c, &format!("{at}.metadata.annotations"), &template["metadata"]["annotations"]);
    spec(c, &format!("{at}.spec"), &template["spec"]);
    no_ephemeral(c, &format!("{at}.spec"), &template["spec"], "ephemeral containers not allowed in pod template");
}

/// The template of pods that are there as long as their owner, a kind, wants them: always restarted.
pub(super) fn template(c: &mut Causes, at: &str, template: &Value, owner: &str) {
    template_parts(c, at, template);
    let pod = &template["spec"];
    let policy = text(&pod["restartPolicy"]);
    if ["Never", "OnFailure"].contains(&policy) {
        c.unsupported(format!("{at}.spec.restartPolicy"), policy, &["Always"]);
    }
    if pod["activeDeadlineSeconds"] != json!(null) {
        c.forbidden(format!("{at}.spec.activeDeadlineSeconds"), &format!("activeDeadlineSeconds in {owner} is not Supported"));
    }
}
