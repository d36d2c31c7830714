//! What AWS has, or an operator should have, against a certificate.

use std::fmt;

/// One fault: of which certificate, what, how bad, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which certificate it is about.
    pub whose: CertificateRef,
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
pub enum CertificateRef {
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

impl Violation {
    pub(super) fn refused(
        whose: &CertificateRef,
        what: impl Into<String>,
        remedy: &str,
    ) -> Violation {
        Violation {
            whose: whose.clone(),
            severity: Severity::Refused,
            what: what.into(),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn warning(
        whose: &CertificateRef,
        what: impl Into<String>,
        remedy: &str,
    ) -> Violation {
        Violation {
            severity: Severity::Warning,
            ..Violation::refused(whose, what, remedy)
        }
    }

    /// A certificate's file, which holds its private key as well.
    pub fn clear_key(file: &str) -> Violation {
        let what = format!("there is a private key in clear in {file}");
        Violation::warning(
            &CertificateRef::Leaf,
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
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.whose {
            CertificateRef::Leaf | CertificateRef::Chain => {}
            other => write!(f, "{other}: ")?,
        }
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

impl fmt::Display for CertificateRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CertificateRef::Leaf => f.write_str("leaf"),
            CertificateRef::Intermediate(number, subject) => {
                write!(f, "intermediate {number} ({subject})")
            }
            CertificateRef::Anchor(number, subject) => {
                write!(f, "trust anchor {number} ({subject})")
            }
            CertificateRef::Chain => f.write_str("chain"),
        }
    }
}
