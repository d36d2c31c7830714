//! What there is in a TPM; and that nothing of ours stays there.

use token::link::TpmKeySource;
use token::operator::KeyType;
use token::operator::tpm::{Answer, Task};

use super::{Operator, new_key};
use crate::program::{key, pin};
use crate::swtpm::Swtpm;

#[test]
fn keys_are_listed_by_what_they_are_for() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let own = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth";
    for (name, handle, options) in [
        ("web", 0x8100_0101, format!("-G ecc384 -a {own}|sign")),
        (
            "ak",
            0x8100_0102,
            format!("-G rsa2048:rsassa-sha256:null -a {own}|sign|restricted"),
        ),
        (
            "movable",
            0x8100_0103,
            "-G ecc256 -a sensitivedataorigin|userwithauth|sign".into(),
        ),
        (
            "decrypts",
            0x8100_0104,
            format!("-G rsa2048 -a {own}|decrypt"),
        ),
    ] {
        tpm.make(name, &options);
        tpm.load(name, "");
        tpm.persist(name, handle, "");
    }
    let mut operator = Operator::on(&tpm);
    let report = operator.list();
    assert!(report.model.starts_with("IBM SW"), "{}", report.model);
    assert!(report.model.contains(", firmware "), "{}", report.model);
    assert_eq!((report.lockout_counter, report.max_auth_fail), (0, 3));
    assert_eq!(report.warnings, [""; 0]);
    let rows: Vec<_> = report
        .keys
        .iter()
        .map(|key| {
            let warning = key.warnings.first().map_or("", String::as_str);
            let handle = key.handle.unwrap();
            (
                handle,
                key.algorithm.as_str(),
                key.public_key.is_some(),
                warning,
            )
        })
        .collect();
    for (row, (handle, algorithm, signs, warning)) in rows.iter().zip([
        (0x8100_0001, "EC-P-256 storage key", false, ""),
        (0x8100_0101, "EC-P-384", true, ""),
        (0x8100_0102, "RSA-2048 attestation key", false, ""),
        (0x8100_0103, "EC-P-256", true, "can leave its TPM"),
        (0x8100_0104, "RSA-2048", false, "sign is not set"),
    ]) {
        assert_eq!((row.0, row.1, row.2), (handle, algorithm, signs));
        assert!(row.3.contains(warning), "{row:?}");
        assert_eq!(row.3.is_empty(), warning.is_empty(), "{row:?}");
    }
    assert_eq!(rows.len(), 5);
    let web = &report.keys[1];
    let expected = [
        "fixedTPM",
        "fixedParent",
        "sensitiveDataOrigin",
        "userWithAuth",
        "sign",
    ];
    assert_eq!(web.attributes, expected);
    tpm.keep("web-listed", web);
    let read = |name: &str| std::fs::read(tpm.path(name)).unwrap();
    assert_eq!(read("web-listed.pem"), read("web.pem"));
    operator.end();
}

/// swtpm has no resource manager, and three places.
#[test]
fn twenty_tasks_leave_nothing_behind() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let mut operator = Operator::on(&tpm);
    let mut new = new_key(KeyType::EcP256);
    new.pin = pin("key-secret");
    new.pcrs = vec![7];
    tpm.keep("web", &operator.generate(new.clone()).unwrap());
    let mut web = tpm.file("web");
    web.pin = pin("key-secret");
    let info = tpm.request_info("web");
    for round in 0..5 {
        operator.generate(new.clone()).unwrap();
        let mut kept = new_key(KeyType::EcP256);
        kept.persist = Some(0x8100_0101 + round);
        kept.pin = pin("key-secret");
        operator.generate(kept).unwrap();
        operator.sign_request(&web, &info).unwrap();
        let mut kept = key(TpmKeySource::Handle(0x8100_0101 + round));
        kept.pin = pin("key-secret");
        operator.key(&kept).unwrap();
        let handle = 0x8100_0101 + round;
        let owner_pin = None;
        let shown = Box::new(operator.shown(handle));
        let deleted = operator.ask(Task::Delete {
            handle,
            shown,
            owner_pin,
        });
        assert_eq!(deleted, Ok(Answer::Done));
        assert_eq!(tpm.handles(), "", "round {round}");
    }
    operator.end();
}
