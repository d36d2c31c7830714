use openssl::hash::MessageDigest;

use super::super::testing::{Issued, NOON, Pki, ec_p256, objections, only};
use super::super::{Chain, Severity};

#[test]
fn a_whole_path_is_found_with_keys_of_every_kind() {
    let pki = Pki::new();
    let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
    assert_eq!(objections(&[&leaf, &lower, &upper], Some(&[&root])), []);
    assert_eq!(
        objections(&[&leaf, &lower, &upper, &root], Some(&[&root])),
        []
    );
    // A trust anchor need not be a root, nor be first in its bundle.
    assert_eq!(objections(&[&leaf, &lower], Some(&[&root, &upper])), []);
    assert_eq!(objections(&[&leaf], Some(&[&lower])), []);
    // To send the anchor, too, is of no use, and does no harm.
    for chain in [&[&leaf, &lower][..], &[&leaf, &lower, &upper]] {
        let said = objections(chain, Some(&[&lower]));
        assert!(said.iter().all(|one| !one.is_refusal()), "{said:?}");
        let of_lower = &said[0].to_string();
        assert!(of_lower.contains("is not between"), "{of_lower}");
    }
    // Without an anchor, an end is as good as any other.
    assert_eq!(objections(&[&leaf, &lower], None), []);
    assert_eq!(objections(&[&leaf], None), []);
}

#[test]
fn of_a_ca_that_two_have_certified_the_certificate_that_leads_to_the_anchor_counts() {
    let pki = Pki::new();
    let (leaf, elsewhere, root) = (pki.leaf(), pki.lower(), pki.root());
    let by_root = Issued::ca(&pki.lower, "lower", &pki.root, "root");
    for chain in [[&leaf, &elsewhere, &by_root], [&leaf, &by_root, &elsewhere]] {
        let text = only(Severity::Warning, &chain, Some(&[&root]));
        assert!(text.contains("not between the leaf"), "{text}");
    }
}

#[test]
fn a_path_that_ends_too_early_names_what_is_missing() {
    let pki = Pki::new();
    let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
    let said = only(Severity::Refused, &[&leaf, &lower], Some(&[&root]));
    assert!(
        said.contains("the issuer of CN=lower, CN=upper, is missing"),
        "{said}"
    );
    let said = objections(&[&leaf, &upper], Some(&[&root]));
    assert!(
        said[0].to_string().contains("CN=lower, is missing"),
        "{said:?}"
    );
    assert!(
        said[1]
            .to_string()
            .contains("intermediate 1 (CN=upper): it is not between")
    );
}

#[test]
fn a_name_is_not_a_signature() {
    let pki = Pki::new();
    let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
    let forged_root = Issued::ca(&pki.leaf, "root", &pki.leaf, "root");
    let said = only(
        Severity::Refused,
        &[&leaf, &lower, &upper],
        Some(&[&forged_root]),
    );
    assert!(
        said.contains("CN=upper is not signed by the CN=root"),
        "{said}"
    );
    // While a CA changes its key, both certificates are in the bundle.
    assert_eq!(
        objections(&[&leaf, &lower, &upper], Some(&[&forged_root, &root])),
        []
    );
    let forged = Issued::ca(&pki.leaf, "lower", &pki.upper, "upper");
    let said = only(Severity::Refused, &[&leaf, &forged], None);
    assert!(said.contains("it did not sign CN=web"), "{said}");
    assert!(objections(&[&leaf, &forged, &upper], Some(&[&root]))[0].is_refusal());
}

#[test]
fn order_and_what_is_not_needed_are_doubts() {
    let pki = Pki::new();
    let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
    for anchors in [None, Some(&[&root][..])] {
        let said = only(Severity::Warning, &[&leaf, &upper, &lower], anchors);
        assert!(said.contains("not in order"), "{said}");
        let other = Issued::ca(&pki.leaf, "other", &pki.leaf, "elsewhere");
        let said = only(Severity::Warning, &[&leaf, &lower, &upper, &other], anchors);
        assert!(
            said.contains("intermediate 3 (CN=other): it is not between"),
            "{said}"
        );
    }
}

#[test]
fn an_intermediate_that_is_not_valid_counts_where_the_path_needs_it() {
    let pki = Pki::new();
    let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
    let past = ("20250101000000Z", "20260101000000Z");
    let expired = |ca| Issued {
        validity: past,
        ..ca
    };
    let (old_lower, old_upper) = (expired(pki.lower()), expired(pki.upper()));
    let next = Issued {
        validity: ("20261201000000Z", "20280101000000Z"),
        ..pki.lower()
    };
    for anchors in [None, Some(&[&root][..])] {
        for (chain, what) in [
            ([&leaf, &old_lower, &lower, &upper], "1 (CN=lower): it exp"),
            ([&leaf, &lower, &old_lower, &upper], "2 (CN=lower): it exp"),
            ([&leaf, &lower, &upper, &old_upper], "3 (CN=upper): it exp"),
            ([&leaf, &next, &lower, &upper], "1 (CN=lower): it is not va"),
        ] {
            let said = only(Severity::Warning, &chain, anchors);
            assert!(said.contains(what), "{said}");
            assert!(
                said.ends_with(", and the path does not need it: remove it"),
                "{said}"
            );
        }
        let other = expired(Issued::ca(&pki.leaf, "other", &pki.leaf, "elsewhere"));
        let said = only(Severity::Warning, &[&leaf, &lower, &upper, &other], anchors);
        assert!(said.contains("does not need it"), "{said}");
        for chain in [[&leaf, &old_lower, &upper], [&leaf, &lower, &old_upper]] {
            let said = only(Severity::Refused, &chain, anchors);
            assert!(said.ends_with("it expired on 2026-01-01T00:00:00Z: install a new one"));
        }
    }
    // The path ends below it.
    let said = only(
        Severity::Warning,
        &[&leaf, &lower, &old_upper],
        Some(&[&upper]),
    );
    assert!(said.contains("2 (CN=upper): it expired"), "{said}");
    // Of two, one is needed.
    let said = objections(&[&leaf, &old_lower, &old_lower, &upper], None);
    let refusals = said.iter().filter(|one| one.is_refusal()).count();
    assert_eq!((refusals, said.len()), (1, 2), "{said:?}");
}

#[test]
fn of_several_paths_to_the_anchor_a_valid_one_counts() {
    let pki = Pki::new();
    let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
    let short_cut = Issued {
        validity: ("20250101000000Z", "20260101000000Z"),
        ..Issued::ca(&pki.lower, "lower", &pki.root, "root")
    };
    for chain in [
        [&leaf, &short_cut, &lower, &upper],
        [&leaf, &lower, &upper, &short_cut],
    ] {
        let said = only(Severity::Warning, &chain, Some(&[&root]));
        assert!(said.contains("does not need it"), "{said}");
    }
    // The valid one leads elsewhere.
    let said = objections(&[&leaf, &lower, &short_cut], Some(&[&root]));
    assert!(said[0].is_refusal(), "{said:?}");
    assert!(said[0].to_string().contains("2 (CN=lower): it expired"));
    let expired_upper = Issued {
        validity: short_cut.validity,
        ..pki.upper()
    };
    let valid = Issued::ca(&pki.lower, "lower", &pki.root, "root");
    for chain in [
        [&leaf, &lower, &expired_upper, &valid],
        [&leaf, &valid, &lower, &expired_upper],
    ] {
        let said = objections(&chain, Some(&[&root]));
        assert!(said.iter().all(|one| !one.is_refusal()), "{said:?}");
    }
}

#[test]
fn of_two_certificates_of_a_ca_the_one_that_ends_last_counts() {
    let pki = Pki::new();
    let (leaf, lower) = (pki.leaf(), pki.lower());
    let ending = Issued {
        validity: ("20260101000000Z", "20261124000000Z"),
        ..pki.lower()
    };
    for (chain, number) in [([&leaf, &ending, &lower], 1), ([&leaf, &lower, &ending], 2)] {
        let said = only(Severity::Warning, &chain, None);
        assert!(
            said.contains(&format!(
                "intermediate {number} (CN=lower): it is not between"
            )),
            "{said}"
        );
    }
    let said = only(Severity::Warning, &[&leaf, &ending], None);
    assert!(said.contains("expires soon"), "{said}");
}

#[test]
fn a_leaf_does_not_vouch_for_itself() {
    let pki = Pki::new();
    let root = pki.root();
    let own = Issued::leaf(&pki.leaf).by(&pki.leaf, "web");
    for anchors in [None, Some(&[&root][..])] {
        let said = only(Severity::Refused, &[&own], anchors);
        assert!(said.starts_with("it is self-signed"), "{said}");
    }
    let said = objections(&[&own], Some(&[&own]));
    assert!(
        said[0]
            .to_string()
            .contains("trust anchor 1 (CN=web): it is not a CA")
    );
    // Of a CA that has its name.
    let issued = Issued::leaf(&pki.leaf).by(&pki.root, "web");
    let ca = Issued::ca(&pki.root, "web", &pki.root, "web");
    assert_eq!(objections(&[&issued], None), []);
    assert_eq!(objections(&[&issued], Some(&[&ca])), []);
}

#[test]
fn an_intermediate_is_there_once() {
    let pki = Pki::new();
    let (leaf, lower) = (pki.leaf().read(), pki.lower().read());
    let chain = Chain::new(vec![leaf, lower.clone(), lower]).unwrap();
    let objections = chain.objections(None, NOON.parse().unwrap());
    let said: Vec<String> = objections.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["intermediate 2 (CN=lower): it is there twice: remove it"]
    );
    assert!(!objections[0].is_refusal());
}

#[test]
fn what_cannot_be_checked_is_said() {
    let pki = Pki::new();
    let p256 = ec_p256();
    let sha512 = MessageDigest::sha512();
    let leaf = Issued {
        digest: sha512,
        ..pki.leaf().by(&p256, "root")
    };
    let anchor = Issued::ca(&p256, "root", &p256, "root");
    let said = only(Severity::Warning, &[&leaf], Some(&[&anchor]));
    assert!(
        said.contains("cannot be checked here (ecdsa-with-SHA512)"),
        "{said}"
    );
}
