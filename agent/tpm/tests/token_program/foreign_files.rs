//! Key files as other tools write them.

use std::fs;

use sha2::{Digest, Sha256};
use token::TokenError;
use token::link::OpenTpmKey;

use crate::harness::{ECDSA, Program};
use crate::keys::{Command, selection_first};
use crate::program::pin;
use crate::swtpm::Swtpm;

/// Each signs, and its signature verifies with the public key of that name.
fn assert_sign(tpm: &Swtpm, keys: &[(&str, OpenTpmKey)]) {
    let opened = keys.iter().map(|(_, key)| key.clone()).collect();
    let (mut program, reports) = Program::open(tpm, opened);
    for (number, (name, key)) in keys.iter().enumerate() {
        let source = &key.source;
        assert!(reports[number].is_ok(), "{source}: {:?}", reports[number]);
        let signature = program.sign(number, ECDSA);
        let signature = signature.unwrap_or_else(|error| panic!("{source}: {error:?}"));
        assert!(tpm.verifies(name, ECDSA, &signature), "{source}");
    }
    assert!(program.end().success());
}

/// PolicyPCR over PCR 0 and 16 of each bank, in the draft's order.
fn policy_pcr(tpm: &Swtpm, banks: &[(&str, u16)]) -> Command {
    let list: Vec<String> = banks
        .iter()
        .map(|(name, _)| format!("{name}:0,16"))
        .collect();
    tpm.tool(&format!("tpm2_pcrread -Q {} -o pcrs", list.join("+")));
    let digest = Sha256::digest(fs::read(tpm.path("pcrs")).unwrap());
    let mut body = vec![0, 32];
    body.extend(digest);
    body.extend(u32::try_from(banks.len()).unwrap().to_be_bytes());
    for (_, bank) in banks {
        body.extend(bank.to_be_bytes());
        body.extend([3, 1, 0, 1]);
    }
    (0x17f, body)
}

#[test]
fn pcr_policies_sign_in_both_orders_and_of_all_banks() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let (sha1, sha256) = (("sha1", 4), ("sha256", 0x0b));
    let (sha384, sha512) = (("sha384", 0x0c), ("sha512", 0x0d));
    let mut keys = Vec::new();
    for (name, banks) in [
        ("sha1", &[sha1][..]),
        ("sha256", &[sha256]),
        ("sha384", &[sha384]),
        ("sha512", &[sha512]),
        ("three", &[sha1, sha256, sha384]),
    ] {
        let command = policy_pcr(&tpm, banks);
        let name: &str = name;
        tpm.make_with_policy(name, "", std::slice::from_ref(&command));
        keys.push((name.to_owned(), None));
        let engine = format!("{name}-engine");
        let auth_value = (0x16b, vec![]);
        let policy = [selection_first(command), auth_value];
        tpm.make_with_policy(&engine, "-p key-secret", &policy);
        keys.push((engine, pin("key-secret")));
    }
    let signed = selection_first(tpm.policy_pcr(&[7]));
    tpm.make_with_signed_policy("signed", &[signed]);
    keys.push(("signed".to_owned(), None));
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, pin)| {
            let pin = pin.clone();
            (
                name.as_str(),
                OpenTpmKey {
                    pin,
                    ..tpm.file(name)
                },
            )
        })
        .collect();
    assert_sign(&tpm, &keys);
}

/// tpm2tss-genkey 1.0 wrote 0 where it meant the owner hierarchy.
#[test]
fn parent_0_is_the_owner_hierarchy() {
    let tpm = Swtpm::start();
    tpm.make_under_primary("zero", "o", 0);
    assert_sign(&tpm, &[("zero", tpm.file("zero"))]);
}

#[test]
fn pem_lines_have_any_length_and_der_is_read() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256");
    tpm.tool("openssl asn1parse -in web.tss -noout -out der.tss");
    let text = fs::read_to_string(tpm.path("web.tss")).unwrap();
    let mut lines = text.lines();
    let (begin, end) = (lines.next().unwrap(), lines.next_back().unwrap());
    let body: String = lines.collect();
    let wrapped = |length: usize, end: &str| {
        let lines = body.as_bytes().chunks(length);
        let lines = lines.map(|line| format!("{}{end}", std::str::from_utf8(line).unwrap()));
        lines.collect::<String>()
    };
    let mut keys = vec![("web", tpm.file("der"))];
    for (name, body) in [
        ("76", wrapped(76, "\n")),
        ("one-line", wrapped(10_000, "\n")),
        ("blanks", wrapped(64, " \r\n")),
        ("empty-line", format!("\n{}", wrapped(64, "\n"))),
    ] {
        let text = format!("{begin}\n{body}{end}\n");
        fs::write(tpm.path(&format!("{name}.tss")), text).unwrap();
        keys.push(("web", tpm.file(name)));
    }
    assert_sign(&tpm, &keys);
}

/// tpm2-openssl has written the memory of a persistent handle as the private area.
#[test]
fn a_file_that_holds_only_a_handle_names_it() {
    const TEXT: &str = "-----BEGIN TSS2 PRIVATE KEY-----
MIIBNQYGZ4EFCgEDoAMBAQECBEAAAAEEggEYARYAAQALAAYAcgAAABAAEAgAAAAA
AAEA1ulSPzuYEDTez5D8VOczFDVMRliHQ748NB9KYSlKn0H7QPO3gpHOrzR6tNS8
mNki3MtoizWb8LU9fq5J98rLJzC1kzisF4tjYXqs+QcK7MU1HfeGxa+dwtY8d6jI
Z2uew5i3u3nVPl/07tCwPXdv9FRjl5JoNPpADu7zmVMggwAEN6E+xw6PfouMWCwS
7R3p5IZFRZQn+lrX8xPPbcB7ImxfPjqx16PhknSng7PyQNMBkJNO0pA+20SxP4aP
WkG0SwbLJM+9QJQ6x9dpyTIK0pl4XJyryuE7yvv/qxZqeL6eThLFhaOlfwYROdsH
E2dsWX1sLdgNwVEy3sno6aR+CQQEAAIBgQ==
-----END TSS2 PRIVATE KEY-----
";
    let tpm = Swtpm::start();
    fs::write(tpm.path("handle.tss"), TEXT).unwrap();
    let (program, reports) = Program::open(&tpm, vec![tpm.file("handle")]);
    let Err(TokenError::Unusable(text)) = &reports[0] else {
        panic!("{:?}", reports[0]);
    };
    assert!(text.contains("handle:0x81010002"), "{text}");
    assert!(program.end().success());
}
