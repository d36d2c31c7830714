//! Structures of the TPM 2.0 library, part 2, as a TPM marshals them: what an attestation is made of. A strict
//! reader that needs no TPM and no libtss2: whoever verifies an attestation has it from somebody else.

use der::asn1::{Any, BitString, ObjectIdentifier, UintRef};
use der::{Encode, Tag};
use sha2::{Digest, Sha256, Sha384, Sha512};
use thiserror::Error;
use x509_cert::SubjectPublicKeyInfo;
use x509_cert::spki::AlgorithmIdentifier;

/// `TPMS_ATTEST` of type `TPM_ST_ATTEST_CERTIFY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertifyStatement {
    /// The qualified name of the key that has signed it.
    pub(crate) qualified_signer: Vec<u8>,
    /// The caller's qualifying data.
    pub(crate) extra_data: Vec<u8>,
    /// `TPMS_CLOCK_INFO.resetCount`
    pub(crate) reset_count: u32,
    /// The TPM's firmware, as its vendor numbers it.
    pub(crate) firmware_version: u64,
    /// The name of the certified key.
    pub(crate) name: Vec<u8>,
}

/// `TPMT_PUBLIC` of an RSA or ECC key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicArea {
    /// As marshalled.
    bytes: Vec<u8>,
    name_hash: Hash,
    /// `TPMA_OBJECT`
    pub(crate) attributes: u32,
    key: PublicPart,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PublicPart {
    Rsa {
        exponent: u32,
        modulus: Vec<u8>,
    },
    Ecc {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
}

/// `TPMT_SIGNATURE` over SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TpmSignature {
    /// RSASSA: PKCS#1 v1.5.
    Rsassa(Vec<u8>),
    /// ECDSA.
    Ecdsa {
        /// Big-endian.
        r: Vec<u8>,
        /// Big-endian.
        s: Vec<u8>,
    },
}

/// Why bytes are no such structure.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{structure}: {fault}")]
pub(crate) struct StructureError {
    structure: &'static str,
    fault: String,
}

/// Bits of `TPMA_OBJECT`, by their names.
pub(crate) mod attributes {
    /// It cannot be duplicated to another TPM.
    pub(crate) const FIXED_TPM: u32 = 1 << 1;
    /// It cannot be moved to another parent.
    pub(crate) const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM has made its private part.
    pub(crate) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// It signs only what the TPM has made itself.
    pub(crate) const RESTRICTED: u32 = 1 << 16;
    /// It decrypts.
    pub(crate) const DECRYPT: u32 = 1 << 17;
    /// It signs.
    pub(crate) const SIGN: u32 = 1 << 18;

    /// Those that matter here, with their names.
    pub(crate) const NAMED: [(u32, &str); 6] = [
        (FIXED_TPM, "fixedTPM"),
        (FIXED_PARENT, "fixedParent"),
        (SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
        (RESTRICTED, "restricted"),
        (DECRYPT, "decrypt"),
        (SIGN, "sign"),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// `TPM_GENERATED_VALUE`: restricted keys sign nothing from outside that begins so.
const MAGIC: u32 = 0xff54_4347;
const ST_ATTEST_CERTIFY: u16 = 0x8017;

const ALG_RSA: u16 = 0x0001;
const ALG_SHA256: u16 = 0x000b;
const ALG_SHA384: u16 = 0x000c;
const ALG_SHA512: u16 = 0x000d;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_RSAES: u16 = 0x0015;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECDAA: u16 = 0x001a;
const ALG_ECC: u16 = 0x0023;

/// `TPM_RH_ENDORSEMENT`
const RH_ENDORSEMENT: u32 = 0x4000_000b;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// The default of `TPMS_RSA_PARMS.exponent`, which a TPM writes as 0.
const USUAL_EXPONENT: u32 = 65537;

impl CertifyStatement {
    /// Reads the bytes, all of them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<CertifyStatement, StructureError> {
        read("TPMS_ATTEST", bytes, |reader| {
            if reader.u32()? != MAGIC {
                return Err("no TPM has made it: it lacks TPM_GENERATED_VALUE".to_owned());
            }
            let kind = reader.u16()?;
            if kind != ST_ATTEST_CERTIFY {
                return Err(format!("type 0x{kind:04x} is not TPM_ST_ATTEST_CERTIFY"));
            }
            let qualified_signer = reader.sized()?;
            let extra_data = reader.sized()?;
            reader.take(8)?; // clock
            let reset_count = reader.u32()?;
            reader.u32()?; // restartCount
            match reader.take(1)? {
                [0 | 1] => {}
                _ => return Err("safe is neither YES nor NO".to_owned()),
            }
            let firmware_version = u64::from(reader.u32()?) << 32 | u64::from(reader.u32()?);
            let name = reader.sized()?;
            reader.sized()?; // qualifiedName: of a parent that we know nothing of
            Ok(CertifyStatement {
                qualified_signer,
                extra_data,
                reset_count,
                firmware_version,
                name,
            })
        })
    }
}

impl PublicArea {
    /// Reads the bytes, all of them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<PublicArea, StructureError> {
        read("TPMT_PUBLIC", bytes, |reader| {
            let kind = reader.u16()?;
            let name_hash = Hash::read(reader)?;
            let attributes = reader.u32()?;
            reader.sized()?; // authPolicy
            let key = match kind {
                ALG_RSA => rsa(reader)?,
                ALG_ECC => ecc(reader)?,
                other => return Err(format!("type 0x{other:04x} is neither RSA nor ECC")),
            };
            Ok(PublicArea {
                bytes: bytes.to_vec(),
                name_hash,
                attributes,
                key,
            })
        })
    }

    /// Its name (part 1, 16): the hash's identifier, and the hash of all of it.
    pub(crate) fn name(&self) -> Vec<u8> {
        self.name_hash.name(&self.bytes)
    }

    /// Its qualified name, if it is a primary key of the endorsement hierarchy.
    pub(crate) fn qualified_name_in_endorsement_hierarchy(&self) -> Vec<u8> {
        let parent = RH_ENDORSEMENT.to_be_bytes();
        self.name_hash.name(&[&parent[..], &self.name()].concat())
    }

    /// Whether it has all of these [`attributes`].
    pub(crate) fn has(&self, attributes: u32) -> bool {
        self.attributes & attributes == attributes
    }

    /// DER of its `SubjectPublicKeyInfo`.
    pub(crate) fn public_key(&self) -> der::Result<Vec<u8>> {
        match &self.key {
            PublicPart::Rsa { exponent, modulus } => {
                let exponent = match exponent {
                    0 => USUAL_EXPONENT,
                    other => *other,
                };
                let key = sequence(&[modulus, &exponent.to_be_bytes()])?;
                spki(RSA, Any::null(), &key)
            }
            PublicPart::Ecc { curve, x, y } => {
                let length = curve.length();
                let point = [&[4], &*padded(x, length)?, &*padded(y, length)?].concat();
                spki(EC, Any::encode_from(&curve.oid())?, &point)
            }
        }
    }
}

impl TpmSignature {
    /// Reads the bytes, all of them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<TpmSignature, StructureError> {
        read("TPMT_SIGNATURE", bytes, |reader| {
            let scheme = reader.u16()?;
            if ![ALG_RSASSA, ALG_ECDSA].contains(&scheme) {
                return Err(format!("scheme 0x{scheme:04x} is neither RSASSA nor ECDSA"));
            }
            if Hash::read(reader)? != Hash::Sha256 {
                return Err("it is over another hash than SHA-256".to_owned());
            }
            Ok(match scheme {
                ALG_RSASSA => TpmSignature::Rsassa(reader.sized()?),
                _ => TpmSignature::Ecdsa {
                    r: reader.sized()?,
                    s: reader.sized()?,
                },
            })
        })
    }

    /// As X.509 has it: PKCS#1 v1.5, or DER `SEQUENCE { r, s }`.
    pub(crate) fn to_x509(&self) -> der::Result<Vec<u8>> {
        match self {
            TpmSignature::Rsassa(signature) => Ok(signature.clone()),
            TpmSignature::Ecdsa { r, s } => sequence(&[r, s]),
        }
    }
}

impl Hash {
    fn read(reader: &mut Reader) -> Result<Hash, String> {
        match reader.u16()? {
            ALG_SHA256 => Ok(Hash::Sha256),
            ALG_SHA384 => Ok(Hash::Sha384),
            ALG_SHA512 => Ok(Hash::Sha512),
            other => Err(format!(
                "hash 0x{other:04x} is none of SHA-256, SHA-384, SHA-512"
            )),
        }
    }

    fn name(self, bytes: &[u8]) -> Vec<u8> {
        let (identifier, digest) = match self {
            Hash::Sha256 => (ALG_SHA256, Sha256::digest(bytes).to_vec()),
            Hash::Sha384 => (ALG_SHA384, Sha384::digest(bytes).to_vec()),
            Hash::Sha512 => (ALG_SHA512, Sha512::digest(bytes).to_vec()),
        };
        [&identifier.to_be_bytes()[..], &digest].concat()
    }
}

impl Curve {
    /// Of a number, in bytes.
    fn length(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Curve::P256 => ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
            Curve::P384 => ObjectIdentifier::new_unwrap("1.3.132.0.34"),
            Curve::P521 => ObjectIdentifier::new_unwrap("1.3.132.0.35"),
        }
    }
}

/// `TPMS_RSA_PARMS`, `TPM2B_PUBLIC_KEY_RSA`
fn rsa(reader: &mut Reader) -> Result<PublicPart, String> {
    symmetric(reader)?;
    scheme(reader)?;
    let bits = reader.u16()?;
    let exponent = reader.u32()?;
    let modulus = reader.sized()?;
    if modulus.len() * 8 != usize::from(bits) {
        return Err("its modulus has another length than it says".to_owned());
    }
    Ok(PublicPart::Rsa { exponent, modulus })
}

/// `TPMS_ECC_PARMS`, `TPMS_ECC_POINT`
fn ecc(reader: &mut Reader) -> Result<PublicPart, String> {
    symmetric(reader)?;
    scheme(reader)?;
    let curve = match reader.u16()? {
        0x0003 => Curve::P256,
        0x0004 => Curve::P384,
        0x0005 => Curve::P521,
        other => {
            return Err(format!(
                "curve 0x{other:04x} is none of P-256, P-384, P-521"
            ));
        }
    };
    scheme(reader)?; // TPMT_KDF_SCHEME, which is alike
    Ok(PublicPart::Ecc {
        curve,
        x: reader.sized()?,
        y: reader.sized()?,
    })
}

/// `TPMT_SYM_DEF_OBJECT`
fn symmetric(reader: &mut Reader) -> Result<(), String> {
    if reader.u16()? != ALG_NULL {
        reader.take(4)?; // keyBits, mode
    }
    Ok(())
}

/// `TPMT_RSA_SCHEME`, `TPMT_ECC_SCHEME`: an identifier, and its hash where it has one.
fn scheme(reader: &mut Reader) -> Result<(), String> {
    let length = match reader.u16()? {
        ALG_NULL | ALG_RSAES => 0,
        ALG_ECDAA => 4,
        _ => 2,
    };
    reader.take(length).map(drop)
}

/// Big-endian, with so many bytes.
fn padded(number: &[u8], length: usize) -> der::Result<Vec<u8>> {
    let zeros = length
        .checked_sub(number.len())
        .ok_or_else(|| der::Error::from(der::ErrorKind::Overlength))?;
    Ok([&vec![0; zeros], number].concat())
}

fn sequence(numbers: &[&[u8]]) -> der::Result<Vec<u8>> {
    let mut content = Vec::new();
    for number in numbers {
        UintRef::new(number)?.encode_to_vec(&mut content)?;
    }
    Any::new(Tag::Sequence, content)?.to_der()
}

fn spki(oid: ObjectIdentifier, parameters: Any, key: &[u8]) -> der::Result<Vec<u8>> {
    SubjectPublicKeyInfo {
        algorithm: AlgorithmIdentifier {
            oid,
            parameters: Some(parameters),
        },
        subject_public_key: BitString::from_bytes(key)?,
    }
    .to_der()
}

/// What is left to read. Every length is checked against it.
struct Reader<'a>(&'a [u8]);

fn read<T>(
    structure: &'static str,
    bytes: &[u8],
    parse: impl FnOnce(&mut Reader) -> Result<T, String>,
) -> Result<T, StructureError> {
    let mut reader = Reader(bytes);
    let parsed = parse(&mut reader).and_then(|parsed| match reader.0 {
        [] => Ok(parsed),
        rest => Err(format!("{} bytes too many", rest.len())),
    });
    parsed.map_err(|fault| StructureError { structure, fault })
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| "it is cut off".to_owned())?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u16::from(*byte)))
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// A `TPM2B`.
    fn sized(&mut self) -> Result<Vec<u8>, String> {
        let length = self.u16()?;
        Ok(self.take(usize::from(length))?.to_vec())
    }
}

#[cfg(test)]
mod tests;
