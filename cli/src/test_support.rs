//! What unit tests of several modules want.

use client::credentials::Credentials;
use client::moment::Moment;
use client::session::Session;
use client::target::{Settings, Target};

/// A session named by its access key; the clock of waits is at its beginning now.
pub(crate) fn session(key: &str, issued: &str, expiration: &str) -> Session {
    let credentials = Credentials {
        access_key_id: key.into(),
        secret_access_key: "s3cret".into(),
        session_token: "t0ken".into(),
        expiration: expiration.parse().unwrap(),
    };
    let asked = Moment {
        wall: issued.parse().unwrap(),
        ..Moment::now()
    };
    Session::new(credentials, asked, None, Some("42".into()))
}

/// A target of the ARNs that these tests share, with `more` settings as in a targets file.
pub(crate) fn target(more: &str) -> Target {
    let settings: Settings = toml::from_str(&format!(
        "role-arn = \"arn:aws:iam::123456789012:role/web\"\n\
         profile-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p\"\n\
         trust-anchor-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a\"\n\
         socket = \"/agent.sock\"\n{more}"
    ))
    .unwrap();
    settings.target(None, &Default::default()).unwrap()
}
