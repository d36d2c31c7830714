//! `roleseal aws-setup`: what makes the AWS side, to read and to run elsewhere.

mod arguments;
mod stack_name;
mod syntax;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rolesanywhere::certificate::{
    Certificate, SessionFacts, Violation, anchor_objections, is_tag_value,
};
use thiserror::Error;

pub(crate) use arguments::{AwsSetupArguments, EXAMPLES, Format};
use stack_name::stack_name;

use client::Diagnostic;
use client::exit::Exit;
use client::input;
use client::progress;

use crate::binding::Binding;
use crate::certificate_source::{self, CertificateArguments, SourceError};
use crate::common::Common;
use crate::output::{self, OutputError};
use crate::policy_document::{policy, quoted_json};
use crate::template::fill;

/// Why there is nothing to print.
#[derive(Debug, Error)]
pub(crate) enum AwsSetupError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("AWS would refuse {}:\n{faults}", .file.display())]
    WouldBeRefused { file: PathBuf, faults: String },
    #[error(
        "cannot print a script for {}: its certificates have {length} bytes, and a command's argument at most \
         {SCRIPT_LIMIT}: choose another --format", .file.display()
    )]
    TooLongForScript { file: PathBuf, length: usize },
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
            AwsSetupError::TooLongForScript { .. } | AwsSetupError::Unbound(_) => Exit::Usage,
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

pub(crate) fn run(common: &Common, wanted: &AwsSetupArguments) -> Result<(), AwsSetupError> {
    let files = std::iter::once(&wanted.ca_file).chain(&wanted.certificate);
    certificate_source::check_standard_input(files)?;
    let anchors = certificate_source::read(&wanted.ca_file)?;
    let mut remarks = Vec::new();
    let objections = anchor_objections(&anchors, Timestamp::now());
    judge(&wanted.ca_file, objections, &mut remarks)?;
    let binding = binding(wanted, &anchors, &mut remarks)?;
    let text = filled(wanted, &anchors, &binding)?;
    if wanted.managed_policy.is_empty() {
        remarks.push(
            "the role has no permission yet: attach policies to it, or name some with --managed-policy"
                .to_owned(),
        );
    }
    if wanted.format == Format::Cloudformation && text.len() > DEPLOY_LIMIT {
        remarks.push(format!(
            "the template has more than {DEPLOY_LIMIT} bytes: give `aws cloudformation deploy` --s3-bucket BUCKET, too"
        ));
    }
    if !common.quiet {
        remarks.insert(0, binding.to_string());
        progress::note(&remarks.join("\n"));
    }
    Ok(output::print_text(&text)?)
}

fn filled(
    wanted: &AwsSetupArguments,
    anchors: &[Certificate],
    binding: &Binding,
) -> Result<String, AwsSetupError> {
    let syntax = wanted.format.syntax();
    let bundle = (syntax.style.string)(&bundle(wanted.format, &wanted.ca_file, anchors)?);
    let session_policy = wanted.session_policy.as_deref().map(session_policy);
    let session_policy = session_policy.transpose()?.as_deref().map(syntax.document);
    let trust_policy = policy(binding, &syntax.style, syntax.anchor, syntax.account);
    let documents = [
        ("bundle", vec![bundle]),
        ("trust_policy", vec![trust_policy]),
        ("session_policy", Vec::from_iter(session_policy)),
    ];
    let values = [names(wanted), documents.into()].concat();
    Ok(fill(syntax.template, &values))
}

/// The template's values that need no quotes: the types of the arguments allow no character with a meaning.
fn names(wanted: &AwsSetupArguments) -> Vec<(&'static str, Vec<String>)> {
    let name = wanted.name.to_string();
    let role_name = wanted.role_name.as_ref().map(ToString::to_string);
    let region = wanted.region.as_ref().map(ToString::to_string);
    let region_option = region.as_ref().map(|region| format!(" --region {region}"));
    let account = wanted.account.as_ref().map(ToString::to_string);
    let policies = wanted.managed_policy.iter().map(ToString::to_string);
    let policies: Vec<String> = policies.collect();
    let quoted: Vec<String> = policies.iter().map(|arn| quoted_json(arn)).collect();
    let policy_list = (!quoted.is_empty()).then(|| quoted.join(", "));
    vec![
        ("stack", vec![stack_name(&name)]),
        ("role_name", vec![role_name.unwrap_or_else(|| name.clone())]),
        ("name", vec![name]),
        ("region", Vec::from_iter(region)),
        ("region_option", Vec::from_iter(region_option)),
        ("account", Vec::from_iter(account)),
        ("managed_policy", policies),
        ("managed_policies", Vec::from_iter(policy_list)),
    ]
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
    objections: Vec<Violation>,
    remarks: &mut Vec<String>,
) -> Result<(), AwsSetupError> {
    let (refused, doubts): (Vec<_>, Vec<_>) =
        objections.into_iter().partition(Violation::is_refusal);
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

/// The bytes of a trust anchor's bundle (SourceDataX509CertificateDataString, IAM Roles Anywhere's API model).
const BUNDLE_LIMIT: usize = 204_800;

/// Linux passes 131,072 bytes as one argument (MAX_ARG_STRLEN); the line breaks' escapes and the JSON around need room.
const SCRIPT_LIMIT: usize = 128_000;

/// `aws cloudformation deploy` sends larger templates by S3.
const DEPLOY_LIMIT: usize = 51_200;

fn bundle(format: Format, file: &Path, anchors: &[Certificate]) -> Result<String, AwsSetupError> {
    let text: String = anchors.iter().map(pem).collect();
    let (file, length) = (file.to_owned(), text.len());
    if length > BUNDLE_LIMIT {
        let faults = format!(
            "its {} certificates have {length} bytes, and AWS takes at most {BUNDLE_LIMIT}: keep only those that \
             certificates of the role lead to",
            anchors.len()
        );
        return Err(AwsSetupError::WouldBeRefused { file, faults });
    }
    match format {
        Format::Cli if length > SCRIPT_LIMIT => {
            Err(AwsSetupError::TooLongForScript { file, length })
        }
        _ => Ok(text),
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
    fn a_bundle_is_no_longer_than_aws_and_the_script_take() {
        let one = crate::doctor::tests::certificate();
        let length = pem(&one).len();
        let of = |format, bytes: usize| {
            let text = bundle(
                format,
                Path::new("ca.pem"),
                &vec![one.clone(); bytes / length],
            );
            text.map(|text| text.len() / length)
                .map_err(|error| error.exit())
        };
        let fits = |bytes| Ok(bytes / length);
        assert_eq!(of(Format::Cli, 100_000), fits(100_000));
        assert_eq!(of(Format::Cli, 200_000), Err(Exit::Usage));
        assert_eq!(of(Format::Terraform, 204_800), fits(204_800));
        for format in [Format::Cli, Format::Cloudformation, Format::Terraform] {
            assert_eq!(of(format, 204_800 + length), Err(Exit::RefusedByAws));
        }
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
