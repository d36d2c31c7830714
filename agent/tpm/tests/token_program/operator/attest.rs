//! What the TPM says of a key: tpm2-tools and openssl are the judges.

use std::fs;

use der::Encode;
use der::asn1::UintRef;
use sha2::{Digest, Sha256};
use token::TokenError;
use token::link::{OpenTpmKey, TpmKeySource};
use token::operator::tpm::{Answer, Attestation, Task};
use token::operator::{Der, KeyType, Outcome};

use super::{Operator, new_key, refused_pin};
use crate::program::{key, pin};
use crate::swtpm::Swtpm;

const ABOUT: [u8; 32] = [0xa5; 32];

impl Operator {
    fn attest(&mut self, key: &OpenTpmKey, endorsement: Option<&str>) -> Outcome<Attestation> {
        let task = Task::Attest {
            key: key.clone(),
            endorsement_pin: endorsement.and_then(pin),
            qualifying_data: Der(ABOUT.to_vec()),
        };
        match self.ask(task)? {
            Answer::Attestation(attestation) => Ok(attestation),
            other => panic!("{other:?}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A TPM name with SHA-256.
fn name(area: &Der) -> String {
    format!("000b{}", hex(&Sha256::digest(&area.0)))
}

impl Swtpm {
    /// As a TPM2B.
    fn write_area(&self, name: &str, area: &Der) {
        let length = u16::try_from(area.0.len()).unwrap();
        let bytes = [&length.to_be_bytes()[..], &area.0].concat();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// `ak.ctx`, by the template in docs/tpm.md.
    fn derive_attestation_key(&self) {
        self.tool(
            "tpm2_createprimary -Q -C e -G ecc256:ecdsa-sha256:null -c ak.ctx \
         -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign",
        );
    }

    /// The attestation key has signed the statement, and the statement is about this key and `ABOUT`.
    fn check_attestation(&self, attestation: &Attestation, key_pem: &str) {
        let Attestation {
            statement,
            signature,
            attestation_key,
            public_area,
            ..
        } = attestation;
        fs::write(self.path("statement"), &statement.0).unwrap();
        fs::write(self.path("statement.sig"), &signature.0).unwrap();
        self.write_area("ak.pub", attestation_key);
        self.write_area("key.pub", public_area);
        self.tool("tpm2_loadexternal -Q -C n -u ak.pub -c ak.ctx");
        self.tool("tpm2_verifysignature -Q -c ak.ctx -g sha256 -m statement -s statement.sig");
        self.flush();
        let pem = self.tool("tpm2_print -t TPM2B_PUBLIC -f pem ak.pub");
        fs::write(self.path("ak.pem"), pem).unwrap();
        fs::write(self.path("ecdsa"), ecdsa(&signature.0)).unwrap();
        self.tool("openssl dgst -sha256 -verify ak.pem -signature ecdsa statement");

        // TPMS_ATTEST (TPM 2.0 library, part 2, 10.12.12). tpm2_print 5.4 knows quotes alone.
        let (head, mut rest) = statement.0.split_at(6);
        assert_eq!(head, [0xff, b'T', b'C', b'G', 0x80, 0x17]);
        let mut sized = || {
            let (length, behind) = rest.split_first_chunk().unwrap();
            let (content, behind) = behind.split_at(u16::from_be_bytes(*length).into());
            rest = behind;
            content
        };
        let _qualified_signer = sized();
        assert_eq!(sized(), ABOUT);
        let clock_and_firmware = 17 + 8;
        rest = &rest[clock_and_firmware..];
        let length = usize::from(rest[1]);
        assert_eq!(hex(&rest[2..2 + length]), name(public_area));
        let pem = self.tool("tpm2_print -t TPM2B_PUBLIC -f pem key.pub");
        assert_eq!(pem, fs::read_to_string(self.path(key_pem)).unwrap());
    }
}

/// DER of a P-256 TPMT_SIGNATURE: its algorithm, hash, and two numbers of 32 bytes with their lengths.
fn ecdsa(signature: &[u8]) -> Vec<u8> {
    let (head, numbers) = signature.split_at(4);
    assert_eq!(head, [0, 0x18, 0, 0x0b]);
    let integers: Vec<u8> = numbers
        .chunks(34)
        .flat_map(|number| UintRef::new(&number[2..]).unwrap().to_der().unwrap())
        .collect();
    let mut der = vec![0x30, u8::try_from(integers.len()).unwrap()];
    der.extend(integers);
    der
}

#[test]
fn keys_of_every_kind_are_attested() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let mut operator = Operator::on(&tpm);
    let mut attesters = Vec::new();
    for (name, key_type, persist, auth, pcrs) in [
        ("plain", KeyType::EcP256, None, None, vec![]),
        ("rsa", KeyType::Rsa2048, None, pin("key-secret"), vec![]),
        ("pcrs", KeyType::EcP384, None, None, vec![7]),
        ("both", KeyType::EcP256, None, pin("key-secret"), vec![7]),
        (
            "kept",
            KeyType::EcP256,
            Some(0x8100_0101),
            pin("key-secret"),
            vec![],
        ),
    ] {
        let mut new = new_key(key_type);
        (new.persist, new.pin, new.pcrs) = (persist, auth.clone(), pcrs);
        let report = operator.generate(new).unwrap();
        tpm.keep(name, &report);
        let mut key = match persist {
            Some(handle) => key(TpmKeySource::Handle(handle)),
            None => tpm.file(name),
        };
        key.pin = auth;
        let attestation = operator.attest(&key, None).unwrap();
        assert_eq!(tpm.handles(), "", "{name}");
        tpm.check_attestation(&attestation, &format!("{name}.pem"));
        assert_eq!(attestation.endorsement_certificates, []);
        attesters.push(attestation.attestation_key);
    }
    operator.end();
    // The same key each time: the one that docs/tpm.md has a CA derive.
    attesters.dedup();
    assert_eq!(attesters.len(), 1);
    let expected = format!("name: {}\n", name(&attesters[0]));
    for _ in 0..2 {
        tpm.derive_attestation_key();
        let derived = tpm.tool("tpm2_readpublic -c ak.ctx");
        assert!(derived.contains(&expected), "{derived}");
        assert!(derived.contains("raw: 0x50472\n"), "{derived}");
        tpm.tool("tpm2_clear -c p");
    }
}

#[test]
fn endorsement_certificates_come_with_it() {
    let tpm = Swtpm::start_manufactured();
    let mut operator = Operator::on(&tpm);
    let report = operator.generate(new_key(KeyType::EcP256)).unwrap();
    tpm.keep("web", &report);
    let attestation = operator.attest(&tpm.file("web"), None).unwrap();
    operator.end();
    tpm.check_attestation(&attestation, "web.pem");
    let certificates = &attestation.endorsement_certificates;
    assert_eq!(certificates.len(), 2); // RSA 2048 and P-384
    for Der(certificate) in certificates {
        fs::write(tpm.path("ek.der"), certificate).unwrap();
        tpm.tool("openssl x509 -inform DER -in ek.der -out ek.pem");
        tpm.tool("openssl verify -partial_chain -trusted ca/issuercert.pem ek.pem");
    }
    assert_eq!(tpm.handles(), "");

    // As docs/tpm.md has it: what proves that this attestation key is in the TPM of that certificate.
    fs::write(tpm.path("ek.der"), &certificates[0].0).unwrap();
    tpm.tool("openssl x509 -inform DER -in ek.der -noout -pubkey -out ek.pem");
    fs::write(tpm.path("challenge"), ABOUT).unwrap();
    let attester = name(&attestation.attestation_key);
    tpm.tool(&format!(
        "tpm2_makecredential -Q -T none -G rsa -u ek.pem -s challenge -n {attester} -o credential"
    ));
    tpm.tool("tpm2_createek -Q -c ek.ctx -G rsa -u ek.pub");
    tpm.flush();
    tpm.derive_attestation_key();
    tpm.flush();
    tpm.tool("tpm2_startauthsession --policy-session -S session.ctx");
    tpm.tool("tpm2_policysecret -Q -S session.ctx -c e");
    tpm.tool("tpm2_flushcontext -t");
    tpm.tool(
        "tpm2_activatecredential -Q -c ak.ctx -C ek.ctx -i credential -o answer -P session:session.ctx",
    );
    assert_eq!(fs::read(tpm.path("answer")).unwrap(), ABOUT);
}

#[test]
fn wrong_auth_values_are_tried_once_and_never_into_the_lockout() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make_with_policy("policy", "-p key-secret", &[tpm.policy_pcr(&[7])]);
    tpm.tool("tpm2_changeauth -Q -c e endorsement-secret");
    tpm.flush();
    let mut operator = Operator::on(&tpm);
    let mut new = new_key(KeyType::EcP256);
    new.pin = pin("key-secret");
    tpm.keep("web", &operator.generate(new).unwrap());
    let mut web = tpm.file("web");
    web.pin = pin("key-secret");
    for _ in 0..2 {
        let text = refused_pin(operator.attest(&web, Some("guess")));
        assert!(
            text.contains("hierarchy Endorsement (--endorsement-pin-file)"),
            "{text}"
        );
    }
    assert_eq!(tpm.lockout_counter(), 0);
    let mut wrong = web.clone();
    for guess in ["one", "two"] {
        wrong.pin = pin(guess);
        let text = refused_pin(operator.attest(&wrong, Some("endorsement-secret")));
        assert!(
            text.contains("its auth value (--pin-file, --pin-prompt …)"),
            "{text}"
        );
    }
    // The third failure would lock it.
    wrong.pin = pin("three");
    // So would this one's empty auth value, which its policy does not ask for, but TPM2_Certify does.
    for key in [wrong, tpm.file("policy")] {
        let outcome = operator.attest(&key, Some("endorsement-secret"));
        assert!(
            matches!(outcome, Err(TokenError::Wait { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(tpm.lockout_counter(), 2);
    assert!(operator.list().warnings[0].contains("2 failed authorizations of 3"));
    tpm.tool("tpm2_dictionarylockout -Q --clear-lockout");
    let attestation = operator.attest(&web, Some("endorsement-secret")).unwrap();
    tpm.check_attestation(&attestation, "web.pem");
    operator.end();
}

/// Without a resource manager: key and attestation key need two places of the three at once.
#[test]
fn others_may_take_one_place() {
    let tpm = Swtpm::start();
    let mut operator = Operator::on(&tpm);
    let mut new = new_key(KeyType::EcP256);
    new.pin = pin("key-secret");
    tpm.keep("web", &operator.generate(new.clone()).unwrap());
    let mut web = tpm.file("web");
    web.pin = pin("key-secret");
    tpm.fill(1);
    let others = tpm.handles();
    operator.generate(new.clone()).unwrap();
    let attestation = operator.attest(&web, None).unwrap();
    assert_eq!(tpm.handles(), others);
    tpm.fill(1);
    let others = tpm.handles();
    let outcome = operator.attest(&web, None);
    let Err(TokenError::Gone(text)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(text.contains("other programs fill the TPM"), "{text}");
    assert_eq!(tpm.handles(), others);
    operator.end();
    tpm.flush();
    tpm.check_attestation(&attestation, "web.pem");
}
