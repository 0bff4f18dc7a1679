//! An object as an author wants it: one tree, shared by everybody who looks at it, and a digest by which two are told apart.
//!
//! A repository has thousands of them and a commit changes one, so that a copy or a comparison of all must cost next to nothing: a copy is
//! a count of references, a comparison looks at sixteen bytes.
//!
//! You will not find here: what is in it. It is a JSON tree like any other, and is read like one.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Tells the content of one manifest from that of any other: the first half of a SHA-256 of its canonical JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// Of any bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let whole = Sha256::digest(bytes);
        Digest(std::array::from_fn(|n| whole[n]))
    }
    /// Its bytes, to be part of another digest.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An object that an author wants. Clones share it.
#[derive(Clone)]
pub struct Manifest(Arc<Inner>);

struct Inner {
    value: Value,
    digest: Digest,
    size: usize,
}

impl Manifest {
    /// From canonical JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn read(json: &[u8]) -> Result<Manifest, serde_json::Error> {
        let value = serde_json::from_slice(json)?;
        Ok(Manifest(Arc::new(Inner { value, digest: Digest::of(json), size: json.len() })))
    }
    /// The tree.
    pub fn value(&self) -> &Value {
        &self.0.value
    }
    /// What tells it from others.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }
    /// How many bytes it has as JSON.
    pub fn size(&self) -> usize {
        self.0.size
    }
}

impl From<Value> for Manifest {
    fn from(value: Value) -> Manifest {
        let json = serde_json::to_vec(&value).expect("a JSON tree can be written");
        Manifest(Arc::new(Inner { value, digest: Digest::of(&json), size: json.len() }))
    }
}

impl Deref for Manifest {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0.value
    }
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Manifest) -> bool {
        self.0.digest == other.0.digest
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_decides_and_nothing_else() {
        let one = Manifest::from(json!({"b": 1, "a": [1.5, "x"]}));
        let same = Manifest::read(br#"{"a":[1.5,"x"],"b":1}"#).unwrap();
        assert_eq!((one.clone(), one.digest(), one.size()), (same.clone(), same.digest(), same.size()));
        for other in [json!({"b": 1, "a": ["x", 1.5]}), json!({"b": "1", "a": [1.5, "x"]}), json!({"b": 1}), json!(null)] {
            assert_ne!(one, Manifest::from(other));
        }
        assert_eq!(one["a"][1], "x", "it is read like a tree");
    }
}
