//! The policy of a new key that is bound to PCRs.

use sha2::{Digest as _, Sha256};
use token::TokenError;
use token::operator::Outcome;

use crate::error::Failure;
use crate::key_file::PolicyCommand;
use crate::marshalled::Marshalled;
use crate::pcr::{self, Pcrs, Snapshot};
use crate::policy::statement::{POLICY_AUTH_VALUE, POLICY_PCR};
use crate::tpm::Tpm;

/// So many PCRs has a TPM of a PC or a server (TCG PC Client Platform TPM Profile).
const PCRS: u8 = 24;

/// Whether there are such PCRs, each named once.
pub(super) fn check(numbers: &[u8]) -> Outcome<()> {
    let unusable = |fault: String| Err(TokenError::Unusable(fault));
    for (index, number) in numbers.iter().enumerate() {
        if *number >= PCRS {
            return unusable(format!(
                "there is no PCR {number}: they are 0 to {}",
                PCRS - 1
            ));
        }
        if numbers.iter().skip(index + 1).any(|other| other == number) {
            return unusable(format!("PCR {number} is named twice"));
        }
    }
    Ok(())
}

/// What to do before each use: these PCRs are as they are now, and the auth value is proved, where there is one.
/// Empty without PCRs.
pub(super) fn commands(
    tpm: &mut Tpm,
    numbers: &[u8],
    has_auth: bool,
) -> Outcome<Vec<PolicyCommand>> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let selection = pcr::sha256_selection(numbers);
    let mut snapshot = Snapshot::default();
    if let Some(pcrs) = Pcrs::read(&mut Marshalled(&selection)) {
        let failed = |failure: Failure| failure.while_doing("cannot read the PCRs");
        snapshot.add(tpm, &pcrs).map_err(failed)?;
    }
    let values = snapshot.values().map_err(|name| {
        TokenError::Unusable(format!(
            "the TPM has no {name}: switch its SHA-256 bank on in the firmware, or take other PCRs"
        ))
    })?;
    const LENGTH: [u8; 2] = [0, 32];
    let mut commands = vec![PolicyCommand {
        code: POLICY_PCR,
        body: [&LENGTH[..], &Sha256::digest(values), &selection].concat(),
    }];
    if has_auth {
        commands.push(PolicyCommand {
            code: POLICY_AUTH_VALUE,
            body: Vec::new(),
        });
    }
    Ok(commands)
}

/// The authPolicy that they lead to, of SHA-256 (TPM 2.0 library, part 3, 23.7 and 23.17).
pub(super) fn digest(commands: &[PolicyCommand]) -> Vec<u8> {
    if commands.is_empty() {
        return Vec::new();
    }
    let begin = vec![0; 32];
    commands
        .iter()
        .fold(begin, |digest, PolicyCommand { code, body }| {
            // TPM2_PolicyPCR's selection goes before the digest of the values.
            let mut rest = Marshalled(body);
            let values = rest.tpm2b().unwrap_or_default();
            let parts = [&digest[..], &code.to_be_bytes(), rest.0, values];
            Sha256::digest(parts.concat()).to_vec()
        })
}
