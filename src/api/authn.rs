//! How somebody proves who it is, beside a client certificate: tokens of service accounts and of an identity provider.
//!
//! Every way either makes an [`Identity`] or makes nobody; nothing is half believed, and who fails is told nothing but 401. What the
//! identity may do then is `auth`'s.

use std::collections::HashMap;
use std::net::IpAddr;

use http::{HeaderMap, header, request};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Api;
use super::auth::Identity;
use super::failure::Failure;
use crate::object::{Key, kind_of};
use jwt::{Bad, TOKEN_MAX};

pub mod account;
pub(super) mod jwt;
pub mod oidc;

/// Where a request comes from, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The ConfigMap in `kube-system` that names credentials which are worth nothing any more: its keys are credential ids as
/// `kubectl auth whoami` shows them, with a dot for the equals sign.
pub const REVOKED: &str = "revoked-credentials";
/// The key of [`Identity::extra`] that names the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// How long a token that was found good is not computed anew. What it hangs on is looked at each time all the same.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(10);
/// How many such tokens.
const REMEMBERED_MOST: usize = 20_000;
/// Wrong tokens from one address in a minute. More are refused before anything is computed.
const WRONG_AT_MOST: u32 = 60;
/// Addresses that are told apart. Those beyond share one count, so that coming from everywhere gives no more tries.
const ADDRESSES: usize = 10_000;

/// What is remembered between requests: tokens that were good a moment ago, and addresses that guess.
#[derive(Default)]
pub(super) struct Memory {
    good: Mutex<HashMap<[u8; 32], (Identity, Timestamp)>>,
    wrong: Mutex<HashMap<Option<IpAddr>, (Timestamp, u32)>>,
}

impl Memory {
    fn recall(&self, hash: &[u8; 32], now: Timestamp) -> Option<Identity> {
        let good = self.good.lock();
        good.get(hash).filter(|(_, until)| now < *until).map(|(identity, _)| identity.clone())
    }

    fn remember(&self, hash: [u8; 32], identity: &Identity, now: Timestamp) {
        let mut good = self.good.lock();
        if good.len() >= REMEMBERED_MOST {
            good.retain(|_, (_, until)| now < *until);
            if good.len() >= REMEMBERED_MOST {
                good.clear();
            }
        }
        good.insert(hash, (identity.clone(), now + REMEMBERED));
    }

    /// Whether somebody at this address may try once more.
    fn may_try(&self, peer: Option<IpAddr>, now: Timestamp) -> bool {
        let wrong = self.wrong.lock();
        let known = wrong.get(&peer).or_else(|| if wrong.len() > ADDRESSES { wrong.get(&None) } else { None });
        known.is_none_or(|(since, count)| now.duration_since(*since) >= SignedDuration::from_mins(1) || *count < WRONG_AT_MOST)
    }

    pub(super) fn failed(&self, peer: Option<IpAddr>, now: Timestamp) {
        let mut wrong = self.wrong.lock();
        if wrong.len() > ADDRESSES && !wrong.contains_key(&peer) {
            wrong.retain(|peer, (since, _)| peer.is_none() || now.duration_since(*since) < SignedDuration::from_mins(1));
        }
        let peer = if wrong.len() > ADDRESSES && !wrong.contains_key(&peer) { None } else { peer };
        let (since, count) = wrong.entry(peer).or_insert((now, 0));
        if now.duration_since(*since) >= SignedDuration::from_mins(1) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
    }
}

/// The token in a request's `Authorization` header. Nowhere else: what is in an address ends in logs (CVE-2026-44883).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl Api {
    /// Who sent a request: whoever its connection's certificate names, or whom its token speaks for. `None`: nobody that we know.
    pub(super) async fn authenticate(&self, parts: &request::Parts) -> Result<Option<Identity>, Failure> {
        if let Some(identity) = parts.extensions.get::<Identity>().filter(|identity| self.still_valid(identity)) {
            return Ok(Some(identity.clone()));
        }
        let Some(token) = bearer(&parts.headers) else { return Ok(None) };
        let (now, peer) = (self.now(), parts.extensions.get::<Peer>().map(|peer| peer.0));
        if token.len() > TOKEN_MAX {
            return Ok(None);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(identity) = self.inner.memory.recall(&hash, now) {
            return Ok(Some(identity).filter(|identity| self.still_valid(identity)));
        }
        // In the same process there is no address, and nobody who guesses.
        if peer.is_some() && !self.inner.memory.may_try(peer, now) {
            return Err(Failure::too_many());
        }
        match self.identity_of(token, now).await {
            Ok(identity) if self.still_valid(&identity) => {
                self.inner.memory.remember(hash, &identity, now);
                Ok(Some(identity))
            }
            outcome => {
                let why = outcome.err().unwrap_or(Bad::Gone("what it hangs on is gone, or it was revoked".to_owned()));
                // A join token is no token for anything else, and not a guess either.
                if token.split_once('.').is_none_or(|(id, secret)| id.len() != 6 || secret.contains('.')) {
                    tracing::debug!(peer = ?peer, "a token was refused: {why}");
                    self.inner.memory.failed(peer, now);
                }
                Ok(None)
            }
        }
    }

    async fn identity_of(&self, token: &str, now: Timestamp) -> Result<Identity, Bad> {
        let issuer = jwt::peek_issuer(token).ok_or(Bad::Form)?;
        let settings = &self.inner.settings;
        if issuer == settings.issuer {
            return self.account_of_token(token, &[&settings.issuer]).map(|(identity, _)| identity);
        }
        match &settings.oidc {
            Some(provider) if provider.issues(&issuer) => provider.identity(token, now).await,
            _ => Err(Bad::Claims("another issuer")),
        }
    }

    /// Whose token this is, and for which of these audiences it was made.
    pub(super) async fn identity_and_audiences(&self, token: &str, wanted: &[&str]) -> Option<(Identity, Vec<String>)> {
        let own = self.inner.settings.issuer.as_str();
        let (identity, audiences) = if jwt::peek_issuer(token)? == own {
            self.account_of_token(token, wanted).ok()?
        } else {
            // People come to this API, and to nobody else here.
            let audience = wanted.iter().find(|audience| **audience == own)?;
            (self.identity_of(token, self.now()).await.ok()?, vec![(*audience).to_owned()])
        };
        self.still_valid(&identity).then_some((identity, audiences))
    }

    /// Whether a credential that was good when its connection was opened still is, with the rights that it has opened something with.
    pub(super) fn still_valid(&self, identity: &Identity) -> bool {
        let in_time = identity.expires.is_none_or(|end| self.now() < end);
        // A node's name can be given anew; then the old key is worth nothing.
        let stands = match (identity.host(), &identity.key) {
            (Some(host), Some(key)) => self.key_stands(host, key),
            _ => true,
        };
        let there = identity.bound.iter().all(|(key, uid)| {
            let accounts = key.kind == kind_of::<core::ServiceAccount>();
            self.store().get(key).is_some_and(|object| object.meta.uid == *uid && !(accounts && object.meta.deleting()))
        });
        let allowed = identity.needs.iter().all(|right| self.decide(identity, &right.attributes()).is_ok());
        // Who acts for somebody else does so only as long as it is itself.
        in_time
            && stands
            && there
            && allowed
            && !self.revoked(identity)
            && identity.by.as_ref().is_none_or(|by| self.still_valid(by))
    }

    fn revoked(&self, identity: &Identity) -> bool {
        let Some(ids) = identity.extra.get(CREDENTIAL_ID) else { return false };
        let Some(object) = self.store().get(&Key::of::<core::ConfigMap>(super::join::NAMESPACE, REVOKED)) else { return false };
        match object.typed::<core::ConfigMap>() {
            Ok(list) => ids.iter().any(|id| list.data.as_ref().is_some_and(|data| data.contains_key(&id.replacen('=', ".", 1)))),
            // A list that cannot be read must not mean that nothing is on it.
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_guessing_has_a_limit() {
        let (memory, now): (Memory, Timestamp) = (Memory::default(), "2026-11-21T10:00:00Z".parse().unwrap());
        let peer = |n: u32| Some(IpAddr::V4(n.into()));
        for _ in 0..WRONG_AT_MOST {
            assert!(memory.may_try(peer(1), now));
            memory.failed(peer(1), now);
        }
        assert!(!memory.may_try(peer(1), now) && memory.may_try(peer(2), now));
        assert!(memory.may_try(peer(1), now + SignedDuration::from_mins(1)), "a minute later again");
        // Whoever comes from more addresses than are told apart gets no more tries for it (CVE-2024-21662), and costs no more memory.
        for n in 0..3 * ADDRESSES as u32 {
            memory.failed(peer(n + 10), now);
        }
        assert!(memory.wrong.lock().len() <= ADDRESSES + 2);
        assert!(!memory.may_try(peer(999_999), now));
    }

    #[test]
    fn tokens_are_taken_from_one_place() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bearer  abc "]).as_deref(), Some("abc"));
        for none in [&[][..], &["Bearer "], &["Bearer"], &["Basic abc"], &["abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }
}
