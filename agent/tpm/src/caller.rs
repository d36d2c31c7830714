//! For whom the TPM is open.

/// Who has the TPM opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The daemon.
    Agent,
    /// A person's command.
    Operator,
}

/// What it calls the place of an auth value: the daemon a setting, a command an option.
impl Caller {
    pub(crate) fn pin(self) -> &'static str {
        match self {
            Caller::Agent => "pin",
            Caller::Operator => "--pin-file, --pin-prompt …",
        }
    }

    pub(crate) fn parent_pin(self) -> &'static str {
        match self {
            Caller::Agent => "parent-pin",
            Caller::Operator => "--parent-pin-file",
        }
    }

    pub(crate) fn owner_pin(self) -> &'static str {
        match self {
            Caller::Agent => "owner-pin",
            Caller::Operator => "--owner-pin-file",
        }
    }
}
