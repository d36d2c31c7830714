//! The way to the TPM, and what stands in it.

use std::str::FromStr;

use token::{Tcti, TokenError, tpm_device};
use tss_esapi::{Context, TctiNameConf};

use crate::error::Failure;

/// Connects, without a command to the TPM. Whatever is missing may come later, so that it is tried again.
pub(crate) fn connect(tcti: &Tcti) -> Result<Context, TokenError> {
    if let Tcti::Device(path) = tcti
        && let Some(obstacle) = tpm_device::obstacle(path)
    {
        return Err(TokenError::Gone(obstacle.into_text()));
    }
    TctiNameConf::from_str(&tcti.to_string())
        .and_then(Context::new)
        .map_err(|error| {
            Failure::new("connect", error).gone(format_args!("TPM {tcti}: {}", remedy(tcti)))
        })
}

/// What helps where the TPM cannot be reached.
pub(crate) fn remedy(tcti: &Tcti) -> &'static str {
    match tcti {
        Tcti::Device(_) => {
            "end the program that has it open, or use /dev/tpmrm0; it also needs \
             libtss2-tcti-device (on Debian, `apt install libtss2-tcti-device0`)"
        }
        Tcti::Swtpm(_) => {
            "start swtpm there, with its control channel (--ctrl) at the next port; it also needs \
             libtss2-tcti-swtpm (on Debian, `apt install libtss2-tcti-swtpm0`)"
        }
        Tcti::Mssim(_) => {
            "start the simulator there; it also needs libtss2-tcti-mssim (on Debian, \
             `apt install libtss2-tcti-mssim0`)"
        }
        Tcti::Tabrmd { .. } => {
            "start tpm2-abrmd; it also needs libtss2-tcti-tabrmd (on Debian, \
             `apt install libtss2-tcti-tabrmd0`)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(tcti: &str) -> String {
        match connect(&tcti.parse().unwrap()) {
            Err(TokenError::Gone(text)) => text,
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("{tcti} connects"),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = refusal("device:/nowhere/tpmrm0");
        assert!(text.contains("/nowhere/tpmrm0 is not there"), "{text}");
        // Port 1 of the loopback: nobody listens.
        let text = refusal("swtpm:host=127.0.0.1,port=1");
        assert!(text.contains("start swtpm there"), "{text}");
        assert!(text.contains("at the next port"), "{text}");
        let text = refusal("device:/dev/null");
        assert!(text.contains("device:/dev/null"), "{text}");
    }
}
