//! The functions that do nothing of their own: a cue may hang, end or refuse them.

use cryptoki_sys::*;

use super::begin::begin;
use crate::target::target;

/// Functions that are passed on as they are, in a session.
macro_rules! in_session {
    ($($function:ident($($argument:ident: $type:ty),*);)*) => {$(
        pub(super) unsafe extern "C" fn $function(session: CK_SESSION_HANDLE, $($argument: $type),*) -> CK_RV {
            let call = begin!($function, Some(session));
            call.in_session(session, |session| target!($function(session, $($argument),*)))
        }
    )*};
}

/// Functions that are passed on as they are, for a slot with its token.
macro_rules! for_slot {
    ($($function:ident($($argument:ident: $type:ty),*);)*) => {$(
        pub(super) unsafe extern "C" fn $function(slot: CK_SLOT_ID, $($argument: $type),*) -> CK_RV {
            let call = begin!($function, None);
            match call.slot(slot) {
                Ok(slot) => target!($function(slot, $($argument),*)),
                Err(code) => code,
            }
        }
    )*};
}

for_slot! {
    C_GetMechanismList(list: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR);
    C_GetMechanismInfo(mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR);
    C_InitToken(pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG, label: CK_UTF8CHAR_PTR);
}

in_session! {
    C_InitPIN(pin: CK_UTF8CHAR_PTR, length: CK_ULONG);
    C_SetPIN(old: CK_UTF8CHAR_PTR, old_length: CK_ULONG, new: CK_UTF8CHAR_PTR, new_length: CK_ULONG);
    C_GetOperationState(state: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_SetOperationState(
        state: CK_BYTE_PTR, length: CK_ULONG, encryption: CK_OBJECT_HANDLE, authentication: CK_OBJECT_HANDLE
    );
    C_Logout();
    C_CreateObject(template: CK_ATTRIBUTE_PTR, count: CK_ULONG, object: CK_OBJECT_HANDLE_PTR);
    C_CopyObject(
        object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, copy: CK_OBJECT_HANDLE_PTR
    );
    C_DestroyObject(object: CK_OBJECT_HANDLE);
    C_GetObjectSize(object: CK_OBJECT_HANDLE, size: CK_ULONG_PTR);
    C_SetAttributeValue(object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjects(objects: CK_OBJECT_HANDLE_PTR, most: CK_ULONG, count: CK_ULONG_PTR);
    C_FindObjectsFinal();
    C_EncryptInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Encrypt(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_EncryptUpdate(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_EncryptFinal(out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DecryptInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Decrypt(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DecryptUpdate(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DecryptFinal(out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DigestInit(mechanism: CK_MECHANISM_PTR);
    C_Digest(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DigestUpdate(data: CK_BYTE_PTR, length: CK_ULONG);
    C_DigestKey(key: CK_OBJECT_HANDLE);
    C_DigestFinal(out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_SignUpdate(data: CK_BYTE_PTR, length: CK_ULONG);
    C_SignFinal(signature: CK_BYTE_PTR, length: CK_ULONG_PTR);
    C_SignRecoverInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_SignRecover(data: CK_BYTE_PTR, length: CK_ULONG, signature: CK_BYTE_PTR, signature_length: CK_ULONG_PTR);
    C_VerifyInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Verify(data: CK_BYTE_PTR, length: CK_ULONG, signature: CK_BYTE_PTR, signature_length: CK_ULONG);
    C_VerifyUpdate(data: CK_BYTE_PTR, length: CK_ULONG);
    C_VerifyFinal(signature: CK_BYTE_PTR, length: CK_ULONG);
    C_VerifyRecoverInit(mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_VerifyRecover(signature: CK_BYTE_PTR, length: CK_ULONG, data: CK_BYTE_PTR, data_length: CK_ULONG_PTR);
    C_DigestEncryptUpdate(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DecryptDigestUpdate(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_SignEncryptUpdate(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DecryptVerifyUpdate(data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_GenerateKey(
        mechanism: CK_MECHANISM_PTR, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR
    );
    C_WrapKey(
        mechanism: CK_MECHANISM_PTR, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, out: CK_BYTE_PTR,
        out_length: CK_ULONG_PTR
    );
    C_UnwrapKey(
        mechanism: CK_MECHANISM_PTR, unwrapping: CK_OBJECT_HANDLE, wrapped: CK_BYTE_PTR, length: CK_ULONG,
        template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR
    );
    C_DeriveKey(
        mechanism: CK_MECHANISM_PTR, base: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG,
        key: CK_OBJECT_HANDLE_PTR
    );
    C_SeedRandom(seed: CK_BYTE_PTR, length: CK_ULONG);
    C_GenerateRandom(random: CK_BYTE_PTR, length: CK_ULONG);
    C_GetFunctionStatus();
    C_CancelFunction();
}
