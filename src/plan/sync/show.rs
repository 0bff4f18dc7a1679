//! How a plan is printed and serialised. What is in it is decided beside this.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Action, Name, Order, SyncPlan, Why};

/// `Deployment shop/web`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.0.kind.kind)?;
        if !self.0.namespace.is_empty() {
            write!(f, "{}/", self.0.namespace)?;
        }
        f.write_str(&self.0.name)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", &self.0.kind.api_version())?;
        map.serialize_entry("kind", self.0.kind.kind)?;
        if !self.0.namespace.is_empty() {
            map.serialize_entry("namespace", &*self.0.namespace)?;
        }
        map.serialize_entry("name", &*self.0.name)?;
        map.end()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Create => "create",
            Action::Patch => "patch",
            Action::Adopt => "adopt",
        })
    }
}

/// `configuration`, or `workloads (2)` with an author's number.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rank {
            0 => "namespaces",
            1 => "definitions",
            2 => "accounts",
            3 => "configuration",
            4 => "storage",
            5 => "services",
            6 => "workloads",
            7 => "the rest",
            _ => "applications",
        })?;
        if self.wave != 0 {
            write!(f, " ({})", self.wave)?;
        }
        Ok(())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NeedsConsent(detail) => f.write_str(detail),
            Why::Protected => f.write_str("it is protected from pruning"),
            Why::Adopted => f.write_str("it was there before this Application"),
            Why::NotOurs => f.write_str("it is another object of the same name"),
            Why::TakenOver(by) => write!(f, "it now belongs to Application {by}"),
            Why::Heir(by) => write!(f, "Application {by} is about to take it over"),
            Why::Gone => f.write_str("it is gone already"),
        }
    }
}

/// A few lines: what is written wave by wave, what is deleted, what stays and why.
impl fmt::Display for SyncPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "problem {}:{}: {}", problem.file, problem.line, problem.message)?;
        }
        for wave in &self.waves {
            writeln!(f, "wave {}", wave.order)?;
            for change in &wave.changes {
                write!(f, "  {} {}", change.action, change.name)?;
                if !change.fields.is_empty() {
                    write!(f, ": {}", change.fields.join(", "))?;
                }
                writeln!(f)?;
            }
        }
        for prune in &self.prune {
            writeln!(f, "prune {}", prune.name)?;
        }
        for kept in &self.kept {
            writeln!(f, "keep {}: {}", kept.name, kept.why)?;
        }
        for name in &self.tolerated {
            writeln!(f, "leave {name}: drift is tolerated")?;
        }
        for name in &self.leaving {
            writeln!(f, "wait for {name}: it is being deleted")?;
        }
        write!(f, "unchanged {}", self.unchanged)
    }
}
