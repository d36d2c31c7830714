//! The functions that find, read and make objects.

use cryptoki_sys::*;

use super::begin::begin;
use crate::fault::Action;
use crate::settings::give_up;
use crate::target::target;

pub(super) unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    let call = begin!(C_GetAttributeValue, Some(session));
    let code = call.in_session(session, |session| {
        target!(C_GetAttributeValue(session, object, template, count))
    });
    for effect in &call.effects {
        if let (CKR_OK, Action::Attribute(type_, value)) = (code, effect) {
            // SAFETY: the caller's, which the target has read and filled in.
            let attributes = unsafe { std::slice::from_raw_parts_mut(template, count as usize) };
            for attribute in attributes.iter_mut().filter(|one| one.type_ == *type_) {
                put(attribute, value);
            }
        }
    }
    code
}

/// Writes the value, in place of one that was no shorter: there was room for that.
fn put(attribute: &mut CK_ATTRIBUTE, value: &[u8]) {
    let room = attribute.ulValueLen as usize;
    if !attribute.pValue.is_null() && room >= value.len() {
        let place = attribute.pValue.cast::<u8>();
        // SAFETY: the target has just written `room` bytes there.
        unsafe { place.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        attribute.ulValueLen = value.len() as CK_ULONG;
    }
}

pub(super) unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    let call = begin!(C_FindObjectsInit, Some(session));
    for effect in &call.effects {
        if let (Action::Unknown(type_), false) = (effect, template.is_null()) {
            // SAFETY: the caller's, of that length.
            let attributes = unsafe { std::slice::from_raw_parts(template, count as usize) };
            if attributes.iter().any(|one| one.type_ == *type_) {
                return CKR_ATTRIBUTE_TYPE_INVALID;
            }
        }
    }
    call.in_session(session, |session| {
        target!(C_FindObjectsInit(session, template, count))
    })
}

pub(super) unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    public: CK_ATTRIBUTE_PTR,
    public_count: CK_ULONG,
    private: CK_ATTRIBUTE_PTR,
    private_count: CK_ULONG,
    public_key: CK_OBJECT_HANDLE_PTR,
    private_key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    let call = begin!(C_GenerateKeyPair, Some(session));
    let code = call.in_session(session, |session| {
        target!(C_GenerateKeyPair(
            session,
            mechanism,
            public,
            public_count,
            private,
            private_count,
            public_key,
            private_key
        ))
    });
    let said = call.effects.iter().find_map(|effect| match effect {
        Action::Made(code) => Some(*code),
        _ => None,
    });
    said.unwrap_or(code)
}

/// The one object of that class and label, in a session of the target.
pub(super) fn labelled(
    session: CK_SESSION_HANDLE,
    class: CK_OBJECT_CLASS,
    label: &str,
) -> CK_OBJECT_HANDLE {
    let class = class.to_ne_bytes();
    let mut template = [
        attribute(CKA_CLASS, &class),
        attribute(CKA_LABEL, label.as_bytes()),
        attribute(CKA_TOKEN, &[CK_TRUE]),
    ];
    let (attributes, length) = (template.as_mut_ptr(), template.len() as CK_ULONG);
    let (mut object, mut count) = (0, 0);
    let (object_out, count_out) = (&raw mut object, &raw mut count);
    let codes = [
        target!(C_FindObjectsInit(session, attributes, length)),
        target!(C_FindObjects(session, object_out, 1, count_out)),
        target!(C_FindObjectsFinal(session)),
    ];
    if codes != [CKR_OK; 3] || count != 1 {
        give_up(&format!("there is no {label:?} of that class on the token"));
    }
    object
}

/// A copy that is gone with its session.
pub(super) fn copy_certificate(session: CK_SESSION_HANDLE, label: &str, id: &[u8]) {
    let original = labelled(session, CKO_CERTIFICATE, label);
    let mut template = [attribute(CKA_TOKEN, &[CK_FALSE]), attribute(CKA_ID, id)];
    let (attributes, length) = (template.as_mut_ptr(), template.len() as CK_ULONG);
    let mut copy = 0;
    let copy_out = &raw mut copy;
    let code = target!(C_CopyObject(
        session, original, attributes, length, copy_out
    ));
    if code != CKR_OK {
        give_up(&format!(
            "certificate {label:?} cannot be copied: {code:#x}"
        ));
    }
}

/// Not to be used for longer than the value lives, nor written to.
fn attribute(type_: CK_ATTRIBUTE_TYPE, value: &[u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: value.len() as CK_ULONG,
    }
}
