//! `token`: the Secrets with which hosts join.

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::args::Token;
use super::connect::client;
use super::print::{ago, table};
use super::{Context, Explain, Outcome, fail};
use crate::client::Client;

/// Where Kubernetes keeps join tokens.
const NAMESPACE: &str = "kube-system";
/// Which Secrets are join tokens.
const TYPE: &str = "bootstrap.kubernetes.io/token";

pub(super) async fn run(cx: &Context, token: Token) -> Outcome {
    let client = client(cx).await?;
    match token {
        Token::Create { expires } => create(cx, &client, expires).await,
        Token::List { output } => list(cx, &client, &output.format).await,
        Token::Delete { id } => {
            let id = id.split('.').next().unwrap_or_default();
            client
                .delete::<Secret>(NAMESPACE, &format!("bootstrap-token-{id}"), &Value::Null)
                .await
                .doing(format_args!("delete the token {id}"))?;
            cx.print.say(format_args!("token {id} is deleted; hosts that joined with it stay"));
            Ok(0)
        }
    }
}

/// Letters and digits, as Kubernetes' tokens have them.
fn random(length: usize) -> Result<String, getrandom::Error> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789"; // 32, so that each byte gives one without bias
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.into_iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect())
}

async fn create(cx: &Context, client: &Client, expires: std::time::Duration) -> Outcome {
    if expires.is_zero() || expires > std::time::Duration::from_secs(30 * 86_400) {
        return fail(
            "a token lives for more than nothing and for at most 30 days",
            "hosts need it only once: --expires 1h is plenty",
        );
    }
    let (id, secret) = (random(6)?, random(26)?);
    let until = crate::clock::now() + SignedDuration::try_from(expires)?;
    let object: Secret = serde_json::from_value(json!({
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": NAMESPACE},
        "type": TYPE,
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": until.to_string(),
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
        },
    }))?;
    client.create(NAMESPACE, &object).await.doing("make a token")?;
    let fingerprint = fingerprint(&certificate_authority(cx)?)?;
    cx.print.line(format_args!("{id}.{secret}.{fingerprint}"));
    cx.print
        .say(format_args!("on a host: portolan agent --server URL --token TOKEN; good until {}", until.strftime("%F %H:%M UTC")));
    Ok(0)
}

/// The certificate authority of the server that we talk to, PEM.
fn certificate_authority(cx: &Context) -> Result<String, super::Failure> {
    let (text, place) = super::connect::config(cx)?;
    let config: Value = serde_yaml::from_str(&text)?;
    let current = config["contexts"].as_array().into_iter().flatten().find(|c| c["name"] == config["current-context"]);
    let named = |c: &&Value| current.is_none_or(|current| c["name"] == current["context"]["cluster"]);
    let cluster = config["clusters"].as_array().into_iter().flatten().find(named).map(|c| &c["cluster"]);
    let data = cluster.and_then(|c| c["certificate-authority-data"].as_str()).unwrap_or_default();
    if data.is_empty() {
        return fail(
            format!("{place} does not hold the server's certificate authority, so the token cannot vouch for it"),
            "use the kubeconfig that `portolan kubeconfig` prints",
        );
    }
    let pem = base64::engine::general_purpose::STANDARD.decode(data)?;
    Ok(String::from_utf8(pem)?)
}

/// SHA-256 of the certificate, hex.
fn fingerprint(pem: &str) -> Result<String, super::Failure> {
    let body: String =
        pem.lines().skip_while(|l| !l.starts_with("-----BEGIN CERT")).skip(1).take_while(|l| !l.starts_with("-----")).collect();
    if body.is_empty() {
        return fail("the server's certificate authority is not known", "run this on the server's machine, with --data-dir");
    }
    let der = base64::engine::general_purpose::STANDARD.decode(body)?;
    Ok(Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect())
}

async fn list(cx: &Context, client: &Client, format: &str) -> Outcome {
    let secrets: Vec<Secret> = client.list(NAMESPACE, "").await.doing("list the tokens")?;
    let now = crate::clock::now();
    let mut tokens = Vec::new();
    for secret in secrets.iter().filter(|s| s.type_.as_deref() == Some(TYPE)) {
        let field = |name: &str| {
            let bytes = secret.data.as_ref().and_then(|d| d.get(name)).map(|b| b.0.clone()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let created = secret.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
        tokens.push((field("token-id"), created, field("expiration").parse::<Timestamp>().ok()));
    }
    match format {
        "name" => tokens.iter().for_each(|(id, _, _)| cx.print.line(id)),
        "json" | "yaml" => {
            let list: Vec<Value> = tokens
                .iter()
                .map(|(id, created, until)| json!({"id": id, "created": created.to_string(), "expires": until.map(|u| u.to_string())}))
                .collect();
            cx.print.out(super::get::data(&Value::Array(list), format)?);
        }
        _ if tokens.is_empty() => cx.print.say("there is no token"),
        _ => {
            let rows: Vec<Vec<String>> = tokens
                .iter()
                .map(|(id, created, until)| {
                    let left = match until {
                        Some(until) if *until > now => ago(now, *until),
                        Some(_) => "expired".to_owned(),
                        None => "never".to_owned(),
                    };
                    vec![id.clone(), ago(*created, now), left]
                })
                .collect();
            cx.print.out(table(&["TOKEN", "AGE", "EXPIRES IN"], &rows));
        }
    }
    Ok(0)
}
