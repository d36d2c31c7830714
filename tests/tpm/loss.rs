//! A TPM that goes away, and an agent that does.

use rustix::process::Pid;

use super::*;
use crate::agent::kill_and_wait_for;

#[test]
fn a_tpm_that_was_restarted_signs_on() {
    let mut chip = Chip::new();
    chip.add("web", &ec());
    let handle = TpmKeySpec {
        form: persistent(0x8100_0101),
        ..ec()
    };
    chip.add("handle", &handle);
    let sealed = TpmKeySpec {
        pcr: Some(16),
        ..ec()
    };
    chip.add("sealed", &sealed);
    chip.add("auth", &with_auth(ec()));
    chip.tpm.set_max_tries(32).unwrap();
    chip.start();
    let names = ["web", "handle", "sealed", "auth"];
    for name in names {
        chip.sign(name);
    }
    chip.tpm.restart().unwrap();
    for name in names {
        chip.sign(name);
    }
    chip.tpm.reset().unwrap();
    for name in names {
        chip.sign(name);
    }
    chip.stop();
    chip.assert_left_nothing();
}

#[test]
fn a_tpm_that_goes_away_is_used_again_once_it_is_back() {
    let mut chip = Chip::new();
    chip.add("web", &ec());
    chip.tpm.set_max_tries(32).unwrap();
    chip.start();
    chip.sign("web");
    chip.tpm.kill().unwrap();
    let message = refused(&chip.ask("web"));
    assert!(message.contains(&chip.tpm.tcti()), "{message}");
    chip.tpm.restart().unwrap();
    chip.wait_for("web");
    chip.stop();
    chip.assert_left_nothing();

    // The same for one that is not there at the start.
    chip.tpm.kill().unwrap();
    chip.start();
    refused(&chip.ask("web"));
    assert_eq!(chip.states()["web"]["state"], "unavailable");
    chip.tpm.restart().unwrap();
    chip.wait_for("web");
}

#[test]
fn an_agent_that_is_killed_leaves_nothing_in_the_tpm() {
    let mut chip = twelve();
    chip.start();
    for identity in &chip.identities {
        chip.sign(&identity.name);
    }
    let agent = chip.agent.as_ref().unwrap();
    let [program] = token_programs(agent)[..] else {
        panic!()
    };
    kill_and_wait_for(agent, Pid::from_raw(program).unwrap());
    chip.assert_left_nothing();
}
