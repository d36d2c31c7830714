//! What AWS has, or an operator should have, against a certificate.

use std::fmt;

/// One fault: of which certificate, what, how bad, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// Which certificate it is about.
    pub whose: Whose,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, as a sentence about "it".
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// The remedy for a certificate that cannot be read as it is.
pub(super) const REISSUE: &str = "have a new certificate issued";

/// Which certificate an objection is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The first one, whose key signs.
    Leaf,
    /// An intermediate: its place behind the leaf, from 1, and its subject.
    Intermediate(usize, String),
    /// A certificate of the trust anchor: its place in the bundle, from 1, and its subject.
    Anchor(usize, String),
    /// How they hang together.
    Chain,
}

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// AWS would refuse the request.
    Refused,
    /// AWS takes it, but it is seldom what was meant.
    Warning,
}

impl Objection {
    pub(super) fn refused(whose: &Whose, what: impl Into<String>, remedy: &str) -> Objection {
        Objection {
            whose: whose.clone(),
            severity: Severity::Refused,
            what: what.into(),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn warning(whose: &Whose, what: impl Into<String>, remedy: &str) -> Objection {
        Objection {
            severity: Severity::Warning,
            ..Objection::refused(whose, what, remedy)
        }
    }

    /// A certificate's file, which holds its private key as well.
    pub fn clear_key(file: &str) -> Objection {
        let what = format!("there is a private key in clear in {file}");
        Objection::warning(
            &Whose::Leaf,
            what,
            "remove it: a certificate's file is for everybody to read, and the key belongs on a token",
        )
    }

    /// Whether AWS would refuse the request.
    pub fn is_refusal(&self) -> bool {
        self.severity == Severity::Refused
    }
}

/// A sentence about the certificate, which a caller names before it.
impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.whose {
            Whose::Leaf | Whose::Chain => {}
            other => write!(f, "{other}: ")?,
        }
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Whose::Leaf => f.write_str("leaf"),
            Whose::Intermediate(number, subject) => write!(f, "intermediate {number} ({subject})"),
            Whose::Anchor(number, subject) => write!(f, "trust anchor {number} ({subject})"),
            Whose::Chain => f.write_str("chain"),
        }
    }
}
