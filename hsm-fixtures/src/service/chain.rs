//! Building the path from a leaf to a trust anchor.

use jiff::Timestamp;

use super::certificate::Certificate;
use super::verification;

/// The path from `leaf`, through any of `intermediates` in any order, to one of `anchors`: leaf first, anchor last.
///
/// The error tells of the issuer that was found and not good enough, where there was one.
pub(crate) fn path<'c>(
    leaf: &'c Certificate,
    intermediates: &'c [Certificate],
    anchors: &'c [Certificate],
    now: Timestamp,
) -> Result<Vec<&'c Certificate>, String> {
    let unused: Vec<&Certificate> = intermediates.iter().collect();
    climb(&[leaf], &unused, anchors, now)
}

/// `lower` is the path so far, the leaf first.
fn climb<'c>(
    lower: &[&'c Certificate],
    unused: &[&'c Certificate],
    anchors: &'c [Certificate],
    now: Timestamp,
) -> Result<Vec<&'c Certificate>, String> {
    let (Some(from), below) = (lower.last(), lower.len().saturating_sub(1)) else {
        return Err("there is no leaf".to_owned());
    };
    let mut failure = None;
    for anchor in anchors.iter().filter(|anchor| from.is_issued_by(anchor)) {
        let checked = anchor.check_ca(below, now);
        match checked.and_then(|()| verification::verify(lower, anchor, now)) {
            Ok(()) => return Ok([lower, &[anchor]].concat()),
            Err(reason) => failure = Some(reason),
        }
    }
    for (at, candidate) in unused
        .iter()
        .enumerate()
        .filter(|(_, candidate)| from.is_issued_by(candidate))
    {
        let rest: Vec<&Certificate> = unused
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != at)
            .map(|(_, c)| *c)
            .collect();
        let outcome = candidate
            .check_ca(below, now)
            .and_then(|()| climb(&[lower, &[*candidate]].concat(), &rest, anchors, now));
        match outcome {
            Ok(path) => return Ok(path),
            Err(reason) => failure = Some(reason),
        }
    }
    Err(failure.unwrap_or_else(|| {
        format!(
            "neither chain nor trust anchor has an issuer of {}",
            from.subject()
        )
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::command;

    /// A PKI as an operator makes it with openssl: each CA takes its extensions from a line of text.
    struct Openssl<'a>(&'a Path);

    impl Openssl<'_> {
        fn run(&self, line: &str) {
            let mut openssl = command::clean("openssl");
            command::output(openssl.current_dir(self.0).args(line.split_whitespace())).unwrap();
        }

        fn issue(
            &self,
            name: &str,
            issuer: Option<&str>,
            extensions: &str,
            days: i32,
        ) -> Certificate {
            std::fs::write(self.0.join("ext"), extensions.replace(", ", "\n")).unwrap();
            self.run(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            let signer = match issuer {
                Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
                None => format!("-signkey {name}.key"),
            };
            self.run(&format!(
                "x509 -req -in {name}.csr {signer} -days {days} -extfile ext -out {name}.pem"
            ));
            let pem = std::fs::read_to_string(self.0.join(format!("{name}.pem"))).unwrap();
            Certificate::bundle_from_pem(&pem).unwrap().remove(0)
        }
    }

    const CA: &str = "basicConstraints=critical,CA:TRUE, keyUsage=keyCertSign";
    const LEAF: &str = "basicConstraints=CA:FALSE, keyUsage=digitalSignature";

    #[test]
    fn a_path_is_found_in_any_order_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue("root", None, CA, 9);
        let one = pki.issue("one", Some("root"), CA, 9);
        let two = pki.issue("two", Some("one"), CA, 9);
        let other = pki.issue("other", None, CA, 9);
        let leaf = pki.issue("leaf", Some("two"), LEAF, 9);
        let direct = pki.issue("direct", Some("root"), LEAF, 9);
        let now = Timestamp::now();
        let check = |leaf: &Certificate, chain: &[&Certificate], anchors: &[&Certificate]| {
            let owned =
                |list: &[&Certificate]| list.iter().map(|c| (*c).clone()).collect::<Vec<_>>();
            super::path(leaf, &owned(chain), &owned(anchors), now).map(|path| path.len())
        };
        assert_eq!(check(&direct, &[], &[&root]), Ok(2));
        assert_eq!(check(&leaf, &[&one, &two], &[&root]), Ok(4));
        assert_eq!(check(&leaf, &[&two, &one], &[&root]), Ok(4));
        assert_eq!(
            check(&leaf, &[&other, &two, &root, &one], &[&other, &root]),
            Ok(4)
        );
        // An anchor may be an intermediate itself.
        assert_eq!(check(&leaf, &[], &[&two]), Ok(2));
        assert!(
            check(&leaf, &[&two], &[&root])
                .unwrap_err()
                .contains("issuer of CN=two")
        );
        assert!(
            check(&leaf, &[&one], &[&root])
                .unwrap_err()
                .contains("issuer of CN=leaf")
        );
        assert!(
            check(&direct, &[&root], &[&other])
                .unwrap_err()
                .contains("issuer of CN=root")
        );
        assert!(
            check(&direct, &[], &[&other])
                .unwrap_err()
                .contains("issuer of CN=direct")
        );
    }

    #[test]
    fn each_bad_ca_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue("root", None, CA, 9);
        let cases = [
            ("plain", "keyUsage=keyCertSign", 9, "CA:TRUE"),
            (
                "false",
                "basicConstraints=CA:FALSE, keyUsage=keyCertSign",
                9,
                "CA:TRUE",
            ),
            (
                "usage",
                "basicConstraints=CA:TRUE, keyUsage=cRLSign",
                9,
                "keyCertSign",
            ),
            ("nousage", "basicConstraints=CA:TRUE", 9, "keyCertSign"),
            (
                "servers",
                "basicConstraints=CA:TRUE, keyUsage=keyCertSign, extendedKeyUsage=serverAuth",
                9,
                "clientAuth",
            ),
            ("old", CA, 0, "expired"),
        ];
        // A certificate of no days ends as it begins: a second later it is over.
        let now = Timestamp::now() + jiff::SignedDuration::from_mins(1);
        for (name, extensions, days, message) in cases {
            let bad = pki.issue(name, Some("root"), extensions, days);
            let leaf = pki.issue("leaf", Some(name), LEAF, 9);
            let error = super::path(&leaf, &[bad], std::slice::from_ref(&root), now).unwrap_err();
            assert!(
                error.contains(message) && error.contains(&format!("CN={name}")),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_path_length_and_a_stolen_name_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue(
            "root",
            None,
            "basicConstraints=CA:TRUE,pathlen:0, keyUsage=keyCertSign",
            9,
        );
        let one = pki.issue("one", Some("root"), CA, 9);
        let leaf = pki.issue("leaf", Some("one"), LEAF, 9);
        let now = Timestamp::now();
        let error = super::path(&leaf, std::slice::from_ref(&one), &[root], now).unwrap_err();
        assert!(error.contains("pathLenConstraint"), "{error}");
        let impostor = pki.issue("one", None, CA, 9);
        let error = super::path(&leaf, &[], &[impostor], now).unwrap_err();
        assert!(error.contains("issuer of CN=leaf"), "{error}");
    }

    /// What the leaf, or the path from it over `issuing` to `root`, is refused for.
    fn refusal(leaf: &Certificate, issuing: &Certificate, root: &Certificate) -> Option<String> {
        let (chain, anchors) = ([issuing.clone()], [root.clone()]);
        let now = Timestamp::now();
        let checked = leaf.check_leaf(now).map(|_| ());
        let path = super::path(leaf, &chain, &anchors, now).map(|_| ());
        checked.and(path).err()
    }

    #[test]
    fn unknown_critical_extensions_bind_every_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        for (critical, fine) in [("critical,", false), ("", true)] {
            let extension = format!("1.2.3.4.5={critical}DER:0500");
            let with = |extensions| format!("{extensions}, {extension}");
            for (root, issuing, leaf) in [
                (with(CA), CA.to_owned(), LEAF.to_owned()),
                (CA.to_owned(), with(CA), LEAF.to_owned()),
                (CA.to_owned(), CA.to_owned(), with(LEAF)),
            ] {
                let root = pki.issue("root", None, &root, 9);
                let issuing = pki.issue("issuing", Some("root"), &issuing, 9);
                let leaf = pki.issue("leaf", Some("issuing"), &leaf, 9);
                let refusal = refusal(&leaf, &issuing, &root);
                assert_eq!(refusal.is_none(), fine, "{refusal:?}");
            }
        }
    }

    #[test]
    fn cas_issue_the_names_that_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue("root", None, CA, 9);
        for (constraints, names, fine) in [
            ("permitted;DNS:lab.test", "DNS:web.lab.test", true),
            ("permitted;DNS:other.test", "DNS:web.lab.test", false),
            // The common name, "web.lab.test", is not a DNS name.
            (
                "permitted;DNS:other.test",
                "URI:spiffe://lab.test/web",
                true,
            ),
            ("excluded;DNS:lab.test", "DNS:web.lab.test", false),
            ("excluded;URI:lab.test", "URI:spiffe://lab.test/web", false),
            ("excluded;IP:10.0.0.0/255.0.0.0", "IP:10.1.2.3", false),
            ("permitted;email:lab.test", "email:web@other.test", false),
        ] {
            let constraints = format!("{CA}, nameConstraints=critical,{constraints}");
            let issuing = pki.issue("issuing", Some("root"), &constraints, 9);
            let names = format!("{LEAF}, subjectAltName={names}");
            let leaf = pki.issue("web.lab.test", Some("issuing"), &names, 9);
            let refusal = refusal(&leaf, &issuing, &root);
            assert_eq!(refusal.is_none(), fine, "{constraints} {names} {refusal:?}");
        }
    }

    #[test]
    fn demanded_policies_are_demanded() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue("root", None, CA, 9);
        let demanding = format!("{CA}, policyConstraints=critical,requireExplicitPolicy:0");
        let issuing = pki.issue("issuing", Some("root"), &demanding, 9);
        let leaf = pki.issue("leaf", Some("issuing"), LEAF, 9);
        assert!(refusal(&leaf, &issuing, &root).is_some());
    }

    #[test]
    fn no_subject_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue("root", None, CA, 9);
        let issuing = pki.issue("issuing", Some("root"), CA, 9);
        let names = format!("{LEAF}, subjectAltName=critical,DNS:web.lab.test");
        let nameless = pki.issue("", Some("issuing"), &names, 9);
        assert!(refusal(&nameless, &issuing, &root).is_some());
        let nameless = pki.issue("", Some("root"), CA, 9);
        let leaf = pki.issue("leaf", Some(""), LEAF, 9);
        assert!(refusal(&leaf, &nameless, &root).is_some());
    }

    #[test]
    fn certificates_have_up_to_16_kib() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Openssl(dir.path());
        let root = pki.issue("root", None, CA, 9);
        let issuing = pki.issue("issuing", Some("root"), CA, 9);
        let padding = format!("{LEAF}, 1.2.3.4.5=DER:{}", "05".repeat(15 * 1024));
        let large = pki.issue("large", Some("issuing"), &padding, 9);
        assert_eq!(refusal(&large, &issuing, &root), None);
        assert!(Certificate::from_der(&[0; 16 * 1024 + 1]).is_err());
    }
}
