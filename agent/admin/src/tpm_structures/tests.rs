use super::attributes::{FIXED_TPM, RESTRICTED, SIGN};
use super::*;

use proptest::prelude::*;

/// TPMT_PUBLIC of an ECC P-256 key: sign, restricted, fixedTPM; ECDSA with SHA-256.
fn ecc_area() -> Vec<u8> {
    let mut area = vec![0, 0x23, 0, 0x0b];
    area.extend((FIXED_TPM | SIGN | RESTRICTED).to_be_bytes());
    area.extend([0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10]);
    area.extend([0, 31]); // a coordinate whose first byte is zero
    area.extend([7; 31]);
    area.extend([0, 32]);
    area.extend([8; 32]);
    area
}

fn statement() -> Vec<u8> {
    let mut statement = vec![
        0xff, 0x54, 0x43, 0x47, 0x80, 0x17, 0, 2, 1, 2, 0, 3, 9, 9, 9,
    ];
    statement.extend([0; 8]);
    statement.extend([0, 0, 0, 5, 0, 0, 0, 0, 1]);
    statement.extend([0, 0, 0, 1, 0, 0, 0, 2]);
    statement.extend([0, 1, 0xaa, 0, 1, 0xbb]);
    statement
}

#[test]
fn a_statement_is_read() {
    let read = CertifyStatement::parse(&statement()).unwrap();
    assert_eq!(read.qualified_signer, [1, 2]);
    assert_eq!(read.extra_data, [9, 9, 9]);
    assert_eq!(
        (read.reset_count, read.firmware_version),
        (5, 0x1_0000_0002)
    );
    assert_eq!(read.name, [0xaa]);
}

#[test]
fn a_public_area_is_read_and_named() {
    let area = PublicArea::parse(&ecc_area()).unwrap();
    assert!(area.has(SIGN | RESTRICTED) && !area.has(attributes::DECRYPT));
    let name = area.name();
    assert_eq!((name.len(), &name[..2]), (34, &[0, 0x0b][..]));
    assert_eq!(name[2..], Sha256::digest(ecc_area())[..]);
    let spki = area.public_key().unwrap();
    assert!(spki.ends_with(&[&[4, 0][..], &[7; 31], &[8; 32]].concat()));

    let mut rsa = vec![
        0, 1, 0, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x10, 8, 0, 0, 0, 0, 0, 1, 0,
    ];
    rsa.extend([0xc3; 256]);
    let spki = PublicArea::parse(&rsa).unwrap().public_key().unwrap();
    let read = openssl::rsa::Rsa::public_key_from_der(&spki).unwrap();
    assert_eq!(read.e().to_dec_str().unwrap().to_string(), "65537");
    assert_eq!(read.n().to_vec(), [0xc3; 256]);
}

#[test]
fn what_is_cut_off_too_long_or_of_another_kind_is_refused() {
    type Read = fn(&[u8]) -> Result<(), StructureError>;
    let ecdsa = [&[0, 0x18, 0, 0x0b, 0, 1, 5, 0, 1, 6][..]].concat();
    let cases: [(Vec<u8>, Read); 3] = [
        (statement(), |bytes| {
            CertifyStatement::parse(bytes).map(drop)
        }),
        (ecc_area(), |bytes| PublicArea::parse(bytes).map(drop)),
        (ecdsa, |bytes| TpmSignature::parse(bytes).map(drop)),
    ];
    for (bytes, read) in &cases {
        assert_eq!(read(bytes), Ok(()));
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err().to_string();
            assert!(error.contains("cut off"), "{length}: {error}");
        }
        let error = read(&[&bytes[..], &[0]].concat()).unwrap_err().to_string();
        assert!(error.contains("1 bytes too many"), "{error}");
    }
    let with = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let fault = |result: Result<(), StructureError>| result.unwrap_err().to_string();
    let (statement, area) = (statement(), ecc_area());
    for (bytes, read, expected) in [
        (with(&statement, 0, 0xfe), cases[0].1, "TPM_GENERATED_VALUE"),
        (
            with(&statement, 5, 0x18),
            cases[0].1,
            "TPM_ST_ATTEST_CERTIFY",
        ), // a quote
        (with(&statement, 31, 2), cases[0].1, "safe"),
        (with(&area, 1, 0x08), cases[1].1, "neither RSA nor ECC"),
        (with(&area, 3, 0x04), cases[1].1, "hash 0x0004"),
        (with(&area, 17, 0x10), cases[1].1, "curve 0x0010"),
        (with(&cases[2].0, 1, 0x16), cases[2].1, "neither RSASSA"),
        (with(&cases[2].0, 3, 0x0c), cases[2].1, "SHA-256"),
    ] {
        let error = fault(read(&bytes));
        assert!(error.contains(expected), "{error} ({expected})");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..100_usize) {
        let _ = CertifyStatement::parse(&bytes);
        let _ = TpmSignature::parse(&bytes).map(|signature| signature.to_x509());
        let _ = PublicArea::parse(&bytes).map(|area| area.public_key());
        let mut area = ecc_area();
        let end = (at + bytes.len()).min(area.len());
        if at < end {
            area[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = PublicArea::parse(&area).map(|area| area.public_key());
        }
    }
}
