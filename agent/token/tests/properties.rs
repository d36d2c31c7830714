//! What holds for every URI, text and message.

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use roleseal_token::link::{
    CertificateOnToken, FoundCertificate, FromToken, Open, OpenKey, OpenPkcs11, OpenTpm,
    OpenTpmKey, OpenedKey, Permission, ToToken, TpmKeySource, receive, send,
};
use roleseal_token::{
    Algorithm, Failures, ObjectMatch, Pin, PinFingerprint, PinKey, PinSource, Pkcs11Token,
    Pkcs11Uri, Signature, StringToSign, Tcti, TokenError, TokenMatch, unpad,
};

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn path() -> impl Strategy<Value = PathBuf> {
    text().prop_map(|text| PathBuf::from(format!("/{text}")))
}

/// Without a PIN, which is never shown.
fn uri() -> impl Strategy<Value = Pkcs11Uri> {
    let class = proptest::sample::select(vec!["private", "public", "cert", "secret-key", "data"]);
    let object =
        (of(text()), of(vec(any::<u8>(), 0..20)), of(class)).prop_map(|(label, id, class)| {
            ObjectMatch {
                label,
                id,
                class: class.map(str::to_owned),
            }
        });
    (token_match(), object, of(path())).prop_map(|(token, object, module_path)| Pkcs11Uri {
        token,
        object,
        module_path,
        pin: None,
    })
}

/// What has no padding.
fn name() -> impl Strategy<Value = String> {
    text().prop_map(|text| unpad(&text).to_owned())
}

fn token_match() -> impl Strategy<Value = TokenMatch> {
    let of_token = (of(name()), of(name()), of(name()), of(name()));
    let of_slot = (of(name()), of(name()), of(any::<u64>()));
    (of_token, of_slot).prop_map(|(of_token, of_slot)| {
        let (label, manufacturer, model, serial) = of_token;
        let (slot_description, slot_manufacturer, slot_id) = of_slot;
        TokenMatch {
            label,
            manufacturer,
            model,
            serial,
            slot_description,
            slot_manufacturer,
            slot_id,
        }
    })
}

fn pin() -> impl Strategy<Value = PinSource> {
    prop_oneof![
        path().prop_map(PinSource::File),
        text().prop_map(PinSource::Credential),
        text().prop_map(|pin| PinSource::Value(pin.into())),
    ]
}

fn error() -> impl Strategy<Value = TokenError> {
    prop_oneof![
        text().prop_map(TokenError::Gone),
        text().prop_map(TokenError::Hung),
        text().prop_map(TokenError::PinRejected),
        (text(), any::<u64>()).prop_map(|(text, seconds)| TokenError::Wait { text, seconds }),
        text().prop_map(TokenError::Unusable),
        text().prop_map(TokenError::Broken),
    ]
}

fn from_token() -> impl Strategy<Value = FromToken> {
    let bytes = || vec(any::<u8>(), 0..40);
    let certificate =
        (bytes(), vec(bytes(), 0..3)).prop_map(|(der, issuers)| FoundCertificate { der, issuers });
    let opened = (of(certificate), vec(text(), 0..3), any::<bool>()).prop_map(
        |(certificate, warnings, logs_in)| OpenedKey {
            algorithm: Algorithm::EcdsaSha256,
            certificate,
            warnings,
            logs_in,
        },
    );
    let report = prop_oneof![opened.prop_map(Ok), error().prop_map(Err)];
    let reports = prop_oneof![vec(report, 0..4).prop_map(Ok), error().prop_map(Err)];
    let signature = vec(any::<u8>(), 0..512).prop_map(Signature);
    let signature = prop_oneof![signature.prop_map(Ok), error().prop_map(Err)];
    let failures = prop_oneof![
        Just(Failures::Untold),
        any::<u32>().prop_map(Failures::Counted),
        any::<bool>().prop_map(Failures::Flagged),
        Just(Failures::Harmless),
    ];
    let has_pin = (
        of(any::<usize>()),
        text(),
        fingerprint(),
        failures,
        any::<bool>(),
    );
    prop_oneof![
        has_pin.prop_map(
            |(key, token, fingerprint, failures, at_once)| FromToken::HasPin {
                key,
                token,
                fingerprint,
                failures,
                at_once,
            }
        ),
        text().prop_map(|token| FromToken::AwaitingTurn { token }),
        reports.prop_map(FromToken::Opened),
        (any::<u64>(), signature).prop_map(|(id, result)| FromToken::Signed { id, result }),
    ]
}

fn fingerprint() -> impl Strategy<Value = PinFingerprint> {
    (pin_key(), text()).prop_map(|(key, pin)| PinFingerprint::of(&key, "lab", &[&Pin::from(pin)]))
}

fn pin_key() -> impl Strategy<Value = PinKey> {
    any::<[u8; 32]>().prop_filter_map("too short", |bytes| PinKey::from_bytes(&bytes))
}

fn to_token() -> impl Strategy<Value = ToToken> {
    let certificate = prop_oneof![
        Just(CertificateOnToken::OfTheKey),
        uri().prop_map(|uri| CertificateOnToken::Named(Box::new(uri))),
    ];
    let public_key = of(vec(any::<u8>(), 0..40));
    let key =
        (uri(), of(certificate), public_key).prop_map(|(uri, certificate, public_key)| OpenKey {
            uri,
            certificate,
            public_key,
        });
    let pkcs11 = (path(), uri(), of(pin()), 1_usize..64, vec(key, 0..3)).prop_map(
        |(module, token, pin, sessions, keys)| {
            Open::Pkcs11(Box::new(OpenPkcs11 {
                token: Pkcs11Token {
                    network: None,
                    module,
                    token: token.token,
                    pin,
                    sessions,
                },
                keys,
            }))
        },
    );
    let source = prop_oneof![
        path().prop_map(TpmKeySource::File),
        any::<u32>().prop_map(TpmKeySource::Handle),
    ];
    let key = (source, of(pin()), of(pin()), of(pin())).prop_map(
        |(source, pin, parent_pin, owner_pin)| OpenTpmKey {
            source,
            pin,
            parent_pin,
            owner_pin,
        },
    );
    let tpm = vec(of(key), 0..3).prop_map(|keys| {
        let tcti = Tcti::default();
        Open::Tpm(OpenTpm {
            tcti,
            keys,
            left_sessions: vec![7],
        })
    });
    let open = (prop_oneof![pkcs11, tpm], pin_key());
    let permission = prop_oneof![
        Just(Permission::Try),
        Just(Permission::Refused),
        Just(Permission::Unanswered),
        text().prop_map(Permission::Unrecorded),
        text().prop_map(Permission::TooManyRecords),
    ];
    prop_oneof![
        open.prop_map(|(open, pin_key)| ToToken::Open { open, pin_key }),
        Just(()).prop_map(|()| ToToken::YourTurn),
        permission.prop_map(ToToken::Pin),
        (any::<u64>(), any::<usize>(), text()).prop_map(|(id, key, text)| ToToken::Sign {
            id,
            key,
            text
        }),
    ]
}

proptest! {
    #[test]
    fn uris_read_back_as_they_are_shown(uri in uri()) {
        let shown = uri.to_string();
        prop_assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{}", shown);
        prop_assert_eq!(shown.parse(), Ok(uri));
    }

    /// RFC 7512: whether a byte is percent-encoded, in which case, and the order of the attributes are all one.
    #[test]
    fn percent_encoding_is_one_of_many_spellings(label: String, id in vec(any::<u8>(), 0..20)) {
        let upper = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let lower = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let one = format!("pkcs11:object={};id={}", upper(label.as_bytes()), lower(&id));
        let other = format!("pkcs11:id={};;object={}", upper(&id), lower(label.as_bytes()));
        let uri: Pkcs11Uri = one.parse().unwrap();
        prop_assert_eq!(uri.object.label.as_ref(), Some(&label));
        prop_assert_eq!(uri.object.id.as_ref(), Some(&id));
        prop_assert_eq!(other.parse(), Ok(uri));
    }

    /// Whatever is wrong with a URI, its error does not show the PIN in it.
    #[test]
    fn errors_do_not_show_pins(rest in "[a-z0-9&=%;?/ -]{0,12}", place in 0..3) {
        const PIN: &str = "93751048";
        let text = match place {
            0 => format!("pkcs11:?{rest}&pin-value={PIN}"),
            1 => format!("pkcs11:?pin-value={PIN}{rest}"),
            _ => format!("pkcs11:object=web{rest} pin-value={PIN}"), // a separator is missing
        };
        let said = match text.parse::<Pkcs11Uri>() {
            Ok(uri) => format!("{uri} {uri:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!said.contains(PIN), "{} of {}", said, text);
    }

    #[test]
    fn tctis_read_back_as_they_are_shown(
        text in "(device|swtpm|mssim|tabrmd):[a-z_/=.,:0-9]{0,40}",
        host in "[a-z0-9.:-]{1,20}",
        port: u16,
    ) {
        for text in [text, format!("swtpm:port={port},host={host}")] {
            if let Ok(tcti) = text.parse::<Tcti>() {
                prop_assert_eq!(tcti.to_string().parse(), Ok(tcti));
            }
        }
    }

    #[test]
    fn messages_survive_the_link(to: Vec<u8>, one in to_token(), other in from_token()) {
        let mut bytes = Vec::new();
        send(&mut bytes, &one).unwrap();
        send(&mut bytes, &other).unwrap();
        bytes.extend(&to);
        let mut from = &*bytes;
        prop_assert_eq!(receive(&mut from).unwrap(), Some(one));
        prop_assert_eq!(receive(&mut from).unwrap(), Some(other));
        prop_assert_eq!(from, &*to);
    }
}

/// A string to sign, in its parts.
fn signable() -> impl Strategy<Value = [String; 5]> {
    let algorithm = prop_oneof![Just("AWS4-X509-RSA-SHA256"), Just("AWS4-X509-ECDSA-SHA256")];
    let day = (0_u32..10_000, 1_u32..13, 1_u32..29);
    let time = (0_u32..24, 0_u32..60, 0_u32..60);
    (
        algorithm,
        day,
        time,
        "[a-z]{1,9}(-[a-z][a-z0-9]{0,8}){1,3}-[0-9]{1,3}",
        "[0-9a-f]{64}",
    )
        .prop_map(
            |(algorithm, (year, month, day), (hour, minute, second), region, hash)| {
                let day = format!("{year:04}{month:02}{day:02}");
                let time = format!("{hour:02}{minute:02}{second:02}");
                [algorithm.to_owned(), day, time, region, hash]
            },
        )
}

fn written([algorithm, day, time, region, hash]: &[String; 5], service: &str) -> String {
    format!("{algorithm}\n{day}T{time}Z\n{day}/{region}/{service}/aws4_request\n{hash}")
}

proptest! {
    #[test]
    fn strings_to_sign_are_read_and_written_alike(parts in signable()) {
        let text = written(&parts, "rolesanywhere");
        prop_assert_eq!(text.parse::<StringToSign>().unwrap().to_string(), text);
    }

    #[test]
    fn no_other_service_is_signed_for(parts in signable(), service in "[a-z0-9/\n ]{0,16}|.{0,16}") {
        prop_assume!(service != "rolesanywhere");
        prop_assert!(written(&parts, &service).parse::<StringToSign>().is_err());
    }

    /// However a text is changed, it is refused, or signs a Roles Anywhere request all the same.
    #[test]
    fn a_changed_text_is_no_other_services(
        parts in signable(),
        at: prop::sample::Index,
        new in prop::option::of(any::<char>()),
        keep: bool,
    ) {
        let text = written(&parts, "rolesanywhere");
        let at = at.index(text.len()); // all of it is ASCII
        let new = new.map(String::from).unwrap_or_default();
        let changed = format!("{}{new}{}", &text[..at], &text[at + usize::from(!keep)..]);
        if let Ok(parsed) = changed.parse::<StringToSign>() {
            prop_assert_eq!(parsed.to_string(), &*changed);
            prop_assert!(changed.contains("/rolesanywhere/aws4_request\n"), "{}", changed);
        }
    }
}
