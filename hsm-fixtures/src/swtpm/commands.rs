//! swtpm's log at level 20: which TPM commands were sent.

/// The commands that a user of keys sends, and those that tests look for.
const NAMES: [(u32, &str); 38] = [
    (0x120, "TPM2_EvictControl"),
    (0x126, "TPM2_Clear"),
    (0x129, "TPM2_HierarchyChangeAuth"),
    (0x131, "TPM2_CreatePrimary"),
    (0x139, "TPM2_DictionaryAttackLockReset"),
    (0x13a, "TPM2_DictionaryAttackParameters"),
    (0x13d, "TPM2_PCR_Reset"),
    (0x143, "TPM2_SelfTest"),
    (0x144, "TPM2_Startup"),
    (0x145, "TPM2_Shutdown"),
    (0x153, "TPM2_Create"),
    (0x156, "TPM2_Import"),
    (0x157, "TPM2_Load"),
    (0x15d, "TPM2_Sign"),
    (0x161, "TPM2_ContextLoad"),
    (0x162, "TPM2_ContextSave"),
    (0x165, "TPM2_FlushContext"),
    (0x167, "TPM2_LoadExternal"),
    (0x16a, "TPM2_PolicyAuthorize"),
    (0x16b, "TPM2_PolicyAuthValue"),
    (0x16c, "TPM2_PolicyCommandCode"),
    (0x171, "TPM2_PolicyOR"),
    (0x173, "TPM2_ReadPublic"),
    (0x176, "TPM2_StartAuthSession"),
    (0x177, "TPM2_VerifySignature"),
    (0x17a, "TPM2_GetCapability"),
    (0x17b, "TPM2_GetRandom"),
    (0x17c, "TPM2_GetTestResult"),
    (0x17e, "TPM2_PCR_Read"),
    (0x17f, "TPM2_PolicyPCR"),
    (0x180, "TPM2_PolicyRestart"),
    (0x181, "TPM2_ReadClock"),
    (0x182, "TPM2_PCR_Extend"),
    (0x189, "TPM2_PolicyGetDigest"),
    (0x18a, "TPM2_TestParms"),
    (0x18c, "TPM2_PolicyPassword"),
    (0x191, "TPM2_CreateLoaded"),
    (0x193, "TPM2_EncryptDecrypt2"),
];

/// The commands in their order, by name or, where we know none, by code: `0x17d`.
pub(super) fn commands(log: &str) -> Vec<String> {
    let mut lines = log.lines();
    let mut commands = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("SWTPM_IO_Read:") {
            commands.extend(lines.next().and_then(code).map(name));
        }
    }
    commands
}

/// Behind a tag of two bytes and a size of four, in the first line of a dump.
fn code(dump: &str) -> Option<u32> {
    let digits: String = dump.split_whitespace().skip(6).take(4).collect();
    u32::from_str_radix(&digits, 16).ok()
}

fn name(code: u32) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == code);
    known.map_or_else(|| format!("{code:#x}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_answers_and_control_commands() {
        let log = " Ctrl Cmd: length 5\n 00 00 00 05 00 \n Ctrl Rsp: length 4\n 00 00 00 00 \n\
                   \u{20}SWTPM_IO_Read: length 22\n 80 01 00 00 00 16 00 00 01 7A 00 00 00 06 00 00 \n 02 00 00 00 00 7F \n\
                   \u{20}SWTPM_IO_Write: length 10\n 80 01 00 00 00 0A 00 00 01 01 \n\
                   \u{20}SWTPM_IO_Read: length 12\n 80 01 00 00 00 0C 00 00 01 7D 00 04 \n SWTPM_IO_Read: length";
        assert_eq!(commands(log), ["TPM2_GetCapability", "0x17d"]);
    }
}
