//! Who may have what signed. Any rule that matches permits; without rules only the agent's own user
//! is served.

use config::Rule;
use nix::unistd::geteuid;
use wire::{Refusal, Rule as Part};

use crate::create_session::CreateSession;
use crate::peer::{Evidence, Peer};

/// A request that the policy permits: the evidence, since nothing else can make one.
#[derive(Debug)]
#[must_use]
pub struct Authorized(CreateSession);

impl Authorized {
    /// What was permitted.
    pub fn request(&self) -> &CreateSession {
        &self.0
    }
}

/// An identity's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The user that the agent runs as.
    pub own_uid: u32,
    /// The `allow` rules.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// These rules, or without any the user that this agent runs as.
    pub fn new(rules: Vec<Rule>) -> Policy {
        Policy {
            own_uid: geteuid().as_raw(),
            rules,
        }
    }

    /// Whether any request of this caller could be permitted.
    pub fn knows(&self, peer: &Peer) -> bool {
        self.rules_for(peer).next().is_some() || self.rules.is_empty() && self.is_own(peer)
    }

    /// Returns whether a rule names a group.
    pub(crate) fn names_groups(&self) -> bool {
        self.rules.iter().any(|rule| !rule.groups.is_empty())
    }

    /// Returns whether a rule names a unit.
    pub(crate) fn names_units(&self) -> bool {
        self.rules.iter().any(|rule| !rule.units.is_empty())
    }

    /// Whether this caller may see the identity: whoever may use it, root and the agent's own user.
    pub fn shows_to(&self, peer: &Peer) -> bool {
        peer.uid == 0 || self.is_own(peer) || self.knows(peer)
    }

    /// Permits the request, or says which part of the policy does not.
    pub fn judge(&self, peer: &Peer, request: CreateSession) -> Result<Authorized, Refusal> {
        if self.rules.is_empty() && self.is_own(peer) {
            return Ok(Authorized(request));
        }
        // Of several rules for this caller, the one that came closest tells what is wrong.
        let mut closest = None;
        for rule in self.rules_for(peer) {
            match objection(rule, &request) {
                None => return Ok(Authorized(request)),
                Some(objection) => closest = closest.max(Some(objection)),
            }
        }
        Err(match closest {
            Some((rule, message)) if !peer.has_unknowns() => {
                Refusal::NotPermitted { rule, message }
            }
            _ => unnamed(peer),
        })
    }

    fn is_own(&self, peer: &Peer) -> bool {
        peer.uid == self.own_uid && peer.has_user()
    }

    fn rules_for(&self, peer: &Peer) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| names(rule, peer))
    }
}

/// Whether the rule is for this caller: both its user and its unit, where it names both.
fn names(rule: &Rule, peer: &Peer) -> bool {
    let in_unit = || {
        peer.unit().is_some_and(|(unit, evidence)| {
            let identified = evidence == Evidence::Descriptor;
            rule.units.contains(unit) && (identified || !rule.needs_identified_process())
        })
    };
    match rule.names_accounts() {
        true => names_account(rule, peer) && (rule.units.is_empty() || in_unit()),
        false => in_unit(),
    }
}

/// Whether the rule names the caller's user. One whose uid stands for all unmapped ones has no name, and is in no group:
/// only its number itself names it.
fn names_account(rule: &Rule, peer: &Peer) -> bool {
    rule.users.contains(&peer.uid)
        || match peer.has_user() {
            true => rule.everyone || rule.groups.iter().any(|gid| peer.is_in_group(*gid)),
            false => !peer.has_group() && rule.groups.contains(&peer.gid),
        }
}

/// Returns the refusal of a caller whom no rule names: the same whatever it asked, since neither identities nor rules
/// are for it to know.
pub fn unnamed(peer: &Peer) -> Refusal {
    let uid = peer.uid;
    if peer.has_unknowns() {
        return Refusal::Busy {
            message: format!(
                "cannot determine the groups or the unit of user {uid}: no answer of the user database, or about the process: \
                 try again later"
            ),
        };
    }
    Refusal::NotPermitted {
        rule: Part::Caller,
        message: format!(
            "user {uid} is not permitted: an [[identity.allow]] rule of the identity, in the agent's configuration, has \
             to name it (users = [{uid}]), one of its groups, or the systemd unit of its process"
        ),
    }
}

/// What a rule has against the request, if anything.
fn objection(rule: &Rule, request: &CreateSession) -> Option<(Part, String)> {
    let target = request.target();
    let parts = [
        (
            Part::Role,
            "role",
            "roles",
            &rule.roles,
            target.role().as_ref(),
        ),
        (
            Part::Profile,
            "profile",
            "profiles",
            &rule.profiles,
            target.profile().as_ref(),
        ),
        (
            Part::TrustAnchor,
            "trust anchor",
            "trust-anchors",
            &rule.trust_anchors,
            target.trust_anchor().as_ref(),
        ),
    ];
    for (part, name, setting, patterns, arn) in parts {
        if !patterns.is_empty() && !patterns.iter().any(|pattern| pattern.matches(arn)) {
            let text = format!(
                "{name} {arn} is not among the {setting} of this user's [[identity.allow]] rules: request one \
                 that is, or have it added there, in the agent's configuration"
            );
            return Some((part, text));
        }
    }
    let names = &rule.role_session_names;
    let asked = request.session_name().map(ToString::to_string);
    let name = asked.as_deref().unwrap_or_default();
    if !names.is_empty() && !names.iter().any(|pattern| pattern.matches(name)) {
        let asked = match asked {
            Some(name) => format!("role session name {name}"),
            None => "a request without a role session name".to_owned(),
        };
        let text = format!(
            "{asked} is not among the role-session-names of this user's [[identity.allow]] rules: request one that is \
             (role-session-name), or have it added there, in the agent's configuration"
        );
        return Some((Part::Role, text));
    }
    let limit = rule.max_duration?;
    let asked = match request.duration() {
        Some(duration) if duration <= limit => return None,
        Some(duration) => format!("a session of {} s is longer than", duration.seconds()),
        // The profile's default is not known here, and may be longer.
        None => "a session without durationSeconds may be longer than".to_owned(),
    };
    let limit = limit.seconds();
    let text = format!(
        "{asked} the max-duration of this user's [[identity.allow]] rules, {limit} s: request at most {limit} s \
         (session-duration), or have max-duration raised in the agent's configuration"
    );
    Some((Part::Duration, text))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::accounts::Accounts;
    use crate::create_session::tests::unsigned;
    use config::Pattern;
    use config::user_database::{SystemUsers, UserDatabase};

    const STRANGER: u32 = 4_000_001;
    const THEIR_GROUP: u32 = 4_000_002;

    fn stranger() -> Peer {
        Peer::new(STRANGER, THEIR_GROUP, 1, Accounts::own())
    }

    fn request(body: &str) -> CreateSession {
        CreateSession::parse(unsigned(body), &[]).unwrap()
    }

    fn rule() -> Rule {
        Rule {
            users: vec![STRANGER],
            ..Rule::default()
        }
    }

    fn patterns(text: &str) -> Vec<Pattern> {
        vec![Pattern(text.to_owned())]
    }

    fn judge(rules: Vec<Rule>, body: &str) -> Result<(), Part> {
        let policy = Policy { own_uid: 0, rules };
        match policy.judge(&stranger(), request(body)) {
            Ok(_) => Ok(()),
            Err(Refusal::NotPermitted { rule, .. }) => Err(rule),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// What the policy of the agent's own user permits.
    pub(crate) fn authorised(body: &str) -> Authorized {
        permitted(request(body))
    }

    pub(crate) fn permitted(request: CreateSession) -> Authorized {
        Authorized(request)
    }

    #[test]
    fn without_rules_only_the_agents_user_is_served() {
        let policy = |own_uid| Policy {
            own_uid,
            rules: vec![],
        };
        assert!(policy(STRANGER).judge(&stranger(), request("{}")).is_ok());
        assert!(policy(STRANGER).knows(&stranger()));
        assert!(policy(0).judge(&stranger(), request("{}")).is_err());
        assert!(!policy(0).knows(&stranger()));
    }

    #[test]
    fn a_rule_replaces_the_agents_user() {
        let policy = Policy {
            own_uid: STRANGER,
            rules: vec![Rule {
                users: vec![1],
                ..Rule::default()
            }],
        };
        assert!(policy.judge(&stranger(), request("{}")).is_err());
    }

    #[test]
    fn callers_match_by_user_group_or_everyone() {
        let nobody = Rule {
            users: vec![1],
            groups: vec![1],
            ..Rule::default()
        };
        assert_eq!(judge(vec![nobody.clone()], "{}"), Err(Part::Caller));
        assert_eq!(judge(vec![rule()], "{}"), Ok(()));
        let group = Rule {
            groups: vec![THEIR_GROUP],
            ..Rule::default()
        };
        assert_eq!(judge(vec![nobody, group], "{}"), Ok(()));
        let everyone = Rule {
            everyone: true,
            ..Rule::default()
        };
        assert_eq!(judge(vec![everyone], "{}"), Ok(()));
    }

    #[test]
    fn who_is_not_mapped_is_matched_by_the_number_alone() {
        let unmapped = SystemUsers.unmapped();
        let rule = |users: &[u32], groups: &[u32]| Rule {
            users: users.into(),
            groups: groups.into(),
            ..Rule::default()
        };
        let everyone = Rule {
            everyone: true,
            ..Rule::default()
        };
        let own = |rules| Policy {
            own_uid: unmapped.uid,
            rules,
        };
        let knows = |rules, uid, gid| own(rules).knows(&Peer::new(uid, gid, 1, Accounts::own()));
        let (user, group) = (unmapped.uid, unmapped.gid);
        assert!(!knows(vec![], user, group)); // though the agent runs as nobody
        assert!(!knows(vec![everyone.clone()], user, group));
        assert!(!knows(vec![everyone.clone()], user, THEIR_GROUP));
        assert!(!knows(vec![rule(&[1], &[THEIR_GROUP])], user, THEIR_GROUP));
        assert!(knows(vec![rule(&[user], &[])], user, THEIR_GROUP));
        assert!(knows(vec![rule(&[], &[group])], user, group));
        assert!(knows(vec![rule(&[], &[group])], STRANGER, group));
        assert!(knows(vec![everyone], STRANGER, group));
        let nobody = Peer::new(user, group, 1, Accounts::own());
        assert!(!own(vec![]).shows_to(&nobody));
    }

    #[test]
    fn units_limit_the_users_and_suffice_without() {
        let unmapped = SystemUsers.unmapped();
        let rule = |users: &[u32], unmatched: &[&str]| {
            let unit = "payments.service".parse().unwrap();
            let unmatched = unmatched.iter().map(|name| (*name).to_owned());
            let rules = vec![Rule {
                users: users.into(),
                unmatched: unmatched.collect(),
                units: vec![unit],
                ..Rule::default()
            }];
            Policy {
                own_uid: STRANGER,
                rules,
            }
        };
        let caller = |uid, unit| Peer::new(uid, THEIR_GROUP, 1, Accounts::own()).in_unit(unit);
        let (payments, other) = (Some("payments.service"), Some("other.service"));
        for uid in [STRANGER, 0, unmapped.uid] {
            assert!(rule(&[], &[]).knows(&caller(uid, payments)));
            assert!(!rule(&[], &[]).knows(&caller(uid, other)));
            assert!(!rule(&[], &[]).knows(&caller(uid, None)));
            assert!(!rule(&[], &["nobody"]).knows(&caller(uid, payments)));
        }
        assert!(!rule(&[], &[]).knows(&stranger())); // nobody has asked
        assert!(rule(&[STRANGER], &[]).knows(&caller(STRANGER, payments)));
        assert!(!rule(&[STRANGER], &[]).knows(&caller(STRANGER, other)));
        assert!(!rule(&[1], &[]).knows(&caller(STRANGER, payments)));
        let everyone = Rule {
            everyone: true,
            ..rule(&[], &[]).rules.remove(0)
        };
        let everyone = Policy {
            own_uid: 0,
            rules: vec![everyone],
        };
        assert!(everyone.knows(&caller(STRANGER, payments)));
        assert!(!everyone.knows(&caller(STRANGER, other)));
        assert!(!everyone.knows(&caller(unmapped.uid, payments)));
        // Without SO_PEERPIDFD, processes of the users whom the rule names, and of nobody else.
        let by_number = || caller(STRANGER, payments).by_number();
        assert!(rule(&[STRANGER], &[]).knows(&by_number()));
        assert!(!rule(&[], &[]).knows(&by_number()) && !everyone.knows(&by_number()));
    }

    #[test]
    fn a_rule_may_limit_the_name_of_the_session() {
        let named = |names: &[&str]| {
            let names = names.iter().map(|name| Pattern((*name).to_owned()));
            vec![Rule {
                role_session_names: names.collect(),
                ..rule()
            }]
        };
        let body = |name: &str| format!(r#"{{"roleSessionName":"{name}"}}"#);
        assert_eq!(judge(named(&[]), &body("ci-1")), Ok(()));
        assert_eq!(judge(named(&["ci-*"]), &body("ci-1")), Ok(()));
        assert_eq!(judge(named(&["ci-?"]), &body("ci-12")), Err(Part::Role));
        assert_eq!(judge(named(&["ci-*", "me"]), &body("you")), Err(Part::Role));
        // The certificate's serial would be its name, whoever asks.
        assert_eq!(judge(named(&["ci-*"]), "{}"), Err(Part::Role));
        assert_eq!(judge(named(&["ci-*", ""]), "{}"), Ok(()));
        assert_eq!(judge(named(&["*"]), "{}"), Ok(()));
    }

    #[test]
    fn each_part_can_object() {
        let limit = |seconds: u64| Rule {
            max_duration: Some(seconds.try_into().unwrap()),
            ..rule()
        };
        let role = |pattern| Rule {
            roles: patterns(pattern),
            ..rule()
        };
        let good = "arn:aws:iam::123456789012:role/web-*";
        assert_eq!(judge(vec![role(good)], "{}"), Ok(()));
        assert_eq!(
            judge(vec![role("arn:aws:iam::123456789012:role/web")], "{}"),
            Err(Part::Role)
        );
        let profiles = patterns("arn:*:profile/0b");
        assert_eq!(
            judge(
                vec![Rule {
                    profiles,
                    ..role(good)
                }],
                "{}"
            ),
            Err(Part::Profile)
        );
        let trust_anchors = patterns("arn:*:trust-anchor/");
        assert_eq!(
            judge(
                vec![Rule {
                    trust_anchors,
                    ..rule()
                }],
                "{}"
            ),
            Err(Part::TrustAnchor)
        );
        let body = r#"{"durationSeconds":3600}"#;
        assert_eq!(judge(vec![limit(3600)], body), Ok(()));
        assert_eq!(judge(vec![limit(3599)], body), Err(Part::Duration));
        assert_eq!(judge(vec![limit(43_200)], "{}"), Err(Part::Duration));
        // Any rule may permit; the one that came closest explains.
        assert_eq!(judge(vec![role("arn:x"), limit(3600)], body), Ok(()));
        assert_eq!(
            judge(vec![limit(900), role("arn:x")], body),
            Err(Part::Duration)
        );
    }
}
