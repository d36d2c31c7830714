use std::sync::mpsc;

use token::Pin;

use super::*;

#[test]
fn one_try_of_a_token_follows_the_other() {
    let tries = PinTries::in_memory().unwrap();
    let (events, inbox) = mpsc::channel();
    let turn = |token: &str| tries.line_up(token.to_owned(), events.clone());
    let [first, second, third] = [turn("lab"), turn("lab"), turn("lab")];
    let other = turn("other");
    assert!(first.has_come() && other.has_come());
    assert!(!second.has_come() && !third.has_come());
    drop(second); // which has waited long enough
    assert!(!third.has_come());
    drop(first);
    assert!(third.has_come());
    drop(other);
    // Only those of the same token heard of it: two, then one.
    drop(events);
    assert_eq!(inbox.try_iter().count(), 3);
}

const FLAG: Failures = Failures::Flagged(false);

fn owner(identities: &[&str]) -> PinOwner {
    PinOwner {
        token: "lab".to_owned(),
        identities: identities.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// An agent's record, and the same after a kill.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> (Lab, PinTries) {
        let lab = Lab(tempfile::tempdir().unwrap());
        let tries = lab.start();
        (lab, tries)
    }

    fn start(&self) -> PinTries {
        PinTries::open(Some(self.0.path())).unwrap()
    }

    fn files(&self) -> usize {
        let directory = std::fs::read_dir(self.0.path().join("pin-tries")).unwrap();
        directory.count() - 1 // the key
    }
}

fn pin(tries: &PinTries, text: &str) -> PinFingerprint {
    PinFingerprint::of(&tries.key(), "lab", &[&Pin::from(text.to_owned())])
}

fn is_unrecorded(permission: &Permission) -> bool {
    matches!(permission, Permission::Unrecorded(_))
}

fn is_beyond_limits(permission: &Permission, named: &str) -> bool {
    matches!(permission, Permission::TooManyRecords(why) if why.ends_with(named))
}

#[test]
fn a_try_is_on_the_disk_before_it_is_made() {
    let (lab, tries) = Lab::new();
    let web = owner(&["web"]);
    let wrong = pin(&tries, "wrong");
    assert_eq!(tries.begin(&wrong, &web, FLAG, false), Permission::Try);
    // Killed here: the token says whether it counted, or nobody does.
    for (failures, expected) in [
        (Failures::Untold, Permission::Unanswered),
        (Failures::Flagged(true), Permission::Unanswered),
        (Failures::Counted(0), Permission::Unanswered),
        (FLAG, Permission::Try),
        (Failures::Harmless, Permission::Try),
    ] {
        let next = lab.start();
        assert_eq!(next.begin(&wrong, &web, failures, false), expected);
        next.cancel(&wrong); // and the doubt stays
    }
    tries.refuse(&wrong, &web);
    for failures in [FLAG, Failures::Harmless] {
        let next = lab.start();
        assert_eq!(
            next.begin(&wrong, &web, failures, false),
            Permission::Refused
        );
    }
    tries.cancel(&wrong);
    assert_eq!(lab.files(), 1);
    tries.accept(&wrong);
    assert_eq!(lab.files(), 0);
    tries.begin(&wrong, &web, FLAG, false);
    tries.cancel(&wrong);
    assert_eq!(lab.files(), 0);
    // A good one costs no writing; until it is refused.
    tries.begin(&wrong, &web, FLAG, true);
    assert_eq!(lab.files(), 0);
    tries.refuse(&wrong, &web);
    assert_eq!(lab.files(), 1);
}

#[test]
fn a_count_tells_within_one_run() {
    let tries = PinTries::in_memory().unwrap();
    let web = owner(&["web"]);
    let pin = pin(&tries, "1234");
    let begin = |count| tries.begin(&pin, &web, Failures::Counted(count), false);
    assert_eq!(begin(3), Permission::Try);
    tries.doubt(&pin);
    assert_eq!(begin(4), Permission::Unanswered);
    assert_eq!(begin(3), Permission::Try);
}

#[test]
fn a_refusal_lasts_as_long_as_an_identity_has_the_pin() {
    let (lab, tries) = Lab::new();
    let [wrong, right] = ["wrong", "right"].map(|text| pin(&tries, text));
    let [web, batch] = ["web", "batch"].map(|name| owner(&[name]));
    tries.begin(&wrong, &web, FLAG, false);
    tries.refuse(&wrong, &web);
    let begin = |pin, owner| lab.start().begin(pin, owner, FLAG, false);
    assert_eq!(begin(&wrong, &batch), Permission::Refused);
    assert_eq!(begin(&right, &web), Permission::Try);
    assert_eq!(begin(&wrong, &batch), Permission::Refused);
    assert_eq!(begin(&wrong, &web), Permission::Refused);
    lab.start()
        .begin(&right, &owner(&["web", "batch"]), FLAG, false);
    assert_eq!(begin(&wrong, &web), Permission::Try);
}

#[test]
fn what_an_operator_removes_is_forgotten() {
    let (lab, tries) = Lab::new();
    let web = owner(&["web"]);
    let wrong = pin(&tries, "wrong");
    tries.begin(&wrong, &web, FLAG, false);
    tries.refuse(&wrong, &web);
    tries.read_again();
    assert_eq!(tries.begin(&wrong, &web, FLAG, false), Permission::Refused);
    PinRecords::open(lab.0.path())
        .unwrap()
        .remove(&wrong)
        .unwrap();
    tries.read_again();
    assert_eq!(tries.begin(&wrong, &web, FLAG, false), Permission::Try);
}

/// Whatever is damaged, no PIN is tried that was refused.
#[test]
fn damage_is_no_try() {
    for damaged in [
        "record",
        "key",
        "key that is gone",
        "key that is a link",
        "both",
    ] {
        let (lab, tries) = Lab::new();
        let web = owner(&["web"]);
        let wrong = pin(&tries, "wrong");
        tries.begin(&wrong, &web, FLAG, false);
        tries.refuse(&wrong, &web);
        let directory = tries.directory().unwrap();
        let (key, record) = (directory.join("key"), directory.join(wrong.to_hex()));
        match damaged {
            "key" | "both" => std::fs::write(&key, "?").unwrap(),
            "key that is gone" => std::fs::remove_file(&key).unwrap(),
            "key that is a link" => {
                std::fs::rename(&key, lab.0.path().join("moved")).unwrap();
                std::os::unix::fs::symlink(lab.0.path().join("moved"), &key).unwrap();
            }
            _ => {}
        }
        if matches!(damaged, "record" | "both") {
            std::fs::write(&record, "?").unwrap();
        }
        let next = lab.start();
        let again = pin(&next, "wrong");
        assert_eq!(
            next.begin(&again, &web, FLAG, false),
            Permission::Refused,
            "{damaged}"
        );
        // Another token has nothing to do with a record that names its own.
        let other = PinOwner {
            token: "other".to_owned(),
            ..web.clone()
        };
        let expected = match damaged {
            "both" => Permission::Refused,
            _ => Permission::Try,
        };
        let pin = PinFingerprint::of(&next.key(), "other", &[]);
        assert_eq!(next.begin(&pin, &other, FLAG, false), expected, "{damaged}");
    }
}

/// A token program cannot have another token's refusals forgotten, nor keep others from their tries.
#[test]
fn invented_pins_push_no_record_out() {
    let tries = PinTries::in_memory().unwrap();
    let web = owner(&["web"]);
    let wrong = pin(&tries, "wrong");
    tries.begin(&wrong, &web, FLAG, false);
    tries.refuse(&wrong, &web);
    let invent = |identity: &str, number: usize| {
        let liar = PinOwner {
            token: format!("token {number}"),
            identities: vec![identity.to_owned()],
        };
        tries.begin(
            &pin(&tries, &format!("{identity} {number}")),
            &liar,
            FLAG,
            false,
        )
    };
    for number in 0..LIMIT_EACH {
        assert_eq!(invent("liar", number), Permission::Try);
    }
    assert!(is_beyond_limits(&invent("liar", LIMIT_EACH), " liar"));
    for number in 0..LIMIT {
        invent(&format!("liar {number}"), number);
    }
    assert_eq!(tries.lock().tries.len(), LIMIT);
    // Whose records make room is said to those who have none.
    assert!(is_beyond_limits(&invent("batch", 0), " liar"));
    assert_eq!(tries.begin(&wrong, &web, FLAG, false), Permission::Refused);
    // Its successor is tried: the record of the first goes.
    let right = pin(&tries, "right");
    assert_eq!(tries.begin(&right, &web, FLAG, false), Permission::Try);
}

/// A full disk, a directory that is gone, one that is missing from the start.
#[test]
fn what_cannot_be_recorded_is_not_tried() {
    let (lab, tries) = Lab::new();
    std::fs::remove_dir_all(tries.directory().unwrap()).unwrap();
    let absent = lab.0.path().join("absent");
    let without = PinTries::open(Some(&absent)).unwrap();
    let web = owner(&["web"]);
    for tries in [&tries, &without] {
        let pin = pin(tries, "1234");
        for _ in 0..2 {
            assert!(is_unrecorded(&tries.begin(&pin, &web, FLAG, false)));
        }
        assert!(!tries.is_recorded("web"));
        // One that the token has taken needs no record.
        assert_eq!(tries.begin(&pin, &web, FLAG, true), Permission::Try);
    }
    tries.read_again(); // of a directory that is gone
    let pin = pin(&tries, "1234");
    assert!(is_unrecorded(&tries.begin(&pin, &web, FLAG, false)));
}

/// As after a reload that has a token opened by another worker, while the disk is full.
#[test]
fn a_pin_that_was_accepted_needs_no_room_on_the_disk_until_it_is_refused() {
    let (_lab, tries) = Lab::new();
    let web = owner(&["web"]);
    let right = pin(&tries, "right");
    assert_eq!(tries.begin(&right, &web, FLAG, false), Permission::Try);
    tries.accept(&right);
    std::fs::remove_dir_all(tries.directory().unwrap()).unwrap();
    assert_eq!(tries.begin(&right, &web, FLAG, false), Permission::Try);
    assert!(tries.is_recorded("web")); // in memory: a lost answer counts
    tries.accept(&right);
    // The token's PIN was changed: it is tried once.
    assert_eq!(tries.begin(&right, &web, FLAG, false), Permission::Try);
    tries.refuse(&right, &web);
    assert_eq!(tries.begin(&right, &web, FLAG, false), Permission::Refused);
    tries.lock().forget(&right);
    assert!(is_unrecorded(&tries.begin(&right, &web, FLAG, false)));
}

#[test]
fn a_directory_that_was_removed_takes_a_restart() {
    let (lab, tries) = Lab::new();
    let web = owner(&["web"]);
    let wrong = pin(&tries, "wrong");
    tries.begin(&wrong, &web, FLAG, false);
    tries.refuse(&wrong, &web);
    std::fs::remove_dir_all(tries.directory().unwrap()).unwrap();
    let right = pin(&tries, "right");
    let begin = || match tries.begin(&right, &web, FLAG, false) {
        Permission::Unrecorded(why) => assert!(why.contains("restart the agent"), "{why}"),
        other => panic!("{other:?}"),
    };
    begin();
    drop(PinRecords::make(lab.0.path()).unwrap()); // which is another one
    tries.read_again();
    begin();
}
