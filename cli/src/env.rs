//! `roleseal env`: the credentials as environment variables, in the words of a shell.

use clap::{Args, ValueEnum};
use client::credentials::Credentials;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::aws_variables;
use crate::common::{CommandError, Common, SessionArguments, one_session};
use crate::output;

/// Which session is wanted, and in which form.
#[derive(Debug, Args)]
pub(crate) struct EnvArguments {
    /// Whose words to print
    #[arg(long, value_enum, default_value_t = Format::Sh)]
    format: Format,
    #[command(flatten)]
    session: SessionArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// bash, zsh, dash and all of their family
    Sh,
    Fish,
    Powershell,
    /// One JSON object
    Json,
}

pub(crate) fn run(common: &Common, wanted: EnvArguments) -> Result<(), CommandError> {
    let session = one_session(common, wanted.session)?;
    let text = render(wanted.format, &session.credentials);
    Ok(output::print_secret(&text)?)
}

fn render(format: Format, credentials: &Credentials) -> SecretString {
    let expiration = credentials.expiration.to_string();
    let variables = [
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id.as_str()),
        (
            "AWS_SECRET_ACCESS_KEY",
            credentials.secret_access_key.expose_secret(),
        ),
        (
            "AWS_SESSION_TOKEN",
            credentials.session_token.expose_secret(),
        ),
        ("AWS_CREDENTIAL_EXPIRATION", &expiration),
    ];
    let line = |name: &str, value: &str| match format {
        Format::Sh => format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
        Format::Fish => {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            format!("set -gx {name} '{value}';\n")
        }
        Format::Powershell => format!("$Env:{name} = '{}'\n", value.replace('\'', "''")),
        Format::Json => String::new(),
    };
    let text: String = match format {
        Format::Json => {
            let pairs = variables.map(|(name, value)| (name.to_owned(), Value::from(value)));
            let object = Value::Object(Map::from_iter(pairs));
            format!("{object}\n")
        }
        _ => {
            let set = variables.map(|(name, _)| name);
            let lines = variables.map(|(name, value)| line(name, value));
            let others = aws_variables::credentials().filter(|name| !set.contains(&name.as_str()));
            lines.concat() + &unset(format, &others.collect::<Vec<_>>())
        }
    };
    text.into()
}

/// Some SDKs prefer another credential to these, and botocore an old token to the new one.
fn unset(format: Format, names: &[String]) -> String {
    match format {
        Format::Sh => format!("unset {}\n", names.join(" ")),
        // One after the other: it fails for a name that is not set, and says nothing.
        Format::Fish => names.iter().map(|n| format!("set -e {n};\n")).collect(),
        Format::Powershell => format!(
            "Remove-Item -ErrorAction SilentlyContinue -Path Env:{}\n",
            names.join(",Env:")
        ),
        Format::Json => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Every character that a credential may have, and then some.
    fn odd() -> Credentials {
        Credentials {
            access_key_id: "ASIA1".into(),
            secret_access_key: r##"a'b"c\d$(e)`f`!g;h&i|j#k%l~m*n"##.into(),
            session_token: r"\'''\\''+/==".into(),
            expiration: "2026-01-01T01:00:00Z".parse().unwrap(),
        }
    }

    fn text(format: Format) -> String {
        render(format, &odd()).expose_secret().to_owned()
    }

    #[test]
    fn a_shell_reads_what_was_written() {
        let script = format!(
            "{}printf '%s\\n' \"$AWS_ACCESS_KEY_ID\" \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_SESSION_TOKEN\" \
             \"$AWS_CREDENTIAL_EXPIRATION\"",
            text(Format::Sh)
        );
        for shell in ["sh", "bash"] {
            let output = Command::new(shell).args(["-c", &script]).output().unwrap();
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                format!(
                    "ASIA1\n{}\n{}\n2026-01-01T01:00:00Z\n",
                    odd().secret_access_key.expose_secret(),
                    odd().session_token.expose_secret()
                )
            );
        }
    }

    #[test]
    fn no_other_credential_is_left_in_the_shell() {
        let script = format!("set -e; {} env", text(Format::Sh));
        for shell in ["sh", "bash"] {
            let mut command = Command::new(shell);
            command.args(["-c", &script]);
            for name in aws_variables::CREDENTIALS {
                command.env(name, "old");
            }
            let output = command.output().unwrap();
            assert!(output.status.success());
            let left = String::from_utf8(output.stdout).unwrap();
            assert!(!left.lines().any(|line| line.ends_with("=old")), "{left}");
            assert!(left.contains("AWS_ACCESS_KEY_ID=ASIA1\n"), "{left}");
        }
        for format in [Format::Fish, Format::Powershell] {
            assert!(text(format).contains("AWS_SECURITY_TOKEN"), "{format:?}");
        }
    }

    #[test]
    fn json_is_one_object() {
        let object: Value = text(Format::Json).parse().unwrap();
        assert_eq!(object["AWS_ACCESS_KEY_ID"], "ASIA1");
        assert_eq!(
            object["AWS_SESSION_TOKEN"],
            odd().session_token.expose_secret()
        );
        assert_eq!(object["AWS_CREDENTIAL_EXPIRATION"], "2026-01-01T01:00:00Z");
        assert_eq!(object.as_object().unwrap().len(), 4);
    }

    #[test]
    fn fish_and_powershell_have_quotes_of_their_own() {
        let fish = text(Format::Fish);
        assert!(
            fish.starts_with("set -gx AWS_ACCESS_KEY_ID 'ASIA1';\n"),
            "{fish}"
        );
        let token = r"set -gx AWS_SESSION_TOKEN '\\\'\'\'\\\\\'\'+/==';";
        assert_eq!(fish.lines().nth(2), Some(token));
        let powershell = text(Format::Powershell);
        let token = r"$Env:AWS_SESSION_TOKEN = '\''''''\\''''+/=='";
        assert_eq!(powershell.lines().nth(2), Some(token));
    }
}
