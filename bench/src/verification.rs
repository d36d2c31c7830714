//! What it costs to verify each signature, as the agent does.

use std::time::Instant;

use anyhow::{Result, ensure};
use config::certificate::Certificate;
use hsm_fixtures::LeafSpec;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use token::Signature;

use crate::lab::Lab;
use crate::report::{Report, Table, whole};
use crate::stats::median;

const TEXT: &str = "AWS4-X509-RSA-SHA256\n20261123T120000Z\n20261123/eu-central-1/rolesanywhere/aws4_request\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// So often so many.
const TURNS: usize = 9;
const COUNT: u32 = 100;

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    report.step("verification")?;
    let ec = |curve| -> Result<PKey<Private>> {
        let group = EcGroup::from_curve_name(curve)?;
        Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
    };
    let mut rows = Vec::new();
    for (name, key) in [
        ("RSA-2048", PKey::from_rsa(Rsa::generate(2048)?)?),
        ("RSA-4096", PKey::from_rsa(Rsa::generate(4096)?)?),
        ("EC P-256", ec(Nid::X9_62_PRIME256V1)?),
        ("EC P-384", ec(Nid::SECP384R1)?),
        ("EC P-521", ec(Nid::SECP521R1)?),
    ] {
        rows.push(vec![name.to_owned(), whole(micros(lab, &key)?)]);
    }
    report.add(Table {
        title: "Verification of a signature, in microseconds",
        about: "Part of the figures above: no signature leaves the agent that its certificate does not verify."
            .to_owned(),
        head: vec!["key", "time"],
        rows,
    });
    Ok(())
}

fn micros(lab: &Lab, key: &PKey<Private>) -> Result<f64> {
    let leaf = lab
        .scene
        .pki()
        .leaf(&key.public_key_to_der()?, &LeafSpec::new("verification"))?;
    let certificate = Certificate::new(vec![leaf.der])?;
    let signature =
        Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(TEXT.as_bytes())?;
    let signature = Signature(signature);
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        let start = Instant::now();
        for _ in 0..COUNT {
            ensure!(certificate.verifies(TEXT, &signature), "it does not verify");
        }
        turns.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT));
    }
    Ok(median(turns))
}
