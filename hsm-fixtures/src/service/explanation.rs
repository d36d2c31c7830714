//! How one request was decided, as a table for people.

use std::fmt;

use trust_policy::RolesAnywhereDecision;

/// What was looked at, in that order, and the trust policy's statements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanation {
    rows: Vec<(&'static str, String)>,
    policy: Option<RolesAnywhereDecision>,
    verdict: String,
}

/// Columns of the first column.
const WIDTH: usize = 16;

impl Explanation {
    /// Adds a row; a name that is the same as above is not repeated.
    pub(crate) fn row(&mut self, name: &'static str, text: impl Into<String>) {
        self.rows.push((name, text.into()));
    }

    pub(crate) fn policy(&mut self, decision: RolesAnywhereDecision) {
        self.policy = Some(decision);
    }

    pub(crate) fn verdict(&mut self, verdict: impl Into<String>) {
        self.verdict = verdict.into();
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = "";
        for (name, text) in &self.rows {
            let shown = if *name == above { "" } else { name };
            writeln!(f, "{shown:WIDTH$}{text}")?;
            above = name;
        }
        if let Some(policy) = &self.policy {
            writeln!(f, "trust policy")?;
            for line in policy.to_string().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        writeln!(f, "{:WIDTH$}{}", "verdict", self.verdict)
    }
}
