//! One `allow` rule of an identity.

use rolesanywhere::SessionDuration;

use crate::unit_name::UnitName;

/// One `allow` rule. Lists left empty permit anything, but for the callers, of which there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `users = ["*"]`
    pub everyone: bool,
    /// `users`, by number.
    pub users: Vec<u32>,
    /// `groups`, by number.
    pub groups: Vec<u32>,
    /// `units`; empty for any.
    pub units: Vec<UnitName>,
    /// Names in `users` and `groups` that match nobody: their number stands for everyone who has none here.
    pub unmatched: Vec<String>,
    /// `roles`
    pub roles: Vec<Pattern>,
    /// `profiles`
    pub profiles: Vec<Pattern>,
    /// `trust-anchors`
    pub trust_anchors: Vec<Pattern>,
    /// `role-session-names`; a request without a name has the empty one.
    pub role_session_names: Vec<Pattern>,
    /// `max-duration`
    pub max_duration: Option<SessionDuration>,
}

impl Rule {
    /// Returns whether another process, of a user whom the rule does not name, could be taken for one of its units where the
    /// process of a caller is known by its number alone.
    pub fn needs_identified_process(&self) -> bool {
        !self.units.is_empty() && (self.everyone || !self.names_accounts())
    }

    /// Returns whether it has `users` or `groups`, those included that match nobody. Without, any user of its units
    /// matches.
    pub fn names_accounts(&self) -> bool {
        self.everyone
            || [&self.users, &self.groups]
                .iter()
                .any(|ids| !ids.is_empty())
            || !self.unmatched.is_empty()
    }
}

/// A text in which `*` stands for any characters and `?` for one, as in IAM policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    /// Returns whether the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        glob(self.0.as_bytes(), text.as_bytes())
    }
}

/// Matches in time linear in the product of the lengths: on a mismatch, only the last `*` takes one
/// character more.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None; // where to go back to: behind the last `*`, and what it has taken so far
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(c) if *c == b'?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, t) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs_match_as_in_iam() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a**", "a", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("?", "", false),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                matches,
                "{pattern} {text}"
            );
        }
        // Would take for ever by backtracking.
        let text = "a".repeat(10_000);
        assert!(!glob("a*a*a*a*a*a*a*a*b".as_bytes(), text.as_bytes()));
    }

    /// The same by trying everything.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
            ([b'?', rest @ ..], [_, text @ ..]) => naive(rest, text),
            ([c, rest @ ..], [d, text @ ..]) => c == d && naive(rest, text),
            ([], []) => true,
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_trying_everything_finds(
            pattern in "[ab*?]{0,10}",
            text in "[ab]{0,12}",
            any: String,
        ) {
            let expected = naive(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected);
            let (around, long) = (format!("*{any}*"), format!("{text}{any}{text}"));
            prop_assert!(glob(around.as_bytes(), long.as_bytes()));
        }
    }
}
