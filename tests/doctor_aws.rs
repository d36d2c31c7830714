use hsm_fixtures::{
    Issuer, KeyKind, PROFILE_ARN, Role, Scene, ServiceConfig, TRUST_ANCHOR_ARN, WEB_ROLE_ARN,
};

use crate::agent::{Lab, Web, serial};
use crate::doctor::{Report, examine};

const ALL: &str = r#"["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]"#;

/// A trust policy of one statement.
fn policy(actions: &str, condition: &str) -> String {
    format!(
        r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Principal": {{"Service":
        "rolesanywhere.amazonaws.com"}}, "Action": {actions}, "Condition": {{{condition}}}}}]}}"#
    )
}

fn of_anchor(arn: &str) -> String {
    format!(r#""ArnEquals": {{"aws:SourceArn": "{arn}"}}"#)
}

fn of_cn(cn: &str) -> String {
    format!(r#""StringEquals": {{"aws:PrincipalTag/x509Subject/CN": "{cn}"}}"#)
}

fn web(edit: impl FnOnce(&mut ServiceConfig)) -> Web {
    Lab::of(Scene::with_service(edit).unwrap(), KeyKind::EcP256).start()
}

fn with_policy(web_policy: &str) -> Web {
    web(|service| {
        let role = Role::with_trust_policy(WEB_ROLE_ARN, web_policy);
        service.roles.retain(|one| one.arn != WEB_ROLE_ARN);
        service.roles.push(role);
    })
}

/// Without the document, then with it.
fn examine_both(web: &Web, document: &str) -> [Report; 2] {
    let file = web.scene.write("policy.json", document).unwrap();
    let with = format!("--trust-policy={}", file.display());
    [examine(&web.scene, &[]), examine(&web.scene, &[&with])]
}

#[test]
fn what_of_a_trust_policy_says_no_is_named() {
    let other = TRUST_ANCHOR_ARN.replace("1f0b", "ffff");
    let two = r#"["sts:AssumeRole", "sts:SetSourceIdentity"]"#;
    for (document, words) in [
        (
            policy(ALL, &of_cn("db")),
            &[
                "StringEquals aws:PrincipalTag/x509Subject/CN",
                "db",
                "\"web\"",
            ][..],
        ),
        (
            policy(ALL, &of_anchor(&other)),
            &["aws:SourceArn", &other, TRUST_ANCHOR_ARN],
        ),
        (
            policy(two, ""),
            &["sts:TagSession is allowed by no statement"],
        ),
    ] {
        let web = with_policy(&document);
        let [without, with] = examine_both(&web, &document);
        for report in [&without, &with] {
            report.fails("session", 6, "Unable to assume role", "get-profile");
            report.fails("session", 6, "", "--role-name web-deploy");
            assert_eq!(report.state("certificate"), "ok");
        }
        assert_eq!(with.state("trust-policy"), "failed");
        let detail = with.detail("trust-policy");
        for word in words {
            assert!(detail.contains(word), "no {word:?} in {detail}");
        }
    }
}

#[test]
fn a_trust_policy_that_fits_is_not_to_blame() {
    let document = policy(
        ALL,
        &format!("{}, {}", of_cn("web"), of_anchor(TRUST_ANCHOR_ARN)),
    );
    let fine = with_policy(&document);
    let [without, with] = examine_both(&fine, &document);
    assert_eq!((without.exit, with.exit), (0, 0), "{}", with.text);
    assert_eq!(with.state("trust-policy"), "ok");

    // The profile does not list the role: AWS says the same.
    let web = web(|service| {
        let profile = service
            .profiles
            .iter_mut()
            .find(|one| one.arn == PROFILE_ARN);
        profile.unwrap().roles.retain(|role| role != WEB_ROLE_ARN);
    });
    let [_, with] = examine_both(&web, &document);
    with.fails("session", 6, "Unable to assume role", "get-profile");
    assert_eq!(with.state("trust-policy"), "warning");
    let detail = with.detail("trust-policy");
    assert!(
        detail.contains("AWS refused for another reason"),
        "{detail}"
    );
    let nonsense = web.scene.write("policy.json", "{}").unwrap();
    let file = format!("--trust-policy={}", nonsense.display());
    let report = examine(&web.scene, &[&file]);
    assert!(
        report.detail("trust-policy").contains("policy.json: "),
        "{}",
        report.text
    );
}

#[test]
fn a_revoked_certificate_is_named() {
    let web = web(|_| {});
    assert_eq!(examine(&web.scene, &[]).exit, 0);
    let serial = serial(&web.scene);
    let crl = web
        .scene
        .pki()
        .crl(Issuer::Intermediate, &[&serial], std::time::Duration::ZERO)
        .unwrap();
    web.scene
        .service()
        .import_crl(TRUST_ANCHOR_ARN, crl.as_bytes())
        .unwrap();
    let report = examine(&web.scene, &[]);
    report.fails("session", 6, "revoked", "list-crls");
}

#[test]
fn a_certificate_of_another_ca_and_what_is_disabled_are_named() {
    let disabled = web(|service| service.profiles[0].enabled = false);
    examine(&disabled.scene, &[]).fails("session", 6, "disabled", "get-profile");
    let anchor = web(|service| service.trust_anchors[0].enabled = false);
    examine(&anchor.scene, &[]).fails("session", 6, "disabled", "get-trust-anchor");

    let directory = tempfile::tempdir().unwrap();
    let other = hsm_fixtures::Pki::create(directory.path()).unwrap();
    let foreign = web(|service| service.trust_anchors[0].bundle_pem = other.root_pem().unwrap());
    let report = examine(&foreign.scene, &[]);
    report.fails(
        "session",
        6,
        "Untrusted Signing Certificate",
        "get-trust-anchor",
    );
}
