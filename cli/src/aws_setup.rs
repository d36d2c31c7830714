//! `roleseal aws-setup`: what makes the AWS side, to read and to run elsewhere.

mod arguments;
mod cloudformation;
mod shell;
mod terraform;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rolesanywhere::certificate::{
    Certificate, Objection, SessionFacts, anchor_objections, is_tag_value,
};
use thiserror::Error;

use arguments::SetupName;
pub(crate) use arguments::{AwsSetupArguments, EXAMPLES, Format};

use client::Diagnostic;
use client::exit::Exit;
use client::input;
use client::progress;

use crate::binding::Binding;
use crate::certificate_source::{self, CertificateArguments, SourceError};
use crate::common::Common;
use crate::output::{self, OutputError};
use crate::policy_document::{Node, Reference, policy};

/// Why there is nothing to print.
#[derive(Debug, Error)]
pub(crate) enum AwsSetupError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("AWS would refuse {}:\n{faults}", .file.display())]
    WouldBeRefused { file: PathBuf, faults: String },
    #[error("{0}")]
    Unbound(String),
    #[error("session policy {}: {fault}", .file.display())]
    SessionPolicy { file: PathBuf, fault: String },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Diagnostic for AwsSetupError {
    fn exit(&self) -> Exit {
        match self {
            AwsSetupError::Source(error) => error.exit(),
            AwsSetupError::WouldBeRefused { .. } => Exit::RefusedByAws,
            AwsSetupError::Unbound(_) => Exit::Usage,
            AwsSetupError::SessionPolicy { .. } | AwsSetupError::Output(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            AwsSetupError::Source(error) => error.hint(),
            _ => None,
        }
    }
}

/// What is to be made.
#[derive(Debug)]
struct Setup {
    /// Of trust anchor and profile, and of the target.
    name: SetupName,
    role_name: String,
    /// The trust anchor's certificates, PEM and nothing else.
    bundle: String,
    trust_policy: Node,
    /// The profile's, as it was written.
    session_policy: Option<String>,
    /// The role's.
    managed_policies: Vec<String>,
    region: Option<String>,
    account: Option<String>,
}

impl Setup {
    /// The table of a targets file, with the ARNs as each format writes them.
    fn target(&self, role: &str, profile: &str, anchor: &str) -> String {
        let name = &self.name;
        format!(
            "[target.{name}]\nidentity = \"{name}\"\nrole-arn = \"{role}\"\nprofile-arn = \"{profile}\"\n\
             trust-anchor-arn = \"{anchor}\"\n"
        )
    }
}

pub(crate) fn run(common: &Common, wanted: &AwsSetupArguments) -> Result<(), AwsSetupError> {
    let files = std::iter::once(&wanted.ca_file).chain(&wanted.certificate);
    certificate_source::check_standard_input(files)?;
    let anchors = certificate_source::read(&wanted.ca_file)?;
    let mut remarks = Vec::new();
    let objections = anchor_objections(&anchors, Timestamp::now());
    judge(&wanted.ca_file, objections, &mut remarks)?;
    let binding = binding(wanted, &anchors, &mut remarks)?;
    let session_policy = wanted.session_policy.as_deref().map(session_policy);
    let setup = Setup {
        name: wanted.name.clone(),
        role_name: wanted
            .role_name
            .as_ref()
            .map_or_else(|| wanted.name.to_string(), ToString::to_string),
        bundle: bundle(&wanted.ca_file, &anchors)?,
        trust_policy: policy(
            &binding,
            Node::Reference(Reference::Anchor),
            Node::Reference(Reference::Account),
        ),
        session_policy: session_policy.transpose()?,
        managed_policies: wanted
            .managed_policy
            .iter()
            .map(ToString::to_string)
            .collect(),
        region: wanted.region.as_ref().map(ToString::to_string),
        account: wanted.account.as_ref().map(ToString::to_string),
    };
    let text = match wanted.format {
        Format::Cli => shell::render(&setup),
        Format::Cloudformation => cloudformation::render(&setup),
        Format::Terraform => terraform::render(&setup),
    };
    if setup.managed_policies.is_empty() {
        remarks.push(
            "the role has no permission yet: attach policies to it, or name some with --managed-policy"
                .to_owned(),
        );
    }
    if !common.quiet {
        remarks.insert(0, binding.to_string());
        progress::note(&remarks.join("\n"));
    }
    Ok(output::print_text(&text)?)
}

/// What the role is for: the certificate that is there, or the common name of one to come.
fn binding(
    wanted: &AwsSetupArguments,
    anchors: &[Certificate],
    remarks: &mut Vec<String>,
) -> Result<Binding, AwsSetupError> {
    let Some(file) = &wanted.certificate else {
        let name = wanted.common_name.clone();
        let name = name.unwrap_or_else(|| wanted.name.to_string());
        return match is_tag_value(&name) {
            true => Ok(Binding::to_common_name(name)),
            false => Err(AwsSetupError::Unbound(format!(
                "{name:?} can be no tag of a session: 1 to 256 letters, digits, spaces or any of _.:/=+-@"
            ))),
        };
    };
    let files = CertificateArguments {
        files: vec![file.clone()],
        identity: None,
    };
    let chain = files.chain(Path::new(""))?;
    let objections = chain.objections(Some(anchors), Timestamp::now());
    judge(file, objections, remarks)?;
    Binding::of(&SessionFacts::of(chain.leaf()), &wanted.by).map_err(AwsSetupError::Unbound)
}

/// An error if one of them is a refusal; the others are remarks.
fn judge(
    file: &Path,
    objections: Vec<Objection>,
    remarks: &mut Vec<String>,
) -> Result<(), AwsSetupError> {
    let (refused, doubts): (Vec<_>, Vec<_>) =
        objections.into_iter().partition(Objection::is_refusal);
    if refused.is_empty() {
        remarks.extend(doubts.iter().map(ToString::to_string));
        return Ok(());
    }
    let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
    Err(AwsSetupError::WouldBeRefused {
        file: file.to_owned(),
        faults: lines.join("\n"),
    })
}

/// STS takes 2,048 characters of a session policy.
const SESSION_POLICY_LIMIT: usize = 2048;

/// With room for white space; a device is read to no end.
const FILE_LIMIT: u64 = 64 * 1024;

fn session_policy(file: &Path) -> Result<String, AwsSetupError> {
    let error = |fault: String| AwsSetupError::SessionPolicy {
        file: file.to_owned(),
        fault,
    };
    let text = input::read_text(file, FILE_LIMIT)
        .map_err(|fault| error(format!("cannot read it: {fault}")))?;
    let document: serde_json::Value =
        serde_json::from_str(&text).map_err(|fault| error(format!("it is not JSON: {fault}")))?;
    match document.get("Statement") {
        Some(_) if compact(&text).chars().count() > SESSION_POLICY_LIMIT => {
            let limit = SESSION_POLICY_LIMIT;
            Err(error(format!(
                "it has more than {limit} characters, which is what AWS takes"
            )))
        }
        Some(_) => Ok(compact(&text)),
        None => Err(error("it is no policy: it has no Statement".to_owned())),
    }
}

/// JSON without the white space between its tokens: AWS counts it, too.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|c| {
        let keep = in_string || !c.is_ascii_whitespace();
        match (*c, escaped) {
            ('"', false) => in_string = !in_string,
            ('\\', false) if in_string => {
                escaped = true;
                return keep;
            }
            _ => {}
        }
        escaped = false;
        keep
    });
    kept.collect()
}

/// The longest bundle that Roles Anywhere accepts, in characters (SourceData, API reference).
const BUNDLE_LIMIT: usize = 204_800;

fn bundle(file: &Path, anchors: &[Certificate]) -> Result<String, AwsSetupError> {
    let text: String = anchors.iter().map(pem).collect();
    match text.len() > BUNDLE_LIMIT {
        true => Err(AwsSetupError::WouldBeRefused {
            file: file.to_owned(),
            faults: format!(
                "its {} certificates have {} characters, and AWS takes at most {BUNDLE_LIMIT}: keep only those \
             that certificates of the role lead to",
                anchors.len(),
                text.len()
            ),
        }),
        false => Ok(text),
    }
}

/// RFC 7468: 64 characters a line.
fn pem(certificate: &Certificate) -> String {
    let encoded = BASE64.encode(certificate.der());
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        let _ = writeln!(text, "{line}"); // a String takes any text
        rest = after;
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_no_longer_than_aws_takes() {
        let one = crate::doctor::tests::certificate();
        let length = pem(&one).len();
        let fitting = BUNDLE_LIMIT / length;
        let of = |count| bundle(Path::new("ca.pem"), &vec![one.clone(); count]);
        assert_eq!(of(fitting).unwrap().len(), fitting * length);
        let error = of(fitting + 1).unwrap_err();
        assert_eq!(error.exit(), Exit::RefusedByAws);
        assert!(
            error.to_string().contains(&BUNDLE_LIMIT.to_string()),
            "{error}"
        );
    }

    #[test]
    fn white_space_goes_and_strings_stay() {
        let text = "{ \"a b\" :\t[ \"c\\\\\" , \"d \\\" e\" ,\r\n 1 ] }\n";
        let small = compact(text);
        assert_eq!(small, "{\"a b\":[\"c\\\\\",\"d \\\" e\",1]}");
        let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(same(&small), same(text));
    }
}
