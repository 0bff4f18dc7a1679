//! `get`: objects of the cluster, for people without kubectl.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::args::Get;
use super::connect::client;
use super::print::table;
use super::{Context, Explain, Failure, Outcome, fail};
use crate::client::{self, Client};
use crate::object::{KINDS, Kind, Object};

pub(super) async fn run(cx: &Context, args: Get) -> Outcome {
    let (words, mut names) = match args.what.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), vec![name.to_owned()]),
        None => (args.what.clone(), Vec::new()),
    };
    names.extend(args.names.iter().cloned());
    let kinds = words.split(',').filter(|w| !w.is_empty()).map(kind_of_word).collect::<Result<Vec<_>, _>>()?;
    if kinds.is_empty() || (kinds.len() > 1 && !names.is_empty()) {
        return fail("name one kind, or several without names", "portolan get pods,deployments; portolan get pod web-1");
    }
    let client = client(cx).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.namespace().to_owned());
    let mut objects: Vec<(&'static Kind, Value)> = Vec::new();
    for kind in &kinds {
        let scope = if kind.namespaced && !args.all_namespaces { namespace.as_str() } else { "" };
        if names.is_empty() {
            let mut query = Vec::new();
            for (name, selector) in [("labelSelector", &args.selector), ("fieldSelector", &args.field_selector)] {
                if let Some(selector) = selector {
                    query.push(format!("{name}={}", encode(selector)));
                }
            }
            objects.extend(list(&client, kind, scope, &query.join("&")).await?.into_iter().map(|o| (*kind, o)));
        } else {
            for name in &names {
                let path = path(kind, scope, Some(name));
                let found =
                    client.call(Method::GET, &path, &Value::Null).await.doing(format_args!("get {} {name}", kind.singular))?;
                objects.push((kind, found));
            }
        }
    }
    let one = !names.is_empty() && names.len() == 1;
    show(cx, &objects, &args.output.format, args.all_namespaces, one)?;
    if objects.is_empty() && matches!(args.output.format.as_str(), "table" | "wide") {
        let place = if args.all_namespaces || !kinds.iter().any(|k| k.namespaced) {
            String::new()
        } else {
            format!(" in namespace {namespace}; -A shows all namespaces")
        };
        cx.print.say(format_args!("nothing found{place}"));
    }
    Ok(0)
}

/// Prints objects in one of the formats that every list has.
pub(super) fn show(
    cx: &Context,
    objects: &[(&'static Kind, Value)],
    format: &str,
    namespaces: bool,
    one: bool,
) -> Result<(), Failure> {
    match format {
        "name" => objects.iter().for_each(|(kind, o)| {
            let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
            cx.print.line(format_args!("{}{group}/{}", kind.singular, o["metadata"]["name"].as_str().unwrap_or_default()));
        }),
        "json" | "yaml" if one => cx.print.out(data(&objects[0].1, format)?),
        "json" | "yaml" => {
            let items: Vec<&Value> = objects.iter().map(|(_, o)| o).collect();
            cx.print.out(data(&json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}}), format)?);
        }
        format => {
            let mut several = objects.iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
            several.dedup();
            for (n, kind) in several.iter().enumerate() {
                if n > 0 {
                    cx.print.line("");
                }
                let mine: Vec<&Value> = objects.iter().filter(|(k, _)| k == kind).map(|(_, o)| o).collect();
                cx.print.out(rows(kind, &mine, format == "wide", namespaces && kind.namespaced, several.len() > 1));
            }
        }
    }
    Ok(())
}

/// Objects of one kind as a table with the kind's own columns.
fn rows(kind: &'static Kind, objects: &[&Value], wide: bool, namespaces: bool, prefixed: bool) -> String {
    let now = crate::clock::now();
    let columns: Vec<_> = kind.columns.iter().filter(|c| wide || c.priority == 0).collect();
    let mut head: Vec<String> = columns.iter().map(|c| c.name.to_uppercase()).collect();
    if namespaces {
        head.insert(0, "NAMESPACE".to_owned());
    }
    let rows: Vec<Vec<String>> = objects
        .iter()
        .map(|object| {
            // Columns speak of what is stored, in its words.
            let stored = kind.store((*object).clone());
            let mut cells: Vec<String> = columns
                .iter()
                .map(|c| match (c.cell)(&stored, now) {
                    Value::String(text) => text,
                    Value::Null => "<none>".to_owned(),
                    other => other.to_string(),
                })
                .collect();
            if prefixed && let Some(name) = cells.first_mut() {
                *name = format!("{}/{name}", kind.singular);
            }
            if namespaces {
                cells.insert(0, object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
            }
            cells
        })
        .collect();
    table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

/// The kind that a person means.
pub(super) fn kind_of_word(word: &str) -> Result<&'static Kind, Failure> {
    if let Some(kind) = Kind::of_word(word) {
        return Ok(kind);
    }
    let lower = word.to_lowercase();
    let names = KINDS.iter().flat_map(|k| [k.plural, k.singular]);
    let near = names.map(|n| (strsim::damerau_levenshtein(n, &lower), n)).min().filter(|(d, _)| *d <= 3);
    let hint = match near {
        Some((_, name)) => format!("did you mean {name}?"),
        None => format!("there are {}", KINDS.iter().map(|k| k.plural).collect::<Vec<_>>().join(", ")),
    };
    fail(format!("there is no kind {word:?}"), hint)
}

/// The path of a kind's list, or of one object.
pub(super) fn path(kind: &Kind, namespace: &str, name: Option<&str>) -> String {
    let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let namespace =
        if kind.namespaced && !namespace.is_empty() { format!("/namespaces/{}", encode(namespace)) } else { String::new() };
    let name = name.map_or_else(String::new, |n| format!("/{}", encode(n)));
    format!("{root}/{}{namespace}/{}{name}", kind.version, kind.plural)
}

/// All objects of a kind, page by page. The server leaves out each item's kind, which is put back.
pub(super) async fn list(
    client: &Client,
    kind: &'static Kind,
    namespace: &str,
    query: &str,
) -> Result<Vec<Value>, client::Error> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let and = if query.is_empty() { "" } else { "&" };
        let more = if next.is_empty() { String::new() } else { format!("&continue={}", encode(&next)) };
        let path = format!("{}?{query}{and}limit=500{more}", path(kind, namespace, None));
        let mut page = client.call(Method::GET, &path, &Value::Null).await?;
        for mut item in page["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            item["apiVersion"] = kind.api_version().into();
            item["kind"] = kind.kind.into();
            all.push(item);
        }
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            return Ok(all);
        }
    }
}

/// The objects of a kind as the store of the server has them, without a tree of each: for those who look at very many.
pub(super) async fn objects(client: &Client, kind: &'static Kind, query: &str) -> Result<Vec<Arc<Object>>, client::Error> {
    let read = move |item: Bytes, _: &str| {
        // Items of a list need not say of which kind they are.
        let whole = match item.starts_with(b"{\"apiVersion\":") {
            true => item,
            false => {
                let rest = item.strip_prefix(b"{").unwrap_or_default();
                let begin = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", kind.api_version(), kind.kind);
                [begin.as_bytes(), rest].concat().into()
            }
        };
        Object::from_json(whole, kind.plural).map(Arc::new).map_err(|e| client::Error::Garbled(e.into()))
    };
    each(client, &path(kind, "", None), query, client::JSON, read).await
}

/// What becomes of each item of a list, in order. The items that have come are read on any processor while others are on their way;
/// whoever reads is told the form in which the server sent them.
pub(super) async fn each<T, R>(client: &Client, path: &str, query: &str, accept: &str, read: R) -> Result<Vec<T>, client::Error>
where
    T: Send + 'static,
    R: Fn(Bytes, &str) -> Result<T, client::Error> + Clone + Send + 'static,
{
    let (mut reading, mut next) = (Vec::new(), String::new());
    loop {
        let and = if query.is_empty() { "" } else { "&" };
        let more = if next.is_empty() { String::new() } else { format!("&continue={}", encode(&next)) };
        let mut list = client.items(&format!("{path}?{query}{and}limit={LARGE_PAGE}{more}"), accept).await?;
        let form: Arc<str> = list.form().into();
        let mut here = Vec::new();
        loop {
            let some = list.next().await?;
            let last = some.is_none();
            here.extend(some.into_iter().flatten());
            if here.len() >= TOGETHER || (last && !here.is_empty()) {
                let (here, form, read) = (std::mem::take(&mut here), form.clone(), read.clone());
                reading.push(tokio::spawn(async move {
                    here.into_iter().map(|item| read(item, &form)).collect::<Result<Vec<T>, client::Error>>()
                }));
            }
            if last {
                break;
            }
        }
        next = list.more()?;
        if next.is_empty() {
            break;
        }
    }
    let mut all = Vec::new();
    for part in reading {
        all.extend(part.await.unwrap_or_else(|panic| Err(client::Error::Garbled(panic.into())))?);
    }
    Ok(all)
}

/// Objects of one page, where very many are looked at: few requests, and what the server keeps for a page has an end.
const LARGE_PAGE: usize = 20_000;
/// So many items are read together: more than it costs to hand them to another processor, and so few that all processors have some.
const TOGETHER: usize = 200;

/// A value as JSON or YAML.
pub(super) fn data(value: &Value, format: &str) -> Result<String, Failure> {
    Ok(if format == "yaml" { serde_yaml::to_string(value)? } else { format!("{}\n", serde_json::to_string_pretty(value)?) })
}

/// A text within a path or a query.
pub(super) fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_words() {
        let pods = kind_of_word("po").unwrap();
        assert_eq!(path(pods, "shop", Some("web-1")), "/api/v1/namespaces/shop/pods/web-1");
        assert_eq!(path(kind_of_word("deploy").unwrap(), "", None), "/apis/apps/v1/deployments");
        assert_eq!(path(pods, "../x", Some("a b")), "/api/v1/namespaces/..%2Fx/pods/a%20b");
        assert_eq!(kind_of_word("deplyoments").unwrap_err().hint().unwrap(), "did you mean deployments?");
    }

    #[test]
    fn tables_have_kubernetes_columns() {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "data": {"x": "y"}});
        let text = rows(kind_of_word("cm").unwrap(), &[&object], false, true, false);
        expect_test::expect![[r#"
            NAMESPACE  NAME  DATA  AGE
            n          a     1     <unknown>
        "#]]
        .assert_eq(&text);
    }
}
