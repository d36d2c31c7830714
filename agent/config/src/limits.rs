//! `[limits]`: what one user, and all together, may take of the agent.

use serde::Deserialize;

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Each costs a descriptor; while its client asks for something, a thread as well.
    pub connections: u32,
    /// Of them, of one user.
    pub connections_per_user: u32,
    /// Of them, of all users together whom no rule names.
    pub connections_unnamed: u32,
    /// Requests that one user may make in a second, and so many more at once; `None` is any number.
    pub requests_per_second_per_user: Option<u32>,
    /// Calls of any kind that a user whom no rule names may make in a second, and so many more at once.
    pub requests_per_second_unnamed: u32,
}

impl Default for Limits {
    /// As many as a large host has at once.
    fn default() -> Limits {
        Limits {
            connections: 1024,
            connections_per_user: 512,
            connections_unnamed: 64,
            requests_per_second_per_user: None,
            requests_per_second_unnamed: 10,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LimitsTable {
    connections: Option<Count<65_536>>,
    connections_per_user: Option<Count<65_536>>,
    connections_unnamed: Option<Count<65_536>>,
    requests_per_second_per_user: Option<Count<1_000_000>>,
    requests_per_second_unnamed: Option<Count<1_000_000>>,
}

impl LimitsTable {
    pub(crate) fn validate(self) -> Result<Limits, String> {
        let default = Limits::default();
        let or = |count: Option<Count<65_536>>, default| count.map_or(default, |count| count.0);
        let connections = or(self.connections, default.connections);
        let per_user = or(
            self.connections_per_user,
            default.connections_per_user.min(connections),
        );
        // Of a small table, a small part as well.
        let unnamed = or(
            self.connections_unnamed,
            default.connections_unnamed.min((connections / 16).max(1)),
        );
        for (key, count) in [("per-user", per_user), ("unnamed", unnamed)] {
            if count > connections {
                return Err(format!(
                    "limits.connections-{key} is {count}, more than limits.connections, {connections}: \
                     lower the one or raise the other"
                ));
            }
        }
        Ok(Limits {
            connections,
            connections_per_user: per_user,
            connections_unnamed: unnamed,
            requests_per_second_per_user: self.requests_per_second_per_user.map(|count| count.0),
            requests_per_second_unnamed: self
                .requests_per_second_unnamed
                .map_or(default.requests_per_second_unnamed, |count| count.0),
        })
    }
}

/// A number from 1 to `MOST`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
struct Count<const MOST: u32>(u32);

impl<const MOST: u32> TryFrom<i64> for Count<MOST> {
    type Error = String;

    fn try_from(number: i64) -> Result<Count<MOST>, String> {
        match u32::try_from(number) {
            Ok(count @ 1..) if count <= MOST => Ok(Count(count)),
            _ => Err(format!("{number} is not a number from 1 to {MOST}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{WEB, assert_refused, load};

    #[test]
    fn one_user_has_no_more_than_all_together() {
        let limits = |table: &str| format!("[limits]\n{table}\n{WEB}");
        let few = load(&limits("connections = 8")).unwrap().limits;
        assert_eq!((few.connections, few.connections_per_user), (8, 8));
        assert_eq!(few.connections_unnamed, 1);
        for (table, fault) in [
            (
                "connections = 8\nconnections-per-user = 9",
                "raise the other",
            ),
            (
                "connections = 8\nconnections-unnamed = 9",
                "raise the other",
            ),
            ("requests-per-second-unnamed = 0", "not a number from 1"),
            ("connections = 0", "FILE:2: 0 is not a number from 1"),
            ("connections = 65537", "not a number from 1 to 65536"),
        ] {
            assert_refused(&limits(table), fault);
        }
    }
}
