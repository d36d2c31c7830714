//! The command line.

use clap::{Parser, Subcommand};

use crate::attest::AttestCommand;
use crate::cert::CertCommand;
use crate::csr::{self, CsrArguments};
use crate::enroll::{self, EnrollArguments};
use crate::failure::Failure;
use crate::key::KeyCommand;
use crate::pin::PinCommand;
use crate::renew::RenewArguments;

/// Make keys on HSMs and TPMs for roleseal-agent, and obtain and renew their certificates
///
/// Needs no running agent. Keys never leave their token; PINs are read by the token program that uses them.
///
/// Exit status: 0 done; 1 failed; 2 wrong arguments.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.command.run()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list and delete keys on PKCS#11 tokens and in TPMs
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make a CSR (PKCS#10), signed by a key
    ///
    /// The CSR requests the extensions that IAM Roles Anywhere requires: keyUsage digitalSignature,
    /// extendedKeyUsage clientAuth, basicConstraints CA:FALSE. The token signs it, and the signature is verified
    /// before the CSR is written.
    #[command(after_long_help = csr::EXAMPLES)]
    Csr(Box<CsrArguments>),
    /// Store certificates on PKCS#11 tokens
    #[command(subcommand)]
    Cert(CertCommand),
    /// Check the attestation of a TPM key
    #[command(subcommand)]
    Attest(AttestCommand),
    /// Have refused PINs tried again
    #[command(subcommand)]
    Pin(PinCommand),
    Renew(RenewArguments),
    Enroll(Box<EnrollArguments>),
}

impl Command {
    fn run(&self) -> Result<(), Failure> {
        match self {
            Command::Key(command) => command.run(),
            Command::Csr(arguments) => csr::run(arguments),
            Command::Cert(command) => command.run(),
            Command::Attest(command) => command.run(),
            Command::Pin(command) => command.run(),
            Command::Renew(arguments) => arguments.run(),
            Command::Enroll(arguments) => enroll::run(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    use Arguments as Line;

    fn parse(line: &str) -> Result<Command, String> {
        let line = Line::try_parse_from(line.split_whitespace());
        line.map(|line| line.command)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_grammar_is_consistent() {
        Line::command().debug_assert();
    }

    /// At a terminal of 80 columns: a line that clap has broken runs as two.
    #[test]
    fn examples_can_be_copied() {
        fn look_at(command: &clap::Command) {
            let help = command.get_after_long_help().map(ToString::to_string);
            for line in help.iter().flat_map(|help| help.lines()) {
                assert!(line.chars().count() <= 80, "{line}");
            }
            command.get_subcommands().for_each(look_at);
        }
        look_at(&Line::command());
    }

    #[test]
    fn each_option_stands_where_it_belongs() {
        let command = Line::command();
        for (path, options) in [
            (["key", "generate"].as_slice(), ["json"].as_slice()),
            (&["enroll"], &["existing_key", "dry_run"]),
        ] {
            let command = path.iter().fold(&command, |command, name| {
                command.find_subcommand(name).unwrap()
            });
            for option in options {
                let arguments = command.get_arguments();
                let found = arguments.filter(|argument| argument.get_id() == option);
                let headings: Vec<_> = found.map(|argument| argument.get_help_heading()).collect();
                assert_eq!(headings, [None], "{option}");
            }
        }
    }

    #[test]
    fn each_kind_of_line_is_taken() {
        for line in [
            "x key generate --uri pkcs11:token=lab;object=web",
            "x key generate --uri pkcs11:token=lab;object=web --type rsa-4096 --module /m.so --pin-file p",
            "x key generate --tpm --out web.tss",
            "x key generate --tpm swtpm:port=4000 --out web.tss --parent 0x81000001 --pcr 7,11 --pin-prompt",
            "x key generate --tpm --persist 0x81000101 --owner-pin-file o",
            "x key list",
            "x key list --tpm --json",
            "x key list --uri pkcs11:token=lab --login",
            "x key delete --uri pkcs11:token=lab;object=web --yes",
            "x key delete --tpm --handle 0x81000101",
            "x key delete --handle 0x81000101",
            "x csr --key web.tss --tpm --subject CN=web",
            "x csr --uri pkcs11:token=lab;object=web --subject CN=web --dns a --dns b --out f",
            "x csr --key web.tss --tpm swtpm:port=4000 --subject CN=web --attest web",
            "x csr --handle 0x81000101 --subject CN=web",
            "x cert import --uri pkcs11:token=lab;object=web --cert web.pem",
            "x attest verify --csr web.csr --attestation web.json --ek-ca ca.pem",
            "x enroll --name web --uri pkcs11:token=lab;object=web --subject CN=web --issue ca --renew",
            "x enroll --name web --tpm --out web.tss --subject CN=web --cert web.crt --dry-run",
            "x pin retry web --config /etc/agent.toml",
            "x renew --identity web --force --config /etc/agent.toml",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (line, expected) in [
            ("x key generate", "required"),
            (
                "x key generate --uri pkcs11:object=web --tpm --out f",
                "cannot be used with",
            ),
            ("x key generate --tpm", "--out"),
            (
                "x key generate --tpm --out f --persist 0x81000101",
                "cannot be used with",
            ),
            (
                "x key generate --uri pkcs11:object=web --out f",
                "cannot be used with",
            ),
            (
                "x key generate --uri pkcs11:object=web --pcr 7",
                "cannot be used with",
            ),
            ("x key generate --tpm --out f --pcr 24", "24"),
            ("x key generate --tpm --out f --pcr 7,7", "twice"),
            ("x key generate --tpm --out f --type ed25519", "ec-p256"),
            (
                "x key generate --uri pkcs11: --pin-file a --pin-prompt",
                "cannot be used with",
            ),
            ("x key delete --handle 0x80000000", "persistent"),
            ("x key delete --yes", "--handle"),
            ("x key list --pin-credential ../pin", "--pin-file"),
            ("x csr --subject CN=web", "--uri"),
            ("x csr --uri pkcs11:object=web", "--subject"),
            (
                "x csr --uri pkcs11:object=web --key f --subject CN=web",
                "cannot be used with",
            ),
            ("x csr --key f --subject CN=web --tpm /dev/tpm0", "TCTI"),
            ("x cert import --uri pkcs11:object=web", "--cert"),
            ("x attest verify --csr web.csr", "--attestation"),
            ("x pin retry", "IDENTITY"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_pin_in_a_wrong_uri_is_not_repeated() {
        let line = "x csr --uri pkcs11:x?pin-value=2684 --subject CN=web";
        let command = parse(line).unwrap();
        assert!(!format!("{command:?}").contains("2684"));
        let failure = command.run().unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)));
        assert!(!failure.to_string().contains("2684"), "{failure}");
    }
}
