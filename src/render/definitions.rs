//! Kinds that the files define themselves: a commit may bring a definition and objects of it.
//!
//! What is wrong with a definition is said when its own file is checked; here, one that is wrong adds no kind.

use crate::object::admit::{self, Coerce, ShapeKind};
use crate::object::custom::{Definition, Kinds, definitions};
use crate::object::source::{Entry, Tree, may_be_manifest};

use super::document;

/// The row of definitions.
pub(super) fn row() -> &'static crate::object::Kind {
    definitions()
}

/// Whether a file may have a definition. Nearly none has one, and reading them all twice would cost as much again.
pub(super) fn speaks(content: &[u8]) -> bool {
    const WORD: &[u8] = b"CustomResourceDefinition";
    content.windows(WORD.len()).any(|part| part == WORD)
}

/// The known kinds and those that the tree defines. Of each file's content and blob it is asked whether it may define any.
pub(super) fn kinds(tree: &Tree, known: &Kinds, mut defines: impl FnMut(&[u8], &str) -> bool) -> Kinds {
    let mut kinds = known.clone();
    for (path, entry) in &tree.entries {
        let Entry::File { content, blob } = entry else { continue };
        if !defines(content, blob) || !may_be_manifest(path) {
            continue;
        }
        let json = path.to_ascii_lowercase().ends_with(".json");
        let Ok(documents) = document::text(content).and_then(|text| document::documents(text, json)) else { continue };
        for mut value in documents.iter().filter_map(|document| document.value().ok()?) {
            if value["kind"] != "CustomResourceDefinition" || value["apiVersion"] != definitions().api_version() {
                continue;
            }
            let misfits = admit::shape(definitions(), &mut value, Coerce::Yaml);
            if misfits.iter().any(|misfit| misfit.kind == ShapeKind::WrongType) {
                continue;
            }
            admit::prepare(definitions(), &mut value);
            if admit::problems(definitions(), &value, None).is_empty() {
                kinds = kinds.with(&Definition::read(&value));
            }
        }
    }
    kinds
}
