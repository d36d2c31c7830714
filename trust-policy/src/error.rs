//! Why a document is no trust policy that can be judged here.

/// A document that was refused. IAM refuses a malformed one when it is saved to a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No JSON at all.
    #[error("MalformedPolicyDocument: this is no JSON: {0}")]
    Syntax(String),
    /// JSON that is no trust policy.
    #[error("MalformedPolicyDocument: {}{problem}", at(path))]
    Malformed {
        /// Where, such as `Statement[0].Principal.Service`.
        path: String,
        /// What is wrong there, and what to write instead.
        problem: String,
    },
    /// Longer than IAM stores.
    #[error(
        "LimitExceeded: the policy has {0} characters without white space; IAM stores 2048 in a role's trust policy, \
         and 4096 at the most after a quota increase"
    )]
    TooLong(usize),
    /// IAM may take it; this evaluator does not know what it means, and does not guess.
    #[error("not evaluated here: {}{problem}", at(path))]
    NotEvaluated {
        /// Where.
        path: String,
        /// What is not evaluated.
        problem: String,
    },
}

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

impl PolicyError {
    pub(crate) fn malformed(path: &str, problem: impl Into<String>) -> PolicyError {
        PolicyError::Malformed {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn not_evaluated(path: &str, problem: impl Into<String>) -> PolicyError {
        PolicyError::NotEvaluated {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}
