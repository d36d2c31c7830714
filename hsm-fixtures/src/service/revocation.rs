//! Certificate revocation lists, as one imports them for a trust anchor.

use jiff::Timestamp;
use openssl::asn1::Asn1Time;
use openssl::x509::{CrlStatus, X509Crl};

use super::certificate::Certificate;

/// The longest list that ImportCrl takes, in bytes (its API reference).
const LENGTH_LIMIT: usize = 300_000;

/// A list, with its issuer's name.
pub(crate) struct Crl {
    list: X509Crl,
    issuer: Vec<u8>,
    /// For messages.
    issuer_text: String,
}

impl Crl {
    /// Reads PEM, which is all that AWS takes, or DER.
    pub(crate) fn read(bytes: &[u8]) -> Result<Crl, String> {
        if bytes.len() > LENGTH_LIMIT {
            return Err(format!(
                "the CRL has {} bytes; ImportCrl takes {LENGTH_LIMIT}",
                bytes.len()
            ));
        }
        let list = X509Crl::from_pem(bytes)
            .or_else(|_| X509Crl::from_der(bytes))
            .map_err(|_| "no CRL in PEM or DER".to_owned())?;
        let issuer = list
            .issuer_name()
            .to_der()
            .map_err(|error| error.to_string())?;
        let names: Vec<String> = list
            .issuer_name()
            .entries()
            .filter_map(|entry| Some(entry.data().to_string().ok()?.to_string()))
            .collect();
        Ok(Crl {
            list,
            issuer,
            issuer_text: names.join(", "),
        })
    }

    /// A list that names a CA as its issuer and was not signed by it is a mistake of the configuration.
    pub(crate) fn check_against(&self, bundle: &[Certificate]) -> Result<(), String> {
        let mut named = bundle
            .iter()
            .filter(|ca| ca.subject_der() == self.issuer)
            .peekable();
        if named.peek().is_some() && !named.any(|ca| self.is_signed_by(ca)) {
            return Err(format!(
                "the CRL of {} is not signed by that CA",
                self.issuer_text
            ));
        }
        Ok(())
    }

    fn is_of(&self, ca: &Certificate) -> bool {
        ca.subject_der() == self.issuer && self.is_signed_by(ca)
    }

    fn is_signed_by(&self, ca: &Certificate) -> bool {
        ca.public_key()
            .is_ok_and(|key| self.list.verify(&key).unwrap_or(false))
    }

    fn revokes(&self, certificate: &Certificate) -> bool {
        matches!(
            self.list.get_by_serial(certificate.serial_number()),
            CrlStatus::Revoked(_)
        )
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let now = Asn1Time::from_unix(now.as_second());
        match (self.list.next_update(), now) {
            (Some(next), Ok(now)) => next < now.as_ref(),
            _ => false,
        }
    }
}

/// Checks every certificate of `path` (leaf first, trust anchor last) against the lists of its issuer; returns what was
/// looked at, for people.
///
/// What AWS makes of a list past its nextUpdate is not documented. Here it still revokes what it lists, and does not
/// stop the rest.
pub(crate) fn check(
    path: &[&Certificate],
    crls: &[Crl],
    now: Timestamp,
) -> Result<Vec<String>, String> {
    let mut seen = Vec::new();
    for pair in path.windows(2) {
        let [certificate, issuer] = pair else {
            continue;
        };
        for crl in crls.iter().filter(|crl| crl.is_of(issuer)) {
            if crl.revokes(certificate) {
                return Err(format!(
                    "certificate {} of {} is on the CRL of {}",
                    certificate.serial_decimal(),
                    certificate.subject(),
                    crl.issuer_text
                ));
            }
            let over = if crl.is_over(now) {
                " (its nextUpdate has passed)"
            } else {
                ""
            };
            seen.push(format!(
                "{} is not on the CRL of {}{over}",
                certificate.subject(),
                crl.issuer_text
            ));
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::chain;
    use super::super::test_client::{p256, spki};
    use super::*;
    use crate::pki::{Issuer, LeafSpec, Pki};

    const FRESH: Duration = Duration::ZERO;

    #[test]
    fn a_list_counts_for_what_its_signer_issued() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki")).unwrap();
        let stranger = Pki::create(&dir.path().join("stranger")).unwrap();
        let spec = LeafSpec {
            serial: Some(7),
            ..LeafSpec::new("web")
        };
        let leaf = Certificate::from_der(&pki.leaf(&spki(&p256()), &spec).unwrap().der).unwrap();
        let root = Certificate::bundle_from_pem(&pki.root_pem().unwrap()).unwrap();
        let intermediate = Certificate::bundle_from_pem(&pki.intermediate_pem().unwrap()).unwrap();
        let now = Timestamp::now();
        let path = chain::path(&leaf, &intermediate, &root, now).unwrap();
        let crl = |pki: &Pki, issuer, serial: &str, age| {
            Crl::read(pki.crl(issuer, &[serial], age).unwrap().as_bytes()).unwrap()
        };
        let check = |crl| check(&path, &[crl], now);
        let revoked = check(crl(&pki, Issuer::Intermediate, "7", FRESH)).unwrap_err();
        assert!(
            revoked.contains("certificate 7 of") && revoked.contains("intermediate CA"),
            "{revoked}"
        );
        let ca = intermediate[0].serial_decimal();
        assert!(
            check(crl(&pki, Issuer::Root, ca, FRESH))
                .unwrap_err()
                .contains("intermediate CA")
        );
        // The root did not issue the leaf; the stranger's CA only has the name of its issuer.
        assert_eq!(check(crl(&pki, Issuer::Root, "7", FRESH)).unwrap().len(), 1);
        assert_eq!(
            check(crl(&stranger, Issuer::Intermediate, "7", FRESH)),
            Ok(Vec::new())
        );
        let seen = check(crl(&pki, Issuer::Intermediate, "8", FRESH)).unwrap();
        assert!(!seen[0].contains("nextUpdate"), "{seen:?}");
    }

    #[test]
    fn a_list_that_is_over_still_revokes_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let spec = LeafSpec {
            serial: Some(7),
            issuer: Issuer::Root,
            ..LeafSpec::new("web")
        };
        let leaf = Certificate::from_der(&pki.leaf(&spki(&p256()), &spec).unwrap().der).unwrap();
        let root = Certificate::bundle_from_pem(&pki.root_pem().unwrap()).unwrap();
        let path = [&leaf, &root[0]];
        let old = Duration::from_secs(48 * 3600);
        let crl = |serial| {
            let pem = pki.crl(Issuer::Root, &[serial], old).unwrap();
            vec![Crl::read(pem.as_bytes()).unwrap()]
        };
        assert!(check(&path, &crl("7"), Timestamp::now()).is_err());
        let seen = check(&path, &crl("8"), Timestamp::now()).unwrap();
        assert!(seen[0].contains("nextUpdate has passed"), "{seen:?}");
    }

    #[test]
    fn a_list_is_read_in_pem_and_der_and_a_forged_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki")).unwrap();
        let stranger = Pki::create(&dir.path().join("stranger")).unwrap();
        let root = Certificate::bundle_from_pem(&pki.root_pem().unwrap()).unwrap();
        let pem = pki.crl(Issuer::Root, &["7"], FRESH).unwrap();
        let der = X509Crl::from_pem(pem.as_bytes()).unwrap().to_der().unwrap();
        for bytes in [pem.as_bytes(), &der] {
            assert_eq!(Crl::read(bytes).unwrap().check_against(&root), Ok(()));
        }
        let forged = stranger.crl(Issuer::Root, &["7"], FRESH).unwrap();
        let error = Crl::read(forged.as_bytes()).unwrap().check_against(&root);
        assert!(error.unwrap_err().contains("not signed by that CA"));
        assert!(Crl::read(b"garbage").is_err());
        assert!(
            Crl::read(&vec![0; LENGTH_LIMIT + 1])
                .err()
                .unwrap()
                .contains("ImportCrl")
        );
    }
}
