//! A token program reads what the configuration names, also what could not be used when it was started.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use roleseal_agent::token_worker::KeyState;
use token::PinSource;
use token::TokenError;

use crate::swtpm::Swtpm;
use crate::worker::{close, settled, sign, start, wait_until_ready};

fn write_pin(directory: &Path, value: &str) {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join("pin");
    fs::write(&path, value).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn start_tpm() -> Swtpm {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    tpm.make("empty", "-G ecc256");
    tpm.make("auth", "-G ecc256 -p key-secret");
    tpm
}

/// The PIN is refused, another token program takes over, and the PIN is corrected.
#[test]
fn a_corrected_pin_is_read_by_a_later_program() {
    let mut tpm = start_tpm();
    let directory = tempfile::tempdir().unwrap(); // not beneath that of the keys
    let pins = directory.path().join("pins");
    write_pin(&pins, "guess");
    let mut auth = tpm.file("auth");
    auth.pin = Some(PinSource::File(pins.join("pin")));
    let worker = start(&tpm, &[("empty", tpm.file("empty")), ("auth", auth)]);
    let refused = settled(&worker, 1);
    let KeyState::Failed {
        error: TokenError::PinRejected(_),
        ..
    } = refused
    else {
        panic!("{refused:?}");
    };
    let starts = worker.starts();
    tpm.kill();
    assert!(sign(&worker, 0).is_err());
    tpm.restart();
    wait_until_ready(&worker, 0);
    assert!(worker.starts() > starts);
    write_pin(&pins, "key-secret");
    worker.retry();
    wait_until_ready(&worker, 1);
    sign(&worker, 1).unwrap();
    close(&worker);
}

/// The directory is made later, made again, or a link to it leads elsewhere.
#[test]
fn a_pin_is_read_in_a_directory_that_came_later() {
    for later in [
        |pins: &Path| write_pin(pins, "key-secret"),
        |pins: &Path| {
            write_pin(&pins.with_extension("2"), "key-secret");
            symlink(pins.with_extension("2"), pins).unwrap();
        },
    ] {
        for before in [false, true] {
            let tpm = start_tpm();
            let directory = tempfile::tempdir().unwrap();
            let pins = directory.path().join("pins");
            if before {
                write_pin(&pins, "guess");
            }
            let mut auth = tpm.file("auth");
            auth.pin = Some(PinSource::File(pins.join("pin")));
            let worker = start(&tpm, &[("empty", tpm.file("empty")), ("auth", auth)]);
            let failed = settled(&worker, 1);
            assert!(matches!(failed, KeyState::Failed { .. }), "{failed:?}");
            if before {
                fs::remove_dir_all(&pins).unwrap();
            }
            later(&pins);
            worker.retry();
            wait_until_ready(&worker, 1);
            sign(&worker, 1).unwrap();
            close(&worker);
        }
    }
}
