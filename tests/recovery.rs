use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Web, json_of, token_programs};

fn the_token_program(web: &Web) -> Pid {
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    Pid::from_raw(program).unwrap()
}

#[test]
fn a_token_program_that_dies_is_replaced_without_a_lost_request() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    for _ in 0..3 {
        kill_process(the_token_program(&web), Signal::KILL).unwrap();
        let running: Vec<_> = (0..8)
            .map(|_| {
                web.credential_process()
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in running {
            json_of(&child.wait_with_output().unwrap());
        }
    }
}

#[test]
fn a_token_program_that_hangs_is_replaced_within_the_requests_deadline() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let hung = the_token_program(&web);
    kill_process(hung, Signal::STOP).unwrap();
    json_of(&web.credential_process().output().unwrap());
    assert_ne!(the_token_program(&web), hung);
}

/// The agent cannot clean up after SIGKILL; its token program sees that it is gone.
#[test]
fn an_agent_that_is_killed_leaves_no_token_program() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let program = the_token_program(&web);
    let agent = Pid::from_raw(web.agent.process().id().cast_signed()).unwrap();
    let end = rustix::process::pidfd_open(program, rustix::process::PidfdFlags::empty()).unwrap();
    kill_process(agent, Signal::KILL).unwrap();
    let mut events = [rustix::event::PollFd::new(
        &end,
        rustix::event::PollFlags::IN,
    )];
    let deadline = rustix::event::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(
        rustix::event::poll(&mut events, Some(&deadline)).unwrap(),
        1
    );
}
