//! People from an identity provider (OpenID Connect): whose token it is, by the provider's published keys.
//!
//! Keys come over https with the certificate checked, redirects are not followed, and what comes is bounded. A claim that is missing or
//! empty makes nobody (CVE-2026-23990), and no claim makes anybody one of the system's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::account::in_time;
use super::jwt::{self, Bad, Key};
use crate::api::auth::Identity;

/// How long keys are used without asking again, in seconds.
const FRESH: i64 = 3600;
/// How long they are used when the provider does not answer.
const STALE: i64 = 12 * 3600;
/// How long a provider is left alone after it was asked: tokens with made-up key names must not become a storm of requests.
const PAUSE: i64 = 10;
/// The longest answer of a provider, in bytes, and the longest wait for it.
const ANSWER_MAX: u64 = 1 << 20;
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// More keys than any provider has.
const KEYS_MAX: usize = 100;
/// More groups than anybody is in who can still be shown to people.
const GROUPS_MAX: usize = 1000;

/// Which provider, and what its claims mean. The names are those of Kubernetes' flags.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its address, `https://…`, exactly as its tokens give it.
    pub issuer: String,
    /// For whom tokens have to be made.
    pub client_id: String,
    /// The claim that is the user's name; `sub` when empty.
    pub username_claim: String,
    /// Put before names. `-` is nothing; when empty, the issuer and `#`, but nothing for `email`.
    pub username_prefix: String,
    /// The claim that is the user's groups; without one there are none.
    pub groups_claim: String,
    /// Put before groups.
    pub groups_prefix: String,
    /// Claims that must have these values.
    pub required_claims: BTreeMap<String, String>,
    /// Authorities to trust for the provider's certificate, PEM; those that browsers trust when empty.
    pub ca: String,
}

/// A provider with its keys.
pub struct Provider {
    options: Options,
    agent: ureq::Agent,
    known: Mutex<Known>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Arc<[Key]>,
    /// When they were fetched, in seconds; nothing was when `None`.
    fetched: Option<i64>,
    asked: Option<i64>,
}

impl Provider {
    /// A provider. It is asked for its keys when somebody comes with a token of it.
    ///
    /// # Errors
    /// The address is not https, the client id is missing, or the authorities cannot be read.
    pub fn new(options: Options) -> anyhow::Result<Provider> {
        if !options.issuer.starts_with("https://") {
            bail!("the issuer {:?} must begin with https://", options.issuer);
        }
        if options.client_id.is_empty() {
            bail!("an identity provider needs a client id: tokens that it made for others must not count here");
        }
        let roots = if options.ca.is_empty() {
            RootCerts::WebPki
        } else {
            let own = parse_pem(options.ca.as_bytes()).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            });
            let own: Vec<Certificate<'static>> = own.collect::<Result<_, _>>().context("read the provider's authorities")?;
            if own.is_empty() {
                bail!("the file with the provider's authorities holds no certificate");
            }
            RootCerts::new_with_certs(&own)
        };
        let config = ureq::Agent::config_builder()
            .https_only(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(true)
            .timeout_global(Some(ANSWER_TIME))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let agent = ureq::Agent::new_with_config(config);
        Ok(Provider { options, agent, known: Mutex::default(), asking: tokio::sync::Mutex::default() })
    }

    /// Whether a token says that this provider made it.
    pub(in crate::api) fn issues(&self, issuer: &str) -> bool {
        self.options.issuer == issuer
    }

    /// Whose token this is.
    pub(in crate::api) async fn identity(self: &Arc<Self>, token: &str, now: Timestamp) -> Result<Identity, Bad> {
        let seconds = now.as_second();
        let (mut keys, age) = self.keys(seconds);
        if age.is_none_or(|age| age > FRESH) && self.ask(seconds).await {
            keys = self.keys(seconds).0;
        }
        let mut outcome = jwt::verify(token, &keys);
        // A key that we have not seen may be new.
        if outcome == Err(Bad::UnknownKey) && self.ask(seconds).await {
            outcome = jwt::verify(token, &self.keys(seconds).0);
        }
        self.read(&outcome?, now)
    }

    /// The keys that may be used, and their age.
    fn keys(&self, now: i64) -> (Arc<[Key]>, Option<i64>) {
        let known = self.known.lock();
        match known.fetched.map(|at| now - at) {
            Some(age) if age <= STALE => (known.keys.clone(), Some(age)),
            _ => (Arc::new([]), None),
        }
    }

    /// Asks the provider for its keys, unless it was asked just now. `true`: there may be news.
    async fn ask(self: &Arc<Self>, now: i64) -> bool {
        // One at a time; the others find the answer.
        let _turn = self.asking.lock().await;
        {
            let mut known = self.known.lock();
            if known.asked.is_some_and(|at| now - at < PAUSE) {
                return known.fetched.is_some();
            }
            known.asked = Some(now);
        }
        let provider = self.clone();
        let fetched = tokio::task::spawn_blocking(move || provider.fetch()).await;
        match fetched {
            Ok(Ok(keys)) => {
                let mut known = self.known.lock();
                (known.keys, known.fetched) = (keys.into(), Some(now));
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(issuer = self.options.issuer, "fetch the identity provider's keys: {error:#}");
                false
            }
            Err(_) => false,
        }
    }

    fn fetch(&self) -> anyhow::Result<Vec<Key>> {
        let issuer = &self.options.issuer;
        let about = self.get(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))?;
        if about["issuer"] != issuer.as_str() {
            bail!("the provider calls itself {}, and {issuer:?} was meant", about["issuer"]);
        }
        let place = about["jwks_uri"].as_str().filter(|uri| uri.starts_with("https://"));
        let set = self.get(place.context("the provider names no https address for its keys")?)?;
        let keys: Vec<Key> = set["keys"].as_array().into_iter().flatten().take(KEYS_MAX).filter_map(Key::of_jwk).collect();
        if keys.is_empty() {
            bail!("the provider publishes no key that can be used");
        }
        Ok(keys)
    }

    fn get(&self, url: &str) -> anyhow::Result<Value> {
        let mut response = self.agent.get(url).call().with_context(|| format!("ask {url}"))?;
        if !response.status().is_success() {
            bail!("{url} answers {}", response.status());
        }
        let bytes = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().with_context(|| format!("read {url}"))?;
        serde_json::from_slice(&bytes).with_context(|| format!("read {url}"))
    }

    /// What signed claims say of somebody.
    fn read(&self, claims: &Value, now: Timestamp) -> Result<Identity, Bad> {
        let options = &self.options;
        if claims["iss"] != options.issuer.as_str() {
            return Err(Bad::Claims("another issuer"));
        }
        if !jwt::audiences(claims).contains(&options.client_id.as_str()) {
            return Err(Bad::Claims("another audience"));
        }
        let expires = in_time(claims, now)?;
        for (claim, wanted) in &options.required_claims {
            if claims[claim] != wanted.as_str() {
                return Err(Bad::Claims("a required claim is missing or another"));
            }
        }
        let claim = if options.username_claim.is_empty() { "sub" } else { &options.username_claim };
        let name = claims[claim].as_str().map(str::trim).filter(|name| !name.is_empty()).ok_or(Bad::Claims("no user name"))?;
        if claim == "email" && !claims["email_verified"].is_null() && claims["email_verified"] != true {
            return Err(Bad::Claims("an e-mail address that nobody has verified"));
        }
        let prefix = match options.username_prefix.as_str() {
            "-" => String::new(),
            "" if claim == "email" => String::new(),
            "" => format!("{}#", options.issuer),
            prefix => prefix.to_owned(),
        };
        let sound = |text: &str| !text.starts_with("system:") && !text.chars().any(char::is_control) && text.len() <= 1024;
        let name = format!("{prefix}{name}");
        if !sound(&name) {
            return Err(Bad::Claims("a name that is the system's own"));
        }
        let groups = match &claims[options.groups_claim.as_str()] {
            _ if options.groups_claim.is_empty() => Vec::new(),
            Value::String(one) => vec![one.as_str()],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let groups =
            groups.into_iter().filter(|g| !g.is_empty()).take(GROUPS_MAX).map(|g| format!("{}{g}", options.groups_prefix));
        let mut identity = Identity { name, expires: Some(expires), ..Identity::default() };
        identity.groups = groups.filter(|group| sound(group)).collect();
        if let Some(id) = claims["jti"].as_str() {
            identity.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider(options: Options) -> Provider {
        let all = Options { issuer: "https://id.example".into(), client_id: "portolan".into(), ..options };
        Provider::new(all).unwrap()
    }

    fn claims(more: Value) -> Value {
        let mut claims = json!({"iss": "https://id.example", "aud": "portolan", "exp": 2_000_000_000, "sub": "17", "email": "jane@example.org"});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    #[test]
    fn what_claims_mean() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let show = |options: Options, more: Value| match provider(options).read(&claims(more), now) {
            Ok(identity) => format!("{} {:?}", identity.name, identity.groups),
            Err(bad) => bad.to_string(),
        };
        let email = || Options { username_claim: "email".into(), groups_claim: "groups".into(), ..Options::default() };
        let rows = [
            (Options::default(), json!({}), "https://id.example#17 []"),
            (Options { username_prefix: "-".into(), ..Options::default() }, json!({}), "17 []"),
            (email(), json!({"groups": ["dev", "ops"]}), "jane@example.org [\"dev\", \"ops\"]"),
            (email(), json!({"groups": "dev"}), "jane@example.org [\"dev\"]"),
            (Options { groups_prefix: "id:".into(), ..email() }, json!({"groups": ["dev", ""]}), "jane@example.org [\"id:dev\"]"),
            // Nobody becomes the system's own by what a provider says.
            (email(), json!({"groups": ["system:masters", "dev"]}), "jane@example.org [\"dev\"]"),
            (
                Options { username_prefix: "-".into(), ..Options::default() },
                json!({"sub": "system:admin"}),
                "it is not for this server: a name that is the system's own",
            ),
            // Empty and missing claims (CVE-2026-23990).
            (Options::default(), json!({"sub": ""}), "it is not for this server: no user name"),
            (Options::default(), json!({"sub": " "}), "it is not for this server: no user name"),
            (Options::default(), json!({"sub": null}), "it is not for this server: no user name"),
            (Options::default(), json!({"sub": ["17"]}), "it is not for this server: no user name"),
            (email(), json!({"email": ""}), "it is not for this server: no user name"),
            (email(), json!({"email_verified": false}), "it is not for this server: an e-mail address that nobody has verified"),
            (email(), json!({"email_verified": "true"}), "it is not for this server: an e-mail address that nobody has verified"),
            // Whose it is, for whom, and until when (CVE-2023-22482).
            (Options::default(), json!({"iss": "https://id.example/"}), "it is not for this server: another issuer"),
            (Options::default(), json!({"aud": "others"}), "it is not for this server: another audience"),
            (Options::default(), json!({"aud": []}), "it is not for this server: another audience"),
            (Options::default(), json!({"aud": null}), "it is not for this server: another audience"),
            (Options::default(), json!({"aud": ["others", "portolan"]}), "https://id.example#17 []"),
            (Options::default(), json!({"exp": null}), "it is not valid at this time"),
            (Options::default(), json!({"exp": "2000000000"}), "it is not valid at this time"),
            (Options::default(), json!({"exp": 1_000_000_000}), "it is not valid at this time"),
            (Options::default(), json!({"nbf": 1_990_000_000}), "it is not valid at this time"),
            (
                Options { required_claims: BTreeMap::from([("hd".into(), "example.org".into())]), ..Options::default() },
                json!({}),
                "it is not for this server: a required claim is missing or another",
            ),
            (
                Options { required_claims: BTreeMap::from([("hd".into(), "example.org".into())]), ..Options::default() },
                json!({"hd": "example.org"}),
                "https://id.example#17 []",
            ),
        ];
        for (options, more, wanted) in rows {
            assert_eq!(show(options, more.clone()), wanted, "{more}");
        }
    }

    #[test]
    fn providers_that_are_refused() {
        let new = |issuer: &str, client: &str, ca: &str| {
            Provider::new(Options { issuer: issuer.into(), client_id: client.into(), ca: ca.into(), ..Options::default() })
                .is_err()
        };
        assert!(new("http://id.example", "portolan", ""));
        assert!(new("https://id.example", "", ""), "an empty list of those for whom tokens are made must not mean all");
        assert!(new("https://id.example", "portolan", "no certificate"));
        assert!(!new("https://id.example", "portolan", ""));
    }
}
