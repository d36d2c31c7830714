//! What a key file says that it holds.

use der::asn1::ObjectIdentifier;

pub(super) const LOADABLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
pub(super) const IMPORTABLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.4");
pub(super) const SEALED: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.5");
/// As ssh-tpm-agent's first versions wrote it, before the draft had numbers of its own.
pub(super) const OLD_LOADABLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.2");
