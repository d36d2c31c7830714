use std::process::Stdio;

use hsm_fixtures::KeyKind;

use crate::agent::{Lab, Web, json_of, spied_calls, token_programs};

/// The memory map of a process. An agent is not dumpable, so that only root may read it.
fn maps(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap()
}

#[test]
fn only_the_token_program_has_the_module_in_its_memory() {
    if as_root::by_sudo!() {
        return;
    }
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let agent = maps(web.agent.process().id().cast_signed());
    assert!(agent.contains("roleseal-agent"));
    assert!(!agent.contains("softhsm") && !agent.contains("pkcs11"));
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    assert!(maps(program).contains("libsofthsm2.so"));

    // The CLI, caught while its answer is still being written: its output is not read yet.
    let mut stopped = web.credential_process();
    let child = stopped.stdout(Stdio::piped()).spawn().unwrap();
    let cli = maps(child.id().cast_signed());
    assert!(!cli.contains("softhsm") && !cli.contains("pkcs11"));
    child.wait_with_output().unwrap();
}

#[test]
fn a_further_signature_costs_two_calls() {
    let web = Lab::new(KeyKind::EcP256).start_spied();
    json_of(&web.credential_process().output().unwrap());
    let before = spied_calls(&web.scene);
    assert!(before.len() > 2, "{before:?}");
    for _ in 0..5 {
        json_of(&web.credential_process().output().unwrap());
    }
    let calls = spied_calls(&web.scene);
    let further = calls[before.len()..].chunks(2);
    assert_eq!(further.len(), 5, "{calls:?}");
    for signature in further {
        assert_eq!(signature, ["C_SignInit", "C_Sign"]);
    }
    let count = |name: &str| calls.iter().filter(|call| *call == name).count();
    assert_eq!(
        (
            count("C_Login"),
            count("C_Initialize"),
            count("C_FindObjectsInit")
        ),
        (1, 1, 1)
    );
    let Web { agent, scene } = web;
    agent.stop().unwrap();
    // Asked to end, it leaves the token in good order.
    let calls = spied_calls(&scene);
    assert_eq!(
        calls.last().map(String::as_str),
        Some("C_Finalize"),
        "{calls:?}"
    );
}
