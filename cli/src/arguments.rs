//! The command line. Whatever does not fit together is refused here, before anything is signed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use rolesanywhere::{
    Endpoint, ProfileArn, Region, RoleArn, SessionDuration, SessionName, Target, TrustAnchorArn,
};

use crate::request::CreateSession;
use crate::{environment, exit};

/// Temporary AWS credentials from a key that stays in its HSM or TPM.
///
/// roleseal-agent holds the way to the keys and signs IAM Roles Anywhere requests, for the local
/// processes that its policy allows. roleseal asks it, sends the request, and hands the credentials
/// to AWS tools.
#[derive(Debug, Parser)]
#[command(name = "roleseal", version, after_help = exit::HELP, after_long_help = long_help(""))]
pub(crate) struct Arguments {
    /// The agent's socket [default: see Environment in --help]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print temporary credentials for an AWS tool's `credential_process`
    ///
    /// The agent signs a CreateSession request with the identity's key, if its policy permits that;
    /// roleseal sends it to IAM Roles Anywhere and prints the credentials as JSON on standard
    /// output. On failure nothing is printed there, and the reason on standard error.
    ///
    /// The options are named as aws_signing_helper's: move its configuration line over and drop
    /// --certificate, --private-key and the like, which are the agent's affair.
    #[command(after_long_help = long_help(EXAMPLE))]
    CredentialProcess(Box<SessionArguments>),
    /// Show the agent's identities that you may use, and their state
    #[command(after_long_help = long_help(""))]
    Identities {
        /// Print them as a JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Which session is wanted, and from where.
#[derive(Debug, Args)]
pub(crate) struct SessionArguments {
    /// The agent's identity to sign with [default: the only one that you may use]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The role to assume
    #[arg(long, value_name = "ARN")]
    role_arn: RoleArn,
    /// The Roles Anywhere profile that lists the role
    #[arg(long, value_name = "ARN")]
    profile_arn: ProfileArn,
    /// The trust anchor of the identity's certificate
    #[arg(long, value_name = "ARN")]
    trust_anchor_arn: TrustAnchorArn,
    /// How long the credentials are valid, 900 to 43200 seconds; the profile may cap it
    ///
    /// AWS tools ask anew up to 15 minutes before the end: with 900 some ask for every call.
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    session_duration: SessionDuration,
    /// The role session's name, where the profile accepts one [default: the certificate's serial]
    #[arg(long, value_name = "NAME")]
    role_session_name: Option<SessionName>,
    /// An instance property, where the profile requires some; may be repeated
    #[arg(long, value_name = "K=V", value_parser = instance_property)]
    instance_property: Vec<(String, String)>,
    /// The AWS region; can only be the trust anchor's [default: the trust anchor's]
    #[arg(long)]
    region: Option<Region>,
    /// The service's URL [default: AWS's own, rolesanywhere.REGION.SUFFIX, by the ARNs' partition]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// PEM certificates to trust instead of the system's [default: $AWS_CA_BUNDLE]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_bundle: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example, in ~/.aws/config (one line after the equals sign):
  [profile web]
  credential_process = roleseal credential-process --identity web
    --role-arn arn:aws:iam::123456789012:role/web
    --profile-arn arn:aws:rolesanywhere:eu-central-1:123456789012:profile/ID
    --trust-anchor-arn arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/ID
  then: aws --profile web sts get-caller-identity

Connections to AWS are direct: HTTPS_PROXY is not used.

";

fn long_help(lead: &str) -> String {
    format!("{lead}{}\n\n{}", environment::HELP, exit::HELP)
}

impl SessionArguments {
    /// The session that they ask for, or why they do not fit together, as a usage error.
    pub(crate) fn check(self) -> Result<CreateSession, clap::Error> {
        let target = Target::new(self.role_arn, self.profile_arn, self.trust_anchor_arn)
            .map_err(|error| misfit(error.to_string()))?;
        if let Some(region) = self.region.filter(|region| region != target.region()) {
            return Err(misfit(format!(
                "--region {region} is not the trust anchor's region, {}: IAM Roles Anywhere knows \
                 a trust anchor only in its own region; leave --region out",
                target.region()
            )));
        }
        let mut instance_properties = BTreeMap::new();
        for (key, value) in self.instance_property {
            if instance_properties.contains_key(&key) {
                return Err(misfit(format!(
                    "--instance-property {key:?} is given more than once"
                )));
            }
            instance_properties.insert(key, value);
        }
        let public = || target.partition().host(target.region(), false, false);
        Ok(CreateSession {
            identity: self.identity,
            endpoint: self.endpoint.unwrap_or_else(|| Endpoint::at(public())),
            duration: self.session_duration,
            session_name: self.role_session_name,
            instance_properties,
            target,
        })
    }
}

fn misfit(message: String) -> clap::Error {
    let mut command = Arguments::command();
    command.build(); // or the usage line would lack the program's name
    let kind = ErrorKind::ArgumentConflict;
    match command.find_subcommand_mut("credential-process") {
        Some(command) => command.error(kind, message),
        None => command.error(kind, message),
    }
}

fn instance_property(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key before '=' is missing"),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("write it as KEY=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use rolesanywhere::{DEFAULT_DURATION, Partition};

    use super::*;

    /// The four options that every session needs, and `more`.
    fn parse(partition: &str, more: &[&str]) -> Result<CreateSession, clap::Error> {
        let role = format!("--role-arn=arn:{partition}:iam::123456789012:role/web");
        let regional = format!("arn:{partition}:rolesanywhere:eu-central-1:123456789012");
        let profile = format!("--profile-arn={regional}:profile/p");
        let anchor = format!("--trust-anchor-arn={regional}:trust-anchor/a");
        let fixed = ["roleseal", "credential-process", &role, &profile, &anchor];
        let arguments = Arguments::try_parse_from(fixed.iter().chain(more))?;
        match arguments.command {
            Command::CredentialProcess(session) => session.check(),
            Command::Identities { .. } => panic!("another command"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let request = parse("aws", &[]).unwrap();
        assert_eq!(request.identity, None);
        assert_eq!(request.duration, DEFAULT_DURATION);
        assert_eq!(request.session_name, None);
        assert!(request.instance_properties.is_empty());
    }

    #[test]
    fn the_endpoint_follows_the_partition() {
        let suffixes = [
            "amazonaws.com",
            "amazonaws.com.cn",
            "amazonaws.com",
            "amazonaws.eu",
            "c2s.ic.gov",
            "sc2s.sgov.gov",
            "cloud.adc-e.uk",
            "csp.hci.ic.gov",
        ];
        for (partition, suffix) in Partition::ALL.into_iter().zip(suffixes) {
            let request = parse(partition.id(), &[]).unwrap();
            assert_eq!(
                request.endpoint.host(),
                format!("rolesanywhere.eu-central-1.{suffix}")
            );
        }
        let request = parse("aws", &["--endpoint", "https://localhost:8443"]).unwrap();
        assert_eq!(request.endpoint.host(), "localhost:8443");
    }

    #[test]
    fn what_is_given_is_taken() {
        let request = parse(
            "aws",
            &[
                "--identity=web",
                "--session-duration=900",
                "--role-session-name=ci@7",
                "--instance-property=a=b=c",
                "--instance-property=d=",
                "--region=eu-central-1",
            ],
        )
        .unwrap();
        assert_eq!(request.identity.as_deref(), Some("web"));
        assert_eq!(request.duration.seconds(), 900);
        assert_eq!(request.session_name, Some("ci@7".parse().unwrap()));
        let properties: Vec<_> = request.instance_properties.into_iter().collect();
        assert_eq!(
            properties,
            [("a", "b=c"), ("d", "")].map(|(k, v)| (k.into(), v.into()))
        );
    }

    #[test]
    fn what_does_not_fit_is_a_usage_error_that_says_why() {
        let other = "arn:aws:rolesanywhere:eu-west-1:123456789012:profile/p";
        let cases: [(&[&str], &str); 9] = [
            (&["--region=eu-west-1"], "eu-central-1"),
            (&["--region=Europe"], "eu-central-1"),
            (&["--session-duration=899"], "900"),
            (&["--role-session-name=a b"], "2 to 64"),
            (&["--instance-property=a"], "KEY=VALUE"),
            (&["--instance-property==a"], "missing"),
            (
                &["--instance-property=a=1", "--instance-property=a=2"],
                "more than once",
            ),
            (&["--endpoint=http://localhost"], "https"),
            (&["--profile-arn", other], "multiple times"),
        ];
        for (more, reason) in cases {
            let error = parse("aws", more).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{more:?}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn arns_that_disagree_are_a_usage_error_of_the_command() {
        let arguments = Arguments::try_parse_from([
            "roleseal",
            "credential-process",
            "--role-arn=arn:aws:iam::210987654321:role/web",
            "--profile-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p",
            "--trust-anchor-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a",
        ]);
        let Command::CredentialProcess(session) = arguments.unwrap().command else {
            panic!("another command");
        };
        let error = session.check().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("different accounts"), "{text}");
        assert!(
            text.contains("Usage: roleseal credential-process"),
            "{text}"
        );
    }
}
