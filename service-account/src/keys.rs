//! The keys of a cluster: a JWK set (RFC 7517), as `/openid/v1/jwks` of the API server has it.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::provider;

/// The public keys of a cluster, by their ids.
#[derive(Debug, Clone, Default)]
pub struct KeySet(HashMap<String, Key>);

/// A key, with the one algorithm that it verifies: a token does not choose.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// Why a text has no keys.
#[derive(Debug, Error)]
pub enum KeySetError {
    /// It is no JWK set.
    #[error("not a JWK set: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The largest JWK set that is read, in bytes: a key takes half a KiB, and a cluster has two or three.
pub const KEY_SET_LIMIT: u64 = 256 * 1024;

/// More are ignored.
const KEYS: usize = 100;

/// The lengths of an RSA modulus that ring verifies, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A coordinate of P-256, in bytes.
const COORDINATE: usize = 32;

impl KeySet {
    /// Reads a JWK set. Keys of other types or for other purposes are ignored, and those without an id: it may be empty.
    pub fn parse(json: &[u8]) -> Result<KeySet, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        provider::install();
        let document: Document = serde_json::from_slice(json)?;
        let mut keys = HashMap::new();
        for (id, key) in document.keys.into_iter().filter_map(usable).take(KEYS) {
            keys.entry(id).or_insert(key);
        }
        Ok(KeySet(keys))
    }

    /// Returns how many keys there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns whether another set has keys of the same ids.
    pub fn same_ids(&self, other: &KeySet) -> bool {
        self.count() == other.count() && self.0.keys().all(|id| other.0.contains_key(id))
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }
}

fn usable(value: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let verifies = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let (algorithm, name, key) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let (n, e) = (decode(&rsa.n)?, decode(&rsa.e)?);
            if !RSA_BITS.contains(&bits(&n)) {
                return None;
            }
            let key = DecodingKey::from_rsa_raw_components(&n, &e);
            (Algorithm::RS256, KeyAlgorithm::RS256, key)
        }
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            if [&point.x, &point.y].map(|text| decode(text).map(|bytes| bytes.len()))
                != [Some(COORDINATE); 2]
            {
                return None;
            }
            let key = DecodingKey::from_ec_components(&point.x, &point.y).ok()?;
            (Algorithm::ES256, KeyAlgorithm::ES256, key)
        }
        _ => return None,
    };
    let for_algorithm = common.key_algorithm.is_none_or(|other| other == name);
    let id = jwk.common.key_id.filter(|id| !id.is_empty())?;
    (for_signatures && verifies && for_algorithm).then_some((id, Key { algorithm, key }))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |byte| byte.leading_zeros());
    (number.len() * 8).saturating_sub(zeros as usize)
}
