//! `TSS2 PRIVATE KEY` files: draft-bottomley-tpm2-keys, as tpm2-tools, tpm2-openssl, the OpenSSL engines,
//! GnuTLS and ssh-tpm-agent write it.

mod kind;
mod pem;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use token::TokenError;

use self::kind::{IMPORTABLE, LOADABLE, OLD_LOADABLE, SEALED};

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The marshalled TPM2B_ENCRYPTED_SECRET of an importable key.
    pub secret: Option<Vec<u8>>,
    /// Whether the file says that no auth value is needed. Where it says otherwise, it may be wrong.
    pub empty_auth: bool,
    /// What to do before each use.
    pub policy: Vec<PolicyCommand>,
    /// Signed policies, one of which takes the place of a leading TPM2_PolicyAuthorize.
    pub signed_policies: Vec<Vec<PolicyCommand>>,
    /// The handle of the key that it loads under, or of the hierarchy to derive that key in.
    pub parent: u32,
    /// The marshalled TPM2B_PUBLIC.
    pub public: Vec<u8>,
    /// The marshalled TPM2B_PRIVATE.
    pub private: Vec<u8>,
}

/// TPMPolicy: one policy command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyCommand {
    /// The command's TPM_CC.
    pub code: u32,
    /// Its parameters, marshalled.
    pub body: Vec<u8>,
}

/// The largest file that is read, in bytes: key, policies and a chain of certificates.
const SIZE_LIMIT: u64 = 256 * 1024;

/// `TPM_RH_OWNER`: the storage primary that is derived in that hierarchy.
pub(crate) const OWNER: u32 = 0x4000_0001;

/// More policy commands, or signed policies, than any key has: each may cost the TPM some commands.
const SEQUENCE_LIMIT: usize = 64;

impl KeyFile {
    pub(crate) fn read(path: &Path) -> Result<KeyFile, TokenError> {
        let unusable =
            |fault: String| TokenError::Unusable(format!("key file {}: {fault}", path.display()));
        // Before it is opened: a FIFO would make all keys of the TPM wait for a writer.
        let metadata = std::fs::metadata(path)
            .map_err(|error| unusable(format!("cannot read it: {error}")))?;
        if !metadata.is_file() || metadata.len() > SIZE_LIMIT {
            return Err(unusable(format!(
                "not a file of at most {SIZE_LIMIT} bytes"
            )));
        }
        let mut content = Vec::new();
        File::open(path)
            .and_then(|file| file.take(SIZE_LIMIT).read_to_end(&mut content))
            .map_err(|error| unusable(format!("cannot read it: {error}")))?;
        KeyFile::parse(&content).map_err(unusable)
    }

    /// Returns the one key in PEM, beside which certificates may stand, or in DER.
    pub fn parse(content: &[u8]) -> Result<KeyFile, String> {
        KeyFile::from_der(&pem::der(content)?)
    }

    /// The key in a PEM's content.
    pub fn from_der(der: &[u8]) -> Result<KeyFile, String> {
        let malformed = |error: der::Error| format!("not a TSS2 PRIVATE KEY: {error}");
        let mut reader = SliceReader::new(der).map_err(malformed)?;
        let mut kind = LOADABLE;
        let mut rsa_parent = None;
        let key = reader
            .sequence(|reader| {
                kind = reader.decode()?;
                let tagged = |reader: &mut _, number| explicit(reader, number);
                let empty_auth = tagged(reader, 0)?.map(boolean).transpose()?;
                let policy = tagged(reader, 1)?.map(policy).transpose()?;
                let secret = tagged(reader, 2)?.map(octets).transpose()?;
                let signed = tagged(reader, 3)?.map(signed_policies).transpose()?;
                let _description = tagged(reader, 4)?; // ssh-tpm-agent writes one
                rsa_parent = tagged(reader, 5)?.map(boolean).transpose()?;
                Ok::<_, der::Error>(KeyFile {
                    secret,
                    empty_auth: empty_auth.unwrap_or(false),
                    policy: policy.unwrap_or_default(),
                    signed_policies: signed.unwrap_or_default(),
                    parent: parent(reader)?,
                    public: octets(reader.tlv_bytes()?)?,
                    private: octets(reader.tlv_bytes()?)?,
                })
            })
            .map_err(malformed)?;
        reader.finish().map_err(malformed)?;
        if rsa_parent == Some(true) {
            return Err(
                "its parent is an RSA primary (rsaParent), which we do not derive: make that key \
                 persistent with tpm2_evictcontrol, and the file again"
                    .to_owned(),
            );
        }
        key.check(kind)
    }

    fn check(self, kind: ObjectIdentifier) -> Result<KeyFile, String> {
        match (kind, &self.secret) {
            (LOADABLE | OLD_LOADABLE, None) | (IMPORTABLE, Some(_)) => {}
            (LOADABLE | OLD_LOADABLE, Some(_)) => {
                return Err("a loadable key with an import secret".to_owned());
            }
            (IMPORTABLE, None) => return Err("an importable key without its secret".to_owned()),
            (SEALED, _) => {
                return Err("it holds sealed data, not a key: nothing signs with it".to_owned());
            }
            _ => return Err(format!("it holds something else than a key: OID {kind}")),
        }
        Ok(self)
    }
}

/// The content of `[number] EXPLICIT`, if it comes next.
fn explicit<'a>(reader: &mut SliceReader<'a>, number: u32) -> der::Result<Option<&'a [u8]>> {
    let wanted = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    };
    if Tag::peek(reader)? != wanted {
        return Ok(None);
    }
    AnyRef::decode(reader).map(|any| Some(any.value()))
}

/// DER's TRUE is 0xff; some tools write 0x01.
fn boolean(tlv: &[u8]) -> der::Result<bool> {
    let any = AnyRef::from_der(tlv)?;
    any.tag().assert_eq(Tag::Boolean)?;
    match any.value() {
        [0] => Ok(false),
        [0xff | 0x01] => Ok(true),
        _ => Err(Tag::Boolean.value_error().into()),
    }
}

fn octets(tlv: &[u8]) -> der::Result<Vec<u8>> {
    <&OctetStringRef>::from_der(tlv).map(|octets| octets.as_bytes().to_vec())
}

/// A handle with its highest bit set takes five bytes; tools have written it negative, in four.
/// tpm2tss-genkey 1.0 wrote 0 for the owner hierarchy.
fn parent(reader: &mut SliceReader) -> der::Result<u32> {
    let any = AnyRef::decode(reader)?;
    any.tag().assert_eq(Tag::Integer)?;
    let digits = match any.value() {
        [0, digits @ ..] if digits.len() == 4 => digits,
        digits if (1..=4).contains(&digits.len()) => digits,
        _ => return Err(Tag::Integer.value_error().into()),
    };
    match big_endian(digits) {
        0 => Ok(OWNER),
        handle => Ok(handle),
    }
}

fn policy(tlv: &[u8]) -> der::Result<Vec<PolicyCommand>> {
    sequence_of(tlv, |reader| {
        let (Some(code), Some(body)) = (explicit(reader, 0)?, explicit(reader, 1)?) else {
            return Err(Tag::Sequence.value_error().into());
        };
        Ok(PolicyCommand {
            code: number(UintRef::from_der(code)?)?,
            body: octets(body)?,
        })
    })
}

fn signed_policies(tlv: &[u8]) -> der::Result<Vec<Vec<PolicyCommand>>> {
    sequence_of(tlv, |reader| {
        let _name = explicit(reader, 0)?; // for display only
        let commands = explicit(reader, 1)?.ok_or_else(|| Tag::Sequence.value_error())?;
        policy(commands)
    })
}

fn sequence_of<T>(
    tlv: &[u8],
    item: impl Fn(&mut SliceReader) -> der::Result<T>,
) -> der::Result<Vec<T>> {
    let any = AnyRef::from_der(tlv)?;
    any.tag().assert_eq(Tag::Sequence)?;
    let mut reader = SliceReader::new(any.value())?;
    let mut items = Vec::new();
    while !reader.is_finished() {
        if items.len() == SEQUENCE_LIMIT {
            return Err(Tag::Sequence.length_error().into());
        }
        let element = AnyRef::decode(&mut reader)?;
        element.tag().assert_eq(Tag::Sequence)?;
        let mut inner = SliceReader::new(element.value())?;
        items.push(item(&mut inner)?);
        inner.finish()?;
    }
    Ok(items)
}

fn number(value: UintRef) -> der::Result<u32> {
    let bytes = value.as_bytes();
    if bytes.len() > 4 {
        return Err(Tag::Integer.value_error().into());
    }
    Ok(big_endian(bytes))
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// tpm2_create and tpm2_encodeobject 5.4, under 0x81000001. The key has no auth value, though the file
    /// says emptyAuth FALSE.
    const TOOLS: &str = "-----BEGIN TSS2 PRIVATE KEY-----
MIHzBgZngQUKAQOgAwEBAAIFAIEAAAEEWgBYACMACwAEAHIAAAAQABgACwADABAA
IHRN7XRfDZvg5CWq8dMRfJnY0aXJRE2uaAo6uhJk8gIKACD4kVBX3qHenUKdq43x
FCp88+wbZW+gBDW/T891eRDmewSBgAB+ACC/gmvM0Knj+U9nIyXsnXv09Pmp6mqn
rlYeOMfLmb9KkgAQZOk9v5tYA0JPqzZiFxYAG3KSE/CctiFHv1aFMHIV9CHjet3u
oJzoNgPW/yXOZEyOn73pVDwYx/3Ksf0TvbTLY7VSxpHCxYtQGa80AIwmmXxx5kZe
RvUK6eY1
-----END TSS2 PRIVATE KEY-----
";

    /// openssl genpkey with tpm2-openssl 1.1.1, under the owner's storage primary.
    const OPENSSL: &str = "-----BEGIN TSS2 PRIVATE KEY-----
MIHwBgZngQUKAQOgAwEBAQIEQAAAAQRYAFYAIwALAAYAcgAAABAAEAADABAAIFY3
9Fst/brMsucjBYRC5gnN++Em6+/AkYFnyOUXtVO6ACAMHiRQ6bwJkdcnsdlXvZBQ
sYuzVlyqn+gN8Maa4SJQOQSBgAB+ACAwudpykYL8ZMNA6UGy5URGU0xjxdhj/gsI
LQIHp4jtAAAQ3OyAwaurwKLIpLVT7JHrp/KZ6tiv/73L17NUiy5G+39RI6AoypRY
af6SU36Xd8LTqxJKMUfdiSl7Kx1Mz3GSI3JU0c/SWhA5aamE+FCFC4qHBnCOdlEI
tsqn
-----END TSS2 PRIVATE KEY-----
";

    const LOADABLE_OID: [u8; 8] = [6, 6, 0x67, 0x81, 5, 10, 1, 3];
    const EMPTY_AUTH: [u8; 5] = [0xa0, 3, 1, 1, 0xff];
    const PARENT: [u8; 6] = [2, 4, 0x40, 0, 0, 1];
    const AREAS: [u8; 8] = [4, 2, 0, 0, 4, 2, 0, 0];

    fn from_parts(parts: &[&[u8]]) -> Result<KeyFile, String> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 0x80);
        KeyFile::from_der(&[&[0x30, length], &content[..]].concat())
    }

    #[test]
    fn files_of_the_tools_are_read() {
        let key = KeyFile::parse(TOOLS.as_bytes()).unwrap();
        assert_eq!((key.parent, key.empty_auth), (0x8100_0001, false));
        assert_eq!((key.public.len(), key.private.len()), (90, 128));
        let key = KeyFile::parse(OPENSSL.as_bytes()).unwrap();
        assert_eq!((key.parent, key.empty_auth), (0x4000_0001, true));
        assert_eq!((key.public.len(), key.private.len()), (88, 128));
        assert_eq!((key.secret, key.policy), (None, vec![]));
    }

    #[test]
    fn a_certificate_may_stand_in_the_file() {
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [format!("{TOOLS}{other}"), format!("{other}{TOOLS}{other}")] {
            assert_eq!(
                KeyFile::parse(text.as_bytes()),
                KeyFile::parse(TOOLS.as_bytes())
            );
        }
    }

    #[test]
    fn empty_auth_is_true_false_or_absent() {
        for (field, expected) in [
            (&EMPTY_AUTH[..], true),
            (&[0xa0, 3, 1, 1, 1], true),
            (&[0xa0, 3, 1, 1, 0], false),
            (&[], false),
        ] {
            let key = from_parts(&[&LOADABLE_OID, field, &PARENT, &AREAS]).unwrap();
            assert_eq!(key.empty_auth, expected, "{field:02x?}");
        }
        for field in [&[0xa0, 3, 1, 1, 2][..], &[0xa0, 2, 1, 0], &[0xa0, 2, 5, 0]] {
            assert!(from_parts(&[&LOADABLE_OID, field, &PARENT, &AREAS]).is_err());
        }
    }

    #[test]
    fn policies_and_a_description_are_read() {
        let auth_value = [0x30, 10, 0xa0, 4, 2, 2, 1, 0x6b, 0xa1, 2, 4, 0];
        let policy = [&[0xa1, 14, 0x30, 12][..], &auth_value].concat();
        let name = [0xa0, 3, 0x0c, 1, b'k'];
        let inner = [&name[..], &policy].concat();
        let signed = [&[0xa3, 25, 0x30, 23, 0x30, 21][..], &inner].concat();
        let description = [0xa4, 3, 0x0c, 1, b'd'];
        let parts: [&[u8]; 6] = [
            &LOADABLE_OID,
            &policy,
            &signed,
            &description,
            &PARENT,
            &AREAS,
        ];
        let key = from_parts(&parts).unwrap();
        let command = PolicyCommand {
            code: 0x16b,
            body: vec![],
        };
        assert_eq!(key.signed_policies, [vec![command.clone()]]);
        assert_eq!(key.policy, vec![command]);
    }

    #[test]
    fn parents_are_numbers_of_up_to_four_bytes() {
        for (parent, expected) in [
            (&[2, 5, 0, 0x81, 0, 0, 1][..], 0x8100_0001),
            (&[2, 4, 0x81, 0, 0, 1], 0x8100_0001),
            (&PARENT, 0x4000_0001),
            (&[2, 1, 0], 0x4000_0001),
            (&[2, 4, 0, 0, 0, 0], 0x4000_0001),
            (&[2, 1, 1], 1),
        ] {
            let key = from_parts(&[&LOADABLE_OID, parent, &AREAS]).unwrap();
            assert_eq!(key.parent, expected);
        }
        for parent in [&[2, 0][..], &[2, 5, 1, 0x81, 0, 0, 1], &[]] {
            assert!(from_parts(&[&LOADABLE_OID, parent, &AREAS]).is_err());
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let kind = |last| [6, 6, 0x67, 0x81, 5, 10, 1, last];
        let secret = [0xa2, 4, 4, 2, 0, 0];
        let rsa_parent = [0xa5, 3, 1, 1, 0xff];
        assert!(from_parts(&[&kind(4), &secret, &PARENT, &AREAS]).is_ok());
        let old = [6, 5, 0x67, 0x81, 5, 10, 2]; // ssh-tpm-agent's first versions
        assert!(from_parts(&[&old, &PARENT, &AREAS]).is_ok());
        for (parts, expected) in [
            (
                vec![&kind(3)[..], &secret, &PARENT, &AREAS],
                "import secret",
            ),
            (vec![&kind(4), &PARENT, &AREAS], "without its secret"),
            (vec![&kind(5), &PARENT, &AREAS], "sealed data"),
            (vec![&kind(6), &PARENT, &AREAS], "something else"),
            (vec![&kind(3), &rsa_parent, &PARENT, &AREAS], "rsaParent"),
            (vec![&kind(3), &PARENT, &AREAS, &[5, 0]], "not a TSS2"),
            (vec![&kind(3), &PARENT, &AREAS[..4]], "not a TSS2"),
        ] {
            let fault = from_parts(&parts).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
        for (text, expected) in [
            (String::new(), "openssl genpkey"),
            (format!("{TOOLS}{TOOLS}"), "several keys"),
            (TOOLS.replace("END TSS2", "END"), "cut off"),
            (TOOLS.replace("MIHz", "!!!!"), "not PEM"),
            (TOOLS.replace("MIHzBg", "MIHzBh"), "not a TSS2 PRIVATE KEY"),
        ] {
            let fault = KeyFile::parse(text.as_bytes()).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Whatever is changed in a file: it is read or refused, and what was read has its sizes within the file's.
        #[test]
        fn a_changed_file_is_read_or_refused(
            openssl: bool,
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let pem = if openssl { OPENSSL } else { TOOLS };
            let (_, mut der) = der::pem::decode_vec(pem.as_bytes()).unwrap();
            for (at, byte) in changes {
                let at = at.index(der.len());
                der[at] = byte;
            }
            if let Some(cut) = cut {
                der.truncate(cut.index(der.len()));
            }
            if let Ok(key) = KeyFile::from_der(&der) {
                prop_assert!(key.public.len() + key.private.len() < der.len());
                let _ = crate::read_areas(&key);
            }
        }
    }
}
