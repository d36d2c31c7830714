mod signature;

use jiff::SignedDuration;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use tempfile::TempDir;

use super::super::config::{Profile, Role, ServiceConfig, TrustAnchor};
use super::super::refusal::Kind;
use super::super::test_client::{Draft, amz_date, base64, base64_of_pem, ec, p256, rsa, spki};
use super::*;
use crate::pki::{Issuer, Leaf, LeafSpec, Pki};

const ANCHOR: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1";
const ROLE: &str = "arn:aws:iam::123456789012:role/path/web";
const QUERY: &str = "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2Fplain\
    &roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpath%2Fweb\
    &trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2F1";

/// A registry, the PKI that it trusts, and a client's key and certificate.
struct Court {
    _dir: TempDir,
    pki: Pki,
    registry: Registry,
    key: PKey<Private>,
    leaf: Leaf,
    now: Timestamp,
}

impl Court {
    fn new() -> Court {
        Court::with_key(p256(), Issuer::Intermediate)
    }

    fn with_key(key: PKey<Private>, issuer: Issuer) -> Court {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let spec = LeafSpec {
            serial: Some(0xff01),
            issuer,
            ..LeafSpec::new("web")
        };
        let leaf = pki.leaf(&spki(&key), &spec).unwrap();
        let registry = Registry::new(&config(&pki)).unwrap();
        Court {
            _dir: dir,
            pki,
            registry,
            key,
            leaf,
            now: Timestamp::now(),
        }
    }

    fn draft(&self) -> Draft {
        Draft::new(&self.key, &self.leaf, "localhost:8443", QUERY, self.now)
    }

    fn judge(&self, request: &Received) -> Result<Grant, Refusal> {
        judge(
            &self.registry,
            request,
            self.now,
            &mut Explanation::default(),
        )
    }

    /// The outcome of a good draft with one thing changed before it is signed.
    fn with(&self, change: impl FnOnce(&mut Draft)) -> Result<Grant, Refusal> {
        let mut draft = self.draft();
        change(&mut draft);
        self.judge(&draft.sign(&self.key))
    }

    /// The outcome of a good request with one thing changed after it was signed.
    fn tampered(&self, change: impl FnOnce(&mut Received)) -> Result<Grant, Refusal> {
        let mut request = self.draft().sign(&self.key);
        change(&mut request);
        self.judge(&request)
    }
}

fn config(pki: &Pki) -> ServiceConfig {
    let mut config = ServiceConfig::new(pki.tls_identity().unwrap());
    config
        .trust_anchors
        .push(TrustAnchor::new(ANCHOR, &pki.root_pem().unwrap()));
    let profile = |name: &str| {
        let arn = format!("arn:aws:rolesanywhere:eu-central-1:123456789012:profile/{name}");
        Profile::new(&arn, &[ROLE, "arn:aws:iam::123456789012:role/gone"])
    };
    config.profiles = vec![
        profile("plain"),
        Profile {
            enabled: false,
            ..profile("disabled")
        },
        Profile {
            accept_role_session_name: true,
            ..profile("named")
        },
        Profile {
            require_instance_properties: true,
            ..profile("properties")
        },
        Profile {
            duration_seconds: 1800,
            ..profile("short")
        },
    ];
    config.roles = vec![
        Role::new(ROLE),
        Role::new("arn:aws:iam::123456789012:role/other"),
    ];
    config
}

#[track_caller]
fn refused(outcome: Result<Grant, Refusal>, kind: Kind, reason: &str) {
    let refusal = outcome.unwrap_err();
    assert!(
        refusal.kind == kind && refusal.reason.contains(reason),
        "{reason}: {refusal:?}"
    );
}

#[test]
fn every_kind_of_key_gets_a_session_with_and_without_a_chain() {
    let keys = [
        rsa(2048),
        rsa(3072),
        ec(Nid::X9_62_PRIME256V1),
        ec(Nid::SECP384R1),
        ec(Nid::SECP521R1),
    ];
    for key in keys {
        for issuer in [Issuer::Root, Issuer::Intermediate] {
            let court = Court::with_key(key.clone(), issuer);
            let has_chain = court
                .draft()
                .headers
                .iter()
                .any(|(name, _)| name == "x-amz-x509-chain");
            assert_eq!(has_chain, issuer == Issuer::Intermediate);
            court.with(|_| {}).unwrap();
        }
    }
}

#[test]
fn a_grant_says_whose_session_it_is() {
    let grant = Court::new().with(|_| {}).unwrap();
    assert_eq!(grant.role.to_string(), ROLE);
    assert_eq!(grant.session_name, "ff01");
    assert_eq!(grant.source_identity, "CN=web");
    assert_eq!(grant.seconds, 900);
    assert!(
        grant
            .subject_arn
            .starts_with("arn:aws:rolesanywhere:eu-central-1:123456789012:subject/")
    );
}

#[test]
fn a_python_client_sends_everything_in_the_body_without_a_content_type() {
    let court = Court::new();
    let grant = court.with(|draft| {
        draft.query.clear();
        draft.remove("content-type");
        draft.body = format!(
            r#"{{"trustAnchorArn":"{ANCHOR}","roleArn":"{ROLE}",
                "profileArn":"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/plain"}}"#
        );
    });
    assert_eq!(grant.unwrap().seconds, 3600);
}

#[test]
fn only_post_sessions_exists() {
    let court = Court::new();
    refused(
        court.with(|draft| draft.method = "PUT".into()),
        Kind::UnknownOperation,
        "PUT /sessions",
    );
    refused(
        court.with(|draft| draft.path = "/session".into()),
        Kind::UnknownOperation,
        "POST /session",
    );
    refused(
        court.with(|draft| draft.path = "/sessions/".into()),
        Kind::UnknownOperation,
        "POST /sessions/",
    );
}

#[test]
fn the_leaf_keeps_the_rules() {
    let court = Court::new();
    // The rules themselves are tested with the certificate; here, what the client is told.
    let expired = LeafSpec::expired("web");
    let leaf = court.pki.leaf(&spki(&court.key), &expired).unwrap();
    let request = Draft::new(&court.key, &leaf, "localhost", QUERY, court.now).sign(&court.key);
    let refusal = court.judge(&request).unwrap_err();
    assert!(refusal.reason.contains("expired"), "{refusal:?}");
    assert_eq!(
        refusal.message,
        "Untrusted certificate. Insufficient certificate"
    );
    refused(
        court.with(|draft| draft.remove("x-amz-x509")),
        Kind::Validation,
        "no x-amz-x509",
    );
    refused(
        court.with(|draft| draft.set("x-amz-x509", "%")),
        Kind::Validation,
        "X-Amz-X509: no base64",
    );
    refused(
        court.with(|draft| draft.set("x-amz-x509", "AAAA")),
        Kind::Validation,
        "X-Amz-X509: no DER",
    );
}

#[test]
fn the_chain_leads_to_the_trust_anchor() {
    let court = Court::new();
    let set_chain = |certificates: &[String]| {
        court.with(|draft| draft.set("x-amz-x509-chain", &certificates.join(",")))
    };
    let intermediate = base64_of_pem(&court.leaf.chain_pem).remove(0);
    let root = base64_of_pem(&court.pki.root_pem().unwrap()).remove(0);
    let stranger = base64_of_pem(&Court::new().leaf.chain_pem).remove(0);
    set_chain(&[stranger, intermediate.clone()]).unwrap();
    set_chain(&[root.clone(), intermediate.clone()]).unwrap();
    set_chain(&vec![intermediate.clone(); 5]).unwrap();
    refused(
        set_chain(&vec![intermediate.clone(); 6]),
        Kind::Validation,
        "6 certificates; 5 are allowed",
    );
    refused(
        set_chain(&[intermediate.clone(), String::new()]),
        Kind::Validation,
        "X-Amz-X509-Chain: no DER",
    );
    let leaf = base64(&court.leaf.der);
    refused(
        set_chain(&[intermediate, leaf]),
        Kind::AccessDenied,
        "is no CA",
    );
    refused(set_chain(&[root]), Kind::AccessDenied, "an issuer of");
    let missing = court
        .with(|draft| draft.remove("x-amz-x509-chain"))
        .unwrap_err();
    assert_eq!(missing.message, "Untrusted Signing Certificate");

    let other = Court::new();
    let registry = &other.registry;
    let foreign = judge(
        registry,
        &court.draft().sign(&court.key),
        court.now,
        &mut Explanation::default(),
    );
    refused(foreign, Kind::AccessDenied, "an issuer of");
}

#[test]
fn anchor_profile_and_role_are_known_and_fit_together() {
    let court = Court::new();
    let query =
        |from: &str, to: &str| court.with(|draft| draft.query = draft.query.replace(from, to));
    refused(
        query("trust-anchor%2F1", "trust-anchor%2F2"),
        Kind::ResourceNotFound,
        "no trust anchor",
    );
    refused(
        query("profile%2Fplain", "profile%2Ffancy"),
        Kind::ResourceNotFound,
        "no profile",
    );
    refused(
        query("path%2Fweb", "other"),
        Kind::AccessDenied,
        "does not list the role",
    );
    refused(
        query("path%2Fweb", "gone"),
        Kind::AccessDenied,
        "no such role",
    );
    let message = query("path%2Fweb", "gone").unwrap_err().message;
    assert_eq!(
        message,
        "Unable to assume role for arn:aws:iam::123456789012:role/gone"
    );
    refused(
        query("profile%2Fplain", "profile%2Fdisabled"),
        Kind::AccessDenied,
        "is disabled",
    );
    let region = "profileArn=arn%3Aaws%3Arolesanywhere%3A";
    refused(
        query(
            &format!("{region}eu-central-1"),
            &format!("{region}eu-west-1"),
        ),
        Kind::Validation,
        "different regions",
    );
    refused(
        query("iam%3A%3A123456789012", "iam%3A%3A210987654321"),
        Kind::Validation,
        "different accounts",
    );
    refused(
        query("arn%3Aaws%3Aiam", "arn%3Aaws-cn%3Aiam"),
        Kind::Validation,
        "different accounts or partitions",
    );
}

#[test]
fn the_profile_rules_name_duration_and_properties() {
    let court = Court::new();
    let ask = |profile: &str, body: &str| {
        court.with(|draft| {
            draft.query = draft
                .query
                .replace("profile%2Fplain", &format!("profile%2F{profile}"));
            draft.body = body.to_owned();
        })
    };
    let refusal = ask("plain", r#"{"roleSessionName":"deploy-7"}"#).unwrap_err();
    assert_eq!(refusal.message, "Not authorized to set roleSessionName.");
    assert_eq!(
        ask("named", r#"{"roleSessionName":"deploy-7"}"#)
            .unwrap()
            .session_name,
        "deploy-7"
    );
    refused(
        ask("properties", "{}"),
        Kind::Validation,
        "instanceProperties is missing",
    );
    ask("properties", r#"{"instanceProperties":{"rack":"7"}}"#).unwrap();
    assert_eq!(ask("short", "{}").unwrap().seconds, 1800);
    assert_eq!(
        ask("short", r#"{"durationSeconds":3600}"#).unwrap().seconds,
        1800
    );
    assert_eq!(
        ask("short", r#"{"durationSeconds":900}"#).unwrap().seconds,
        900
    );
    refused(
        ask("plain", r#"{"durationSeconds":60}"#),
        Kind::Validation,
        "durationSeconds",
    );
}
