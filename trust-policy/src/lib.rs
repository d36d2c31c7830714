//! The trust policy of an IAM role, read as strictly as IAM reads it and judged for IAM Roles Anywhere.
//!
//! Pure: no clock, no file, no network. [`TrustPolicy::parse`] refuses what IAM would refuse, with the path of the
//! element; [`TrustPolicy::for_roles_anywhere`] tells of each of the three actions that Roles Anywhere needs whether
//! the policy allows it and, statement by statement, what did not fit.
//!
//! ```
//! # fn main() -> Result<(), trust_policy::PolicyError> {
//! use trust_policy::{SessionRequest, TrustPolicy};
//!
//! let policy = TrustPolicy::parse(
//!     r#"{
//!         "Version": "2012-10-17",
//!         "Statement": {
//!             "Effect": "Allow",
//!             "Principal": {"Service": "rolesanywhere.amazonaws.com"},
//!             "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
//!             "Condition": {"StringEquals": {"aws:PrincipalTag/x509Subject/CN": "web"}}
//!         }
//!     }"#,
//! )?;
//! let request = SessionRequest {
//!     trust_anchor_arn: "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1".to_owned(),
//!     account: "123456789012".to_owned(),
//!     tags: vec![("x509Subject/CN".to_owned(), "batch".to_owned())],
//!     source_identity: Some(trust_policy::source_identity(Some("batch"), "ff01")),
//!     session_name: "ff01".to_owned(),
//! };
//! let decisions = policy.for_roles_anywhere(&request.context());
//! assert!(!decisions.allowed());
//! assert!(decisions.reason().contains("aws:PrincipalTag/x509Subject/CN"));
//! # Ok(())
//! # }
//! ```
//!
//! The rules are those of the IAM User Guide: "Grammar of the IAM JSON policy language", "IAM JSON policy elements"
//! with its pages on each element and on condition operators, "Creating a condition with multiple keys or values", "IAM
//! policy elements: Variables and tags", and "Access Analyzer policy check reference" for what is an error in a role's
//! trust policy. Where these are silent or contradict one another, the answer is a denial that says so, since an
//! evaluator that guesses "allowed" is worse than none.

mod condition;
mod context;
mod date;
mod decision;
mod error;
mod json;
mod operator;
mod policy;
mod principal;
mod roles_anywhere;
mod template;
mod wildcard;

pub use context::Context;
pub use decision::{ConditionReport, Decision, Effect, Outcome, Part, StatementReport, Verdict};
pub use error::PolicyError;
pub use policy::TrustPolicy;
pub use principal::SERVICE_PRINCIPAL;
pub use roles_anywhere::{ACTIONS, RolesAnywhereDecision, SessionRequest, source_identity};
pub use wildcard::matches as wildcard_matches;
