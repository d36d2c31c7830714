//! Policy commands as a key file has them: their parameters, marshalled.

use token::TokenError;
use tss_esapi::constants::CommandCode;
use tss_esapi::structures::{DigestList, Nonce, Public, Signature};
use tss_esapi::traits::UnMarshall;

use super::Step;
use crate::key_file::PolicyCommand;
use crate::marshalled::Marshalled;
use crate::pcr::Pcrs;

/// A policy command as the file has it.
pub(super) enum Statement {
    Ready(Step),
    Authorize {
        signer: Public,
        reference: Nonce,
        /// `None` where a signed policy is to take this statement's place.
        signature: Option<Signature>,
    },
}

pub(crate) const POLICY_PCR: u32 = 0x17f;
const POLICY_AUTHORIZE: u32 = 0x16a;
pub(crate) const POLICY_AUTH_VALUE: u32 = 0x16b;
const POLICY_COMMAND_CODE: u32 = 0x16c;
const POLICY_OR: u32 = 0x171;
const POLICY_PASSWORD: u32 = 0x18c;

/// Of SHA-1, SHA-256, SHA-384 and SHA-512, in bytes.
const DIGEST_LENGTHS: [usize; 4] = [20, 32, 48, 64];

pub(super) fn statement(command: &PolicyCommand) -> Result<Statement, TokenError> {
    let malformed = || {
        unusable(&format!(
            "its policy command {:#x} is malformed: make the file again",
            command.code
        ))
    };
    let body = Marshalled(&command.body);
    let ready = match command.code {
        POLICY_PCR => pcr_step(body.0),
        POLICY_AUTH_VALUE | POLICY_PASSWORD => body.end().map(|()| Step::AuthValue),
        POLICY_OR => or_step(body),
        POLICY_COMMAND_CODE => command_code_step(body),
        POLICY_AUTHORIZE => return authorize_statement(body).ok_or_else(malformed),
        other => {
            return Err(unusable(&format!(
                "its policy has the command {other:#x}, which we do not know: we know PolicyPCR, \
                 PolicyAuthValue, PolicyPassword, PolicyOR, PolicyCommandCode and PolicyAuthorize"
            )));
        }
    };
    ready.map(Statement::Ready).ok_or_else(malformed)
}

/// Both orders of the body: the draft's, a TPM2B_DIGEST and the selection; and that of openssl_tpm2_engine and of
/// go-tpm-keyfiles, the selection and the digest's bytes alone.
fn pcr_step(body: &[u8]) -> Option<Step> {
    digest_first(Marshalled(body)).or_else(|| selection_first(Marshalled(body)))
}

fn digest_first(mut body: Marshalled) -> Option<Step> {
    let digest = body.tpm2b()?.try_into().ok()?;
    let pcrs = Pcrs::read(&mut body)?;
    body.end()?;
    Some(Step::Pcr(digest, pcrs))
}

fn selection_first(mut body: Marshalled) -> Option<Step> {
    let pcrs = Pcrs::read(&mut body)?;
    let digest = Some(body.0).filter(|digest| DIGEST_LENGTHS.contains(&digest.len()))?;
    Some(Step::Pcr(digest.try_into().ok()?, pcrs))
}

fn or_step(mut body: Marshalled) -> Option<Step> {
    let mut digests = DigestList::new();
    for _ in 0..body.u32()? {
        digests.add(body.tpm2b()?.try_into().ok()?).ok()?;
    }
    body.end()?;
    (digests.len() >= 2).then_some(Step::Or(digests))
}

fn command_code_step(mut body: Marshalled) -> Option<Step> {
    let code = CommandCode::try_from(body.u32()?).ok()?;
    body.end()?;
    Some(Step::CommandCode(code))
}

/// The draft's own form: TPM2B_PUBLIC, TPM2B_DIGEST, and a TPMT_SIGNATURE that may be empty.
fn authorize_statement(mut body: Marshalled) -> Option<Statement> {
    const ALG_NULL: [u8; 2] = [0, 0x10];
    let signer = public(body.tpm2b()?)?;
    let reference = body.tpm2b()?.try_into().ok()?;
    let signature = match body.0 {
        [] => None,
        signature if signature == ALG_NULL => None,
        signature => Some(Signature::unmarshall(signature).ok()?),
    };
    Some(Statement::Authorize {
        signer,
        reference,
        signature,
    })
}

fn public(area: &[u8]) -> Option<Public> {
    Public::unmarshall(area).ok()
}

pub(super) fn unusable(text: &str) -> TokenError {
    TokenError::Unusable(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: u32, body: &[u8]) -> Result<Statement, TokenError> {
        let body = body.to_vec();
        statement(&PolicyCommand { code, body })
    }

    #[test]
    fn bodies_are_read_to_their_end() {
        let mut pcr = vec![0, 32];
        pcr.extend([7; 32]);
        pcr.extend([0, 0, 0, 1, 0, 0x0b, 3, 0x81, 0, 0]);
        let mut or = vec![0, 0, 0, 2];
        or.extend([&[0, 32][..], &[1; 32], &[0, 32], &[2; 32]].concat());
        for (code, body) in [
            (POLICY_PCR, pcr),
            (POLICY_OR, or),
            (POLICY_AUTH_VALUE, vec![]),
            (POLICY_PASSWORD, vec![]),
            (POLICY_COMMAND_CODE, vec![0, 0, 1, 0x5d]),
        ] {
            assert!(matches!(read(code, &body), Ok(Statement::Ready(_))));
            let longer = [&body[..], &[0]].concat();
            assert!(read(code, &longer).is_err(), "{code:#x}");
            if let Some((_, shorter)) = body.split_last() {
                assert!(read(code, shorter).is_err(), "{code:#x}");
            }
        }
        assert!(read(POLICY_AUTHORIZE, &[0, 1, 0]).is_err());
        let one_branch = [&[0, 0, 0, 1, 0, 32][..], &[1; 32]].concat();
        assert!(read(POLICY_OR, &one_branch).is_err());
    }

    #[test]
    fn the_selection_may_come_before_the_digest() {
        let selection = [0, 0, 0, 1, 0, 4, 3, 0x81, 0, 0];
        for length in DIGEST_LENGTHS {
            let digest = vec![7; length];
            let sized = [&[0, u8::try_from(length).unwrap()], &digest[..]].concat();
            for body in [
                [&sized[..], &selection].concat(),
                [&selection[..], &digest].concat(),
            ] {
                let Ok(Statement::Ready(Step::Pcr(read, _))) = read(POLICY_PCR, &body) else {
                    panic!("{body:?}");
                };
                assert_eq!(read.value(), digest);
            }
            let shorter = [&selection[..], &digest[1..]].concat();
            assert!(read(POLICY_PCR, &shorter).is_err());
        }
    }

    #[test]
    fn unknown_commands_are_named() {
        let Err(TokenError::Unusable(text)) = read(0x151, &[]) else {
            panic!()
        };
        assert!(text.contains("0x151"), "{text}");
    }
}
