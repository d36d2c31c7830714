//! The findings of the checks, for people and for programs.

use serde::Serialize;

use client::Diagnostic;
use client::exit::Exit;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) outcome: Outcome,
    /// What was looked at, and what was seen; or why it was not.
    pub(crate) detail: String,
    /// What to do, where there is something to do.
    pub(crate) remedy: Option<String>,
}

/// The checks, in the order of the way from this user to AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    Target,
    Socket,
    Agent,
    Identity,
    Token,
    Certificate,
    Permission,
    Signature,
    Proxy,
    Name,
    Connection,
    Tls,
    Clock,
    Session,
    TrustPolicy,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// It works, but should not stay so.
    Warning,
    /// It does not work; with the exit code of a command that fails for this.
    Failed(Exit),
    /// It was not looked at.
    Skipped,
}

impl Finding {
    pub(crate) fn ok(check: Check, detail: impl Into<String>) -> Finding {
        Finding::new(check, Outcome::Ok, detail.into(), None)
    }

    pub(crate) fn warning(
        check: Check,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(check, Outcome::Warning, detail.into(), Some(remedy.into()))
    }

    pub(crate) fn failed(
        check: Check,
        exit: Exit,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let outcome = Outcome::Failed(exit);
        Finding::new(check, outcome, detail.into(), Some(remedy.into()))
    }

    pub(crate) fn skipped(check: Check, why: impl Into<String>) -> Finding {
        Finding::new(check, Outcome::Skipped, why.into(), None)
    }

    /// A failure with the text, hint and exit code of its error.
    pub(crate) fn error(check: Check, error: &dyn Diagnostic) -> Finding {
        let remedy = error.hint().unwrap_or_else(|| NO_HINT.to_owned());
        Finding::failed(check, error.exit(), error.to_string(), remedy)
    }

    fn new(check: Check, outcome: Outcome, detail: String, remedy: Option<String>) -> Finding {
        Finding {
            check,
            outcome,
            detail,
            remedy,
        }
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

const NO_HINT: &str = "the message is all that is known";

/// Returns each check as skipped for that reason.
pub(crate) fn skipped(checks: &[Check], why: &str) -> Vec<Finding> {
    checks
        .iter()
        .map(|check| Finding::skipped(*check, why))
        .collect()
}

impl Check {
    /// As the JSON names it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Check::Target => "target",
            Check::Socket => "socket",
            Check::Agent => "agent",
            Check::Identity => "identity",
            Check::Token => "token",
            Check::Certificate => "certificate",
            Check::Permission => "permission",
            Check::Signature => "signature",
            Check::Proxy => "proxy",
            Check::Name => "name",
            Check::Connection => "connection",
            Check::Tls => "tls",
            Check::Clock => "clock",
            Check::Session => "session",
            Check::TrustPolicy => "trust-policy",
        }
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped => "skipped",
        }
    }
}

/// How the first check that failed would end a command.
pub(crate) fn exit(findings: &[Finding]) -> Option<Exit> {
    findings.iter().find_map(|finding| match finding.outcome {
        Outcome::Failed(exit) => Some(exit),
        _ => None,
    })
}

/// As programs read them: the members stay as they are, and all are there each time.
pub(crate) fn json(findings: &[Finding]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'f> {
        check: Check,
        state: &'static str,
        detail: &'f str,
        remedy: Option<&'f str>,
        exit: u8,
    }
    let lines: Vec<_> = findings
        .iter()
        .map(|finding| Line {
            check: finding.check,
            state: finding.outcome.word(),
            detail: &finding.detail,
            remedy: finding.remedy.as_deref(),
            exit: match finding.outcome {
                Outcome::Failed(exit) => exit as u8,
                _ => 0,
            },
        })
        .collect();
    Ok(serde_json::to_string_pretty(&lines)? + "\n")
}

/// As people read them, and a last line that says what it comes to.
pub(crate) fn show(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let (state, check) = (finding.outcome.word(), finding.check.word());
        let indent = format!("\n{:24}", "");
        let detail = finding.detail.replace('\n', &indent);
        text += &format!("{state:7}  {check:12}   {detail}\n");
        if let Some(remedy) = &finding.remedy {
            let remedy = remedy.replace('\n', &format!("{indent}   "));
            text += &format!("{:24}-> {remedy}\n", "");
        }
    }
    text + "\n" + &summary(findings) + "\n"
}

fn summary(findings: &[Finding]) -> String {
    let count =
        |what: fn(&Outcome) -> bool| findings.iter().filter(|one| what(&one.outcome)).count();
    let plural = |number, word: &str| match number {
        1 => format!("1 {word}"),
        number => format!("{number} {word}s"),
    };
    let warnings = plural(count(|one| *one == Outcome::Warning), "warning");
    let failures = plural(count(|one| matches!(one, Outcome::Failed(_))), "failure");
    match (findings.iter().find(|one| one.is_failure()), exit(findings)) {
        (Some(first), Some(exit)) => format!(
            "{failures}, {warnings}. Begin with the first failure: {} (exit code {}).",
            first.check.word(),
            exit as u8
        ),
        _ => format!("No failure, {warnings}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok(Check::Socket, "/s"),
            Finding::warning(Check::Certificate, "it ends soon", "renew it\nnow"),
            Finding::failed(Check::Token, Exit::TokenTrouble, "it is gone", "plug it in"),
            Finding::failed(Check::Tls, Exit::Network, "not trusted", "trust it"),
            Finding::skipped(Check::Session, "no signature"),
        ]
    }

    #[test]
    fn people_read_lines_with_remedies() {
        assert_eq!(
            show(&findings()),
            "\
ok       socket         /s
warning  certificate    it ends soon
                        -> renew it
                           now
failed   token          it is gone
                        -> plug it in
failed   tls            not trusted
                        -> trust it
skipped  session        no signature

2 failures, 1 warning. Begin with the first failure: token (exit code 5).
"
        );
        assert_eq!(show(&[]), "\nNo failure, 0 warnings.\n");
    }

    #[test]
    fn programs_read_the_same_members_each_time() {
        let lines: serde_json::Value = serde_json::from_str(&json(&findings()).unwrap()).unwrap();
        let row = |at: usize| lines[at].to_string();
        let socket = r#"{"check":"socket","detail":"/s","exit":0,"remedy":null,"state":"ok"}"#;
        assert_eq!(row(0), socket);
        let token = r#"{"check":"token","detail":"it is gone","exit":5,"remedy":"plug it in","state":"failed"}"#;
        assert_eq!(row(2), token);
        for at in 0..5 {
            assert_eq!(lines[at].as_object().unwrap().len(), 5);
            assert_eq!(lines[at]["check"], findings()[at].check.word());
        }
    }

    #[test]
    fn the_first_failure_is_the_exit() {
        assert_eq!(exit(&findings()), Some(Exit::TokenTrouble));
        assert_eq!(exit(&findings()[..2]), None);
    }
}
