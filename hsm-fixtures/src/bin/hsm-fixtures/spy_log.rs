//! The log of OpenSC's pkcs11-spy: which PKCS#11 calls were made.

use std::path::Path;

use anyhow::{Context, Result};

/// The names of the calls, in order. A call begins with a line such as `12: C_SignInit`; `C_GetInterface` and
/// `C_GetFunctionList` only load the module and are left out.
pub(crate) fn calls(path: &Path) -> Result<Vec<String>> {
    let log = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(parse(&String::from_utf8_lossy(&log)))
}

fn parse(log: &str) -> Vec<String> {
    log.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(number, name)| {
            !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
                && name.starts_with("C_")
        })
        .map(|(_, name)| name.trim().to_owned())
        .filter(|name| !matches!(name.as_str(), "C_GetInterface" | "C_GetFunctionList"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_are_counted() {
        let log = "*** OpenSC PKCS#11 spy ***\nLoaded: \"/x.so\"\n\n0: C_GetInterface\n2026-01-02 03:04:05.678\n\
                   [in] pInterfaceName 0 / 7\n    00000000  50 4B 43 53  PKCS\nReturned:  0 CKR_OK\n\n\
                   1: C_Initialize\nReturned:  0 CKR_OK\n\n12: C_SignInit\n[in] hSession = 0x1\n\n13: C_Sign\n";
        assert_eq!(parse(log), ["C_Initialize", "C_SignInit", "C_Sign"]);
    }
}
