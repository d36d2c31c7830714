use super::*;

use jiff::{SignedDuration, Timestamp};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509NameBuilder};
use token::Signature;
use token::operator::PublicKeyInfo;

use crate::new_request::{Subject, Wanted, assemble};

const KEY: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | SIGN;

fn ec() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// TPMT_PUBLIC of a key made by OpenSSL.
fn area(key: &PKey<Private>, attributes: u32) -> Vec<u8> {
    let head = |kind: u8| [&[0, kind, 0, 0x0b][..], &attributes.to_be_bytes(), &[0, 0]].concat();
    if let Ok(rsa) = key.rsa() {
        let parameters = [0, 0x10, 0, 0x14, 0, 0x0b, 8, 0, 0, 0, 0, 0];
        return [&head(1)[..], &parameters, &sized(&rsa.n().to_vec())].concat();
    }
    let key = key.ec_key().unwrap();
    let mut context = BigNumContext::new().unwrap();
    let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
    key.public_key()
        .affine_coordinates(key.group(), &mut x, &mut y, &mut context)
        .unwrap();
    let parameters = [0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
    let point = [x, y].map(|number| sized(&number.to_vec_padded(32).unwrap()));
    [&head(0x23)[..], &parameters, &point.concat()].concat()
}

/// What a TPM with these keys would say; each part can be another one.
struct Tpm {
    request: CertificationRequest,
    key: Vec<u8>,
    signer: PKey<Private>,
    attestation_key: Vec<u8>,
    magic: u32,
    certificates: Vec<Der>,
}

impl Tpm {
    fn new() -> Tpm {
        let (key, signer) = (ec(), ec());
        Tpm {
            request: request(&key),
            key: area(&key, KEY),
            attestation_key: area(&signer, KEY | RESTRICTED),
            signer,
            magic: 0xff54_4347,
            certificates: Vec::new(),
        }
    }

    fn certify(&self) -> Attestation {
        let signer = PublicArea::parse(&self.attestation_key).unwrap();
        let name = PublicArea::parse(&self.key).unwrap().name();
        let statement = [
            &self.magic.to_be_bytes()[..],
            &[0x80, 0x17],
            &sized(&signer.qualified_name_in_endorsement_hierarchy()),
            &sized(&qualifying_data(&self.request)),
            &[0; 16],
            &[1],
            &[0; 8],
            &sized(&name),
            &sized(&name),
        ]
        .concat();
        let mut signing = Signer::new(MessageDigest::sha256(), &self.signer).unwrap();
        let signature = signing.sign_oneshot_to_vec(&statement).unwrap();
        let signature = match EcdsaSig::from_der(&signature) {
            Ok(ecdsa) => [
                vec![0, 0x18, 0, 0x0b],
                sized(&ecdsa.r().to_vec_padded(32).unwrap()),
                sized(&ecdsa.s().to_vec_padded(32).unwrap()),
            ]
            .concat(),
            Err(_) => [vec![0, 0x14, 0, 0x0b], sized(&signature)].concat(),
        };
        Attestation {
            statement: Der(statement),
            signature: Der(signature),
            attestation_key: Der(self.attestation_key.clone()),
            public_area: Der(self.key.clone()),
            endorsement_certificates: self.certificates.clone(),
        }
    }

    /// What does not hold.
    fn faults(&self, cas: Option<&EndorsementCas>) -> Vec<String> {
        faults(&judge(&self.request, &self.certify(), cas))
    }
}

fn faults(verdict: &Verdict) -> Vec<String> {
    let failing = verdict.findings.iter().filter(|finding| !finding.holds);
    let faults: Vec<String> = failing.map(|finding| finding.text.clone()).collect();
    assert_eq!(verdict.proven, faults.is_empty());
    faults
}

fn request(key: &PKey<Private>) -> CertificationRequest {
    let subject: Subject = "CN=web".parse().unwrap();
    let wanted = Wanted {
        subject: subject.0,
        alt_names: vec![],
    };
    let public = PublicKeyInfo(key.public_key_to_der().unwrap());
    let info = wanted.info(&public).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(&info).unwrap();
    assemble(&info, &Signature(signature)).unwrap()
}

fn certificate(
    subject: &str,
    key: &PKey<Private>,
    issuer: &str,
    by: &PKey<Private>,
    ca: bool,
) -> X509 {
    signed_with(MessageDigest::sha256(), subject, key, issuer, by, ca)
}

fn signed_with(
    hash: MessageDigest,
    subject: &str,
    key: &PKey<Private>,
    issuer: &str,
    by: &PKey<Private>,
    ca: bool,
) -> X509 {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let name = |text: &str| {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", text).unwrap();
        name.build()
    };
    builder.set_subject_name(&name(subject)).unwrap();
    builder.set_issuer_name(&name(issuer)).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    builder.set_pubkey(key).unwrap();
    if ca {
        let constraints = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(constraints).unwrap();
    }
    builder.sign(by, hash).unwrap();
    builder.build()
}

/// An hour after all certificates were made, which are valid for a day.
fn cas(certificate: &X509) -> EndorsementCas {
    cas_at(certificate, 1)
}

fn cas_at(certificate: &X509, hours: i64) -> EndorsementCas {
    let now = Timestamp::now() + SignedDuration::from_hours(hours);
    EndorsementCas::parse(&certificate.to_pem().unwrap(), now).unwrap()
}

#[test]
fn a_good_attestation_holds_and_says_what_it_does_not_prove() {
    let tpm = Tpm::new();
    let verdict = judge(&tpm.request, &tpm.certify(), None);
    assert_eq!(faults(&verdict), [""; 0]);
    assert_eq!(verdict.findings.len(), 8);
    assert!(verdict.not_proven[1].contains("challenge"), "{verdict:?}");

    let signer = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let rsa = Tpm {
        attestation_key: area(&signer, KEY | RESTRICTED),
        signer,
        ..Tpm::new()
    };
    assert_eq!(rsa.faults(None), [""; 0]);
}

#[test]
fn each_part_must_fit_the_others() {
    let other = ec();
    let another_signer = Tpm {
        signer: ec(),
        ..Tpm::new()
    };
    assert_eq!(
        another_signer.faults(None),
        ["the statement is signed by the attestation key"]
    );
    let another_key = Tpm {
        key: area(&other, KEY),
        ..Tpm::new()
    };
    assert_eq!(
        another_key.faults(None),
        ["the CSR's public key is that key's"]
    );
    let no_tpm = Tpm {
        magic: 0xff54_4348,
        ..Tpm::new()
    };
    assert!(no_tpm.faults(None)[0].contains("TPM_GENERATED_VALUE"));

    let tpm = Tpm::new();
    let verdict = judge(&request(&other), &tpm.certify(), None);
    let faults = faults(&verdict);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("certifies this CSR"), "{faults:?}");

    let mut swapped = tpm.certify();
    swapped.public_area = Der(area(&other, KEY));
    let verdict = judge(&tpm.request, &swapped, None);
    assert!(
        verdict
            .findings
            .iter()
            .any(|f| !f.holds && f.text.contains("certifies this key"))
    );
    let mut swapped = tpm.certify();
    swapped.attestation_key = Der(area(&other, KEY | RESTRICTED));
    let verdict = judge(&tpm.request, &swapped, None);
    assert!(
        verdict
            .findings
            .iter()
            .any(|f| !f.holds && f.text.contains("signer is this"))
    );
}

#[test]
fn keys_must_be_what_an_attestation_is_worth_something_for() {
    for missing in [FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, SIGN] {
        let key = ec();
        let tpm = Tpm {
            request: request(&key),
            key: area(&key, KEY & !missing),
            ..Tpm::new()
        };
        let faults = tpm.faults(None);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("cannot leave"), "{faults:?}");
    }
    for attributes in [
        KEY, // it would sign a forged statement
        KEY | RESTRICTED | DECRYPT,
        (KEY | RESTRICTED) & !FIXED_TPM,
        (KEY | RESTRICTED) & !FIXED_PARENT,
        (KEY | RESTRICTED) & !SENSITIVE_DATA_ORIGIN,
        (KEY | RESTRICTED) & !SIGN,
    ] {
        let signer = ec();
        let tpm = Tpm {
            attestation_key: area(&signer, attributes),
            signer,
            ..Tpm::new()
        };
        let faults = tpm.faults(None);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("signs only"), "{faults:?}");
    }
}

#[test]
fn endorsement_certificates_are_those_of_a_vendors_ca() {
    let (ca_key, ek) = (ec(), ec());
    let ca = cas(&certificate("vendor", &ca_key, "vendor", &ca_key, true));
    assert_eq!(Tpm::new().faults(Some(&ca)).len(), 1);
    let with = |certificate: X509| Tpm {
        certificates: vec![Der(certificate.to_der().unwrap())],
        ..Tpm::new()
    };
    let good = with(certificate("ek", &ek, "vendor", &ca_key, false));
    assert_eq!(good.faults(Some(&ca)), [""; 0]);
    let verdict = judge(&good.request, &good.certify(), None);
    assert!(verdict.not_proven[0].contains("--ek-ca"), "{verdict:?}");
    let forged = with(certificate("ek", &ek, "vendor", &ec(), false));
    assert!(forged.faults(Some(&ca))[0].contains("is not signed by the CA"));
    let strange = with(certificate("ek", &ek, "other", &ca_key, false));
    assert!(strange.faults(Some(&ca))[0].contains("not in --ek-ca"));
    let leaf = certificate("vendor", &ca_key, "vendor", &ca_key, false);
    let error = EndorsementCas::parse(&leaf.to_pem().unwrap(), Timestamp::now());
    assert!(error.unwrap_err().contains("not a CA"));
}

#[test]
fn expired_and_weakly_signed_endorsement_certificates_prove_nothing() {
    let (ca_key, ek) = (ec(), ec());
    let ca = certificate("vendor", &ca_key, "vendor", &ca_key, true);
    let with = |certificate: X509| Tpm {
        certificates: vec![Der(certificate.to_der().unwrap())],
        ..Tpm::new()
    };
    let good = with(certificate("ek", &ek, "vendor", &ca_key, false));
    for (hours, faults) in [(1, 0), (-1, 1), (25, 1)] {
        assert_eq!(good.faults(Some(&cas_at(&ca, hours))).len(), faults);
    }
    let sha1 = MessageDigest::sha1();
    let weak = with(signed_with(sha1, "ek", &ek, "vendor", &ca_key, false));
    let faults = weak.faults(Some(&cas(&ca)));
    assert!(faults[0].contains("SHA-1"), "{faults:?}");
}

#[test]
fn no_byte_of_an_attestation_can_be_changed() {
    let (ca_key, ek) = (ec(), ec());
    let ca = cas(&certificate("vendor", &ca_key, "vendor", &ca_key, true));
    let tpm = Tpm {
        certificates: vec![Der(certificate("ek", &ek, "vendor", &ca_key, false)
            .to_der()
            .unwrap())],
        ..Tpm::new()
    };
    let text = to_json(&tpm.certify()).unwrap();
    let holds = |text: &[u8], request: &CertificationRequest| {
        let attestation = std::str::from_utf8(text)
            .ok()
            .and_then(|text| from_json(text).ok());
        attestation.is_some_and(|attestation| judge(request, &attestation, Some(&ca)).proven)
    };
    assert!(holds(text.as_bytes(), &tpm.request));
    for at in 0..text.len() {
        for bit in [at % 8, (at + 3) % 8] {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1 << bit;
            assert!(!holds(&changed, &tpm.request), "byte {at}, bit {bit}");
        }
    }
    for length in 0..text.len() - 2 {
        assert!(!holds(&text.as_bytes()[..length], &tpm.request));
    }
    assert!(!holds(text.as_bytes(), &request(&ec())));
}
