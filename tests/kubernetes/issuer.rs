//! A cluster's issuer of service-account tokens, by OpenSSL: it shares nothing with what verifies them.

use openssl::base64::encode_block;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
pub(crate) const NODE: &str = "node-1";

/// Keys, the latest of which signs.
#[derive(Default)]
pub(crate) struct Issuer(Vec<Key>);

struct Key {
    id: String,
    pair: Pair,
}

#[derive(Clone)]
enum Pair {
    Rsa(Rsa<Private>),
    Ec(EcKey<Private>),
}

/// Without padding, as JWTs have it.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    let text = encode_block(bytes.as_ref());
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// What Kubernetes says of a pod.
pub(crate) fn claims(namespace: &str, account: &str, pod: &str) -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["roleseal"],
        "iat": now() - 10,
        "nbf": now() - 10,
        "exp": now() + 3600,
        "jti": "0b6f6d8e-6f5e-4b5c-9d5c-0d1f7f5a7c11",
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": { "name": account, "uid": "a-uid" },
            "pod": { "name": pod, "uid": format!("uid-of-{pod}") },
            "node": { "name": NODE, "uid": "n-uid" },
        },
    })
}

impl Issuer {
    pub(crate) fn rs256() -> Issuer {
        let mut issuer = Issuer::default();
        issuer.rotate_to_rs256("first");
        issuer
    }

    pub(crate) fn rotate_to_rs256(&mut self, id: &str) {
        let pair = Pair::Rsa(Rsa::generate(2048).unwrap());
        let id = id.to_owned();
        self.0.push(Key { id, pair });
    }

    pub(crate) fn rotate_to_es256(&mut self, id: &str) {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let pair = Pair::Ec(EcKey::generate(&group).unwrap());
        let id = id.to_owned();
        self.0.push(Key { id, pair });
    }

    pub(crate) fn retire_first(&mut self) {
        self.0.remove(0);
    }

    /// What the API server publishes.
    pub(crate) fn jwks(&self) -> String {
        let keys: Vec<_> = self.0.iter().map(Key::jwk).collect();
        json!({ "keys": keys }).to_string()
    }

    pub(crate) fn token(&self, namespace: &str, account: &str) -> String {
        self.sign(&claims(namespace, account, &format!("{account}-0")))
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let key = self.0.last().unwrap();
        let header = json!({ "alg": key.algorithm(), "kid": key.id });
        self.sign_with(&header, claims)
    }

    /// By the latest key, whatever the header says.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            base64(header.to_string()),
            base64(claims.to_string())
        );
        let signature = self.0.last().unwrap().sign(text.as_bytes());
        format!("{text}.{}", base64(signature))
    }

    /// The latest key as everybody knows it.
    pub(crate) fn public_pem(&self) -> Vec<u8> {
        match &self.0.last().unwrap().pair {
            Pair::Rsa(rsa) => rsa.public_key_to_pem().unwrap(),
            Pair::Ec(ec) => ec.public_key_to_pem().unwrap(),
        }
    }
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(rsa) => {
                json!({ "kty": "RSA", "n": base64(rsa.n().to_vec()), "e": base64(rsa.e().to_vec()) })
            }
            Pair::Ec(ec) => {
                let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
                let mut context = BigNumContext::new().unwrap();
                let point = ec.public_key();
                point
                    .affine_coordinates(ec.group(), &mut x, &mut y, &mut context)
                    .unwrap();
                let [x, y] = [x, y].map(|number| base64(number.to_vec_padded(32).unwrap()));
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        jwk
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let sign = |key: PKey<Private>| {
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            signer.sign_oneshot_to_vec(text).unwrap()
        };
        match self.pair.clone() {
            Pair::Rsa(rsa) => sign(PKey::from_rsa(rsa).unwrap()),
            Pair::Ec(ec) => {
                let pair = EcdsaSig::from_der(&sign(PKey::from_ec_key(ec).unwrap())).unwrap();
                let parts = [pair.r(), pair.s()].map(|number| number.to_vec_padded(32).unwrap());
                parts.concat()
            }
        }
    }
}
