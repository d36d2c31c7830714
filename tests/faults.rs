//! Every fault that a PKCS#11 module can have, while 32 clients ask. Each is answered in time, by a signature
//! that the service takes or by an error, and the agent recovers by itself where there is no PIN and no key to
//! mend.

mod stage;

use std::time::Instant;

use hsm_fixtures::{KeyKind, KeySpec};

use crate::agent::{request, sign};
use crate::crowd::{Answer, ask, ask_once};
use stage::{RECOVERY, ROUNDS, Stage, assert_refused, refusals};

/// What a module says when it has lost its token, its session, its key or itself.
const CODES: [&str; 13] = [
    "CKR_DEVICE_REMOVED",
    "CKR_DEVICE_ERROR",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_SESSION_CLOSED",
    "CKR_OBJECT_HANDLE_INVALID",
    "CKR_KEY_HANDLE_INVALID",
    "CKR_USER_NOT_LOGGED_IN",
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_HOST_MEMORY",
    "CKR_FUNCTION_FAILED",
    "CKR_GENERAL_ERROR",
    "CKR_OPERATION_ACTIVE",
    "0x80000042",
];

/// Makes the agent connect to the token anew.
const LOST: &str = "C_Sign return CKR_DEVICE_REMOVED times 1";

#[test]
fn nobody_notices_a_code_that_comes_once() {
    each(CODES, |code| {
        nobody_notices(&[&format!("C_Sign return {code} times 1")]);
    });
    let codes_of_keys = [
        "CKR_KEY_HANDLE_INVALID",
        "CKR_OBJECT_HANDLE_INVALID",
        "CKR_USER_NOT_LOGGED_IN",
        "CKR_OPERATION_ACTIVE",
    ];
    each(codes_of_keys, |code| {
        nobody_notices(&[&format!("C_SignInit return {code} times 1")]);
    });
}

#[test]
fn nobody_notices_a_module_that_crashes_or_hangs_once() {
    each(
        [
            "C_Sign segfault times 1",
            "C_Sign abort times 1",
            "C_SignInit exit 0 times 1",
            "C_Sign exit 3 times 1",
            "C_Sign hang forever times 1",
            "C_SignInit hang forever times 1",
        ],
        |fault| nobody_notices(&[fault]),
    );
}

#[test]
fn nobody_notices_a_slow_token() {
    let stage = Stage::new();
    let faults = ["C_Sign sleep 60", "C_SignInit sleep 20"];
    stage.nobody_notices(&faults);
    // Nor does the agent: it is the same token.
    assert_eq!(stage.faulty.count("C_Initialize").unwrap(), 1);
    stage.end_serving(faults);
}

#[test]
fn nobody_notices_a_token_that_was_pulled_and_is_back() {
    each(
        [
            "token back",
            "token back shift 1000",
            "token back reinitialized",
            "token back shift 1000 reinitialized",
        ],
        |fault| nobody_notices(&[fault]),
    );
}

/// What closes a lost token may crash or hang as well.
#[test]
fn a_module_that_cannot_be_closed_is_got_rid_of() {
    each(
        [
            "C_CloseSession hang",
            "C_Finalize hang",
            "C_Finalize hang forever",
            "C_Finalize segfault",
            "C_Finalize return CKR_GENERAL_ERROR",
        ],
        |fault| passes(&[LOST, fault], &[]),
    );
}

#[test]
fn a_code_that_stays_is_waited_for() {
    let codes = [
        "CKR_DEVICE_REMOVED",
        "CKR_TOKEN_NOT_PRESENT",
        "CKR_USER_NOT_LOGGED_IN",
        "CKR_GENERAL_ERROR",
        "0x80000042",
    ];
    each(codes, |code| {
        is_away(&[&format!("C_Sign return {code}")], &[]);
    });
}

#[test]
fn a_module_that_goes_on_crashing_is_waited_for() {
    each(
        ["C_Sign segfault", "C_SignInit abort", "C_Sign exit 3"],
        |fault| is_away(&[fault], &[]),
    );
}

#[test]
fn a_token_that_cannot_be_opened_is_waited_for() {
    each(
        [
            "C_Initialize return CKR_GENERAL_ERROR",
            "C_Initialize segfault",
            "C_GetSlotList return CKR_FUNCTION_FAILED",
            "C_GetTokenInfo return CKR_TOKEN_NOT_RECOGNIZED",
            "C_OpenSession return CKR_DEVICE_ERROR",
            "C_OpenSession limit 0",
            "C_Login return CKR_DEVICE_REMOVED",
            "C_Login return CKR_GENERAL_ERROR", // from SoftHSM, while another process logs in
            "C_Login segfault",
            "C_FindObjectsInit return CKR_SESSION_CLOSED",
        ],
        |fault| is_away(&[LOST, fault], &[]),
    );
}

#[test]
fn a_module_that_goes_on_hanging_is_waited_for() {
    let faults = [
        "C_Sign hang",
        "C_Initialize hang",
        "C_OpenSession hang",
        "C_Login hang",
        "C_FindObjects hang forever",
    ];
    // All at once: they cost time, not work.
    together(&faults, |fault| is_away(&[LOST, fault], &[]));
}

#[test]
fn a_token_that_is_away_is_found_again_where_it_is() {
    for (code, back) in [
        ("", "token back"),
        ("CKR_TOKEN_NOT_PRESENT", "token back shift 1000"),
        ("CKR_DEVICE_REMOVED", "token back reinitialized"),
        ("CKR_SESSION_CLOSED", "token back shift 7 reinitialized"),
    ] {
        is_away(&[&format!("token absent {code}")], &[back]);
    }
}

#[test]
fn who_asks_for_a_token_that_is_away_hears_when_to_ask_again() {
    let stage = Stage::new();
    stage.inject(&["token absent"]);
    let unavailable = |reply: &serde_json::Value| {
        reply["error"] == "org.roleseal.Agent.TokenUnavailable"
            && reply["parameters"]["retryAfterSeconds"].is_u64()
    };
    let deadline = Instant::now() + RECOVERY;
    let socket = stage.web.scene.socket();
    while !unavailable(&sign(&socket, request(&stage.web.scene))) {
        assert!(Instant::now() < deadline);
    }
    stage.resumes(&[]);
    stage.end_serving("token absent");
}

#[test]
fn a_refused_pin_is_not_tried_again() {
    each(
        [
            "CKR_PIN_INCORRECT",
            "CKR_PIN_INVALID",
            "CKR_PIN_LEN_RANGE",
            "CKR_PIN_EXPIRED",
            "CKR_PIN_LOCKED",
            "CKR_FUNCTION_FAILED",
            "0x80000042",
        ],
        |code| {
            let refused = format!("C_Login return {code}");
            let stage = Stage::new();
            stage.latches(&[LOST, &refused], "PinRejected");
            // Once when it was opened, once when it was refused.
            assert_eq!(stage.faulty.count("C_Login").unwrap(), 2, "{code}");
            stage.end_refusing(code);
        },
    );
}

/// A key that needs the PIN for each signature.
#[test]
fn a_pin_that_a_signature_finds_refused_is_not_tried_again() {
    let key = KeySpec {
        always_authenticate: true,
        ..KeySpec::new("web", KeyKind::EcP256)
    };
    let stage = Stage::prepared(&key, &[]);
    assert_eq!(ask_once(&stage.web.scene), Answer::Signed);
    let refused = "C_Login return CKR_PIN_INCORRECT";
    stage.latches(&[refused], "PinRejected");
    // Once for the token, once for each signature, and the once that was refused.
    let count = |function| stage.faulty.count(function).unwrap();
    assert_eq!(count("C_Login"), 1 + count("C_Sign") + 1);
    stage.end_refusing(refused);
}

/// SoftHSM's answer while another process logs in.
#[test]
fn nobody_notices_a_login_of_a_signature_that_never_looked_at_the_pin() {
    let key = KeySpec {
        always_authenticate: true,
        ..KeySpec::new("web", KeyKind::EcP256)
    };
    let stage = Stage::prepared(&key, &[]);
    let busy = "C_Login return CKR_GENERAL_ERROR times 1";
    let answers = ask(&stage.web.scene, ROUNDS, || stage.inject(&[busy]));
    assert_eq!(answers, vec![Answer::Signed; answers.len()]);
    stage.end_serving(busy);
}

#[test]
fn no_pin_is_tried_where_the_next_one_could_lock() {
    each(["CKF_USER_PIN_FINAL_TRY", "CKF_USER_PIN_LOCKED"], |flag| {
        let flagged = format!("C_GetTokenInfo flags {flag}");
        let stage = Stage::new();
        stage.latches(&[LOST, &flagged], "PinRejected");
        assert_eq!(stage.faulty.count("C_Login").unwrap(), 1, "{flag}");
        stage.end_refusing(flag);
    });
}

/// A wrong one was counted before: the flag cannot tell whether this one was.
#[test]
fn a_first_pin_that_may_have_counted_is_not_tried_again() {
    let faults = ["C_Login segfault", "C_Login exit 0", "C_Login hang"];
    let low = "C_GetTokenInfo flags CKF_USER_PIN_COUNT_LOW";
    together(&faults, |fault| {
        let stage = Stage::prepared(&KeySpec::new("web", KeyKind::EcP256), &[fault, low]);
        let names = ["PinRejected", "DeadlineExceeded"];
        let answers = ask(&stage.web.scene, 1, || {});
        assert_refused(&answers, &names, fault);
        stage.settles_as("PinRejected");
        stage.faulty.clear().unwrap();
        let answers = ask(&stage.web.scene, ROUNDS, || {});
        assert_refused(&answers, &["PinRejected"], fault);
        assert_eq!(stage.faulty.count("C_Login").unwrap(), 1, "{fault}");
        stage.end_refusing(fault);
    });
}

#[test]
fn a_first_pin_that_the_token_did_not_count_is_tried_again() {
    let faults = [
        "C_Login segfault times 2",
        "C_Login lost times 1", // the right one
        "C_Login exit 0 times 1",
        "C_Login hang forever times 1",
    ];
    together(&faults, |fault| {
        let stage = Stage::prepared(&KeySpec::new("web", KeyKind::EcP256), &[fault]);
        stage.resumes_by_itself();
        stage.end_serving(fault);
    });
}

#[test]
fn a_first_pin_that_the_token_counted_is_not_tried_again() {
    let lost = "C_Login lost times 1";
    let key = KeySpec::new("web", KeyKind::EcP256);
    let stage = Stage::with_pin("00000000", &key, &[lost]);
    stage.settles_as("PinRejected");
    assert_eq!(stage.faulty.count("C_Login").unwrap(), 1);
    stage.end_refusing(lost);
}

/// What another program has tried meanwhile.
#[test]
fn no_pin_is_tried_where_its_turn_comes_when_the_next_one_could_lock() {
    // The token and the slot without one are looked at, and the token again when it is this program's turn.
    let flagged = "C_GetTokenInfo flags CKF_USER_PIN_FINAL_TRY after 2";
    let stage = Stage::prepared(&KeySpec::new("web", KeyKind::EcP256), &[flagged]);
    stage.settles_as("PinRejected");
    assert_eq!(stage.faulty.count("C_Login").unwrap(), 0);
    stage.end_refusing(flagged);
}

#[test]
fn a_low_count_of_pins_is_a_warning() {
    let stage = Stage::new();
    let flagged = "C_GetTokenInfo flags CKF_USER_PIN_COUNT_LOW";
    stage.nobody_notices(&[LOST, flagged]);
    assert!(stage.warning().contains("CKF_USER_PIN_COUNT_LOW"));
    stage.end_serving(flagged);
}

#[test]
fn fewer_sessions_sign_with_a_warning() {
    let stage = Stage::new();
    let limit = "C_OpenSession limit 2";
    stage.nobody_notices(&[LOST, limit]);
    assert!(stage.warning().contains("2 of 4 sessions"));
    stage.end_serving(limit);
}

/// The one wrong signature is an error, and makes the agent prove the key anew.
#[test]
fn a_wrong_signature_is_found_out() {
    each(
        ["C_Sign flip times 1", "C_SignInit key other times 1"],
        |fault| {
            let stage = Stage::new();
            let answers = ask(&stage.web.scene, ROUNDS, || stage.inject(&[fault]));
            assert_eq!(refusals(&answers), ["SignatureInvalid"], "{fault}");
            stage.resumes(&[]);
            stage.end_serving(fault);
        },
    );
}

/// Whose public key the certificate has not: no request of it leaves the agent.
#[test]
fn a_token_that_goes_on_signing_wrongly_does_not_serve() {
    let wrong = ["SignatureInvalid", "TokenUnavailable"];
    each(
        [
            &["C_Sign flip"][..],
            &["C_SignInit key other"],
            &[LOST, "C_SignInit key other reopened"],
        ],
        |faults| {
            let stage = Stage::new();
            let answers = ask(&stage.web.scene, ROUNDS, || stage.inject(faults));
            assert_refused(&answers, &wrong, faults);
            stage.settles_as("TokenUnavailable");
            let answers = ask(&stage.web.scene, ROUNDS, || {});
            assert_eq!(refusals(&answers).len(), answers.len(), "{faults:?}");
            // It is asked for a proof now and then, and serves again when it gives one.
            stage.resumes(&[]);
            stage.end_serving(faults);
        },
    );
}

#[test]
fn a_signature_that_is_longer_than_its_place_is_refused() {
    let stage = Stage::new();
    let fault = "C_Sign overlong times 3";
    let answers = ask(&stage.web.scene, ROUNDS, || stage.inject(&[fault]));
    assert_refused(&answers, &["TokenUnavailable"], fault);
    assert!(refusals(&answers).len() <= 3, "{answers:?}");
    stage.resumes(&[]);
    stage.end_serving(fault);
}

/// Does it with each, a few at a time: each has an agent, a service and 32 clients.
fn each<T: Copy + Send + Sync>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let cases: Vec<T> = cases.into_iter().collect();
    for some in cases.chunks(4) {
        together(some, &test);
    }
}

fn together<T: Copy + Send + Sync>(cases: &[T], test: impl Fn(T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(*case));
        }
    });
}

/// Every request is signed, some of them by a token that was opened again.
fn nobody_notices(faults: &[&str]) {
    let stage = Stage::new();
    stage.nobody_notices(faults);
    assert!(
        stage.faulty.count("C_Initialize").unwrap() > 1,
        "{faults:?}"
    );
    stage.end_serving(faults);
}

/// Requests may be refused while there are faults, and the agent is itself again when there are not.
fn passes(faults: &[&str], afterwards: &[&str]) {
    let stage = Stage::new();
    stage.passes(faults, afterwards);
    stage.end_serving(faults);
}

/// The same, and some are.
fn is_away(faults: &[&str], afterwards: &[&str]) {
    let stage = Stage::new();
    let answers = stage.passes(faults, afterwards);
    assert!(!refusals(&answers).is_empty(), "{faults:?}");
    stage.end_serving(faults);
}
