//! Who may have a session: trust anchor, revocation, profile, role and its trust policy, one step after the other.

use jiff::Timestamp;
use openssl::sha::sha256;
use trust_policy::{SessionRequest, source_identity};

use super::arn::Arn;
use super::certificate::Certificate;
use super::explanation::Explanation;
use super::refusal::Refusal;
use super::registry::{KnownProfile, Registry};
use super::tags::{TAGS, Tags};
use super::{chain, revocation};

/// What a client whose signature was verified asks for.
pub(crate) struct Asked<'a> {
    pub(crate) leaf: &'a Certificate,
    pub(crate) intermediates: &'a [Certificate],
    pub(crate) trust_anchor: &'a Arn,
    pub(crate) profile: &'a Arn,
    pub(crate) role: &'a Arn,
    pub(crate) duration_seconds: Option<i64>,
    pub(crate) session_name: Option<&'a str>,
    pub(crate) has_instance_properties: bool,
}

/// What a session will be made of.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) role: Arn,
    pub(crate) session_name: String,
    pub(crate) source_identity: String,
    pub(crate) seconds: i64,
    pub(crate) subject_arn: String,
    /// Which statement of the trust policy allowed it, for the log.
    pub(crate) allowed_by: String,
}

/// Grants a session, and writes down what it looked at.
pub(crate) fn judge(
    registry: &Registry,
    asked: &Asked<'_>,
    now: Timestamp,
    explanation: &mut Explanation,
) -> Result<Grant, Refusal> {
    let leaf = asked.leaf;
    explanation.row(
        "certificate",
        format!("{}, serial {}", leaf.subject(), leaf.serial_decimal()),
    );
    check_anchor(registry, asked, now, explanation)?;
    let profile = check_profile(registry, asked, explanation)?;
    let tags = leaf.attributes().tags(&profile.mapping);
    explain_tags(&tags, explanation);
    if tags.tags.len() > TAGS {
        let reason = format!("{} session tags; {TAGS} are allowed", tags.tags.len());
        return Err(Refusal::unable_to_assume(&asked.role.to_string(), reason));
    }
    let request = session_request(asked, tags);
    let allowed_by = check_role(registry, asked.role, &request, explanation)?;
    let longest = i64::from(profile.profile.duration_seconds);
    let seconds = asked
        .duration_seconds
        .map_or(longest, |seconds| seconds.min(longest));
    check_duration(registry, asked.role, seconds)?;
    Ok(Grant {
        role: asked.role.clone(),
        session_name: request.session_name,
        source_identity: request.source_identity.unwrap_or_default(),
        seconds,
        subject_arn: subject_arn(asked.trust_anchor, leaf),
        allowed_by,
    })
}

/// Anchor and profile are of one region; all three are of one account and partition.
pub(crate) fn check_same_home(anchor: &Arn, profile: &Arn, role: &Arn) -> Result<(), Refusal> {
    let home = |arn: &Arn| (arn.partition.clone(), arn.account.clone());
    if profile.region != anchor.region {
        return Err(Refusal::invalid(
            "profileArn and trustAnchorArn are of different regions",
        ));
    }
    if home(profile) != home(anchor) || home(role) != home(anchor) {
        return Err(Refusal::invalid(
            "the ARNs are of different accounts or partitions",
        ));
    }
    Ok(())
}

fn check_anchor(
    registry: &Registry,
    asked: &Asked<'_>,
    now: Timestamp,
    explanation: &mut Explanation,
) -> Result<(), Refusal> {
    let anchor = registry.anchor(asked.trust_anchor)?;
    explanation.row("trust anchor", asked.trust_anchor.to_string());
    if !anchor.enabled {
        // The wording is a guess.
        let reason = format!("trust anchor {} is disabled", asked.trust_anchor);
        return Err(Refusal::denied("Trust anchor is disabled", reason));
    }
    let path = chain::path(asked.leaf, asked.intermediates, &anchor.bundle, now)
        .map_err(Refusal::untrusted)?;
    for certificate in &path {
        explanation.row("path", certificate.subject());
    }
    let seen = revocation::check(&path, &anchor.crls, now).map_err(Refusal::revoked)?;
    if seen.is_empty() {
        explanation.row("revocation", "no CRL of the path's issuers");
    }
    for line in seen {
        explanation.row("revocation", line);
    }
    Ok(())
}

fn check_profile<'r>(
    registry: &'r Registry,
    asked: &Asked<'_>,
    explanation: &mut Explanation,
) -> Result<&'r KnownProfile, Refusal> {
    let known = registry.profile(asked.profile)?;
    let profile = &known.profile;
    explanation.row("profile", profile.arn.as_str());
    explanation.row(
        "profile",
        format!("sessions of {} s at the most", profile.duration_seconds),
    );
    if let Some(policy) = &profile.session_policy {
        explanation.row("profile", format!("inline session policy: {policy}"));
    }
    for arn in &profile.managed_policy_arns {
        explanation.row("profile", format!("managed session policy: {arn}"));
    }
    if !profile.enabled {
        // The wording is a guess.
        return Err(Refusal::denied(
            "Profile is disabled",
            format!("profile {} is disabled", profile.arn),
        ));
    }
    let role = asked.role.to_string();
    if !profile.roles.contains(&role) {
        let reason = format!(
            "the profile does not list the role: it has {}",
            profile.roles.join(", ")
        );
        return Err(Refusal::unable_to_assume(&role, reason));
    }
    if asked.session_name.is_some() && !profile.accept_role_session_name {
        let reason = "the profile does not accept roleSessionName";
        return Err(Refusal::denied(
            "Not authorized to set roleSessionName.",
            reason,
        ));
    }
    if profile.require_instance_properties && !asked.has_instance_properties {
        return Err(Refusal::invalid(
            "instanceProperties is missing; the profile requires it",
        ));
    }
    Ok(known)
}

fn explain_tags(tags: &Tags, explanation: &mut Explanation) {
    for (name, value) in &tags.tags {
        explanation.row("tags", format!("{name} = {value}"));
    }
    for (name, why) in &tags.ignored {
        explanation.row("tags ignored", format!("{name}: {why}"));
    }
}

fn session_request(asked: &Asked<'_>, tags: Tags) -> SessionRequest {
    let serial = asked.leaf.serial_hex();
    let name = asked.leaf.attributes().common_name();
    SessionRequest {
        trust_anchor_arn: asked.trust_anchor.to_string(),
        account: asked.trust_anchor.account.clone(),
        tags: tags.tags,
        source_identity: Some(source_identity(name.as_deref(), &serial)),
        session_name: asked.session_name.map_or(serial, str::to_owned),
    }
}

fn check_role(
    registry: &Registry,
    arn: &Arn,
    request: &SessionRequest,
    explanation: &mut Explanation,
) -> Result<String, Refusal> {
    explanation.row("role", arn.to_string());
    let Some(role) = registry.role(arn) else {
        return Err(Refusal::unable_to_assume(
            &arn.to_string(),
            "there is no such role",
        ));
    };
    explanation.row(
        "source identity",
        request.source_identity.clone().unwrap_or_default(),
    );
    explanation.row("session name", request.session_name.clone());
    let decision = role.policy.for_roles_anywhere(&request.context());
    let reason = decision.reason();
    let allowed = decision.allowed();
    explanation.policy(decision);
    if allowed {
        return Ok(reason);
    }
    Err(Refusal::unable_to_assume(
        &arn.to_string(),
        format!("trust policy: {reason}"),
    ))
}

/// "If finalDurationSeconds is greater than the maximum session duration (MaxSessionDuration) set on the role, you will
/// receive an error response"; its second line is STS's own (accounts of people who met it).
fn check_duration(registry: &Registry, arn: &Arn, seconds: i64) -> Result<(), Refusal> {
    let longest = registry.role(arn).and_then(|role| role.max_session_seconds);
    match longest {
        Some(longest) if seconds > longest => {
            let mut refusal = Refusal::unable_to_assume(
                &arn.to_string(),
                format!("a session of {seconds} s; the role allows {longest} s"),
            );
            refusal.message.push_str(
                " The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            );
            Err(refusal)
        }
        _ => Ok(()),
    }
}

fn subject_arn(anchor: &Arn, leaf: &Certificate) -> String {
    format!(
        "arn:{}:rolesanywhere:{}:{}:subject/{}",
        anchor.partition,
        anchor.region,
        anchor.account,
        uuid_of(leaf.subject())
    )
}

/// The same certificate subject is always the same Roles Anywhere subject.
fn uuid_of(text: &str) -> String {
    let digits = hex::encode(sha256(text.as_bytes()));
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}
