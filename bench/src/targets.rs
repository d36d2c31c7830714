//! What was to be reached.

/// A target, and what was measured.
pub(crate) struct Target {
    pub(crate) target: &'static str,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Target {
    pub(crate) fn row(&self) -> Vec<String> {
        let met = if self.met { "yes" } else { "NO" };
        vec![
            self.target.to_owned(),
            self.measured.clone(),
            met.to_owned(),
        ]
    }
}

/// Of what the token signs alone, through the agent: with 8 clients, which keep both sessions at work.
pub(crate) const SOFTHSM_PART: f64 = 0.90;
pub(crate) const SWTPM_PART: f64 = 0.95;

/// The agent's median round trip over the token's own time, in microseconds.
pub(crate) const ADDED_MICROS: f64 = 200.0;

/// Resident memory of roleseal-agent, in KiB: idle, and with 1,000 clients and 1,000 identities.
pub(crate) const IDLE_KIB: u64 = 8 * 1024;
pub(crate) const CROWDED_KIB: u64 = 24 * 1024;

/// Processor time of one credential-process in CLI, agent and token program, in milliseconds.
pub(crate) const CLI_CPU_MILLIS: f64 = 10.0;

pub(crate) const PKCS11_CALLS: f64 = 2.0;
pub(crate) const TPM_COMMANDS: f64 = 1.0;
