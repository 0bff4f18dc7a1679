//! Signed tokens (RFC 7519 over RFC 7515): made with our key, checked with ours or somebody else's.
//!
//! The algorithm is the key's, never the token's: a token that names another one, or none, is refused before anything is computed. The
//! sums are ring's. Which claims mean what is not here.

use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, PublicKeyData as _};
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::authority::write_private;

/// The longest token that is looked at, in bytes. Ours have under a kilobyte, those of large identity providers a few.
pub(in crate::api) const TOKEN_MAX: usize = 16 * 1024;

/// Our own key for tokens: ES256.
pub(in crate::api) struct Signer {
    pair: EcdsaKeyPair,
    key: Key,
}

/// A public key with which tokens are checked.
#[derive(Clone)]
pub(in crate::api) struct Key {
    /// Its name, as tokens give it; may be empty with providers that have one key.
    pub(in crate::api) id: String,
    public: Public,
}

#[derive(Clone)]
enum Public {
    Es256(Vec<u8>),
    Es384(Vec<u8>),
    Rsa { algorithm: &'static str, n: Vec<u8>, e: Vec<u8> },
}

/// Why a token is worth nothing. For the log: who sent it is told nothing but 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum Bad {
    #[error("it is no signed token")]
    Form,
    #[error("it is signed with {0:?}, which its key is not for")]
    Algorithm(String),
    #[error("its key is not known")]
    UnknownKey,
    #[error("its signature does not hold")]
    Signature,
    #[error("it is not for this server: {0}")]
    Claims(&'static str),
    #[error("it is not valid at this time")]
    Time,
    #[error("{0}")]
    Gone(String),
}

impl Signer {
    /// Reads the key from a file, or makes it there.
    pub(in crate::api) fn open(path: &Path) -> anyhow::Result<Signer> {
        if !path.exists() {
            write_private(path, &KeyPair::generate()?.serialize_pem())?;
        }
        let pem = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Signer::of(&KeyPair::from_pem(&pem).with_context(|| format!("read the key in {}", path.display()))?)
    }

    /// A key that is only in memory.
    pub(in crate::api) fn in_memory() -> anyhow::Result<Signer> {
        Signer::of(&KeyPair::generate()?)
    }

    fn of(pair: &KeyPair) -> anyhow::Result<Signer> {
        let random = ring::rand::SystemRandom::new();
        let id = BASE64.encode(Sha256::digest(pair.subject_public_key_info()));
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .map_err(|e| anyhow::anyhow!("the key for tokens must be an ECDSA key on P-256: {e}"))?;
        let key = Key { id, public: Public::Es256(pair.public_key().as_ref().to_vec()) };
        Ok(Signer { pair, key })
    }

    /// The key that checks what this signs.
    pub(in crate::api) fn key(&self) -> &Key {
        &self.key
    }

    /// Signs claims.
    pub(in crate::api) fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = json!({"alg": "ES256", "kid": self.key.id});
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let random = ring::rand::SystemRandom::new();
        let signature = self.pair.sign(&random, text.as_bytes()).map_err(|_| anyhow::anyhow!("sign a token"))?;
        Ok(format!("{text}.{}", BASE64.encode(signature)))
    }
}

impl Key {
    /// Reads a JSON Web Key. `None`: it is not one for signatures that we know.
    pub(in crate::api) fn of_jwk(jwk: &Value) -> Option<Key> {
        let text = |name: &str| jwk[name].as_str();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |name: &str| BASE64.decode(text(name)?.trim_end_matches('=')).ok();
        let algorithm = text("alg");
        let public = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let algorithm = ["RS256", "RS384", "RS512"].into_iter().find(|a| *a == algorithm.unwrap_or("RS256"))?;
                Public::Rsa { algorithm, n: bytes("n")?, e: bytes("e")? }
            }
            ("EC", Some("P-256")) if algorithm.is_none_or(|a| a == "ES256") => {
                Public::Es256(point(&bytes("x")?, &bytes("y")?, 32)?)
            }
            ("EC", Some("P-384")) if algorithm.is_none_or(|a| a == "ES384") => {
                Public::Es384(point(&bytes("x")?, &bytes("y")?, 48)?)
            }
            _ => return None,
        };
        Some(Key { id: text("kid").unwrap_or_default().to_owned(), public })
    }

    /// As a JSON Web Key. Only our own keys are shown, which are on P-256.
    pub(in crate::api) fn jwk(&self) -> Value {
        match &self.public {
            Public::Es256(point) if point.len() == 65 => json!({
                "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id,
                "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]),
            }),
            _ => Value::Null,
        }
    }

    fn algorithm(&self) -> &'static str {
        match &self.public {
            Public::Es256(_) => "ES256",
            Public::Es384(_) => "ES384",
            Public::Rsa { algorithm, .. } => algorithm,
        }
    }

    fn holds(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Es256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(text, signature).is_ok()
            }
            Public::Es384(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(text, signature).is_ok()
            }
            Public::Rsa { algorithm, n, e } => {
                let parameters = match *algorithm {
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, text, signature).is_ok()
            }
        }
    }
}

/// A point of a curve, uncompressed.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

/// What a token says of its issuer, before anything of it is believed: to find out whose it might be.
pub(in crate::api) fn peek_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    Some(tree(claims)?["iss"].as_str()?.to_owned())
}

fn tree(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok().filter(Value::is_object)
}

/// The claims of a token that one of these keys has signed.
pub(in crate::api) fn verify(token: &str, keys: &[Key]) -> Result<Value, Bad> {
    if token.len() > TOKEN_MAX {
        return Err(Bad::Form);
    }
    let (text, signature) = token.rsplit_once('.').ok_or(Bad::Form)?;
    let (header, claims) = text.split_once('.').ok_or(Bad::Form)?;
    if claims.contains('.') {
        return Err(Bad::Form);
    }
    let (header, claims) = (tree(header).ok_or(Bad::Form)?, tree(claims).ok_or(Bad::Form)?);
    let signature = BASE64.decode(signature).map_err(|_| Bad::Form)?;
    // What we do not understand must not be ignored (RFC 7515, 4.1.11).
    if !header["crit"].is_null() {
        return Err(Bad::Form);
    }
    let (algorithm, id) = (header["alg"].as_str().unwrap_or_default(), header["kid"].as_str().unwrap_or_default());
    let mut known = keys.iter().filter(|key| key.id == id).peekable();
    if known.peek().is_none() {
        return Err(Bad::UnknownKey);
    }
    let mut fitting = known.filter(|key| key.algorithm() == algorithm).peekable();
    if fitting.peek().is_none() {
        return Err(Bad::Algorithm(algorithm.chars().take(20).collect()));
    }
    if fitting.any(|key| key.holds(text.as_bytes(), &signature)) { Ok(claims) } else { Err(Bad::Signature) }
}

/// The audiences of a token: a text or a list of texts.
pub(in crate::api) fn audiences(claims: &Value) -> Vec<&str> {
    match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A time in claims: whole seconds, also where somebody writes a fraction.
pub(in crate::api) fn seconds(claims: &Value, name: &str) -> Option<i64> {
    claims[name].as_i64().or_else(|| claims[name].as_f64().filter(|n| n.is_finite() && n.abs() < 1e15).map(|n| n as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged(header: Value, claims: &Value, signature: &[u8]) -> String {
        format!("{}.{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()), BASE64.encode(signature))
    }

    #[test]
    fn a_token_holds_with_its_own_key_only() {
        let (signer, other) = (Signer::in_memory().unwrap(), Signer::in_memory().unwrap());
        let claims = json!({"iss": "us", "aud": ["a", "b"], "exp": 5});
        let token = signer.sign(&claims).unwrap();
        let keys = [other.key().clone(), signer.key().clone()];
        assert_eq!(verify(&token, &keys), Ok(claims.clone()));
        assert_eq!(peek_issuer(&token).as_deref(), Some("us"));
        assert_eq!(audiences(&claims), ["a", "b"]);
        let again = Key::of_jwk(&signer.key().jwk()).unwrap();
        assert_eq!(verify(&token, &[again]), Ok(claims.clone()), "the published key is the key");
        assert_eq!(verify(&token, &[other.key().clone()]), Err(Bad::UnknownKey));
        let mut wrong = other.key().clone();
        wrong.id.clone_from(&signer.key().id);
        assert_eq!(verify(&token, &[wrong]), Err(Bad::Signature), "a key under a foreign name");
        assert_eq!(verify(&token, &[]), Err(Bad::UnknownKey));
    }

    /// CVE-2022-29165 and the classics: no algorithm, the public key as a shared secret, another algorithm, other claims.
    #[test]
    fn e_forged_tokens() {
        let signer = Signer::in_memory().unwrap();
        let (keys, id) = ([signer.key().clone()], signer.key().id.clone());
        let claims = json!({"iss": "us"});
        let token = signer.sign(&claims).unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64.decode(signature).unwrap();
        let rows = [
            forged(json!({"alg": "none", "kid": id}), &claims, b""),
            forged(json!({"alg": "None", "kid": id}), &claims, b""),
            forged(json!({"kid": id}), &claims, b""),
            forged(json!({"alg": "HS256", "kid": id}), &claims, &[0; 32]),
            forged(json!({"alg": "RS256", "kid": id}), &claims, &signature),
            forged(json!({"alg": "ES256", "kid": id}), &json!({"iss": "us", "sub": "admin"}), &signature),
            forged(json!({"alg": "ES256", "kid": id}), &claims, &[0; 64]),
            forged(json!({"alg": "ES256", "kid": id}), &claims, b""),
            forged(json!({"alg": "ES256", "kid": "../../dev/null"}), &claims, &signature),
            forged(json!({"alg": "ES256", "kid": id, "crit": ["b64"], "b64": false}), &claims, &signature),
            forged(json!({"alg": "ES256", "kid": id, "jwk": signer.key().jwk()}), &claims, &[1; 64]),
            format!("{head}."),
            head.to_owned(),
            format!("{token}.x"),
            format!("{token}="),
            token.replace('.', ""),
            String::new(),
            "..".to_owned(),
            ".".repeat(20_000),
            "x".repeat(TOKEN_MAX + 1),
        ];
        for row in rows {
            assert!(verify(&row, &keys).is_err(), "{row:.120}");
        }
        assert!(verify(&token, &keys).is_ok());
    }

    #[test]
    fn keys_of_providers() {
        let rows = [
            (json!({"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}), Some("RS256")),
            (json!({"kty": "RSA", "kid": "a", "alg": "RS512", "n": "AQAB", "e": "AQAB"}), Some("RS512")),
            (json!({"kty": "RSA", "kid": "a", "alg": "HS256", "n": "AQAB", "e": "AQAB"}), None),
            (json!({"kty": "RSA", "kid": "a", "use": "enc", "n": "AQAB", "e": "AQAB"}), None),
            (json!({"kty": "oct", "kid": "a", "k": "AQAB"}), None),
            (json!({"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}), None),
            (json!({}), None),
            (Value::Null, None),
        ];
        for (jwk, wanted) in rows {
            assert_eq!(Key::of_jwk(&jwk).map(|k| k.algorithm()), wanted, "{jwk}");
        }
    }
}
