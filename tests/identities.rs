use hsm_fixtures::{
    AgentIdentity, KeyKind, KeySpec, LeafSpec, Purpose, Scene, Token, WEB_ROLE_ARN,
};
use serde_json::Value;

use crate::agent::{identities, json_of, log_with, until};

/// An identity of the EC key `name` with that certificate.
fn with_leaf(scene: &Scene, token: &Token, leaf: LeafSpec) -> AgentIdentity {
    let key = KeySpec::new(&leaf.common_name, KeyKind::EcP256);
    let mut identity = scene.add_identity_with(token, &key, &leaf).unwrap();
    identity.allow[0].roles = vec![WEB_ROLE_ARN.to_owned()];
    identity
}

fn named<'a>(identities: &'a [Value], name: &str) -> &'a Value {
    identities
        .iter()
        .find(|identity| identity["name"] == name)
        .unwrap()
}

#[test]
fn each_says_why_it_cannot_sign_and_the_others_do() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    let good = |name: &str| LeafSpec::new(name);
    let variant = |name: &str, change: &dyn Fn(&mut AgentIdentity)| {
        let mut identity = web.clone();
        identity.name = name.to_owned();
        change(&mut identity);
        identity
    };
    // Two keys of one label: which one is meant?
    for id in [1, 2] {
        let key = KeySpec {
            id: vec![id],
            ..KeySpec::new("twin", KeyKind::EcP256)
        };
        token.generate(&key).unwrap();
    }
    let all = vec![
        web.clone(),
        with_leaf(&scene, &token, LeafSpec::expired("expired")),
        with_leaf(
            &scene,
            &token,
            LeafSpec {
                basic_constraints: Some(true),
                ..good("ca")
            },
        ),
        with_leaf(
            &scene,
            &token,
            LeafSpec {
                digital_signature: false,
                ..good("usage")
            },
        ),
        with_leaf(
            &scene,
            &token,
            LeafSpec {
                extended_key_usage: Some(Purpose::ServerAuth),
                ..good("server")
            },
        ),
        variant("mismatch", &|identity| {
            identity.certificate = scene.path("expired.pem");
        }),
        variant("swapped", &|identity| {
            identity.key = "pkcs11:token=lab;object=expired".into()
        }),
        variant("no-key", &|identity| {
            identity.key = "pkcs11:token=lab;object=absent".into()
        }),
        variant("twin", &|identity| {
            identity.key = "pkcs11:token=lab;object=twin".into()
        }),
        variant("no-token", &|identity| {
            identity.key = "pkcs11:token=absent;object=web".into()
        }),
        variant("no-file", &|identity| {
            identity.certificate = scene.path("absent.pem")
        }),
    ];
    let agent = scene
        .start_agent(&scene.agent_config(all).unwrap())
        .unwrap();
    let listed = identities(&scene);
    for (name, state, expected) in [
        ("expired", "unusable", "expired on"),
        ("ca", "unusable", "CA certificate"),
        ("usage", "unusable", "digitalSignature"),
        ("server", "unusable", "clientAuth"),
        ("mismatch", "unusable", "is not of this key"),
        ("swapped", "unusable", "is not of this key"),
        ("no-key", "unusable", "pkcs11:token=lab"), // what is there instead
        ("twin", "unusable", "id=%02"),             // the URI that would be unambiguous
        ("no-file", "unusable", "absent.pem"),
    ] {
        let identity = named(&listed, name);
        assert_eq!(identity["state"], state, "{identity}");
        let message = identity["message"].as_str().unwrap();
        assert!(message.contains(expected), "{name}: {message}");
    }
    // While its other program logs in, SoftHSM may show this one no token at all; it looks again.
    until("what tokens there are instead", || {
        let identities = identities(&scene);
        let identity = named(&identities, "no-token");
        assert_eq!(identity["state"], "unavailable", "{identity}");
        let message = identity["message"].as_str().unwrap();
        message.contains("token=lab").then_some(())
    });
    let ready = named(&listed, "web");
    assert_eq!(ready["state"], "ready", "{ready}");
    assert_eq!(ready["keyAlgorithm"], "EC-P-256");
    assert_eq!(ready["keyUri"], "pkcs11:token=lab;object=web");
    assert!(ready["subject"].as_str().unwrap().contains("CN=web"));
    assert_eq!(ready["warnings"].as_array().unwrap().len(), 0);

    log_with(&agent, "ready identity=web ");
    log_with(&agent, "failed identity=twin ");

    let status = |name: &str| {
        let arguments = scene.credential_process(name, WEB_ROLE_ARN);
        scene
            .roleseal(&arguments)
            .unwrap()
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(status("web"), Some(0));
    for name in ["expired", "swapped", "no-key", "twin", "no-token"] {
        assert_eq!(status(name), Some(5), "{name}");
    }

    // For people, too.
    let socket = scene.socket().display().to_string();
    let table = scene
        .roleseal(&["identities", "--socket", &socket])
        .unwrap()
        .output()
        .unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("expired on") && table.contains("ready"),
        "{table}"
    );
}

#[test]
fn a_key_that_can_leave_the_token_signs_with_a_warning() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let key = KeySpec {
        extractable: true,
        ..KeySpec::new("web", KeyKind::EcP256)
    };
    let web = scene
        .add_identity_with(&token, &key, &LeafSpec::new("web"))
        .unwrap();
    let _agent = scene
        .start_agent(&scene.agent_config(vec![web]).unwrap())
        .unwrap();
    let identities = identities(&scene);
    assert_eq!(identities[0]["state"], "ready");
    let warning = identities[0]["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("extract") || warning.contains("read out"),
        "{warning}"
    );
    let arguments = scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
}

#[test]
fn a_pin_file_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    std::fs::set_permissions(
        scene.pin_path(&token),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let _agent = scene
        .start_agent(&scene.agent_config(vec![web]).unwrap())
        .unwrap();
    let identities = identities(&scene);
    assert_eq!(identities[0]["state"], "unusable");
    let message = identities[0]["message"].as_str().unwrap();
    assert!(message.contains("chmod 600"), "{message}");
}

#[test]
fn a_thousand_are_listed_in_several_messages() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    let all = (0..1000)
        .map(|number| AgentIdentity {
            name: format!("web-{number}"),
            ..web.clone()
        })
        .collect();
    let _agent = scene
        .start_agent(&scene.agent_config(all).unwrap())
        .unwrap();
    let socket = scene.socket();
    let single = crate::agent::call(&socket, "ListIdentities", serde_json::json!({}));
    assert_eq!(single["error"], "org.varlink.service.ExpectedMore");
    let socket = socket.display().to_string();
    let listed = scene
        .roleseal(&["identities", "--json", "--socket", &socket])
        .unwrap()
        .output()
        .unwrap();
    assert_eq!(json_of(&listed).as_array().unwrap().len(), 1000);
    let arguments = scene.credential_process("web-999", WEB_ROLE_ARN);
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
}
