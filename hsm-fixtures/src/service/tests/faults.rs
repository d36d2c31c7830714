//! What a service in trouble answers.

use super::*;

impl Stage {
    /// Head and body of the answer to a good request.
    fn ask(&self) -> (String, String) {
        self.send(&self.draft().sign(&self.key))
    }

    /// curl's exit code when there is no whole answer.
    fn ask_in_vain(&self) -> Option<i32> {
        let mut curl = command::clean("curl");
        curl.args(["-q", "-sS", "-m", "1", "--data", "{}", "--cacert"])
            .arg(self.pki.root_path())
            .arg(format!("{}/sessions", self.service.url()));
        curl.output().unwrap().status.code()
    }
}

#[test]
fn faults_come_in_turn_and_go() {
    let stage = Stage::new(|_| {});
    let status = |head: &str| head.split(' ').nth(1).unwrap().to_owned();
    let statuses = [500, 503, 429, 403].map(Fault::Status);
    stage.service.fail_next(statuses);
    stage.service.fail_next([Fault::Garbage]);
    let cases = [
        ("500", "InternalServerException", "Internal error"),
        ("503", "", "<html>"),
        ("429", "ThrottlingException", "Rate exceeded"),
        ("403", "AccessDeniedException", "Untrusted Signing"),
        ("201", "", "garbage"),
    ];
    for (expected, kind, text) in cases {
        let (head, body) = stage.ask();
        assert_eq!(status(&head), expected);
        assert!(head.contains(kind) && body.contains(text), "{head}\n{body}");
    }
    stage.service.fail_next([Fault::RetryAfter {
        status: 429,
        seconds: 7,
    }]);
    let (head, _) = stage.ask();
    assert_eq!(status(&head), "429");
    assert!(head.contains("retry-after: 7"), "{head}");
    assert_eq!(stage.service.sessions_created(), 0);
    assert_eq!(stage.service.create_session_requests(), 6);
    stage.session();
    assert_eq!(stage.service.sessions_created(), 1);

    stage.service.set_fault(Some(Fault::Status(503)));
    assert_eq!([(); 2].map(|()| status(&stage.ask().0)), ["503"; 2]);
    let vended = stage.service.decisions()[6].clone();
    assert!(vended.is_success(), "{vended}");
    stage.service.set_fault(None);
    let session = stage.session();
    let url = format!("{}/", stage.service.url());
    stage.service.set_fault(Some(Fault::Hang)); // STS is not concerned
    let (head, _) = stage.identify(&session, &["--data", FORM, &url]);
    assert_eq!(status(&head), "200");
}

#[test]
fn a_session_can_be_spoilt() {
    let stage = Stage::new(|_| {});
    let spoilt = |fault| {
        stage.service.fail_next([fault]);
        let (head, body) = stage.ask();
        assert!(head.starts_with("HTTP/1.1 201"), "{head}\n{body}");
        let body: Value = body.parse().unwrap();
        body["credentialSet"][0]["credentials"].clone()
    };
    let empty = spoilt(Fault::Empty);
    assert_eq!(
        (&empty["accessKeyId"], &empty["sessionToken"]),
        (&"".into(), &"".into())
    );
    let partial = spoilt(Fault::Partial);
    assert!(partial["sessionToken"].is_null() && partial["accessKeyId"] != "");
    let expired = spoilt(Fault::Expired);
    let expiration: Timestamp = expired["expiration"].as_str().unwrap().parse().unwrap();
    assert!(expiration < Timestamp::now());
}

#[test]
fn an_answer_can_stay_out_or_end_early() {
    let stage = Stage::new(|_| {});
    stage.service.fail_next([Fault::Hang, Fault::Truncated]);
    assert_eq!(stage.ask_in_vain(), Some(28)); // timed out
    assert_eq!(stage.service.decisions()[0].status, 0);
    // Bytes are missing: which is told first, that or TLS's own end, depends on the OpenSSL below curl.
    let cut = stage.ask_in_vain();
    assert!(matches!(cut, Some(18 | 56)), "{cut:?}");
    stage.session();
}

#[test]
fn the_clock_of_one_request_can_be_off() {
    let stage = Stage::new(|_| {});
    let hour = SignedDuration::from_hours(1);
    stage.service.fail_next([Fault::Clock(hour)]);
    let (head, _) = stage.ask();
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let date = head
        .lines()
        .find_map(|line| line.strip_prefix("date: "))
        .unwrap();
    let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
    let off = (date.duration_since(Timestamp::now()) - hour).abs();
    assert!(off < SignedDuration::from_mins(5), "{head}");
    stage.session();
}

#[test]
fn connections_can_be_refused_for_a_while() {
    let stage = Stage::new(|_| {});
    stage.service.stop_listening().unwrap();
    stage.service.stop_listening().unwrap();
    assert_eq!(stage.ask_in_vain(), Some(7)); // no connection
    stage.service.listen_again().unwrap();
    stage.service.listen_again().unwrap();
    stage.session();
}

#[test]
fn sessions_can_be_short() {
    let stage = Stage::new(|config| config.session_seconds = Some(1));
    let session = stage.session();
    let url = format!("{}/", stage.service.url());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let (head, body) = stage.identify(&session, &["--data", FORM, &url]);
        if body.contains("<Code>ExpiredToken</Code>") {
            break;
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
        assert!(std::time::Instant::now() < deadline);
    }
}
