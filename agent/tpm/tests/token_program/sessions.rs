//! Sessions: fewer places in the TPM than keys need, and those of a program that was killed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use token::link::OpenTpmKey;

use crate::keys::{KeyFile, PARENT};
use crate::proxy::{self, Loss};
use crate::swtpm::Swtpm;
use crate::worker::{close, settled, sign, start, start_by, wait_until_ready, with_pin};

fn start_tpm() -> Swtpm {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    tpm
}

/// A key with this name algorithm for PCR 16, which is all zeros.
fn make_for_pcr(tpm: &Swtpm, name: &str, hash: &str) {
    tpm.tool(&format!("tpm2_startauthsession -S s.ctx -g {hash}"));
    tpm.tool("tpm2_policypcr -Q -S s.ctx -l sha256:16 -L policy.bin");
    tpm.tool("tpm2_flushcontext s.ctx");
    tpm.tool(&format!(
        "tpm2_create -Q -C {PARENT} -G ecc256 -g {hash} -L policy.bin -u {name}.pub -r {name}.priv \
         -a fixedtpm|fixedparent|sensitivedataorigin|sign|noda -f pem -o {name}.pem"
    ));
    tpm.flush();
    fs::write(tpm.path("pcr"), [0; 32]).unwrap();
    tpm.tool(&format!("openssl dgst -{hash} -binary -out digest pcr"));
    let digest = fs::read(tpm.path("digest")).unwrap();
    let length = [0, u8::try_from(digest.len()).unwrap()];
    let selection = [0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 1];
    let mut file = KeyFile::under(0x8100_0001);
    file.policy = vec![(0x17f, [&length[..], &digest, &selection].concat())];
    tpm.write_key_file(name, file);
}

/// Another program's session, which stays loaded: those of tpm2-tools are saved when the tool ends.
fn start_session(tpm: &Swtpm) {
    const TPM_RH_NULL: [u8; 4] = [0x40, 0, 0, 7];
    let command = [
        &[0x80, 1, 0, 0, 0, 43, 0, 0, 1, 0x76][..],
        &TPM_RH_NULL,
        &TPM_RH_NULL,
        &[0, 16],
        &[7; 16],                     // nonceCaller
        &[0, 0, 0, 0, 0x10, 0, 0x0b], // no salt, HMAC, no cipher, SHA-256
    ]
    .concat();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, tpm.port())).unwrap();
    stream.write_all(&command).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[6..], [0; 4]);
}

#[test]
fn keys_take_turns_where_the_tpm_has_fewer_sessions() {
    // A TPM has three places; others may have taken all but one.
    for others in [0, 2] {
        let tpm = start_tpm();
        tpm.make("auth", "-G ecc256 -p key-secret");
        let mut keys: Vec<(&str, OpenTpmKey)> =
            vec![("auth", with_pin(&tpm, "auth", "key-secret"))];
        for hash in ["sha1", "sha256", "sha384"] {
            make_for_pcr(&tpm, hash, hash);
            keys.push((hash, tpm.file(hash)));
        }
        for _ in 0..others {
            start_session(&tpm);
        }
        let worker = start(&tpm, &keys);
        for _ in 0..2 {
            for key in 0..keys.len() {
                sign(&worker, key).unwrap();
            }
        }
        assert_eq!(worker.starts(), 1);
        close(&worker);
        let left = tpm.tool("tpm2_getcap handles-loaded-session");
        assert_eq!(left.lines().count(), others, "{left}");
    }
}

/// The agent kills a program that does not answer. Another program's session stays.
#[test]
fn sessions_of_a_killed_program_are_flushed() {
    let tpm = start_tpm();
    tpm.make("auth", "-G ecc256 -p key-secret");
    make_for_pcr(&tpm, "pcr", "sha256");
    start_session(&tpm);
    let others = tpm.handles();
    let keys = [
        ("pcr", tpm.file("pcr")),
        ("auth", with_pin(&tpm, "auth", "key-secret")),
    ];
    let worker = start_by(&tpm, proxy::start(&tpm, Loss::Hang), &keys);
    for key in [0, 1] {
        wait_until_ready(&worker, key);
        sign(&worker, key).unwrap();
    }
    assert!(worker.starts() > 1);
    close(&worker);
    assert_eq!(tpm.handles(), others);
}

/// Other programs fill the TPM.
#[test]
fn each_state_names_its_own_key() {
    let tpm = start_tpm();
    for name in ["one", "two"] {
        tpm.make(name, "-G ecc256");
    }
    tpm.fill(3);
    let keys = ["one", "two"].map(|name| (name, tpm.file(name)));
    let worker = start(&tpm, &keys);
    for (number, (name, _)) in keys.iter().enumerate() {
        let state = format!("{:?}", settled(&worker, number));
        assert!(state.contains(&format!("{name}.tss")), "{state}");
    }
    close(&worker);
}
