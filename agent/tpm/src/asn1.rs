//! The DER that we write, from its inside out.

use der::asn1::AnyRef;
use der::{Encode, Tag, TagNumber};

/// An element of this tag with these parts as its content.
pub(crate) fn element(tag: Tag, parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, &parts.concat())?.to_der()
}

/// `SEQUENCE { … }`
pub(crate) fn sequence(parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    element(Tag::Sequence, parts)
}

/// `[number] EXPLICIT`
pub(crate) fn explicit(number: u32, content: &[u8]) -> der::Result<Vec<u8>> {
    let tag = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    };
    element(tag, &[content])
}

/// A number that is not negative.
pub(crate) fn integer(digits: &[u8]) -> der::Result<Vec<u8>> {
    der::asn1::UintRef::new(digits)?.to_der()
}
