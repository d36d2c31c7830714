//! The command line. Whatever does not fit together is refused here, before anything is signed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use client::environment;
use client::exit;

use crate::aws_setup::{self, AwsSetupArguments};
use crate::common::{Common, SessionArguments};
use crate::doctor::{self, DoctorArguments};
use crate::env::EnvArguments;
use crate::exec::ExecArguments;
use crate::inspect::{self, InspectArguments};
use crate::serve::ServeArguments;
use crate::status::StatusArguments;
use crate::trust_policy::{self, TrustPolicyArguments};
use crate::update::{self, UpdateArguments};

/// Temporary AWS credentials from a key that stays in its HSM or TPM.
///
/// roleseal-agent holds the way to the keys and signs IAM Roles Anywhere requests, for the local
/// processes that its policy allows. roleseal asks it, sends the request, and hands the credentials
/// to AWS tools. The agent and its token programs are installed separately: `cargo install` of this
/// program does not bring them.
#[derive(Debug, Parser)]
#[command(name = "roleseal", version, after_help = exit::HELP, after_long_help = long_help(""))]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
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
    /// The options are named as aws_signing_helper's; --certificate, --private-key and the like say where
    /// they are now.
    #[command(after_long_help = long_help(EXAMPLE))]
    CredentialProcess(Box<SessionArguments>),
    /// Print temporary credentials as environment variables
    ///
    /// In sh: eval "$(roleseal env --target web)"; in fish: roleseal env --target web --format fish |
    /// source. They end at AWS_CREDENTIAL_EXPIRATION: what runs for longer should ask by itself.
    #[command(after_long_help = long_help(""))]
    Env(Box<EnvArguments>),
    /// Hand out credentials over HTTP, as EC2, ECS and EKS do
    ///
    /// Each target has a URL for AWS_CONTAINER_CREDENTIALS_FULL_URI and a token file for
    /// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: the program says them when it starts. With --imds, one of
    /// them is also handed out as EC2's instance metadata, for AWS_EC2_METADATA_SERVICE_ENDPOINT. With --kubernetes,
    /// pods show their service-account tokens instead, and no target has a token file.
    ///
    /// Sessions are renewed ahead of their end, and a failure leaves the last one in use until then.
    #[command(after_long_help = long_help(""))]
    Serve(ServeArguments),
    /// Run a command with credentials that are renewed as long as it runs
    ///
    /// The command finds a private endpoint in its environment, and nothing that would make an AWS tool
    /// look elsewhere. Signals are passed on; the exit status is the command's, or 128 and the number of the
    /// signal that ended it. If there is no session, it is not started.
    #[command(after_long_help = long_help(""))]
    Exec(Box<ExecArguments>),
    /// Check every step from this user to AWS and suggest fixes
    ///
    /// Prints a line for each check: ok, warning, failed or skipped, and a remedy where there is one. With a
    /// target, the agent signs a request, and AWS grants one session, which is discarded; without a target, the
    /// agent and its tokens are checked. No PIN is tried.
    ///
    /// AWS does not say which part of a role's trust policy denies a session: --trust-policy does.
    #[command(after_long_help = long_help(doctor::EXAMPLE))]
    Doctor(Box<DoctorArguments>),
    /// Show the state of identities and of served sessions
    ///
    /// A missing roleseal serve is a failure only with --listen.
    #[command(after_long_help = long_help(""))]
    Status(StatusArguments),
    /// Keep profiles of AWS's shared credentials file fresh
    ///
    /// Runs until it is ended (SIGTERM, Ctrl-C), and renews the credentials ahead of their end; with
    /// --once, writes them and ends. For tools that know neither credential_process nor a container
    /// endpoint. Nothing else in the file changes; it is replaced at once, never seen in part.
    #[command(after_long_help = long_help(update::EXAMPLE))]
    Update(Box<UpdateArguments>),
    /// Show the targets of the targets files, and what they lead to
    #[command(after_long_help = long_help(""))]
    Targets {
        /// Print them as a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show the agent's identities that you may use, and their state
    #[command(after_long_help = long_help(""))]
    Identities {
        /// Print them as a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show a certificate as IAM Roles Anywhere reads it, and why it would be refused
    ///
    /// Shows the serial number, the names and the session's tags; checks every rule of IAM Roles Anywhere, the
    /// intermediates' order and signatures and, with --trust-anchor, the path to the trust anchor. Sends
    /// nothing.
    ///
    /// Exit code 0 if AWS would accept the certificate, 6 if it would refuse it.
    #[command(after_long_help = long_help(inspect::EXAMPLES))]
    Inspect(InspectArguments),
    /// Print the trust policy of a role that only this certificate may have
    ///
    /// The policy lets IAM Roles Anywhere assume the role for sessions of one trust anchor whose certificate
    /// has these names, exactly. What it is bound to is said on standard error. Nothing is sent anywhere.
    #[command(after_long_help = long_help(trust_policy::EXAMPLES))]
    TrustPolicy(TrustPolicyArguments),
    /// Print what makes the AWS side: trust anchor, role and profile
    ///
    /// As a script of AWS CLI commands, a CloudFormation template or a Terraform file, to read and to run:
    /// this command itself calls AWS for nothing. The role is for one certificate, whose common name is NAME
    /// unless --certificate or --common-name says otherwise.
    #[command(after_long_help = long_help(aws_setup::EXAMPLES))]
    AwsSetup(AwsSetupArguments),
    /// Print the script that makes a shell complete roleseal's commands and options
    ///
    /// For bash: source <(roleseal completions bash)
    Completions { shell: Shell },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        #[arg(long, value_name = "DIRECTORY")]
        out: PathBuf,
    },
}

const EXAMPLE: &str = "\
Example, in ~/.aws/config (one line after the equals sign):
  [profile web]
  credential_process = roleseal credential-process --target web
  then: aws --profile web sts get-caller-identity
and in ~/.config/roleseal/targets.toml:
  [target.web]
  identity = \"web\"
  role-arn = \"arn:aws:iam::123456789012:role/web\"
  profile-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/ID\"
  trust-anchor-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/ID\"

";

fn long_help(lead: &str) -> String {
    format!("{lead}{}\n\n{}", environment::HELP, exit::HELP)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use client::environment::Environment;
    use client::target::Target;

    use super::*;

    fn parse(more: &[&str]) -> Result<Target, String> {
        let fixed = [
            "roleseal",
            "credential-process",
            "--role-arn=arn:aws:iam::123456789012:role/web",
            "--profile-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p",
            "--trust-anchor-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a",
        ];
        let arguments = Arguments::try_parse_from(fixed.iter().chain(more))
            .map_err(|error| error.to_string())?;
        let Command::CredentialProcess(session) = arguments.command else {
            panic!("another command");
        };
        arguments
            .common
            .target(&Environment::default(), session.target, session.settings)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_are_read() {
        let target = parse(&[
            "--identity=web",
            "--session-duration=2h",
            "--role-session-name=ci@7",
            "--instance-property=a=b=c",
            "--instance-property=d=",
            "--region=eu-central-1",
            "--fips",
            "--dual-stack=false",
            "--socket=/s",
        ])
        .unwrap();
        assert_eq!(target.session.identity.as_deref(), Some("web"));
        assert_eq!(target.session.duration.seconds(), 7200);
        assert_eq!(target.session.session_name, Some("ci@7".parse().unwrap()));
        assert_eq!(target.session.instance_properties["a"], "b=c");
        assert_eq!(target.session.instance_properties["d"], "");
        assert_eq!(target.socket, PathBuf::from("/s"));
        let host = target.session.endpoint.host();
        assert_eq!(host, "rolesanywhere-fips.eu-central-1.amazonaws.com");
    }

    /// clap finds two options of one id only when it parses.
    #[test]
    fn every_command_takes_what_all_take() {
        let all = ["--socket=/s", "--targets=/t", "--quiet"];
        for command in [
            &["update", "--target=a", "--target=b", "--profile=x"][..],
            &["credential-process", "--target=a"],
            &["env", "--target=a"],
            &["targets"],
            &["identities"],
            &["inspect", "web.pem"],
            &["trust-policy", "--target=a"],
            &["aws-setup", "--ca-file=c", "--name=a", "--format=cli"],
        ] {
            let words = [&["roleseal"], command, &all[..]].concat();
            let arguments = Arguments::try_parse_from(words).unwrap();
            assert_eq!(arguments.common.targets, Some(PathBuf::from("/t")));
        }
    }

    #[test]
    fn a_named_target_is_looked_up_and_the_command_line_wins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[target.web]\nidentity = \"file\"\nsession-duration = 900\nsocket = \"/f\"\n";
        std::fs::write(file.path(), text).unwrap();
        let targets = format!("--targets={}", file.path().display());
        let target = parse(&[&targets, "--target=web", "--identity=flag"]).unwrap();
        assert_eq!(target.session.identity.as_deref(), Some("flag"));
        assert_eq!(target.session.duration.seconds(), 900);
        assert_eq!(target.socket, PathBuf::from("/f"));
        assert_eq!(target.shown(), "web");
        let error = parse(&[&targets, "--target=wep"]).unwrap_err();
        assert!(error.contains("\"wep\""), "{error}");
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let cases: [(&[&str], &str); 10] = [
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
            (&["--fips=maybe"], "true"),
            (&["--target=a/b"], "letters"),
        ];
        for (more, reason) in cases {
            let error = parse(more).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
