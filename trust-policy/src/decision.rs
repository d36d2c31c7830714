//! A verdict, and an account of it for people.

use std::fmt;

use serde::Serialize;

/// What a policy says to one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The action that was asked for.
    pub action: String,
    /// The outcome.
    pub verdict: Verdict,
    /// Every statement of the policy, in its order.
    pub statements: Vec<StatementReport>,
}

/// The outcome; `statement` is the index in the policy's list, from 0 as in `Statement[0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// This statement allows it, and none denies it.
    Allowed {
        /// The first that does.
        statement: usize,
    },
    /// This statement denies it, whatever else allows it.
    ExplicitlyDenied {
        /// The first that does.
        statement: usize,
    },
    /// No statement allows it.
    ImplicitlyDenied,
}

/// Allow or Deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Effect {
    Allow,
    Deny,
}

/// One statement, laid against one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatementReport {
    /// From 0.
    pub index: usize,
    /// Its Sid.
    pub sid: Option<String>,
    /// Its Effect.
    pub effect: Effect,
    /// Its Principal.
    pub principal: Part,
    /// Its Action or NotAction.
    pub action: Part,
    /// Its Condition: all must hold.
    pub conditions: Vec<ConditionReport>,
}

/// An element of a statement, and what stands in the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Whether it is one of those that the statement names.
    pub fits: bool,
    /// What the statement names.
    pub expected: Vec<String>,
    /// What the request has.
    pub actual: String,
}

/// One operator with one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionReport {
    /// As the policy writes it.
    pub operator: String,
    /// As the policy writes it.
    pub key: String,
    /// The policy's values, with what their variables stand for.
    pub expected: Vec<String>,
    /// The request's values; none where the key is absent.
    pub actual: Vec<String>,
    /// Whether it held.
    pub outcome: Outcome,
}

/// Whether a condition held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did.
    Held,
    /// It did not.
    Failed,
    /// AWS does not document it; why. An Allow does not apply then, and a Deny does.
    Unclear(String),
}

impl Decision {
    /// Whether the verdict is [`Verdict::Allowed`].
    #[must_use]
    pub fn allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed { .. })
    }

    /// Whether it is denied only because of what AWS does not document: with other values there, it could be allowed.
    #[must_use]
    pub fn undecided(&self) -> bool {
        let speaks = |report: &&StatementReport| report.principal.fits && report.action.fits;
        let all = |report: &StatementReport, held: fn(&Outcome) -> bool| {
            report.conditions.iter().all(|one| held(&one.outcome))
        };
        let (mut allowed, mut denied) = (false, false);
        for report in self.statements.iter().filter(speaks) {
            match report.effect {
                Effect::Allow => allowed |= all(report, |outcome| *outcome != Outcome::Failed),
                Effect::Deny => denied |= all(report, |outcome| *outcome == Outcome::Held),
            }
        }
        !self.allowed() && allowed && !denied
    }

    /// The verdict in one line, with the statement and what decided in it.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{} is {}", self.action, self.outcome())
    }

    /// [`Decision::reason`] without the action and the verb.
    pub(crate) fn outcome(&self) -> String {
        let report = |index: usize| self.statements.get(index);
        let name = |index: usize| report(index).map(StatementReport::name).unwrap_or_default();
        match self.verdict {
            Verdict::Allowed { statement } => format!("allowed by {}", name(statement)),
            Verdict::ExplicitlyDenied { statement } => {
                let mut line = format!("denied by {}", name(statement));
                for condition in report(statement)
                    .iter()
                    .flat_map(|report| &report.conditions)
                {
                    line.push_str(&format!("; {condition}"));
                }
                line
            }
            Verdict::ImplicitlyDenied => {
                format!("allowed by no statement: {}", self.near_misses())
            }
        }
    }

    /// Of the statements that could have allowed the action, those that speak of it; of all, where none does.
    fn near_misses(&self) -> String {
        let allows = || {
            self.statements
                .iter()
                .filter(|report| report.effect == Effect::Allow)
        };
        let near: Vec<String> = allows()
            .filter(|report| report.principal.fits && report.action.fits)
            .map(StatementReport::misfit)
            .collect();
        let misses = if near.is_empty() {
            allows().map(StatementReport::misfit).collect()
        } else {
            near
        };
        if misses.is_empty() {
            return "there is no statement with Effect Allow".to_owned();
        }
        misses.join("; ")
    }
}

impl StatementReport {
    /// Whether its effect takes place. What is unclear is decided towards denial: "If the AWS enforcement code
    /// encounters an error at any point during the evaluation, then it generates an exception and closes" (policy
    /// evaluation logic).
    #[must_use]
    pub fn applies(&self) -> bool {
        self.principal.fits
            && self.action.fits
            && self.conditions.iter().all(|condition| match self.effect {
                Effect::Allow => condition.outcome == Outcome::Held,
                Effect::Deny => condition.outcome != Outcome::Failed,
            })
    }

    /// `Statement[0]`, with its Sid.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.sid {
            Some(sid) => format!("Statement[{}] \"{sid}\"", self.index),
            None => format!("Statement[{}]", self.index),
        }
    }

    /// What did not fit, in one line: principal, action, and every condition that did not hold.
    #[must_use]
    pub fn misfit(&self) -> String {
        let mut misfits = Vec::new();
        if !self.principal.fits {
            misfits.push(format!("Principal {}", self.principal));
        }
        if !self.action.fits {
            misfits.push(format!("Action {}", self.action));
        }
        let conditions = self.conditions.iter();
        misfits.extend(
            conditions
                .filter(|condition| condition.outcome != Outcome::Held)
                .map(ToString::to_string),
        );
        if misfits.is_empty() {
            misfits.push("everything fits".to_owned());
        }
        format!("{}: {}", self.name(), misfits.join(", "))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.action, self.verdict)?;
        for statement in &self.statements {
            write!(f, "{statement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Allowed { statement } => write!(f, "allowed by Statement[{statement}]"),
            Verdict::ExplicitlyDenied { statement } => {
                write!(f, "explicitly denied by Statement[{statement}]")
            }
            Verdict::ImplicitlyDenied => f.write_str("implicitly denied: no statement allows it"),
        }
    }
}

impl fmt::Display for StatementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applies = if self.applies() {
            "applies"
        } else {
            "does not apply"
        };
        writeln!(f, "  {} {:?} {applies}", self.name(), self.effect)?;
        let mark = |fits: bool| if fits { "yes" } else { "NO " };
        writeln!(
            f,
            "    {} Principal {}",
            mark(self.principal.fits),
            self.principal
        )?;
        writeln!(f, "    {} Action {}", mark(self.action.fits), self.action)?;
        for condition in &self.conditions {
            let mark = match condition.outcome {
                Outcome::Unclear(_) => "?? ",
                _ => mark(condition.outcome == Outcome::Held),
            };
            writeln!(f, "    {mark} {condition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expected.join(" | "))?;
        if !self.fits {
            write!(f, ", not {}", self.actual)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConditionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |values: &[String], between| {
            let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            values.join(between)
        };
        let expected = quoted(&self.expected, " | ");
        write!(f, "{} {} {expected}", self.operator, self.key)?;
        match self.actual.as_slice() {
            [] => f.write_str(", the request has none")?,
            actual => write!(f, ", the request has {}", quoted(actual, ", "))?,
        }
        if let Outcome::Unclear(why) = &self.outcome {
            write!(f, " (not evaluated here: {why})")?;
        }
        Ok(())
    }
}
