//! Building the path from a leaf to a trust anchor.

use jiff::Timestamp;

use super::certificate::Certificate;

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
    climb(leaf, &unused, anchors, 0, now)
}

fn climb<'c>(
    from: &'c Certificate,
    unused: &[&'c Certificate],
    anchors: &'c [Certificate],
    below: usize,
    now: Timestamp,
) -> Result<Vec<&'c Certificate>, String> {
    let mut failure = None;
    for anchor in anchors.iter().filter(|anchor| from.is_issued_by(anchor)) {
        match anchor.check_ca(below, now) {
            Ok(()) => return Ok(vec![from, anchor]),
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
            .and_then(|()| climb(candidate, &rest, anchors, below + 1, now));
        match outcome {
            Ok(mut path) => {
                path.insert(0, from);
                return Ok(path);
            }
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
}
