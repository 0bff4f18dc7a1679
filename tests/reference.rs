//! The reference pages are derived from the code: a page that does not say what the code says fails here.
//!
//! After a change, `UPDATE_EXPECT=1 cargo test --test main reference` writes them anew; read the difference like code.

use std::fmt::Write;

use expect_test::expect_file;
use portolan::object::kind::{Durability, MEASURED};
use portolan::object::{KINDS, Kind};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

#[test]
fn kinds() {
    let mut page = String::from(
        "# Kinds\n\nEvery kind that the API serves. Kubernetes' kinds mean what they mean in Kubernetes, field by field; portolan's own are described below. This page \
         is derived from the code.\n\n| kind | apiVersion | names | scope | subresources | field selectors |\n|---|---|---|---|---|---|\n",
    );
    for kind in KINDS {
        let names: Vec<_> = [kind.plural].iter().chain(kind.short).map(|n| format!("`{n}`")).collect();
        let scope = if kind.namespaced { "namespace" } else { "cluster" };
        let selectors: Vec<_> = kind.selectable.iter().map(|s| format!("`{s}`")).collect();
        writeln!(
            page,
            "| {} | `{}` | {} | {scope} | {} | {} |",
            kind.kind,
            kind.api_version(),
            names.join(", "),
            kind.subresources.join(", "),
            selectors.join(", ")
        )
        .unwrap();
    }
    page.push_str(
        "\nSome rows show the objects of another row in other words: a change in one is a change in the other.\n\n| row | stored as |\n|---|---|\n",
    );
    for kind in KINDS.iter().filter(|k| k.alias.is_some()) {
        writeln!(page, "| {} `{}` | `{}` |", kind.kind, kind.api_version(), kind.stored().api_version()).unwrap();
    }
    page.push_str(
        "\n## Stored only\n\nObjects of these kinds are checked, given their defaults, stored and served as in Kubernetes, and part of what Kubernetes does \
         about them does not happen yet. `portolan plan`, the Application's status and an event of each release that has such objects say so. There \
         is no Service `kubernetes` in `default`: its address would lead nowhere yet.\n\n| kind | |\n|---|---|\n",
    );
    for kind in KINDS.iter().filter(|k| k.alias.is_none() && !k.idle.is_empty()) {
        writeln!(page, "| {} | {} |", kind.kind, kind.idle).unwrap();
    }
    page.push_str(
        "\n## Looked at when asked\n\nThese are stored nowhere: a get or a list measures. What cannot be measured is absent.\n\n| kind | apiVersion | names |\n|---|---|---|\n",
    );
    for kind in MEASURED {
        let names: Vec<_> = [kind.plural].iter().chain(kind.short).map(|n| format!("`{n}`")).collect();
        writeln!(page, "| {} | `{}` | {} |", kind.kind, kind.api_version(), names.join(", ")).unwrap();
    }
    let lazy: Vec<_> = Kind::all_stored().filter(|k| k.durability == Durability::Lazy).map(|k| k.kind).collect();
    writeln!(
        page,
        "\nA write is acknowledged when it is on disk; writes of {} at once, and on disk within a second.",
        lazy.join(" and ")
    )
    .unwrap();

    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    for kind in KINDS.iter().filter(|k| k.group == portolan::object::ours::GROUP) {
        (kind.schema)(&mut generator);
    }
    let definitions: Value = serde_json::to_value(generator.take_definitions(true)).unwrap();
    for kind in KINDS.iter().filter(|k| k.group == portolan::object::ours::GROUP) {
        let root = &definitions[kind.kind];
        writeln!(page, "\n## {}\n\n{}\n\n| field | type | |\n|---|---|---|", kind.kind, prose(root)).unwrap();
        fields(&mut page, &definitions, root, "");
    }
    expect_file!["../docs/reference/kinds.md"].assert_eq(&page);
}

/// The rows of a type's fields, and of the types of ours within.
fn fields(page: &mut String, definitions: &Value, schema: &Value, below: &str) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (word, inner, many) = describe(definitions, field);
        let path = format!("{below}{name}");
        let text = prose(field);
        let text = if text.is_empty() { inner.map(prose).unwrap_or_default() } else { text };
        writeln!(page, "| `{path}` | {word} | {text} |").unwrap();
        if let Some(inner) = inner.filter(|i| i["properties"].is_object()) {
            fields(page, definitions, inner, &format!("{path}{}.", if many { "[]" } else { "" }));
        }
    }
}

/// The word for a field's type, the type of ours behind it, and whether it is a list.
fn describe<'a>(definitions: &'a Value, field: &'a Value) -> (String, Option<&'a Value>, bool) {
    let reference = field["$ref"].as_str().or_else(|| {
        let choices = field["allOf"].as_array().or(field["anyOf"].as_array())?;
        choices.iter().find_map(|c| c["$ref"].as_str())
    });
    if let Some(reference) = reference {
        let name = reference.rsplit('/').next().unwrap();
        let target = &definitions[name];
        if name.starts_with("io.k8s") {
            return (name.rsplit('.').next().unwrap().to_owned(), None, false);
        }
        let words = choices(target);
        return if words.is_empty() { ("object".into(), Some(target), false) } else { (words.join(" \\| "), None, false) };
    }
    match field["type"].as_str() {
        Some("array") => {
            let (word, inner, _) = describe(definitions, &field["items"]);
            (format!("list of {word}"), inner, true)
        }
        Some("object") if field["additionalProperties"].is_object() => ("map".into(), None, false),
        Some(word) => (word.to_owned(), None, false),
        None => ("any".into(), None, false),
    }
}

/// The words of an enumeration.
fn choices(schema: &Value) -> Vec<String> {
    let plain = schema["enum"].as_array().into_iter().flatten();
    let described = schema["oneOf"].as_array().into_iter().flatten().flat_map(|c| c["enum"].as_array().into_iter().flatten());
    plain.chain(described).filter_map(Value::as_str).map(|w| format!("`{w}`")).collect()
}

fn prose(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

const EXIT_CODES: &str = "\
## Exit codes

| command | 0 | 1 | 2 | more |
|---|---|---|---|---|
| `diff` | no difference | difference | error, usage | |
| `plan` | planned | error, refused | | |
| `plan --detailed-exitcode` | no change | error | changes | |
| `wait`, `sync --wait` | healthy at that commit | error, usage | | 3 rolled back, 4 rejected, 5 timeout, 6 superseded |
| `validate` | everything is right | something is wrong, usage | | |
| `exec` | the command's own | | | |
| all others | done | error, usage | | |
";

#[test]
fn commands() {
    let help = |args: &[&str]| {
        let mut command = std::process::Command::new(crate::support::PORTOLAN);
        command.args(args).arg("--help").env("COLUMNS", "100").env_remove("PORTOLAN_DATA_DIR");
        // Without a terminal, trailing spaces are left where a line was wrapped.
        crate::support::run(&mut command).lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    let top = help(&[]);
    let mut page = format!(
        "# Commands\n\nWhat every command says of itself with `--help`. This page is derived from the code.\n\n{EXIT_CODES}\n```text\n{top}\n```\n"
    );
    let listed = |text: &str| -> Vec<String> {
        let after = text.lines().skip_while(|l| *l != "Commands:").skip(1);
        let rows = after.take_while(|l| !l.is_empty()).filter(|l| l.starts_with("  ") && !l.starts_with("   "));
        rows.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
    };
    for command in listed(&top) {
        let text = help(&[&command]);
        let own = |text: &str| text.split("Global options:").next().unwrap().trim_end().to_owned();
        writeln!(page, "\n## {command}\n\n```text\n{}\n```", own(&text)).unwrap();
        for sub in listed(&text) {
            writeln!(page, "\n### {command} {sub}\n\n```text\n{}\n```", own(&help(&[&command, &sub]))).unwrap();
        }
    }
    expect_file!["../docs/reference/commands.md"].assert_eq(&page);
}
