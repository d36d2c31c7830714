//! A token: what it says, and whether a cluster says so.

use jsonwebtoken::dangerous::insecure_decode;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::Deserialize;
use thiserror::Error;

use crate::account::{Caller, Pod, ServiceAccount};
use crate::keys::KeySet;

/// What a token has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The cluster's issuer (`--service-account-issuer` of its API server).
    pub issuer: String,
    /// One of the token's audiences.
    pub audience: String,
    /// The node, where the token names one.
    pub node: String,
}

/// A token that says what it has to; its signature has not been verified.
#[derive(Debug)]
pub struct Unverified<'t> {
    text: &'t [u8],
    key_id: String,
    algorithm: Algorithm,
    caller: Caller,
}

/// Why a token is not accepted: for the log.
#[derive(Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Refusal {
    #[error("it has more than {TOKEN_LIMIT} bytes")]
    TooLong,
    #[error("it is no JWT: {0:?}")]
    Malformed(String),
    #[error("its algorithm is {0:?}, not RS256 or ES256")]
    Algorithm(Algorithm),
    #[error("it has critical extensions")]
    Critical,
    #[error("it names no key")]
    NoKeyId,
    #[error("its issuer is {0:?}")]
    Issuer(String),
    #[error("it is not for this audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it is not of a service account: {0:?}")]
    Subject(String),
    #[error("it is for a pod on the node {0:?}")]
    Node(String),
    #[error("its key {0:?} is not known")]
    UnknownKey(String),
    #[error("its algorithm is not that of its key")]
    KeyAlgorithm,
    #[error("its signature is wrong")]
    Signature,
}

impl Refusal {
    /// Every [`kind`](Self::kind).
    pub const KINDS: [&'static str; 14] = [
        "too_long",
        "malformed",
        "algorithm",
        "critical",
        "no_key_id",
        "issuer",
        "audience",
        "expired",
        "not_yet",
        "subject",
        "node",
        "unknown_key",
        "key_algorithm",
        "signature",
    ];

    /// Returns the name of this kind of refusal, for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::TooLong => "too_long",
            Refusal::Malformed(_) => "malformed",
            Refusal::Algorithm(_) => "algorithm",
            Refusal::Critical => "critical",
            Refusal::NoKeyId => "no_key_id",
            Refusal::Issuer(_) => "issuer",
            Refusal::Audience => "audience",
            Refusal::Expired => "expired",
            Refusal::NotYet => "not_yet",
            Refusal::Subject(_) => "subject",
            Refusal::Node(_) => "node",
            Refusal::UnknownKey(_) => "unknown_key",
            Refusal::KeyAlgorithm => "key_algorithm",
            Refusal::Signature => "signature",
        }
    }
}

/// The largest token that is read, in bytes: those of Kubernetes have some 1.3 KiB.
pub const TOKEN_LIMIT: usize = 8 * 1024;

/// For clocks that differ, in seconds.
const LEEWAY: i64 = 60;

/// Of a text that a refusal quotes, in bytes.
const QUOTED: usize = 100;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Expected {
    /// Reads a token and checks all but its signature, at a `now` in seconds since 1970.
    pub fn read<'t>(&self, text: &'t [u8], now: i64) -> Result<Unverified<'t>, Refusal> {
        if text.len() > TOKEN_LIMIT {
            return Err(Refusal::TooLong);
        }
        let token = insecure_decode::<Claims>(text)
            .map_err(|error| Refusal::Malformed(quoted(error.to_string())))?;
        let (header, claims) = (token.header, token.claims);
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(Refusal::Algorithm(header.alg));
        }
        if header.crit.is_some() {
            return Err(Refusal::Critical);
        }
        let key_id = header.kid.ok_or(Refusal::NoKeyId)?;
        self.check(&claims, now)?;
        Ok(Unverified {
            text,
            key_id,
            algorithm: header.alg,
            caller: self.caller(claims)?,
        })
    }

    fn check(&self, claims: &Claims, now: i64) -> Result<(), Refusal> {
        if claims.iss != self.issuer {
            return Err(Refusal::Issuer(quoted(claims.iss.clone())));
        }
        let is_for_us = match &claims.aud {
            Audience::One(one) => *one == self.audience,
            Audience::Several(several) => several.contains(&self.audience),
        };
        if !is_for_us {
            return Err(Refusal::Audience);
        }
        if claims.exp <= now.saturating_sub(LEEWAY) {
            return Err(Refusal::Expired);
        }
        if claims
            .nbf
            .is_some_and(|begin| begin > now.saturating_add(LEEWAY))
        {
            return Err(Refusal::NotYet);
        }
        Ok(())
    }

    /// The subject and the claims of Kubernetes name the same account.
    fn caller(&self, claims: Claims) -> Result<Caller, Refusal> {
        let subject = || Refusal::Subject(quoted(claims.sub.clone()));
        let kubernetes = claims.kubernetes.ok_or_else(subject)?;
        let (namespace, name) = (&kubernetes.namespace, &kubernetes.serviceaccount.name);
        let account = ServiceAccount::new(namespace, name)
            .filter(|_| claims.sub == format!("system:serviceaccount:{namespace}:{name}"))
            .ok_or_else(subject)?;
        match kubernetes.node {
            Some(node) if node.name != self.node => Err(Refusal::Node(quoted(node.name))),
            _ => Ok(Caller {
                account,
                pod: kubernetes.pod.map(|pod| Pod {
                    name: quoted(pod.name),
                    uid: quoted(pod.uid),
                }),
            }),
        }
    }
}

impl Unverified<'_> {
    /// Returns whose token it is, if one of these keys signed it.
    pub fn verify(self, keys: &KeySet) -> Result<Caller, Refusal> {
        let Some(key) = keys.find(&self.key_id) else {
            return Err(Refusal::UnknownKey(quoted(self.key_id)));
        };
        if key.algorithm != self.algorithm {
            return Err(Refusal::KeyAlgorithm);
        }
        // All claims have been checked, at a time that is an argument.
        let mut signature = Validation::new(key.algorithm);
        signature.required_spec_claims.clear();
        signature.validate_exp = false;
        signature.validate_aud = false;
        decode::<Claims>(self.text, &key.key, &signature).map_err(|_| Refusal::Signature)?;
        Ok(self.caller)
    }
}

/// Cuts a text of somebody else's, for a message that quotes it.
pub fn quoted(mut text: String) -> String {
    if text.len() > QUOTED {
        text.truncate(text.floor_char_boundary(QUOTED));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
