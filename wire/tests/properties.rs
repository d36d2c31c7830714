//! What holds for every message: it arrives as it was sent.

#![allow(clippy::unwrap_used)] // helpers of tests

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use roleseal_wire::codec::{decode_reply, decode_request, encode_reply, encode_request};
use roleseal_wire::{
    Call, Identity, MESSAGE_LIMIT, PinSource, Refusal, Reply, Request, RequestFault, Rule,
    ServiceInfo, State, UnsignedRequest,
};

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn unsigned() -> impl Strategy<Value = UnsignedRequest> {
    (of(text()), text(), text(), text(), text(), text()).prop_map(
        |(identity, region, host, query, content_type, body)| UnsignedRequest {
            identity,
            region,
            host,
            query,
            content_type,
            body,
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        Just(Call::GetInfo),
        text().prop_map(|interface| Call::GetInterfaceDescription { interface }),
        Just(Call::ListIdentities),
        of(text()).prop_map(|identity| Call::GetCertificate { identity }),
        unsigned().prop_map(Call::SignCreateSession),
        unsigned().prop_map(Call::MayCreateSession),
    ]
}

fn identity() -> impl Strategy<Value = Identity> {
    let state = prop_oneof![
        Just(State::Opening),
        Just(State::Ready),
        Just(State::Unavailable),
        Just(State::PinRejected),
        Just(State::Unusable),
    ];
    let of_certificate = (of(text()), of(text()), of(text()), of(text()));
    let dates = (of(text()), of(text()));
    let of_key = (text(), state, of(text()), vec(text(), 0..3));
    let source = prop_oneof![
        Just(PinSource::File),
        Just(PinSource::Credential),
        Just(PinSource::Uri),
    ];
    let counted = (of(source), of(any::<u64>()), of(text()));
    let parts = (text(), of_certificate, dates, of_key, counted);
    parts.prop_map(|(name, of_certificate, dates, of_key, counted)| {
        let (key_algorithm, subject, issuer, serial) = of_certificate;
        let (not_before, not_after) = dates;
        let (key_uri, state, message, warnings) = of_key;
        let (pin_source, signatures, last_signed) = counted;
        Identity {
            name,
            key_algorithm,
            subject,
            issuer,
            serial,
            not_before,
            not_after,
            key_uri,
            state,
            message,
            warnings,
            pin_source,
            signatures,
            last_signed,
        }
    })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let fault = prop_oneof![
        Just(RequestFault::Region),
        Just(RequestFault::ContentType),
        Just(RequestFault::RepeatedParameter),
    ];
    let rule = prop_oneof![Just(Rule::Caller), Just(Rule::TrustAnchor)];
    prop_oneof![
        (text(), text())
            .prop_map(|(identity, message)| Refusal::IdentityNotFound { identity, message }),
        (vec(text(), 0..3), text()).prop_map(|(identities, message)| Refusal::IdentityAmbiguous {
            identities,
            message,
        }),
        (rule, text()).prop_map(|(rule, message)| Refusal::NotPermitted { rule, message }),
        (fault, text()).prop_map(|(fault, message)| Refusal::RequestRefused { fault, message }),
        (of(any::<u64>()), text()).prop_map(|(retry_after_seconds, message)| {
            Refusal::TokenUnavailable {
                retry_after_seconds,
                message,
            }
        }),
        text().prop_map(|message| Refusal::Busy { message }),
        text().prop_map(|message| Refusal::NotConfigured { message }),
        (any::<usize>(), text())
            .prop_map(|(limit, message)| Refusal::MessageTooLarge { limit, message }),
        text().prop_map(|interface| Refusal::InterfaceNotFound { interface }),
        text().prop_map(|parameter| Refusal::InvalidParameter { parameter }),
        Just(Refusal::ExpectedMore {}),
    ]
}

/// A reply, with a call that it answers.
fn answered() -> impl Strategy<Value = (Call, Reply)> {
    let info = (text(), text(), text(), text(), vec(text(), 0..3)).prop_map(
        |(vendor, product, version, url, interfaces)| ServiceInfo {
            vendor,
            product,
            version,
            url,
            interfaces,
        },
    );
    let identities = (vec(identity(), 0..3), any::<bool>());
    prop_oneof![
        info.prop_map(|info| (Call::GetInfo, Reply::Info(info))),
        (text(), text()).prop_map(|(interface, description)| (
            Call::GetInterfaceDescription { interface },
            Reply::Description(description),
        )),
        identities.prop_map(|(identities, continues)| (
            Call::ListIdentities,
            Reply::Identities {
                identities,
                continues,
            },
        )),
        (of(text()), vec(text(), 0..6)).prop_map(|(identity, chain)| (
            Call::GetCertificate { identity },
            Reply::Certificate(chain),
        )),
        (unsigned(), btree_map(text(), text(), 0..5)).prop_map(|(unsigned, headers)| (
            Call::SignCreateSession(unsigned),
            Reply::Signed(headers)
        )),
        unsigned().prop_map(|unsigned| (Call::MayCreateSession(unsigned), Reply::Permitted)),
        (call(), refusal()).prop_map(|(call, refusal)| (call, Reply::Refused(refusal))),
    ]
}

proptest! {
    #[test]
    fn calls_arrive_as_they_were_sent(call in call(), more: bool, oneway: bool) {
        let request = Request { call, more, oneway };
        let frame = encode_request(&request);
        prop_assert!(!frame.contains(&0), "a NUL ends a message");
        prop_assert_eq!(decode_request(&frame), Ok(request));
    }

    #[test]
    fn replies_arrive_as_they_were_sent((call, reply) in answered()) {
        let frame = encode_reply(&reply);
        prop_assert!(!frame.contains(&0), "a NUL ends a message");
        prop_assert_eq!(decode_reply(&call, &frame), Ok(reply));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What a caller wrote is repeated in the answer to it, but never so much that the answer has no room.
    #[test]
    fn refusals_of_messages_fit_into_one(method in ".{1,20}", count in 1_usize..1000) {
        let name = method.repeat(count);
        for frame in [
            format!(r#"{{"method":{}}}"#, quoted(&name)),
            format!(r#"{{"method":{}}}"#, quoted(&format!("{name}.x"))),
            format!(r#"{{"method":"x",{}:1}}"#, quoted(&name)),
            name,
        ] {
            let refusal = decode_request(frame.as_bytes()).unwrap_err();
            prop_assert!(encode_reply(&Reply::Refused(refusal)).len() < MESSAGE_LIMIT / 16);
        }
    }
}

fn quoted(text: &str) -> String {
    let description = encode_reply(&Reply::Description(text.to_owned()));
    let message = String::from_utf8(description).unwrap();
    let value = message.strip_prefix(r#"{"parameters":{"description":"#);
    value.unwrap().strip_suffix("}}").unwrap().to_owned()
}
