//! New keys.

use token::PinSource;
use token::operator::KeyType;
use token::operator::tpm::NewKey;

use super::{Operator, fault, new_key, refused_pin};
use crate::harness::{ECDSA, Program, RSA, unusable};
use crate::program::pin;
use crate::sign_with_all;
use crate::swtpm::Swtpm;

/// The file's key, loaded by tpm2_load under the primary that other tools derive.
fn as_tools_see_it(tpm: &Swtpm, name: &str) -> String {
    tpm.tool(&format!("tpm2_load -Q -r {name}.tss -c {name}.ctx"));
    tpm.flush();
    let public = tpm.tool(&format!("tpm2_readpublic -c {name}.ctx"));
    tpm.flush();
    public
}

#[test]
fn keys_of_every_type_are_made_and_used_by_everybody() {
    let tpm = Swtpm::start();
    let mut operator = Operator::on(&tpm);
    let mut rows = Vec::new();
    for (key_type, algorithm, text) in [
        (KeyType::EcP256, "EC-P-256", ECDSA),
        (KeyType::EcP384, "EC-P-384", ECDSA),
        (KeyType::Rsa2048, "RSA-2048", RSA),
        (KeyType::Rsa3072, "RSA-3072", RSA),
    ] {
        let name = key_type.name();
        let report = operator.generate(new_key(key_type)).unwrap();
        assert_eq!(report.algorithm, algorithm);
        assert_eq!((report.handle, &report.warnings), (None, &vec![]));
        assert_eq!(tpm.handles(), "", "{name}");
        tpm.keep(name, &report);

        let seen = as_tools_see_it(&tpm, name);
        let expected = "value: fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign\n";
        assert!(seen.contains(expected), "{seen}");
        // The key is what its report says, in the words of another program.
        tpm.tool(&format!(
            "tpm2_readpublic -Q -c {name}.ctx -f pem -o {name}.seen.pem"
        ));
        tpm.flush();
        let read = |suffix: &str| std::fs::read(tpm.path(&format!("{name}.{suffix}"))).unwrap();
        assert_eq!(read("seen.pem"), read("pem"), "{name}");

        let again = operator.key(&tpm.file(name)).unwrap();
        assert_eq!(again.public_key, report.public_key);
        assert_eq!(again.attributes, report.attributes);
        rows.push((name, text, tpm.file(name)));
    }
    operator.end();
    for (name, ..) in &rows {
        tpm.tool(&format!(
            "openssl pkeyutl -provider tpm2 -provider default -propquery ?provider=tpm2 -sign -inkey {name}.tss \
             -rawin -digest sha256 -in {name}.tss -out openssl.sig"
        ));
        tpm.tool(&format!(
            "openssl dgst -sha256 -verify {name}.pem -signature openssl.sig {name}.tss"
        ));
    }
    sign_with_all(&tpm, rows);
}

#[test]
fn what_no_tpm_makes_is_refused_by_name() {
    let tpm = Swtpm::start();
    let mut operator = Operator::on(&tpm);
    let text = fault(operator.generate(new_key(KeyType::Rsa4096)));
    assert!(text.contains("does not make rsa-4096 keys"), "{text}");
    assert!(text.contains("rsa-2048"), "{text}");
    let with = |change: fn(&mut NewKey)| {
        let mut new = new_key(KeyType::EcP256);
        change(&mut new);
        new
    };
    for (new, expected) in [
        (with(|new| new.pcrs = vec![24]), "there is no PCR 24"),
        (with(|new| new.pcrs = vec![7, 0, 7]), "PCR 7 is named twice"),
        (
            with(|new| (new.pcrs, new.persist) = (vec![7], Some(0x8100_0101))),
            "keep a key with PCRs in a key file",
        ),
        (
            with(|new| new.persist = Some(0x8180_0000)),
            "take one from 0x81000000 to 0x817fffff",
        ),
        (
            with(|new| new.pin = pin(&"x".repeat(33))),
            "33 bytes, and the TPM takes no more than 32",
        ),
        (
            with(|new| new.parent = Some(0x8100_0001)),
            "no key at handle 0x81000001",
        ),
        (
            with(|new| new.parent_pin = pin("x")),
            "leave it out, and give --owner-pin-file",
        ),
        (
            with(|new| new.pin = Some(PinSource::File("/nowhere/pin".into()))),
            "/nowhere/pin",
        ),
    ] {
        let text = fault(operator.generate(new));
        assert!(text.contains(expected), "{text}");
    }
    operator.end();
    assert_eq!(tpm.handles(), "");
}

/// Under a persistent parent, which other tools cannot derive.
#[test]
fn a_keys_auth_value_is_needed_counted_and_never_on_the_bus() {
    let tpm = Swtpm::start();
    tpm.make_parent("-p parent-secret");
    tpm.raise_lockout_limit();
    let before = tpm.log().len();
    let mut operator = Operator::on(&tpm);
    let longest = "key-secret-of-thirty-two-letters";
    let mut rows = Vec::new();
    for (name, parent) in [("derived", None), ("stored", Some(0x8100_0001))] {
        let mut new = new_key(KeyType::EcP256);
        new.parent = parent;
        new.parent_pin = parent.and_then(|_| pin("parent-secret"));
        new.pin = pin(longest);
        let report = operator.generate(new.clone()).unwrap();
        assert!(
            !report.attributes.contains(&"noDA".to_owned()),
            "{report:?}"
        );
        assert!(report.attributes.contains(&"userWithAuth".to_owned()));
        tpm.keep(name, &report);
        let mut key = tpm.file(name);
        key.parent_pin = new.parent_pin;
        key.pin = new.pin;
        rows.push((name, ECDSA, key));
    }
    let dumps = tpm.log().split_off(before);
    let dumps = dumps.lines().filter(|line| !line.contains(':'));
    let bytes: String = dumps.flat_map(str::split_whitespace).collect();
    for secret in [longest, "parent-secret"] {
        let secret: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
        assert!(!bytes.contains(&secret));
    }
    tpm.tool(&format!(
        "openssl pkeyutl -provider tpm2 -provider default -propquery ?provider=tpm2 -sign -inkey derived.tss \
         -passin pass:{longest} -rawin -digest sha256 -in derived.tss -out openssl.sig"
    ));
    tpm.tool("openssl dgst -sha256 -verify derived.pem -signature openssl.sig derived.tss");

    let mut wrong = rows[0].2.clone();
    wrong.pin = pin("guess");
    tpm.keep("derived", &operator.key(&wrong).unwrap());
    let info = tpm.request_info("derived");
    for _ in 0..2 {
        let text = refused_pin(operator.sign_request(&wrong, &info));
        assert!(
            text.contains("its auth value (--pin-file, --pin-prompt …)"),
            "{text}"
        );
        assert!(text.contains("run the command again"), "{text}");
    }
    operator.end();
    // Once for two tries of ours.
    assert_eq!(tpm.lockout_counter(), 1);
    tpm.tool("tpm2_dictionarylockout -Q --clear-lockout");
    sign_with_all(&tpm, rows);
}

#[test]
fn a_key_is_bound_to_pcrs() {
    let tpm = Swtpm::start();
    let mut operator = Operator::on(&tpm);
    let mut rows = Vec::new();
    for (name, auth) in [("pcrs", None), ("pcrs-and-auth", pin("key-secret"))] {
        let mut new = new_key(KeyType::EcP256);
        new.pcrs = vec![23, 7, 16];
        new.pin = auth.clone();
        let report = operator.generate(new).unwrap();
        let policy_decides = !report.attributes.contains(&"userWithAuth".to_owned());
        assert!(policy_decides, "{report:?}");
        tpm.keep(name, &report);
        let mut key = tpm.file(name);
        key.pin = auth;
        rows.push((name, ECDSA, key));
    }
    sign_with_all(&tpm, rows.clone());

    // The auth value is part of the policy, not a way around it.
    let mut without = rows[1].2.clone();
    without.pin = None;
    let info = tpm.request_info("pcrs-and-auth");
    let text = refused_pin(operator.sign_request(&without, &info));
    assert!(text.contains("give --pin-file, --pin-prompt …"), "{text}");

    tpm.tool(
        "tpm2_pcrextend 16:sha256=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    for (name, _, key) in rows {
        let text = fault(operator.sign_request(&key, &tpm.request_info(name)));
        assert!(text.contains("PCR 16 (sha256)"), "{text}");
        let (program, reports) = Program::open(&tpm, vec![key]);
        let text = unusable(&reports[0]);
        assert!(text.contains("PCR 16 (sha256)"), "{text}");
        assert!(program.end().success());
    }
    operator.end();
    assert_eq!(tpm.handles(), "");
}
