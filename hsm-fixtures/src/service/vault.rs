//! The sessions that were vended, so that STS can tell whether credentials are ours.

use std::collections::HashMap;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use openssl::rand::rand_bytes;
use openssl::sha::sha256;

use super::decision::Grant;

/// Letters and digits of AWS's identifiers.
const BASE32: [u8; 32] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An expired session is known as such for an hour; later it is merely unknown, and takes no memory.
const REMEMBER_EXPIRED: SignedDuration = SignedDuration::from_hours(1);

#[derive(Default)]
pub(crate) struct Vault {
    sessions: HashMap<String, Session>,
}

/// One vended session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
    pub(crate) expires: Timestamp,
    /// `arn:PARTITION:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub(crate) arn: String,
    /// `AROA…:SESSION`.
    pub(crate) user_id: String,
    pub(crate) account: String,
}

impl Vault {
    /// Makes credentials, and remembers them until they expire.
    pub(crate) fn vend(&mut self, grant: &Grant, now: Timestamp) -> Result<Session> {
        let role = &grant.role;
        let session = Session {
            access_key_id: format!("ASIA{}", identifier(&random::<16>()?)),
            secret_access_key: STANDARD.encode(random::<30>()?),
            session_token: STANDARD.encode(random::<240>()?),
            expires: whole_second(now + SignedDuration::from_secs(grant.seconds)),
            arn: format!(
                "arn:{}:sts::{}:assumed-role/{}/{}",
                role.partition,
                role.account,
                role.role_name(),
                grant.session_name
            ),
            user_id: format!("{}:{}", role_id(&role.to_string()), grant.session_name),
            account: role.account.clone(),
        };
        self.sessions
            .retain(|_, old| now.duration_since(old.expires) < REMEMBER_EXPIRED);
        self.sessions
            .insert(session.access_key_id.clone(), session.clone());
        Ok(session)
    }

    pub(crate) fn session(&self, access_key_id: &str) -> Option<&Session> {
        self.sessions.get(access_key_id)
    }
}

/// The same role always has the same id, as with AWS.
fn role_id(role_arn: &str) -> String {
    let digest = sha256(role_arn.as_bytes());
    format!("AROA{}", identifier(digest.get(..17).unwrap_or_default()))
}

fn identifier(bytes: &[u8]) -> String {
    bytes
        .iter()
        .filter_map(|byte| BASE32.get(usize::from(byte % 32)))
        .map(|letter| char::from(*letter))
        .collect()
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand_bytes(&mut bytes)?;
    Ok(bytes)
}

/// AWS tells expirations in whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::super::arn::Arn;
    use super::*;

    fn grant() -> Grant {
        Grant {
            role: Arn::role("arn:aws-cn:iam::123456789012:role/path/web").unwrap(),
            session_name: "ff01".to_owned(),
            source_identity: String::new(),
            allowed_by: String::new(),
            seconds: 900,
            subject_arn: String::new(),
        }
    }

    #[test]
    fn credentials_look_like_those_of_aws() {
        let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let session = Vault::default().vend(&grant(), now).unwrap();
        assert!(session.access_key_id.starts_with("ASIA") && session.access_key_id.len() == 20);
        assert_eq!(session.secret_access_key.len(), 40);
        assert_eq!(session.expires.to_string(), "2026-01-02T03:19:05Z");
        assert_eq!(
            session.arn,
            "arn:aws-cn:sts::123456789012:assumed-role/web/ff01"
        );
        let (role_id, name) = session.user_id.split_once(':').unwrap();
        assert!(role_id.starts_with("AROA") && role_id.len() == 21 && name == "ff01");
    }

    #[test]
    fn expired_sessions_are_forgotten_in_the_end() {
        let mut vault = Vault::default();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let first = vault.vend(&grant(), now).unwrap();
        vault
            .vend(&grant(), now + SignedDuration::from_mins(30))
            .unwrap();
        assert!(vault.session(&first.access_key_id).is_some());
        vault
            .vend(&grant(), now + SignedDuration::from_mins(90))
            .unwrap();
        assert!(vault.session(&first.access_key_id).is_none());
    }
}
