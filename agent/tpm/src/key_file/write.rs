//! The file as we write it: as the draft has it, and so that older readers take it too.

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::pem::LineEnding;
use der::{Encode, Tag};

use super::kind::LOADABLE;
use super::{KeyFile, PolicyCommand};
use crate::asn1::{element, explicit, integer, sequence};

const LABEL: &str = "TSS2 PRIVATE KEY";

impl KeyFile {
    /// The PEM text of a loadable key's file.
    pub(crate) fn to_pem(&self) -> Result<String, String> {
        let der = self
            .to_der(LOADABLE)
            .map_err(|error| format!("cannot write a key file: {error}"))?;
        der::pem::encode_string(LABEL, LineEnding::LF, &der)
            .map_err(|error| format!("cannot write a key file: {error}"))
    }

    fn to_der(&self, kind: ObjectIdentifier) -> der::Result<Vec<u8>> {
        // Said in either case, as other programs do: no reader has to know what its absence means.
        let empty_auth = explicit(0, &self.empty_auth.to_der()?)?;
        let policy = match self.policy.as_slice() {
            [] => Vec::new(),
            commands => explicit(1, &policy(commands)?)?,
        };
        sequence(&[
            &kind.to_der()?,
            &empty_auth,
            &policy,
            &integer(&self.parent.to_be_bytes())?,
            &octets(&self.public)?,
            &octets(&self.private)?,
        ])
    }
}

fn policy(commands: &[PolicyCommand]) -> der::Result<Vec<u8>> {
    let mut all = Vec::new();
    for PolicyCommand { code, body } in commands {
        let code = explicit(0, &integer(&code.to_be_bytes())?)?;
        let body = explicit(1, &octets(body)?)?;
        all.extend(sequence(&[&code, &body])?);
    }
    element(Tag::Sequence, &[&all])
}

fn octets(bytes: &[u8]) -> der::Result<Vec<u8>> {
    OctetStringRef::new(bytes)?.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let pcr = PolicyCommand {
            code: 0x17f,
            body: vec![7; 300],
        };
        let auth_value = PolicyCommand {
            code: 0x16b,
            body: vec![],
        };
        for (parent, empty_auth, policy) in [
            (0x4000_0001, true, vec![]),
            (0x8100_0001, false, vec![pcr, auth_value]),
        ] {
            let file = KeyFile {
                secret: None,
                empty_auth,
                policy,
                signed_policies: vec![],
                parent,
                public: vec![1; 90],
                private: vec![2; 400],
            };
            assert_eq!(KeyFile::parse(file.to_pem().unwrap().as_bytes()), Ok(file));
        }
    }
}
