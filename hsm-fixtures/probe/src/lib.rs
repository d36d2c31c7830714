//! A hostile library, for each of roleseal's processes. It tries system calls where the program has confined itself, and
//! writes a line for each to standard error: `probe NAME=ERRNO`, 0 where the call was permitted.
//!
//! | process | how it gets there |
//! | --- | --- |
//! | roleseal-pkcs11 | as the PKCS#11 module; `C_GetFunctionList` tries |
//! | roleseal-tpm | as `libtss2-tcti-NAME.so.0` in `LD_LIBRARY_PATH`; `Tss2_Tcti_Info` tries |
//! | roleseal-agent | by `LD_PRELOAD`; the first client that it accepts has it try |
//!
//! `ROLESEAL_PROBE` has the names of the attempts, with blanks between them; `attempt` lists them. Without it nothing is
//! tried.

mod attempt;

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::sync::Once;

/// Names the variable with the attempts.
const ATTEMPTS: &str = "ROLESEAL_PROBE";

/// Tries what the environment names, once.
fn probe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(names) = std::env::var(ATTEMPTS) else {
            return;
        };
        for name in names.split_ascii_whitespace() {
            match attempt::by_name(name) {
                Some(errno) => eprintln!("probe {name}={errno}"),
                None => eprintln!("probe {name}=unknown"),
            }
        }
        eprintln!("probe end");
    });
}

/// The one symbol that a PKCS#11 module has. Returns CKR_GENERAL_ERROR: there is no token behind it.
#[allow(unsafe_code)]
#[allow(non_snake_case, reason = "the standard's name")]
// SAFETY: no program links this library, see its manifest.
#[unsafe(no_mangle)]
extern "C" fn C_GetFunctionList(_: *mut *mut c_void) -> c_ulong {
    probe();
    5
}

/// The one symbol that a TCTI of libtss2 has. Returns nothing: there is no TPM behind it.
#[allow(unsafe_code)]
#[allow(non_snake_case, reason = "libtss2's name")]
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn Tss2_Tcti_Info() -> *const c_void {
    probe();
    std::ptr::null()
}

/// Takes the place of the C library's function where this library is loaded before it.
///
/// # Safety
///
/// As accept4(2) has it.
#[allow(unsafe_code)]
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    socket: c_int,
    address: *mut c_void,
    length: *mut c_void,
    flags: c_int,
) -> c_int {
    probe();
    // SAFETY: the caller's pointers, to which the kernel writes as the caller expects.
    let accepted: c_long =
        unsafe { libc::syscall(libc::SYS_accept4, socket, address, length, flags) };
    c_int::try_from(accepted).unwrap_or(-1)
}
