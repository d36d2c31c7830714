//! Who may have what signed. Any rule that matches permits; without rules only the agent's own user
//! is served.

use config::Rule;
use nix::unistd::geteuid;
use wire::{Refusal, Rule as Part};

use crate::create_session::CreateSession;
use crate::peer::Peer;

/// A request that the policy permits: the evidence, since nothing else can make one.
#[derive(Debug)]
#[must_use]
pub struct Authorised(CreateSession);

impl Authorised {
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
        self.rules_for(peer).next().is_some() || self.serves_as_owner(peer)
    }

    /// Whether this caller may see the identity: whoever may use it, root and the agent's own user.
    pub fn shows_to(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.own_uid || self.knows(peer)
    }

    /// Permits the request, or says which part of the policy does not.
    pub fn judge(&self, peer: &Peer, request: CreateSession) -> Result<Authorised, Refusal> {
        if self.serves_as_owner(peer) {
            return Ok(Authorised(request));
        }
        // Of several rules for this caller, the one that came closest tells what is wrong.
        let mut closest = None;
        for rule in self.rules_for(peer) {
            match objection(rule, &request) {
                None => return Ok(Authorised(request)),
                Some(objection) => closest = closest.max(Some(objection)),
            }
        }
        let (rule, message) = closest.unwrap_or_else(|| (Part::Caller, unnamed(peer)));
        Err(Refusal::NotPermitted { rule, message })
    }

    fn serves_as_owner(&self, peer: &Peer) -> bool {
        self.rules.is_empty() && peer.uid == self.own_uid
    }

    fn rules_for(&self, peer: &Peer) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| {
            rule.everyone
                || rule.users.contains(&peer.uid)
                || rule.groups.iter().any(|gid| peer.is_in_group(*gid))
        })
    }
}

/// To a caller whom no rule names: whether there are any is not for it to know.
pub fn unnamed(peer: &Peer) -> String {
    let uid = peer.uid;
    format!(
        "user {uid} may not use this identity: an [[identity.allow]] rule of the agent's configuration has to name it \
         (users = [{uid}]) or one of its groups"
    )
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
    use config::ArnPattern;

    const STRANGER: u32 = 4_000_001;
    const THEIR_GROUP: u32 = 4_000_002;

    fn stranger() -> Peer {
        Peer::new(STRANGER, THEIR_GROUP, 1, Accounts::Own)
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

    fn patterns(text: &str) -> Vec<ArnPattern> {
        vec![ArnPattern(text.to_owned())]
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
    pub(crate) fn authorised(body: &str) -> Authorised {
        permitted(request(body))
    }

    pub(crate) fn permitted(request: CreateSession) -> Authorised {
        Authorised(request)
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
