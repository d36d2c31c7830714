//! The functions of the module, and their list.
#![allow(unsafe_code)]
#![allow(non_snake_case, reason = "they have the standard's names")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::*;

use crate::call::{self, SESSIONS};
use crate::fault::Action;
use crate::sessions::Session;
use crate::target::target;

/// Hands out the list: the one symbol that a program looks for.
///
/// # Safety
///
/// `list` is null, or points to a place for a pointer.
// SAFETY: no other function of that name is linked to ours.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    // SAFETY: the caller's promise.
    match unsafe { list.as_mut() } {
        Some(list) => {
            target(); // loaded from now on, as behind every module that passes calls on
            *list = (&raw const FUNCTIONS).cast_mut();
            CKR_OK
        }
        None => CKR_ARGUMENTS_BAD,
    }
}

/// Runs when the process exits normally, as destructors of a C++ module do.
// SAFETY: the section holds pointers to functions of that type.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destroy;

extern "C" fn destroy() {
    call::destroy();
}

/// Calls a function of the target.
macro_rules! target {
    ($function:ident($($argument:expr),* $(,)?)) => {
        match target().$function {
            // SAFETY: the target's function of that type. Our own caller's pointers are as PKCS#11 asks
            // for, or what we have put in their place is.
            Some(function) => unsafe { function($($argument),*) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

/// Begins a call, or returns.
macro_rules! begin {
    ($function:ident, $session:expr) => {
        match begin(stringify!($function), $session) {
            Ok(call) => call,
            Err(code) => return code,
        }
    };
}

mod begin; // here, where they see the macros
mod objects;
mod passed_on;
use begin::{begin, close};
use objects::*;
use passed_on::*;

unsafe extern "C" fn C_Initialize(arguments: CK_VOID_PTR) -> CK_RV {
    let call = begin!(C_Initialize, None);
    let code = target!(C_Initialize(arguments));
    if code == CKR_OK {
        SESSIONS.reset(call.under);
    }
    code
}

unsafe extern "C" fn C_Finalize(reserved: CK_VOID_PTR) -> CK_RV {
    let call = begin!(C_Finalize, None);
    let code = target!(C_Finalize(reserved));
    if code == CKR_OK {
        SESSIONS.reset(call.under);
    }
    code
}

unsafe extern "C" fn C_GetInfo(info: CK_INFO_PTR) -> CK_RV {
    begin!(C_GetInfo, None);
    target!(C_GetInfo(info))
}

unsafe extern "C" fn C_GetSlotList(
    with_token: CK_BBOOL,
    list: CK_SLOT_ID_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    let call = begin!(C_GetSlotList, None);
    // SAFETY: the caller's, null or not.
    let Some(count) = (unsafe { count.as_mut() }) else {
        return CKR_ARGUMENTS_BAD;
    };
    if with_token != CK_FALSE && call.shift.is_none() {
        *count = 0;
        return CKR_OK;
    }
    let code = target!(C_GetSlotList(with_token, list, count));
    if code == CKR_OK && !list.is_null() {
        // SAFETY: the target has written so many there.
        let slots = unsafe { std::slice::from_raw_parts_mut(list, *count as usize) };
        for slot in slots {
            *slot += call.shift.unwrap_or(0);
        }
    }
    code
}

unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) -> CK_RV {
    let call = begin!(C_GetSlotInfo, None);
    let Some(slot) = slot.checked_sub(call.shift.unwrap_or(0)) else {
        return CKR_SLOT_ID_INVALID;
    };
    let code = target!(C_GetSlotInfo(slot, info));
    // SAFETY: the caller's, null or not; the target has filled it in.
    if let (CKR_OK, None, Some(info)) = (code, call.shift, unsafe { info.as_mut() }) {
        info.flags &= !CKF_TOKEN_PRESENT;
    }
    code
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    let call = begin!(C_GetTokenInfo, None);
    let slot = match call.slot(slot) {
        Ok(slot) => slot,
        Err(code) => return code,
    };
    let code = target!(C_GetTokenInfo(slot, info));
    // SAFETY: the caller's, null or not; the target has filled it in.
    if let (CKR_OK, Some(info)) = (code, unsafe { info.as_mut() }) {
        for effect in &call.effects {
            match effect {
                Action::Flags(flags) => info.flags |= flags,
                Action::NoFlags(flags) => info.flags &= !flags,
                _ => {}
            }
        }
    }
    code
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: CK_VOID_PTR,
    notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    let call = begin!(C_OpenSession, None);
    let slot = match call.slot(slot) {
        Ok(slot) => slot,
        Err(code) => return code,
    };
    let full = |effect: &Action| matches!(effect, Action::Limit(most) if SESSIONS.count() >= *most);
    if call.effects.iter().any(full) {
        return CKR_SESSION_COUNT;
    }
    for effect in &call.effects {
        if let (0, Action::ReadOnly(code)) = (flags & CKF_RW_SESSION, effect) {
            return *code;
        }
    }
    let code = target!(C_OpenSession(slot, flags, application, notify, session));
    // SAFETY: the caller's, null or not; the target has filled it in.
    if let (CKR_OK, Some(session)) = (code, unsafe { session.as_mut() }) {
        for effect in &call.effects {
            if let Action::Copy(label, id) = effect {
                copy_certificate(*session, label, id);
            }
        }
        *session = SESSIONS.add(Session {
            target: Mutex::new(*session),
            slot,
            under: call.under,
            known: call.known,
            verified: AtomicU64::new(0),
        });
    }
    code
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    let call = begin!(C_CloseSession, Some(session));
    let code = call.in_session(session, |session| target!(C_CloseSession(session)));
    SESSIONS.take(|handle, _| handle == session);
    code
}

unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    let call = begin!(C_CloseAllSessions, None);
    let slot = match call.slot(slot) {
        Ok(slot) => slot,
        Err(code) => return code,
    };
    for session in SESSIONS.take(|_, session| session.slot == slot) {
        session.in_target(close);
    }
    target!(C_CloseAllSessions(slot))
}

unsafe extern "C" fn C_GetSessionInfo(
    session: CK_SESSION_HANDLE,
    info: CK_SESSION_INFO_PTR,
) -> CK_RV {
    let call = begin!(C_GetSessionInfo, Some(session));
    let code = call.in_session(session, |session| target!(C_GetSessionInfo(session, info)));
    // SAFETY: the caller's, null or not; the target has filled it in.
    if let (CKR_OK, Some(info)) = (code, unsafe { info.as_mut() }) {
        info.slotID += call.shift.unwrap_or(0);
    }
    code
}

unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
) -> CK_RV {
    let call = begin!(C_Login, Some(session));
    let code = call.in_session(session, |session| {
        target!(C_Login(session, user, pin, length))
    });
    if call.effects.contains(&Action::Lost) {
        call::end();
    }
    let one_signature = user == CKU_CONTEXT_SPECIFIC && call.effects.contains(&Action::Verify);
    if let (CKR_OK, true, Some(session)) = (code, one_signature, SESSIONS.find(session)) {
        session.verified.store(call.number, Ordering::SeqCst);
    }
    code
}

unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let call = begin!(C_SignInit, Some(session));
    call.in_session(session, |session| {
        let mut key = key;
        for effect in &call.effects {
            if let Action::Key(label) = effect {
                key = labelled(session, CKO_PRIVATE_KEY, label);
            }
        }
        target!(C_SignInit(session, mechanism, key))
    })
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    signature: CK_BYTE_PTR,
    length: CK_ULONG_PTR,
) -> CK_RV {
    let call = match begin("C_Sign", Some(session)) {
        Ok(call) => call,
        Err(code) => {
            if code != CKR_BUFFER_TOO_SMALL {
                end_signing(session, data, data_length);
            }
            return code;
        }
    };
    if was_undone(session) {
        end_signing(session, data, data_length);
        return CKR_USER_NOT_LOGGED_IN;
    }
    call.in_session(session, |session| {
        // SAFETY: the caller's, null or not.
        let room = unsafe { length.as_ref() }.copied();
        let code = target!(C_Sign(session, data, data_length, signature, length));
        // SAFETY: as above.
        let length = unsafe { length.as_mut() };
        let (CKR_OK, false, Some(length), Some(room)) = (code, signature.is_null(), length, room)
        else {
            return code;
        };
        for effect in &call.effects {
            match effect {
                Action::Flip => {
                    // SAFETY: the target has written so many bytes there.
                    let bytes =
                        unsafe { std::slice::from_raw_parts_mut(signature, *length as usize) };
                    if let Some(last) = bytes.last_mut() {
                        *last ^= 1;
                    }
                }
                Action::Overlong => *length = room + 1,
                _ => {}
            }
        }
        code
    })
}

/// Whether there was a call between the PIN's verification for this signature and now, other than this one.
fn was_undone(session: CK_SESSION_HANDLE) -> bool {
    let verified = SESSIONS.find(session);
    let verified = verified.map_or(0, |session| session.verified.swap(0, Ordering::SeqCst));
    verified != 0 && verified + 1 != call::last()
}

/// A `C_Sign` that fails ends what `C_SignInit` began (PKCS#11 2.40, section 5.11): that of the target, too.
fn end_signing(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_length: CK_ULONG) {
    if let Some(session) = SESSIONS.find(session) {
        let mut scratch = [0; SIGNATURE_LIMIT];
        let mut length = SIGNATURE_LIMIT as CK_ULONG;
        let (signature, length) = (scratch.as_mut_ptr(), &raw mut length);
        session.in_target(|session| {
            target!(C_Sign(session, data, data_length, signature, length));
        });
    }
}

/// RSA with 8192 bits.
const SIGNATURE_LIMIT: usize = 1024;

unsafe extern "C" fn C_WaitForSlotEvent(
    flags: CK_FLAGS,
    slot: CK_SLOT_ID_PTR,
    reserved: CK_VOID_PTR,
) -> CK_RV {
    let call = begin!(C_WaitForSlotEvent, None);
    let code = target!(C_WaitForSlotEvent(flags, slot, reserved));
    // SAFETY: the caller's, null or not; the target has filled it in.
    if let (CKR_OK, Some(slot)) = (code, unsafe { slot.as_mut() }) {
        *slot += call.shift.unwrap_or(0);
    }
    code
}

macro_rules! function_list {
    ($($function:ident)*) => {
        CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            $($function: Some($function)),*
        }
    };
}

static FUNCTIONS: CK_FUNCTION_LIST = function_list! {
    C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
    C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession
    C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login C_Logout
    C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue
    C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate
    C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest
    C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal
    C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal
    C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate C_DecryptDigestUpdate
    C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey
    C_DeriveKey C_SeedRandom C_GenerateRandom C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
};
