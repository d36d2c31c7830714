use super::*;
use crate::test_support::session;

/// Credentials until 13:00, named by their access key.
fn credentials(key: &str) -> Credentials {
    session(key, "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z").credentials
}

fn name(text: &str) -> ProfileName {
    text.parse().unwrap()
}

/// The lines of `credentials(key)`.
fn block(key: &str) -> String {
    format!(
        "aws_access_key_id = {key}\naws_secret_access_key = s3cret\naws_session_token = t0ken\n\
         x_security_token_expires = 2026-01-01T13:00:00Z\nx_roleseal_access_key_id = {key}\n"
    )
}

fn put_web(text: &str) -> Result<String, String> {
    let report = |fault: ProfileFault| format!("{fault}: {}", fault.hint().unwrap_or_default());
    vet(text, &name("web"), false).map_err(report)?;
    put(text, &name("web"), &credentials("NEW")).map_err(report)
}

/// `{}` is where the credentials are, in each text.
#[test]
fn only_the_credentials_change() {
    let (old, new) = (block("OLD"), block("NEW"));
    let before_and_after = [
        // where there is such a profile
        ("[web]\n{}", "[web]\n{}"),
        ("[web]\nregion = eu\n{}", "[web]\nregion = eu\n{}"),
        (
            "# mine\n\n[default]\naws_access_key_id=A\naws_secret_access_key=B\n\n ; c\n[web] # d\n{}# e\n\
             region=eu\n\n[other]\ns3 =\n  x = 1\n",
            "# mine\n\n[default]\naws_access_key_id=A\naws_secret_access_key=B\n\n ; c\n[web] # d\n{}# e\n\
             region=eu\n\n[other]\ns3 =\n  x = 1\n",
        ),
        ("[web]\n{}\n\n\n", "[web]\n{}\n\n\n"),
        ("[web]\n{}#", "[web]\n{}#"),
    ];
    for (before, after) in before_and_after {
        let text = put_web(&before.replace("{}", &old)).unwrap();
        assert_eq!(text, after.replace("{}", &new));
    }
    let before_and_after = [
        // where it has no credentials, or none of ours in the usual form
        ("", "[web]\n{}"),
        ("[a]\nx=1\n", "[a]\nx=1\n\n[web]\n{}"),
        ("[a]\nx=1", "[a]\nx=1\n\n[web]\n{}"),
        ("[a]\nx=1\n \n", "[a]\nx=1\n \n[web]\n{}"),
        ("# only this", "# only this\n\n[web]\n{}"),
        ("[web]", "[web]\n{}"),
        (
            "[web]\n\n# c\nregion = eu\n",
            "[web]\n{}\n# c\nregion = eu\n",
        ),
        ("[web]\n[b]\nx=1", "[web]\n{}[b]\nx=1"),
        ("[Web]\n", "[Web]\n\n[web]\n{}"), // case counts
        (
            "[web]\nx_security_token_expires = x\nregion = eu\n",
            "[web]\n{}region = eu\n",
        ),
        (
            // scattered, in capitals, without a line break at the end
            "[web]\nAWS_SESSION_TOKEN=t\n# one\nx_roleseal_access_key_id: A\n# two\n\
             aws_access_key_id=A\nregion = eu\naws_secret_access_key=b",
            "[web]\n{}# one\n# two\nregion = eu\n",
        ),
    ];
    for (before, after) in before_and_after {
        assert_eq!(
            put_web(before).unwrap(),
            after.replace("{}", &new),
            "{before:?}"
        );
    }
}

#[test]
fn line_breaks_and_indentation_are_as_those_around() {
    let new = block("NEW");
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let text = crlf("[web]\nregion = eu\n[b]\nx = 1");
    assert_eq!(
        put_web(&text).unwrap(),
        crlf(&format!("[web]\n{new}region = eu\n[b]\nx = 1"))
    );
    assert_eq!(
        put_web("[a]\r\nx=1").unwrap(),
        crlf(&format!("[a]\nx=1\n\n[web]\n{new}"))
    );
    // Deeper than ours, they would be a part of our token.
    let deep: String = new.lines().map(|line| format!("  {line}\n")).collect();
    assert_eq!(
        put_web("[web]\n  region = eu\n  x = 1\n").unwrap(),
        format!("[web]\n{deep}  region = eu\n  x = 1\n")
    );
    let text = "[web]\n  aws_access_key_id = A\n  region = eu\n";
    let text = put(text, &name("web"), &credentials("NEW")).unwrap();
    assert_eq!(text, format!("[web]\n{deep}  region = eu\n"));
}

#[test]
fn a_name_with_a_space_is_a_name() {
    let text = put("[my  web]\n", &name("my web"), &credentials("K")).unwrap();
    assert_eq!(text, format!("[my  web]\n\n[my web]\n{}", block("K")));
    let again = put(&text, &name("my web"), &credentials("L")).unwrap();
    assert_eq!(again, format!("[my  web]\n\n[my web]\n{}", block("L")));
    for bad in [
        "",
        " a",
        "a ",
        "a]",
        "[a",
        "a#",
        "a\n",
        "a'b",
        "DEFAULT",
        &"a".repeat(129),
    ] {
        assert!(bad.parse::<ProfileName>().is_err(), "{bad:?}");
    }
}

#[test]
fn keys_of_others_are_not_overwritten() {
    let ours = format!("[web]\n{}", block("OLD"));
    let long_lived = "long-lived";
    let foreign = "has not written";
    let cases = [
        (
            "[web]\naws_access_key_id = A\naws_secret_access_key = B\n".to_owned(),
            long_lived,
        ),
        ("[web]\naws_secret_access_key = B\n".to_owned(), long_lived),
        (ours.replace("aws_session_token = t0ken\n", ""), long_lived),
        // as aws_signing_helper and saml2aws write them
        (
            ours.replace("x_roleseal_access_key_id = OLD\n", ""),
            foreign,
        ),
        // another tool, or `aws configure`, has written since
        (
            ours.replace("_id = OLD\naws_s", "_id = AKIA\naws_s"),
            foreign,
        ),
        (format!("{ours}aws_security_token = x\n"), foreign),
    ];
    for (text, reason) in cases {
        let error = put_web(&text).unwrap_err();
        assert!(
            error.contains(reason) && error.contains("--force"),
            "{text:?}: {error}"
        );
        assert!(error.contains("line 2"), "{error}");
        vet(&text, &name("web"), true).unwrap();
        let forced = put(&text, &name("web"), &credentials("NEW")).unwrap();
        assert_eq!(forced, format!("[web]\n{}", block("NEW")));
        vet(&forced, &name("web"), false).unwrap();
        assert_eq!(withdraw(&text, &name("web"), Timestamp::MAX).unwrap(), None);
    }
}

#[test]
fn what_cannot_be_done_safely_is_not_done() {
    let cases = [
        ("web = 1\n[web]\n", "line 1"),
        ("[web]\n[a]\n[web]\n", "line 3"),
        ("[ web ]\n", "brackets"),
        ("[web]\nregion = eu\n[a]\nx\n", "line 4"),
        // The second line belongs to the token, and a person may have meant it to be a setting.
        (
            "[web]\nx_security_token_expires = a\n  region = eu\n",
            "line 2",
        ),
    ];
    for (text, reason) in cases {
        let error = put_web(text).unwrap_err();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    for secret in ["a\nb", "", "a b", "ä"] {
        let credentials = Credentials {
            secret_access_key: secret.into(),
            ..credentials("A")
        };
        let fault = put("[web]\n", &name("web"), &credentials).unwrap_err();
        assert!(matches!(fault, ProfileFault::Unwritable), "{secret:?}");
    }
}

/// Where the lines around are indented in ways nobody foresaw, the meaning of the rest decides.
#[test]
fn a_change_of_anything_else_is_noticed() {
    let before = Ini::read("[a]\nx = 1\n[web]\ny = 2\n").unwrap();
    let same = |after: &str| {
        same_but(
            &before,
            &Ini::read(after).unwrap(),
            "web",
            &[("aws_session_token", "t")],
        )
    };
    assert!(same("[a]\nx = 1\n[web]\naws_session_token = t\ny = 2\n"));
    for after in [
        "[a]\nx = 1\n[web]\naws_session_token = t\n  y = 2\n",
        "[a]\nx = 1\n[web]\naws_session_token = t\n",
        "[a]\nx = 1\n[b]\n[web]\naws_session_token = t\ny = 2\n",
        "[a]\nx = 1\naws_session_token = t\n[web]\ny = 2\n",
        "[a]\nx = 2\n[web]\naws_session_token = t\ny = 2\n",
        "[web]\naws_session_token = t\ny = 2\n",
        "[a]\nx = 1\n[web]\naws_session_token = t\naws_access_key_id = t\ny = 2\n",
    ] {
        assert!(!same(after), "{after:?}");
    }
}

#[test]
fn ended_credentials_of_ours_are_withdrawn() {
    let text = format!("[a]\nx = 1\n\n[web]\n# c\n{}region = eu\n", block("OLD"));
    let end = |text: &str| text.parse().unwrap();
    let web = name("web");
    let withdrawn = withdraw(&text, &web, end("2026-01-01T13:00:00Z")).unwrap();
    assert_eq!(
        withdrawn.as_deref(),
        Some("[a]\nx = 1\n\n[web]\n# c\nregion = eu\n")
    );
    assert_eq!(
        put_web(&withdrawn.unwrap()).unwrap(),
        format!("[a]\nx = 1\n\n[web]\n{}# c\nregion = eu\n", block("NEW"))
    );
    let kept = [
        withdraw(&text, &web, end("2026-01-01T12:59:59Z")),
        withdraw(&text, &name("a"), Timestamp::MAX),
        withdraw("", &web, Timestamp::MAX),
        withdraw(&text.replace("2026", "20266"), &web, Timestamp::MAX),
    ];
    for kept in kept {
        assert_eq!(kept.unwrap(), None);
    }
}
