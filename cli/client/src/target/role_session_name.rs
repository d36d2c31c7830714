//! The name of a role session: one for all, or one for each service account.

use std::str::FromStr;

use rolesanywhere::SessionName;
use service_account::SessionNameTemplate;

/// A role session's name, or how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleSessionName {
    /// The same for all.
    Fixed(SessionName),
    /// With `{namespace}` and `{service-account}`, which `roleseal serve --kubernetes` fills in.
    Template(SessionNameTemplate),
}

impl FromStr for RoleSessionName {
    type Err = String;

    fn from_str(text: &str) -> Result<RoleSessionName, String> {
        match SessionNameTemplate::is_template(text) {
            true => text.parse().map(RoleSessionName::Template),
            false => text.parse().map(RoleSessionName::Fixed),
        }
    }
}
