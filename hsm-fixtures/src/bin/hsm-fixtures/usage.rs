//! How to use a lab from a shell, as text.

use anyhow::Result;
use hsm_fixtures::{REGION, Scene, programs};

use crate::lab::Lab;

/// The command that gets credentials for `identity`.
pub(crate) fn credential_process(scene: &Scene, identity: &str, role_arn: &str) -> Result<String> {
    let mut words = vec![shell_word(&programs::roleseal()?.display().to_string())];
    words.extend(
        scene
            .credential_process(identity, role_arn)
            .iter()
            .map(|word| shell_word(word)),
    );
    Ok(words.join(" "))
}

/// An AWS configuration file with a profile for each identity.
pub(crate) fn aws_config(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for (name, role_arn) in lab.identities() {
        let command = credential_process(&lab.scene, name, role_arn)?;
        text.push_str(&format!(
            "[profile {name}]\nregion = {REGION}\ncredential_process = {command}\n\n"
        ));
    }
    Ok(text)
}

/// The variables that point an AWS tool at the lab; its profiles are in the file `aws.config`.
pub(crate) fn aws_environment(scene: &Scene) -> [(&'static str, String); 3] {
    [
        (
            "AWS_CONFIG_FILE",
            scene.path("aws.config").display().to_string(),
        ),
        ("AWS_ENDPOINT_URL_STS", scene.service().url()),
        (
            "AWS_CA_BUNDLE",
            scene.pki().root_path().display().to_string(),
        ),
    ]
}

/// `text` as one word of a POSIX shell, plain where it can be.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.:-_=,@+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_needed() {
        assert_eq!(shell_word("/tmp/a-b.c"), "/tmp/a-b.c");
        assert_eq!(
            shell_word("arn:aws:iam::1:role/web"),
            "arn:aws:iam::1:role/web"
        );
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
