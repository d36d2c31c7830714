//! An answer, in the shapes of the two AWS protocols: JSON of Roles Anywhere, XML of STS.

use serde_json::json;

use super::decision::Grant;
use super::refusal::Refusal;
use super::vault::Session;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// The value of `x-amzn-ErrorType`, where the protocol has it.
    pub(crate) error_type: Option<&'static str>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn created(grant: &Grant, session: &Session) -> Answer {
        let body = json!({
            "credentialSet": [{
                "assumedRoleUser": { "arn": session.arn, "assumedRoleId": session.user_id },
                "credentials": {
                    "accessKeyId": session.access_key_id,
                    "secretAccessKey": session.secret_access_key,
                    "sessionToken": session.session_token,
                    "expiration": session.expires.to_string(),
                },
                "packedPolicySize": 0,
                "roleArn": grant.role.to_string(),
                "sourceIdentity": grant.source_identity,
            }],
            "subjectArn": grant.subject_arn,
        });
        Answer {
            status: 201,
            content_type: "application/json",
            error_type: None,
            body: body.to_string(),
        }
    }

    pub(crate) fn refused(refusal: &Refusal) -> Answer {
        Answer {
            status: refusal.kind.status(),
            content_type: "application/json",
            error_type: Some(refusal.kind.name()),
            body: json!({ "message": refusal.message }).to_string(),
        }
    }

    pub(crate) fn xml(status: u16, body: String) -> Answer {
        Answer {
            status,
            content_type: "text/xml",
            error_type: None,
            body,
        }
    }
}
