//! How important a pod is: the number behind its priority class, and whether others may have to go for it.
//!
//! As in Kubernetes, when the pod is created and never after. A pod of no class, in a cluster without a default one, is given nothing:
//! that means zero.

use serde_json::Value;

use super::{Around, Cause};
use crate::object::Kind;

/// A priority class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityClass {
    /// Its name.
    pub name: String,
    /// The priority of its pods.
    pub value: i32,
    /// `Never` when no pod has to go for one of its pods.
    pub policy: String,
    /// Whether pods that name no class are of this one.
    pub default: bool,
}

/// Classes that every cluster has, whether or not there is an object.
const BUILT_IN: [(&str, i32); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

impl PriorityClass {
    /// The class of a pod that names this one, or (with an empty name) none. Not found is an error.
    pub fn choose(name: &str, classes: &[PriorityClass]) -> Result<Option<PriorityClass>, String> {
        if name.is_empty() {
            return Ok(classes.iter().filter(|c| c.default).min_by_key(|c| (c.value, c.name.clone())).cloned());
        }
        let built_in = || {
            let (name, value) = BUILT_IN.into_iter().find(|(known, _)| *known == name)?;
            let policy = "PreemptLowerPriority".to_owned();
            Some(PriorityClass { name: name.to_owned(), value, policy, default: false })
        };
        let found = classes.iter().find(|c| c.name == name).cloned().or_else(built_in);
        found.map(Some).ok_or_else(|| format!("no PriorityClass with name {name} was found"))
    }

    fn read(object: &Value) -> Option<PriorityClass> {
        Some(PriorityClass {
            name: object["metadata"]["name"].as_str()?.to_owned(),
            value: i32::try_from(object["value"].as_i64()?).ok()?,
            policy: object["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_owned(),
            default: object["globalDefault"] == true,
        })
    }
}

/// Gives a new pod its priority.
pub(super) fn give(pod: &mut Value, around: &dyn Around, causes: &mut Vec<Cause>) {
    let classes = around.of_kind(Kind::of("scheduling.k8s.io/v1", "PriorityClass").expect("there are priority classes"));
    let classes: Vec<PriorityClass> = classes.iter().filter_map(|class| PriorityClass::read(&class.value())).collect();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut forbid = |field: &str, why: String| {
        let message = format!("Forbidden: {why}");
        causes.push(Cause { field: format!("spec.{field}"), reason: "FieldValueForbidden", message });
    };
    let class = match PriorityClass::choose(text("priorityClassName"), &classes) {
        Ok(class) => class,
        Err(why) => return forbid("priorityClassName", why),
    };
    let computed = class.as_ref().map_or(0, |c| c.value);
    if let Some(said) = spec.get("priority").and_then(Value::as_i64).filter(|said| *said != i64::from(computed)) {
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {computed} from \
             the given PriorityClass name"
        );
        return forbid("priority", why);
    }
    let Some(class) = class else { return };
    let said = text("preemptionPolicy");
    if !said.is_empty() && said != class.policy {
        let why = format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {} from the \
             given PriorityClass name",
            class.policy
        );
        return forbid("preemptionPolicy", why);
    }
    spec.insert("priorityClassName".to_owned(), class.name.into());
    spec.insert("priority".to_owned(), class.value.into());
    spec.insert("preemptionPolicy".to_owned(), class.policy.into());
}
