use std::process::Stdio;

use hsm_fixtures::KeyKind;

use crate::agent::{Lab, Web, identities, json_of, spied_calls};

#[test]
fn a_wrong_pin_is_tried_once_however_many_ask() {
    let lab = Lab::new(KeyKind::EcP256);
    lab.scene.write("lab.pin", "00000000").unwrap();
    let config = lab.config.clone();
    let web = lab.start_spied();
    let running: Vec<_> = (0..50)
        .map(|_| {
            let mut command = web.credential_process();
            command
                .stderr(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{stderr}");
        assert!(stderr.contains("PIN"), "{stderr}");
        assert_eq!(output.stdout, b"");
    }
    let logins = spied_calls(&web.scene)
        .into_iter()
        .filter(|call| call == "C_Login");
    assert_eq!(logins.count(), 1);
    let [identity] = &identities(&web.scene)[..] else {
        panic!()
    };
    assert_eq!(identity["state"], "pinRejected");
    let message = identity["message"].as_str().unwrap();
    let pin_file = web.scene.path("lab.pin").display().to_string();
    assert!(message.contains(&pin_file), "{message}");
    assert!(!web.agent.process().log().contains("00000000"));

    // The operator mends it.
    web.scene.write("lab.pin", hsm_fixtures::PIN).unwrap();
    let Web { agent, scene } = web;
    agent.stop().unwrap();
    let agent = scene.start_agent(&config).unwrap();
    let web = Web { agent, scene };
    json_of(&web.credential_process().output().unwrap());
}
