//! A key at a persistent handle is replaced by another one, with the same auth value, and its certificate too.

use std::fs;
use std::time::Duration;
use std::{thread, time::Instant};

use roleseal_agent::token_worker::{Caller, KeyState};
use token::link::{OpenTpmKey, TpmKeySource};

use crate::harness::ECDSA;
use crate::keys::PARENT;
use crate::program::{key, pin};
use crate::swtpm::Swtpm;
use crate::worker::{DEADLINE, close, sign, start, wait_until_ready};

const HANDLE: u32 = 0x8100_0101;
const NO_DA: &str = "-a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda";

fn put(tpm: &Swtpm, name: &str) {
    tpm.output("tpm2_evictcontrol", &["-Q", "-c", &format!("{HANDLE:#x}")]);
    tpm.tool(&format!(
        "tpm2_load -Q -C {PARENT} -u {name}.pub -r {name}.priv -c {name}.ctx"
    ));
    tpm.tool("tpm2_flushcontext -t"); // and not the sessions, which are the token program's
    tpm.tool(&format!(
        "tpm2_evictcontrol -Q -C o -c {name}.ctx {HANDLE:#x}"
    ));
    tpm.tool("tpm2_flushcontext -t");
    tpm.make_certificate(name);
    fs::copy(tpm.path(&format!("{name}.pem")), tpm.path("web.pem")).unwrap();
    fs::copy(tpm.path(&format!("{name}.crt")), tpm.path("web.crt")).unwrap();
}

/// By the operator's reload, and without one: by the next signature of a host that has not signed for a while.
#[test]
fn the_new_key_signs_and_no_failure_is_counted() {
    for (options, reload) in [("", true), ("", false), (NO_DA, true), (NO_DA, false)] {
        let tpm = Swtpm::start();
        tpm.make_parent("");
        for name in ["old", "new"] {
            tpm.make(name, &format!("-G ecc256 -p key-secret {options}"));
        }
        put(&tpm, "old");
        let web = OpenTpmKey {
            pin: pin("key-secret"),
            ..key(TpmKeySource::Handle(HANDLE))
        };
        let worker = start(&tpm, &[("web", web)]);
        sign(&worker, 0).unwrap();
        let old = worker.state(0);
        let signed = Instant::now();
        put(&tpm, "new");
        if reload {
            worker.retry();
        }
        while !reload && signed.elapsed() < Duration::from_secs(2) {
            thread::yield_now();
        }
        let deadline = Instant::now() + DEADLINE;
        let serial = |state: &KeyState| state.certificate().map(|one| one.serial.clone());
        while serial(&worker.state(0)) == serial(&old) {
            assert!(Instant::now() < deadline);
            let (text, caller) = (ECDSA.parse().unwrap(), Caller::user(0));
            let _ = worker.sign(0, &text, caller, deadline); // of either key
        }
        wait_until_ready(&worker, 0);
        sign(&worker, 0).unwrap();
        close(&worker);
        assert_eq!(tpm.lockout_counter(), 0, "{options} {reload}");
        assert_eq!(tpm.handles(), "");
    }
}
