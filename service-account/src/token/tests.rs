use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::*;
use crate::keys::KeySetError;

const NOW: i64 = 1_900_000_000;

fn expected() -> Expected {
    Expected {
        issuer: "https://cluster.example".to_owned(),
        audience: "roleseal".to_owned(),
        node: "node-1".to_owned(),
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://cluster.example",
        "aud": ["roleseal"],
        "iat": NOW - 100,
        "nbf": NOW - 100,
        "exp": NOW + 3500,
        "sub": "system:serviceaccount:payments:api",
        "kubernetes.io": {
            "namespace": "payments",
            "serviceaccount": { "name": "api", "uid": "1" },
            "pod": { "name": "api-7d9f", "uid": "5b0b6d30" },
            "node": { "name": "node-1", "uid": "2" },
        },
    })
}

/// What signs as a cluster does, by OpenSSL.
struct Issuer {
    rsa: Rsa<Private>,
    ec: EcKey<Private>,
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    fn new(bits: u32) -> Issuer {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Issuer {
            rsa: Rsa::generate(bits).unwrap(),
            ec: EcKey::generate(&group).unwrap(),
        }
    }

    fn jwk(&self, id: &str) -> Value {
        match id {
            "rsa" => json!({ "kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig",
                "n": base64(self.rsa.n().to_vec()), "e": base64(self.rsa.e().to_vec()) }),
            _ => {
                let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
                let mut context = BigNumContext::new().unwrap();
                let point = self.ec.public_key();
                let group = self.ec.group();
                point
                    .affine_coordinates(group, &mut x, &mut y, &mut context)
                    .unwrap();
                json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig",
                    "x": base64(x.to_vec_padded(32).unwrap()), "y": base64(y.to_vec_padded(32).unwrap()) })
            }
        }
    }

    fn keys(&self) -> KeySet {
        let set = json!({ "keys": [self.jwk("rsa"), self.jwk("ec")] });
        KeySet::parse(set.to_string().as_bytes()).unwrap()
    }

    fn sign(&self, key: &str, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            base64(header.to_string()),
            base64(claims.to_string())
        );
        let sign = |key: PKey<Private>| {
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            signer.sign_oneshot_to_vec(text.as_bytes()).unwrap()
        };
        let signature = match key {
            "rsa" => sign(PKey::from_rsa(self.rsa.clone()).unwrap()),
            _ => {
                let der = sign(PKey::from_ec_key(self.ec.clone()).unwrap());
                let pair = EcdsaSig::from_der(&der).unwrap();
                let parts = [pair.r(), pair.s()].map(|n| n.to_vec_padded(32).unwrap());
                parts.concat()
            }
        };
        format!("{text}.{}", base64(signature))
    }

    fn token(&self, key: &str, claims: &Value) -> String {
        let algorithm = if key == "rsa" { "RS256" } else { "ES256" };
        self.sign(key, &json!({ "alg": algorithm, "kid": key }), claims)
    }
}

fn outcome(keys: &KeySet, token: &str, now: i64) -> Result<Caller, Refusal> {
    expected().read(token.as_bytes(), now)?.verify(keys)
}

#[test]
fn a_token_of_the_cluster_names_its_holder() {
    let issuer = Issuer::new(2048);
    for key in ["rsa", "ec"] {
        let caller = outcome(&issuer.keys(), &issuer.token(key, &claims()), NOW).unwrap();
        assert_eq!(caller.account.to_string(), "payments/api");
        let pod = caller.pod.unwrap();
        assert_eq!(
            (pod.name.as_str(), pod.uid.as_str()),
            ("api-7d9f", "5b0b6d30")
        );
    }
    let mut by_hand = claims();
    by_hand["aud"] = json!("roleseal");
    let kubernetes = by_hand["kubernetes.io"].as_object_mut().unwrap();
    kubernetes.remove("pod");
    kubernetes.remove("node");
    let caller = outcome(&issuer.keys(), &issuer.token("ec", &by_hand), NOW).unwrap();
    assert_eq!(caller.pod, None);
}

#[test]
fn a_refusal_has_one_line_whatever_the_token_says() {
    let issuer = Issuer::new(2048);
    let header = json!({ "alg": "x\nroleseal: target web", "kid": "ec" });
    let token = issuer.sign("ec", &header, &claims());
    let refusal = outcome(&issuer.keys(), &token, NOW).unwrap_err();
    let line = refusal.to_string();
    assert!(!line.contains('\n') && line.contains("\\n"), "{line}");
}

#[test]
fn each_claim_has_to_be_right() {
    let issuer = Issuer::new(2048);
    let keys = issuer.keys();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut wrong = claims();
        change(&mut wrong);
        outcome(&keys, &issuer.token("ec", &wrong), NOW).unwrap_err()
    };
    let set = |pointer: &'static str, value: Value| {
        refused(&move |claims| *claims.pointer_mut(pointer).unwrap() = value.clone())
    };
    let subject = Refusal::Subject("system:serviceaccount:payments:api".to_owned());
    assert_eq!(
        set("/iss", json!("https://cluster.example/")),
        Refusal::Issuer("https://cluster.example/".to_owned())
    );
    for audience in [json!([]), json!("roleseal2"), json!(["sts.amazonaws.com"])] {
        assert_eq!(set("/aud", audience), Refusal::Audience);
    }
    assert_eq!(set("/exp", json!(NOW - 60)), Refusal::Expired);
    assert_eq!(set("/exp", json!(i64::MIN)), Refusal::Expired);
    assert_eq!(set("/nbf", json!(NOW + 61)), Refusal::NotYet);
    assert_eq!(set("/kubernetes.io/namespace", json!("billing")), subject);
    assert_eq!(
        set("/kubernetes.io/serviceaccount/name", json!("root")),
        subject
    );
    assert_eq!(
        set("/kubernetes.io/node/name", json!("node-2")),
        Refusal::Node("node-2".to_owned())
    );
    assert!(matches!(
        set("/sub", json!("system:serviceaccount:payments:root")),
        Refusal::Subject(_)
    ));
    for claim in ["iss", "aud", "exp", "sub"] {
        let without = refused(&|claims| {
            claims.as_object_mut().unwrap().remove(claim);
        });
        assert!(matches!(without, Refusal::Malformed(_)), "{claim}");
    }
    assert!(matches!(set("/exp", json!("soon")), Refusal::Malformed(_)));
    assert!(matches!(set("/aud", json!({})), Refusal::Malformed(_)));
    let bare = refused(&|claims| {
        claims.as_object_mut().unwrap().remove("kubernetes.io");
    });
    assert_eq!(bare, subject);
}

#[test]
fn a_minute_is_granted_to_clocks() {
    let issuer = Issuer::new(2048);
    let keys = issuer.keys();
    let token = issuer.token("ec", &claims());
    for (now, is_good) in [
        (NOW - 160, true),
        (NOW - 161, false),
        (NOW + 3559, true),
        (NOW + 3560, false),
        (i64::MIN, false),
        (i64::MAX, false),
    ] {
        assert_eq!(outcome(&keys, &token, now).is_ok(), is_good, "{now}");
    }
}

#[test]
fn a_token_does_not_choose_its_algorithm() {
    let issuer = Issuer::new(2048);
    let keys = issuer.keys();
    let header = |algorithm: &str, key: &str| json!({ "alg": algorithm, "kid": key });
    let signed = |header: &Value| issuer.sign("rsa", header, &claims());

    let none = format!(
        "{}.{}.",
        base64(header("none", "rsa").to_string()),
        base64(claims().to_string())
    );
    assert!(matches!(
        outcome(&keys, &none, NOW),
        Err(Refusal::Malformed(_))
    ));
    // HMAC with the public key, which everybody has, as the secret.
    let pem = issuer.rsa.public_key_to_pem().unwrap();
    let text = format!(
        "{}.{}",
        base64(header("HS256", "rsa").to_string()),
        base64(claims().to_string())
    );
    let secret = PKey::hmac(&pem).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &secret).unwrap();
    let mac = signer.sign_oneshot_to_vec(text.as_bytes()).unwrap();
    let hs256 = format!("{text}.{}", base64(mac));
    assert_eq!(
        outcome(&keys, &hs256, NOW),
        Err(Refusal::Algorithm(Algorithm::HS256))
    );
    for algorithm in ["RS384", "RS512", "PS256", "ES384", "EdDSA"] {
        let refused = outcome(&keys, &signed(&header(algorithm, "rsa")), NOW);
        assert!(matches!(refused, Err(Refusal::Algorithm(_))), "{algorithm}");
    }
    assert_eq!(
        outcome(&keys, &signed(&header("ES256", "rsa")), NOW),
        Err(Refusal::KeyAlgorithm)
    );
    assert_eq!(
        outcome(&keys, &signed(&header("RS256", "ec")), NOW),
        Err(Refusal::KeyAlgorithm)
    );
    assert_eq!(
        outcome(&keys, &signed(&header("ES256", "ec")), NOW),
        Err(Refusal::Signature)
    );

    // A key that the token brings, and ids that are none.
    let other = Issuer::new(2048);
    let brought =
        json!({ "alg": "RS256", "kid": "rsa", "jwk": other.jwk("rsa"), "jku": "https://evil" });
    assert_eq!(
        outcome(&keys, &other.sign("rsa", &brought, &claims()), NOW),
        Err(Refusal::Signature)
    );
    assert_eq!(
        outcome(&keys, &signed(&json!({ "alg": "RS256" })), NOW),
        Err(Refusal::NoKeyId)
    );
    for id in ["", "RSA", "../rsa", "rsa\0", "' OR 1"] {
        let refused = outcome(&keys, &signed(&header("RS256", id)), NOW);
        assert_eq!(refused, Err(Refusal::UnknownKey(id.to_owned())));
    }
    let long = outcome(&keys, &signed(&header("RS256", &"k".repeat(2000))), NOW);
    assert!(matches!(long, Err(Refusal::UnknownKey(id)) if id.len() < 200));
    let critical = json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false });
    assert_eq!(
        outcome(&keys, &signed(&critical), NOW),
        Err(Refusal::Critical)
    );
}

#[test]
fn not_a_byte_may_change() {
    let issuer = Issuer::new(2048);
    let keys = issuer.keys();
    for key in ["rsa", "ec"] {
        let token = issuer.token(key, &claims());
        for at in (0..token.len()).step_by(7) {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(outcome(&keys, &changed, NOW).is_err(), "{at}");
        }
        for wrong in [
            &token[1..],
            &token[..token.len() - 1],
            token.rsplit_once('.').unwrap().0,
            &format!("{token}."),
            &format!("{token}=="),
            &format!("Bearer {token}"),
            &format!("{token}\n"),
        ] {
            assert!(outcome(&keys, wrong, NOW).is_err(), "{wrong}");
        }
    }
}

#[test]
fn what_is_no_token_is_refused_before_it_is_read() {
    let keys = Issuer::new(2048).keys();
    for text in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", "\u{fffd}.a.b"] {
        assert!(
            matches!(outcome(&keys, text, NOW), Err(Refusal::Malformed(_))),
            "{text}"
        );
    }
    let large = "a".repeat(TOKEN_LIMIT + 1);
    assert_eq!(outcome(&keys, &large, NOW), Err(Refusal::TooLong));
    let deep = base64("[".repeat(4000));
    assert!(outcome(&keys, &format!("{deep}.{deep}."), NOW).is_err());
}

#[test]
fn keys_that_do_not_fit_are_ignored() {
    let (issuer, short) = (Issuer::new(2048), Issuer::new(1024));
    let set = |keys: Vec<Value>| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    let with = |id: &str, member: &str, value: Value| {
        let mut jwk = issuer.jwk(id);
        jwk[member] = value;
        jwk
    };
    let mut without_id = issuer.jwk("rsa");
    without_id.as_object_mut().unwrap().remove("kid");
    let unusable = vec![
        short.jwk("rsa"),
        with("rsa", "use", json!("enc")),
        with("rsa", "alg", json!("RS512")),
        with("rsa", "alg", json!("XYZ")),
        with("rsa", "key_ops", json!(["sign"])),
        with("rsa", "n", json!("!")),
        with("ec", "crv", json!("P-384")),
        with("ec", "x", json!("AA")),
        json!({ "kty": "oct", "k": "AAAA", "kid": "oct" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "ed" }),
        json!({ "kty": "XYZ", "kid": "xyz" }),
        json!(7),
        without_id,
    ];
    assert_eq!(set(unusable.clone()).unwrap().count(), 0);
    let keys = set([unusable, vec![issuer.jwk("ec")]].concat()).unwrap();
    assert_eq!(keys.count(), 1);
    assert!(outcome(&keys, &issuer.token("ec", &claims()), NOW).is_ok());
    // The first of an id counts.
    let twice = set(vec![issuer.jwk("ec"), Issuer::new(2048).jwk("ec")]).unwrap();
    assert!(outcome(&twice, &issuer.token("ec", &claims()), NOW).is_ok());
    for text in ["", "{}", "[]", "{\"keys\":7}"] {
        assert!(
            matches!(
                KeySet::parse(text.as_bytes()),
                Err(KeySetError::Malformed(_))
            ),
            "{text}"
        );
    }
}

#[test]
fn every_kind_of_refusal_has_a_name_of_its_own() {
    let text = String::new;
    let all = [
        Refusal::TooLong,
        Refusal::Malformed(text()),
        Refusal::Algorithm(Algorithm::HS256),
        Refusal::Critical,
        Refusal::NoKeyId,
        Refusal::Issuer(text()),
        Refusal::Audience,
        Refusal::Expired,
        Refusal::NotYet,
        Refusal::Subject(text()),
        Refusal::Node(text()),
        Refusal::UnknownKey(text()),
        Refusal::KeyAlgorithm,
        Refusal::Signature,
    ];
    assert_eq!(all.map(|refusal| refusal.kind()), Refusal::KINDS);
}
