use super::*;

use clap::Parser;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::x509::X509Req;

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn keys() -> Vec<PKey<Private>> {
    vec![
        ec(Nid::X9_62_PRIME256V1),
        ec(Nid::SECP384R1),
        ec(Nid::SECP521R1),
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
    ]
}

fn public(key: &PKey<Private>) -> PublicKeyInfo {
    PublicKeyInfo(key.public_key_to_der().unwrap())
}

fn sign(key: &PKey<Private>, text: &[u8]) -> Signature {
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    Signature(signer.sign_oneshot_to_vec(text).unwrap())
}

#[derive(Debug, Parser)]
struct Line {
    #[arg(long)]
    subject: Subject,
    #[command(flatten)]
    names: AltNameArguments,
}

fn wanted(arguments: &[&str]) -> Result<Wanted, String> {
    let line =
        Line::try_parse_from(["x"].iter().chain(arguments)).map_err(|error| error.to_string())?;
    Ok(Wanted {
        subject: line.subject.0,
        alt_names: line.names.names(),
    })
}

fn request(key: &PKey<Private>, arguments: &[&str]) -> CertificationRequest {
    let info = wanted(arguments).unwrap().info(&public(key)).unwrap();
    assert_eq!(
        token::operator::check_certification_request(&info, &public(key)),
        Ok(())
    );
    assemble(&info, &sign(key, &info)).unwrap()
}

#[test]
fn openssl_reads_what_was_asked_for() {
    let names = [
        "--subject=CN=web\\, too,O=Example,C=DE",
        "--dns=web.example.org",
        "--dns=*.example.org",
        "--san-uri=spiffe://example.org/web",
        "--email=web@example.org",
        "--ip=192.0.2.1",
        "--ip=2001:db8::1",
    ];
    for key in keys() {
        let request = request(&key, &names);
        assert_eq!(request.subject(), "CN=web\\, too,O=Example,C=DE");
        let read = X509Req::from_pem(request.to_pem().unwrap().as_bytes()).unwrap();
        assert!(read.verify(&key).unwrap());
        assert!(read.public_key().unwrap().public_eq(&key));
        let text = String::from_utf8(read.to_text().unwrap()).unwrap();
        // OpenSSL's releases differ in blanks and quotes.
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ").replace(" = ", "=").replace('"', "");
        for expected in [
            "Subject: C=DE, O=Example, CN=web, too",
            "X509v3 Basic Constraints: critical CA:FALSE",
            "X509v3 Key Usage: critical Digital Signature X509v3",
            "X509v3 Extended Key Usage: TLS Web Client Authentication",
            "DNS:web.example.org, DNS:*.example.org, URI:spiffe://example.org/web, \
             email:web@example.org, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}

#[test]
fn without_other_names_there_is_no_such_extension() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let request = request(&key, &["--subject=CN=web"]);
    let read = X509Req::from_der(request.der()).unwrap();
    let text = String::from_utf8(read.to_text().unwrap()).unwrap();
    assert!(!text.contains("Alternative"), "{text}");
}

#[test]
fn what_is_escaped_is_part_of_a_name() {
    let [key, ..] = &keys()[..] else { panic!() };
    for (subject, expected) in [
        ("CN=\\\"a\\\"\\;b\\<c\\>\\\\", "\"a\";b<c>\\"),
        (&format!("CN={}", "ä".repeat(64)), &"ä".repeat(64)),
    ] {
        let request = request(key, &[&format!("--subject={subject}")]);
        let read = X509Req::from_der(request.der()).unwrap();
        let mut names = read.subject_name().entries_by_nid(Nid::COMMONNAME);
        let name = names.next().unwrap().data().as_slice();
        assert_eq!(std::str::from_utf8(name).unwrap(), expected);
    }
}

#[test]
fn names_that_are_none_are_refused() {
    for (argument, expected) in [
        ("--subject=", "empty"),
        ("--subject=web", "RFC 4514"),
        ("--subject=/CN=web", "RFC 4514"),
        ("--subject=CN=web, O=Example", "RFC 4514"),
        ("--subject=CN=", "CN is empty"),
        ("--subject=CN=web,C=DEU", "two letters"),
        ("--subject=CN=web,C=D*", "does not allow"),
        ("--subject=CN= web", "blank"),
        ("--subject=CN=web\\0a", "control"),
        ("--subject=COLOUR=red", "unknown attribute \"COLOUR\""),
        (
            "--subject=CN=web\\,1,COLOUR=red",
            "unknown attribute \"COLOUR\"",
        ),
        ("--subject=CN=web, O=Example", "unknown attribute \" O\""),
        ("--subject=CN=\"a b\"", "as \\\""),
        ("--subject=CN=web;O=Example", "as \\;"),
        ("--subject=CN=<web>", "as \\<"),
        (&format!("--subject=CN={}", "a".repeat(65)), "CN has 65"),
        (&format!("--subject=OU={}", "ä".repeat(65)), "OU has 65"),
        (&format!("--subject=ST={}", "a".repeat(129)), "ST has 129"),
        ("--dns=", "DNS name"),
        ("--dns=a..b", "DNS name"),
        ("--dns=a.*.b", "DNS name"),
        ("--dns=web.example.org:443", "DNS name"),
        ("--dns=bücher.example", "DNS name"),
        ("--dns=192.0.2.1", "--ip"),
        ("--san-uri=web", "scheme"),
        ("--san-uri=spiffe://a b", "scheme"),
        ("--email=web", "e-mail"),
        ("--email=a@b@c", "e-mail"),
        ("--ip=web", "IP address"),
    ] {
        let subject = (!argument.starts_with("--subject")).then_some("--subject=CN=web");
        let arguments: Vec<&str> = subject.into_iter().chain([argument]).collect();
        let error = wanted(&arguments).unwrap_err();
        assert!(error.contains(expected), "{argument}: {error}");
    }
}

#[test]
fn another_keys_signature_is_none() {
    for key in keys() {
        let other = match key.rsa() {
            Ok(_) => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
            Err(_) => ec(key.ec_key().unwrap().group().curve_name().unwrap()),
        };
        let info = wanted(&["--subject=CN=web"])
            .unwrap()
            .info(&public(&key))
            .unwrap();
        let failure = assemble(&info, &sign(&other, &info)).unwrap_err();
        assert!(failure.to_string().contains("not its key's"), "{failure}");
    }
}
