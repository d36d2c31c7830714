use super::*;

fn token(slot: CK_SLOT_ID, label: &str, serial: &str) -> Token {
    Token {
        slot,
        flags: CKF_TOKEN_INITIALIZED,
        attributes: TokenMatch {
            label: Some(label.to_owned()),
            manufacturer: Some("ACME".to_owned()),
            model: Some("v2".to_owned()),
            serial: Some(serial.to_owned()),
            slot_description: Some("Slot".to_owned()),
            slot_manufacturer: Some("ACME".to_owned()),
            slot_id: Some(slot),
        },
    }
}

fn chosen(tokens: &[Token], wanted: &str) -> Result<CK_SLOT_ID, TokenError> {
    let wanted: Pkcs11Uri = wanted.parse().unwrap();
    slots(tokens).find(&wanted.token).map(|token| token.slot)
}

fn slots(tokens: &[Token]) -> Slots {
    Slots {
        tokens: tokens.to_vec(),
        unreadable: Vec::new(),
        hidden: Hidden::Nothing,
    }
}

#[test]
fn the_token_is_chosen_by_any_attribute() {
    let tokens = [token(1, "lab", "11"), token(2, "web site", "22")];
    for wanted in [
        "token=web%20site",
        "serial=22",
        "slot-id=2",
        "token=web%20site;serial=22",
    ] {
        assert_eq!(chosen(&tokens, &format!("pkcs11:{wanted}")), Ok(2));
    }
    assert_eq!(chosen(&tokens[..1], "pkcs11:"), Ok(1));
    for wanted in [
        "token=web",
        "token=lab;serial=22",
        "model=v1",
        "manufacturer=X",
        "slot-description=x",
        "slot-manufacturer=x",
    ] {
        let error = chosen(&tokens, &format!("pkcs11:{wanted}")).unwrap_err();
        assert!(matches!(error, TokenError::Gone(_)), "{wanted}");
        let text = error.to_string();
        assert!(text.contains(wanted), "{text}");
        assert!(
            text.contains("pkcs11:token=lab;serial=11, pkcs11:token=web%20site;serial=22"),
            "{text}"
        );
    }
}

#[test]
fn a_token_that_is_not_initialized_is_named_where_it_is_meant() {
    let blank = Token {
        flags: 0,
        ..token(7, "", "")
    };
    let slots = Slots {
        tokens: vec![token(1, "lab", "11"), blank],
        unreadable: vec![],
        hidden: Hidden::Nothing,
    };
    let error = |wanted: &str| {
        let wanted: Pkcs11Uri = wanted.parse().unwrap();
        slots.find(&wanted.token).unwrap_err().to_string()
    };
    let named = |text: &str| text.contains("CKF_TOKEN_INITIALIZED");
    assert!(named(&error("pkcs11:slot-id=7")));
    assert!(!named(&error("pkcs11:token=web")));
    // Another one is there to be meant.
    let any = Pkcs11Uri::default();
    assert_eq!(slots.find(&any.token).map(|token| token.slot), Ok(1));
}

#[test]
fn several_tokens_are_listed_so_that_one_can_be_copied() {
    let tokens = [
        token(1, "lab", "11"),
        token(2, "lab", "22"),
        token(3, "lab", "22"),
    ];
    let error = chosen(&tokens, "pkcs11:token=lab").unwrap_err();
    assert!(matches!(error, TokenError::Unusable(_)));
    let text = error.to_string();
    let candidates = text.rsplit_once(": ").unwrap().1;
    let slots: Vec<_> = candidates
        .split(", ")
        .map(|uri| chosen(&tokens, uri).unwrap())
        .collect();
    assert_eq!(slots, [1, 2, 3], "{text}");
    assert!(text.contains("pkcs11:token=lab;serial=11,"), "{text}");
    assert!(text.contains("serial=22;slot-id=3"), "{text}");
}

#[test]
fn the_shortest_name_is_a_label_where_that_will_do() {
    let tokens = [
        token(1, "lab", "11"),
        token(2, "web", "21"),
        token(3, "web", "22"),
        token(4, "old", "31"),
        token(5, "old", "31"),
    ];
    let names = tokens
        .iter()
        .map(|token| uri(&token.shortest(&tokens)).to_string());
    let names: Vec<String> = names.collect();
    assert_eq!(names[0], "pkcs11:token=lab");
    assert_eq!(names[1], "pkcs11:token=web;serial=21");
    assert_eq!(names[3], "pkcs11:token=old;serial=31;slot-id=4");
    for (name, token) in names.iter().zip(&tokens) {
        assert_eq!(chosen(&tokens, name), Ok(token.slot));
    }
}

#[test]
fn no_token_at_all() {
    let wanted = TokenMatch::default();
    let failure = Failure {
        function: "C_GetTokenInfo",
        code: cryptoki_sys::CKR_TOKEN_NOT_RECOGNIZED,
    };
    let mut slots = slots(&[]);
    slots.unreadable = vec![(4, failure)];
    let text = slots.find(&wanted).unwrap_err().to_string();
    assert!(text.contains("shows no token"), "{text}");
    let expected = "slot-id=4 (C_GetTokenInfo returned CKR_TOKEN_NOT_RECOGNIZED)";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_list_of_tokens_ends() {
    let label = |slot: CK_SLOT_ID| token(slot, &format!("partition{slot}"), "1");
    let tokens: Vec<Token> = (0..65).map(label).collect();
    let others = chosen(&tokens, "pkcs11:token=elsewhere");
    let several = chosen(&tokens, "pkcs11:model=v2");
    for error in [others.unwrap_err(), several.unwrap_err()] {
        let text = error.to_string();
        assert_eq!(text.matches("token=partition").count(), LIST_LIMIT);
        assert!(text.ends_with("and more"), "{text}");
    }
}

#[test]
fn tokens_that_do_not_show_are_told_of() {
    let mut slots = slots(&[token(1, "lab", "11")]);
    slots.hidden = Hidden::Tokens {
        count: 1,
        store: "/store".into(),
    };
    let find = |uri: &str| slots.find(&uri.parse::<Pkcs11Uri>().unwrap().token);
    assert!(find("pkcs11:token=lab").is_ok());
    let error = find("pkcs11:token=web").unwrap_err();
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    assert!(error.to_string().contains("/store"), "{error}");
}

#[test]
fn padding_is_no_part_of_a_name() {
    assert_eq!(text(b" a b   "), Some(" a b".to_owned()));
    assert_eq!(text(b"a\0\0\0 "), Some("a".to_owned()));
    assert_eq!(text(b"    "), Some(String::new()));
    assert_eq!(text(b"\xff "), Some("\u{fffd}".to_owned()));
}
