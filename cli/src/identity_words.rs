//! How people are told of the agent's identities.

use wire::{Identity, State};

/// Where there is none.
pub(crate) const NONE: &str = "\
The agent has no identity that you may use.
Its operator permits one to you with an [[identity.allow]] rule in the agent's configuration.
";

/// Why it does not sign, and what should not stay so.
pub(crate) fn remarks(identity: &Identity) -> Vec<String> {
    let warnings = identity.warnings.iter();
    let warnings = warnings.map(|warning| format!("warning: {warning}"));
    identity.message.iter().cloned().chain(warnings).collect()
}

/// The wire's words, so that the tables and the JSON say the same.
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Opening => "opening",
        State::Ready => "ready",
        State::Unavailable => "unavailable",
        State::PinRejected => "pinRejected",
        State::Unusable => "unusable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_on_the_wire() {
        for one in [
            State::Opening,
            State::Ready,
            State::Unavailable,
            State::PinRejected,
            State::Unusable,
        ] {
            assert_eq!(
                serde_json::to_string(&one).unwrap(),
                format!("{:?}", state(one))
            );
        }
    }
}
