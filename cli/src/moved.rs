//! Options and commands of AWS's aws_signing_helper that are elsewhere here, or nowhere: who moves over is told where.
//! docs/migration.md has the same table.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Where the option or command is now that this error does not know.
pub(crate) fn hint(error: &Error) -> Option<String> {
    let (kind, table) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, &OPTIONS[..]),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, &COMMANDS[..]),
        _ => return None,
    };
    let Some(ContextValue::String(given)) = error.get(kind) else {
        return None;
    };
    let name = given
        .split_once('=')
        .map_or(given.as_str(), |(name, _)| name);
    let (_, now) = table.iter().find(|(old, _)| *old == name)?;
    Some(format!("{name} of aws_signing_helper: {now}"))
}

const CERTIFICATE: &str = "the agent has the certificate: put it into /etc/roleseal/agent.toml as an identity's \
                           certificate, and name that identity with --identity";
const STORE: &str =
    "there is no certificate store to search: name an identity of the agent with --identity";
const TPM_PIN: &str = "the agent has it: put the file with the key's auth value into /etc/roleseal/agent.toml as the \
                       identity's pin, or leave pin out where the key has none";
const TARGET: &str =
    "set it in a table of targets.toml under the same name, and name that table with --target";

/// Those that every command of ours lacks, and those that only some have.
const OPTIONS: [(&str, &str); 26] = [
    ("--certificate", CERTIFICATE),
    (
        "--private-key",
        "the agent has the key: put its URI or file into /etc/roleseal/agent.toml as an identity's key, \
                       and name that identity with --identity",
    ),
    (
        "--intermediates",
        "the agent has them: put them into /etc/roleseal/agent.toml as the identity's chain",
    ),
    ("--cert-selector", STORE),
    ("--system-store-name", STORE),
    ("--use-latest-expiring-certificate", STORE),
    (
        "--pkcs11-lib",
        "the agent has it: put it into /etc/roleseal/agent.toml as pkcs11-module",
    ),
    (
        "--pkcs11-pin",
        "the agent has it: put the file with the PIN into /etc/roleseal/agent.toml as the identity's pin",
    ),
    (
        "--reuse-pin",
        "leave it out: the agent gives the PIN to a key that wants it for each signature",
    ),
    ("--tpm-key-password", TPM_PIN),
    ("--no-tpm-key-password", TPM_PIN),
    (
        "--pkcs8-password",
        "a key in a file is not used: make one in the token with roleseal-admin key generate",
    ),
    (
        "--with-proxy",
        "leave it out: HTTPS_PROXY and NO_PROXY hold without it; or use --proxy URL",
    ),
    (
        "--no-verify-ssl",
        "the server's certificate is always verified: name the CA's certificate with --ca-bundle",
    ),
    (
        "--debug",
        "run roleseal doctor, which checks every step to AWS; the agent's log has its own part",
    ),
    ("--port", "use roleseal serve --listen 127.0.0.1:PORT"),
    ("--hop-limit", "use roleseal serve --imds --hop-limit N"),
    ("--once", "use roleseal update --once"),
    ("--profile", "use roleseal update --profile NAME"),
    (
        "--format",
        "nothing signs a text of the caller's: use roleseal credential-process",
    ),
    (
        "--digest",
        "nothing signs a text of the caller's: use roleseal credential-process",
    ),
    ("--role-arn", TARGET),
    ("--profile-arn", TARGET),
    ("--trust-anchor-arn", TARGET),
    ("--session-duration", TARGET),
    ("--role-session-name", TARGET),
];

const COMMANDS: [(&str, &str); 3] = [
    (
        "read-certificate-data",
        "use roleseal inspect FILE --json, which has the same members",
    ),
    (
        "sign-string",
        "nothing signs a text of the caller's: use roleseal credential-process",
    ),
    ("version", "use roleseal --version"),
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn told(words: &[&str]) -> Option<String> {
        let words = [&["roleseal"], words].concat();
        hint(&Arguments::try_parse_from(words).unwrap_err())
    }

    #[test]
    fn options_that_have_moved_say_where() {
        for option in [
            "--certificate",
            "--private-key",
            "--intermediates",
            "--cert-selector",
            "--system-store-name",
            "--use-latest-expiring-certificate",
            "--pkcs11-lib",
            "--pkcs11-pin",
            "--reuse-pin",
            "--tpm-key-password",
            "--no-tpm-key-password",
            "--pkcs8-password",
            "--with-proxy",
            "--no-verify-ssl",
            "--debug",
        ] {
            for command in ["credential-process", "update", "serve"] {
                let text = told(&[command, option, "x"]).unwrap();
                assert!(text.starts_with(option), "{text}");
            }
            let with_value = format!("{option}=x");
            assert!(
                told(&["credential-process", &with_value]).is_some(),
                "{option}"
            );
        }
        for words in [
            ["serve", "--port"],
            ["serve", "--role-arn"],
            ["update", "--port"],
        ] {
            assert!(told(&words).is_some(), "{words:?}");
        }
    }

    #[test]
    fn commands_that_have_moved_say_where() {
        for command in ["read-certificate-data", "sign-string", "version"] {
            assert!(told(&[command]).is_some(), "{command}");
        }
    }

    #[test]
    fn no_other_mistake_is_taken_for_one() {
        assert_eq!(told(&["credential-process", "--certificat"]), None);
        assert_eq!(
            told(&["credential-process", "--session-duration", "x"]),
            None
        );
        assert_eq!(told(&["servre"]), None);
    }

    #[test]
    fn the_page_has_all_of_them() {
        let page = include_str!("../../docs/migration.md");
        for (name, _) in OPTIONS.iter().chain(&COMMANDS) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}
