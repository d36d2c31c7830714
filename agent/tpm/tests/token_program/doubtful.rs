//! The first use of an auth value has no answer: the TPM's count of failures tells whether it was one.

use roleseal_agent::token_worker::KeyState;
use token::TokenError;

use crate::program::pin;
use crate::proxy::{self, Loss};
use crate::swtpm::Swtpm;
use crate::worker::{close, settled, sign, start_by, wait_until_ready, with_pin};

const NO_DA: &str = "-a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda";

fn start() -> Swtpm {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    tpm
}

#[test]
fn a_right_pin_signs_after_a_lost_answer() {
    for (options, loss) in [
        ("", Loss::Command),
        ("", Loss::Answer),
        (NO_DA, Loss::Answer),
        ("", Loss::Hang),
    ] {
        let tpm = start();
        tpm.make("web", &format!("-G ecc256 -p key-secret {options}"));
        let keys = [("web", with_pin(&tpm, "web", "key-secret"))];
        let worker = start_by(&tpm, proxy::start(&tpm, loss), &keys);
        wait_until_ready(&worker, 0);
        sign(&worker, 0).unwrap();
        close(&worker);
        assert_eq!(tpm.lockout_counter(), 0, "{options} {loss:?}");
    }
}

#[test]
fn a_wrong_pin_that_counted_is_not_tried_again() {
    let tpm = start();
    tpm.make("web", "-G ecc256 -p key-secret");
    tpm.make("other", "-G ecc256");
    let keys = [
        ("web", with_pin(&tpm, "web", "guess")),
        ("other", tpm.file("other")),
    ];
    let worker = start_by(&tpm, proxy::start(&tpm, Loss::Answer), &keys);
    wait_until_ready(&worker, 1);
    for _ in 0..2 {
        let state = settled(&worker, 0);
        let KeyState::Failed {
            error: TokenError::PinRejected(_),
            retry_at: None,
        } = state
        else {
            panic!("{state:?}");
        };
        worker.retry();
        sign(&worker, 1).unwrap();
    }
    close(&worker);
    assert_eq!(tpm.lockout_counter(), 1);
}

/// A parent's auth value is tried while its key is opened.
#[test]
fn a_lost_answer_of_a_parent_is_judged_too() {
    for (value, ready) in [("parent-secret", true), ("guess", false)] {
        let tpm = Swtpm::start();
        tpm.raise_lockout_limit();
        tpm.make_counting_parent("parent-secret");
        tpm.make("web", "-G ecc256 -P parent-secret");
        let mut key = tpm.file("web");
        key.parent_pin = pin(value);
        let tcti = proxy::start_for(&tpm, proxy::TPM2_LOAD, Loss::Answer);
        let worker = start_by(&tpm, tcti, &[("web", key)]);
        if ready {
            wait_until_ready(&worker, 0);
            sign(&worker, 0).unwrap();
        } else {
            while !matches!(
                settled(&worker, 0),
                KeyState::Failed {
                    error: TokenError::PinRejected(_),
                    ..
                }
            ) {
                std::thread::yield_now();
            }
        }
        close(&worker);
        assert_eq!(tpm.lockout_counter(), u32::from(!ready));
    }
}
