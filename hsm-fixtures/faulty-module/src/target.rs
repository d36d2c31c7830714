//! The real module.
#![allow(unsafe_code)]

use std::path::Path;
use std::ptr::null_mut;
use std::sync::OnceLock;

use cryptoki_sys::{CK_FUNCTION_LIST, CKR_OK};

use crate::settings::{TARGET, give_up, settings};

/// Its functions. Loaded at the first call, and for as long as the process lives.
pub(crate) fn target() -> &'static CK_FUNCTION_LIST {
    static TARGET_FUNCTIONS: OnceLock<&CK_FUNCTION_LIST> = OnceLock::new();
    TARGET_FUNCTIONS.get_or_init(|| match &settings().target {
        Some(path) => load(path).unwrap_or_else(|why| give_up(&why)),
        None => give_up(&format!("{TARGET} does not name a module")),
    })
}

fn load(path: &Path) -> Result<&'static CK_FUNCTION_LIST, String> {
    let failed = |why: &dyn ToString| format!("{}: {}", path.display(), why.to_string());
    // SAFETY: runs the module's initialisers; whoever sets the variable has chosen it.
    let library = unsafe { cryptoki_sys::Pkcs11::new(path) }.map_err(|error| failed(&error))?;
    let library = Box::leak(Box::new(library));
    let function = match &library.C_GetFunctionList {
        Ok(function) => *function,
        Err(error) => return Err(failed(error)),
    };
    let mut list = null_mut();
    // SAFETY: the module's C_GetFunctionList, which writes one pointer.
    let code = unsafe { function(&raw mut list) };
    if code != CKR_OK {
        return Err(failed(&format!("C_GetFunctionList returned {code:#x}")));
    }
    // SAFETY: null is refused; else it is the module's list, which lives as long as the library, for ever.
    unsafe { list.as_ref() }.ok_or_else(|| failed(&"C_GetFunctionList returned nothing"))
}
