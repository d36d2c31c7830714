use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hsm_fixtures::{PROFILE_ARN, TRUST_ANCHOR_ARN, WEB_ROLE_ARN, programs};

/// A PKI as an operator makes it with openssl, in a directory of its own.
struct Pki<'a>(&'a Path);

/// How a certificate is issued.
#[derive(Clone, Copy)]
struct Spec<'a> {
    name: &'a str,
    /// `None` signs with its own key.
    issuer: Option<&'a str>,
    /// As in an openssl configuration, one `; ` between two.
    extensions: &'a str,
    /// What follows `req -newkey`.
    key: &'a str,
    /// What follows `x509 -req`.
    more: &'a str,
}

const CA: &str = "basicConstraints=critical,CA:TRUE; keyUsage=keyCertSign,cRLSign";
const LEAF: &str = "basicConstraints=CA:FALSE; keyUsage=digitalSignature";
const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

fn ca<'a>(name: &'a str, issuer: &'a str, extensions: &'a str) -> Spec<'a> {
    let issuer = Some(issuer);
    let (key, more) = (P256, "-days 9");
    Spec {
        name,
        issuer,
        extensions,
        key,
        more,
    }
}

/// Below `ca`, the intermediate.
fn leaf(extensions: &str) -> Spec<'_> {
    ca("leaf", "ca", extensions)
}

impl Pki<'_> {
    fn new(dir: &Path) -> Pki<'_> {
        let pki = Pki(dir);
        let root = Spec {
            issuer: None,
            ..ca("root", "", CA)
        };
        pki.issue(root);
        pki.issue(ca("ca", "root", CA));
        pki
    }

    fn openssl(&self, line: &str) {
        let output = Command::new("openssl")
            .current_dir(self.0)
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {stderr}");
    }

    /// Writes NAME.pem and NAME.key.
    fn issue(&self, spec: Spec) {
        let Spec {
            name,
            issuer,
            extensions,
            key,
            more,
        } = spec;
        let subject = if name == "nameless" {
            "/"
        } else {
            &format!("/CN={name}")
        };
        self.openssl(&format!(
            "req -newkey {key} -nodes -subj {subject} -keyout {name}.key -out {name}.csr"
        ));
        let signer = match issuer {
            Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
            None => format!("-signkey {name}.key"),
        };
        let extfile = match extensions {
            "" => String::new(),
            some => {
                fs::write(self.0.join("ext"), some.replace("; ", "\n")).unwrap();
                "-extfile ext".to_owned()
            }
        };
        self.openssl(&format!(
            "x509 -req -in {name}.csr {signer} {extfile} {more} -out {name}.pem"
        ));
    }

    /// Puts certificates into one file, in this order.
    fn chain(&self, names: &[&str]) {
        let read = |name: &&str| fs::read_to_string(self.0.join(format!("{name}.pem"))).unwrap();
        let pem: String = names.iter().map(read).collect();
        fs::write(self.0.join("chain.pem"), pem).unwrap();
    }

    /// Judges the chain below this trust anchor.
    fn verdicts(&self, anchor: &str) -> Verdicts {
        let config = format!(
            "roles = [{WEB_ROLE_ARN:?}]\n\
             [[trust-anchor]]\narn = {TRUST_ANCHOR_ARN:?}\nbundle = '{anchor}.pem'\n\
             [[profile]]\narn = {PROFILE_ARN:?}\nroles = [{WEB_ROLE_ARN:?}]\n"
        );
        fs::write(self.0.join("service.toml"), config).unwrap();
        let anchor = format!("{anchor}.pem");
        let run = |program, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.current_dir(self.0).args(arguments);
            command.output().unwrap()
        };
        let arns = [
            ["--role", WEB_ROLE_ARN],
            ["--profile", PROFILE_ARN],
            ["--trust-anchor", TRUST_ANCHOR_ARN],
        ];
        let explain = ["explain", "--config", "service.toml", "--cert", "chain.pem"];
        Verdicts {
            inspect: run(
                programs::roleseal().unwrap(),
                &["inspect", "chain.pem", "--trust-anchor", &anchor],
            ),
            service: run(
                programs::fixtures().unwrap(),
                &[&explain[..], &arns.concat()].concat(),
            ),
        }
    }
}

struct Verdicts {
    inspect: Output,
    service: Output,
}

impl Verdicts {
    /// Both accept, or both refuse.
    #[track_caller]
    fn both(&self, accept: bool, case: &str) {
        let text = |output: &Output| {
            format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        };
        let (inspect, service) = (text(&self.inspect), text(&self.service));
        let found = [&self.inspect, &self.service].map(|output| output.status.code());
        let agreed = match accept {
            true => found == [Some(0), Some(0)],
            // 1: `inspect` cannot read it at all.
            false => matches!(found, [Some(1 | 6), Some(1)]),
        };
        assert!(agreed, "{case}: {found:?}\n{inspect}\n{service}");
    }
}

#[test]
fn a_leaf_is_judged_alike() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let key = |key| Spec { key, ..leaf(LEAF) };
    let issued = |more| Spec { more, ..leaf(LEAF) };
    let padding = format!("{LEAF}; 1.2.3.4.5=DER:{}", "05".repeat(16 * 1024));
    let cases = [
        (true, leaf(LEAF)),
        (true, leaf("keyUsage=digitalSignature")),
        (true, key("rsa:2048")),
        (true, key("ec -pkeyopt ec_paramgen_curve:P-384")),
        (true, key("ec -pkeyopt ec_paramgen_curve:P-521")),
        (true, issued("-days 9 -sha384")),
        (
            true,
            leaf("keyUsage=digitalSignature; extendedKeyUsage=serverAuth,clientAuth"),
        ),
        (
            false,
            leaf("keyUsage=digitalSignature; extendedKeyUsage=serverAuth"),
        ),
        (
            false,
            leaf("keyUsage=digitalSignature; extendedKeyUsage=anyExtendedKeyUsage"),
        ),
        (false, leaf("basicConstraints=CA:FALSE")),
        (false, leaf("keyUsage=keyEncipherment")),
        (
            false,
            leaf("basicConstraints=CA:TRUE; keyUsage=digitalSignature"),
        ),
        (
            false,
            leaf("keyUsage=digitalSignature; 1.2.3.4.5=critical,DER:0500"),
        ),
        (true, leaf("keyUsage=digitalSignature; 1.2.3.4.5=DER:0500")),
        (
            false,
            leaf("keyUsage=digitalSignature; subjectAltName=DER:3003820161ff"),
        ),
        (
            false,
            leaf("keyUsage=digitalSignature; subjectAltName=DER:30058203c3a4ff"),
        ),
        (
            false,
            leaf("keyUsage=digitalSignature; subjectAltName=DER:30048202c3a9"),
        ),
        (
            false,
            leaf("keyUsage=digitalSignature; basicConstraints=DER:0500"),
        ),
        (false, leaf("keyUsage=DER:0500")),
        (
            false,
            leaf("keyUsage=digitalSignature; extendedKeyUsage=DER:0500"),
        ),
        (false, leaf(&padding)),
        (false, leaf("")), // version 1
        (
            false,
            Spec {
                name: "nameless",
                ..leaf("keyUsage=digitalSignature; subjectAltName=critical,DNS:a.test")
            },
        ),
        (false, key("rsa:1024")),
        (true, key("rsa:2056")),
        (false, key("rsa:2052")),
        (false, key("ec -pkeyopt ec_paramgen_curve:secp256k1")),
        (false, key("ed25519")),
        (false, issued("-days 9 -sha1")),
        (false, issued("-days 9 -sha224")),
    ];
    for (number, (accept, spec)) in cases.into_iter().enumerate() {
        pki.issue(spec);
        pki.chain(&[spec.name, "ca"]);
        let Spec {
            extensions,
            key,
            more,
            ..
        } = spec;
        let extensions = extensions.get(..80).unwrap_or(extensions);
        pki.verdicts("root")
            .both(accept, &format!("{number}: {extensions} {key} {more}"));
    }
}

#[test]
fn a_path_is_judged_alike() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let with = |more: &str| format!("{CA}; {more}");
    let spec = |name, issuer, extensions| ca(name, issuer, extensions);
    let names = |names: &str| format!("{LEAF}; subjectAltName={names}");
    // The intermediate's extensions, the leaf's.
    let intermediates = [
        (true, with("extendedKeyUsage=clientAuth"), LEAF.to_owned()),
        (
            true,
            with("extendedKeyUsage=anyExtendedKeyUsage"),
            LEAF.to_owned(),
        ),
        (false, with("extendedKeyUsage=serverAuth"), LEAF.to_owned()),
        (false, with("1.2.3.4.5=critical,DER:0500"), LEAF.to_owned()),
        (
            false,
            "basicConstraints=CA:FALSE; keyUsage=keyCertSign".to_owned(),
            LEAF.to_owned(),
        ),
        (false, "keyUsage=keyCertSign".to_owned(), LEAF.to_owned()),
        (
            false,
            "basicConstraints=CA:TRUE".to_owned(),
            LEAF.to_owned(),
        ),
        (
            false,
            "basicConstraints=CA:TRUE; keyUsage=digitalSignature".to_owned(),
            LEAF.to_owned(),
        ),
        (
            true,
            with("nameConstraints=critical,permitted;DNS:lab.test"),
            names("DNS:web.lab.test"),
        ),
        (
            false,
            with("nameConstraints=critical,permitted;DNS:lab.test"),
            names("DNS:web.test"),
        ),
        (
            false,
            with("nameConstraints=critical,excluded;DNS:lab.test"),
            names("DNS:web.lab.test"),
        ),
        (
            false,
            with("nameConstraints=permitted;DNS:lab.test"),
            names("DNS:web.test"),
        ),
        (
            false,
            with("nameConstraints=critical,excluded;URI:lab.test"),
            names("URI:spiffe://lab.test/web"),
        ),
        (
            false,
            with("nameConstraints=critical,permitted;URI:lab.test"),
            names("URI:spiffe://other.test/web"),
        ),
        (
            false,
            with("nameConstraints=critical,excluded;IP:10.0.0.0/255.0.0.0"),
            names("IP:10.1.2.3"),
        ),
        (
            false,
            with("nameConstraints=critical,permitted;email:lab.test"),
            names("email:web@other.test"),
        ),
        (
            false,
            with("nameConstraints=critical,permitted;RID:1.2.3"),
            names("RID:1.2.4"),
        ),
        (
            false,
            with("nameConstraints=critical,DER:0500"),
            LEAF.to_owned(),
        ),
    ];
    for (number, (accept, extensions, leaf)) in intermediates.iter().enumerate() {
        pki.issue(spec("below", "root", extensions));
        pki.issue(spec("leaf", "below", leaf));
        pki.chain(&["leaf", "below"]);
        pki.verdicts("root")
            .both(*accept, &format!("{number}: {extensions}; leaf {leaf}"));
        // The same CA as trust anchor.
        pki.chain(&["leaf"]);
        pki.verdicts("below").both(
            *accept,
            &format!("anchor {number}: {extensions}; leaf {leaf}"),
        );
    }
}

#[test]
fn a_chain_is_judged_alike() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue(leaf(LEAF));
    pki.issue(ca(
        "narrow",
        "root",
        "basicConstraints=CA:TRUE,pathlen:0; keyUsage=keyCertSign",
    ));
    pki.issue(ca("under", "narrow", CA));
    pki.issue(ca("deep", "under", LEAF));
    pki.issue(ca("shallow", "narrow", LEAF));
    pki.issue(Spec {
        more: "-days 9 -sha1",
        ..ca("weak", "root", CA)
    });
    pki.issue(ca("weakly", "weak", LEAF));
    pki.issue(ca("nameless", "root", CA));
    pki.issue(ca("orphan", "nameless", LEAF));
    pki.issue(Spec {
        issuer: None,
        ..ca("own", "", LEAF)
    });
    pki.issue(ca("plain", "root", LEAF));
    pki.issue(ca(
        "strange",
        "root",
        &format!("{CA}; 1.2.3.4.5=critical,DER:0500"),
    ));
    for (accept, chain, anchor) in [
        (true, &["leaf", "ca"][..], "root"),
        (true, &["leaf", "ca", "root"], "root"),
        (true, &["leaf"], "ca"),
        (false, &["leaf"], "root"),
        (false, &["ca", "leaf"], "root"),
        (false, &["ca"], "root"),
        (true, &["leaf", "narrow", "ca"], "root"),
        (false, &["leaf", "ca", "plain"], "root"),
        (true, &["leaf", "ca", "strange"], "root"),
        (false, &["leaf", "ca", "weak"], "root"),
        (true, &["leaf", "ca", "ca", "ca", "ca", "ca"], "root"),
        (false, &["leaf", "ca", "ca", "ca", "ca", "ca", "ca"], "root"),
        (true, &["shallow", "narrow"], "root"),
        (false, &["deep", "under", "narrow"], "root"),
        (false, &["weakly", "weak"], "root"),
        (false, &["orphan", "nameless"], "root"),
        (false, &["own"], "own"),
        (false, &["leaf", "ca"], "under"),
    ] {
        pki.chain(chain);
        pki.verdicts(anchor)
            .both(accept, &format!("{chain:?} below {anchor}"));
    }
    // An intermediate of the right name, with another key.
    pki.issue(ca("ca", "root", CA));
    pki.chain(&["leaf", "ca"]);
    pki.verdicts("root").both(false, "another key");
}
