//! A PKCS#11 module that misbehaves on cue, between a program and SoftHSM.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use roleseal_faulty_module::{CALLS, CONTROL, Fault, TARGET};

use crate::programs;
use crate::softhsm::SoftHsm;

/// The faulty module of one program: its cues, and the calls that it got.
///
/// A program that loads [`FaultyModule::module`] with [`FaultyModule::env`] in its environment gets SoftHSM, until
/// [`FaultyModule::inject`] says otherwise. The agent hands its environment on to its token programs.
#[derive(Debug)]
pub struct FaultyModule {
    module: PathBuf,
    target: PathBuf,
    control: PathBuf,
    calls: PathBuf,
    /// The number of the last cue.
    last: Mutex<u64>,
}

impl FaultyModule {
    /// A module with its files `faults*` and `calls` in `dir`.
    ///
    /// # Errors
    ///
    /// Where the module has not been built, or SoftHSM is missing.
    pub fn new(dir: &Path) -> Result<FaultyModule> {
        Ok(FaultyModule {
            module: programs::faulty_module()?,
            target: SoftHsm::module()?,
            control: dir.join("faults"),
            calls: dir.join("calls"),
            last: Mutex::new(0),
        })
    }

    /// The module's file, for `pkcs11-module` or `--module`.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The variables that a program needs which loads it, beside SoftHSM's own.
    #[must_use]
    pub fn env(&self) -> [(&'static str, PathBuf); 3] {
        [
            (TARGET, self.target.clone()),
            (CONTROL, self.control.clone()),
            (CALLS, self.calls.clone()),
        ]
    }

    /// These are the faults from now on, such as `C_Sign return CKR_DEVICE_REMOVED times 3`, and no others; what
    /// can be written is in the documentation of `roleseal-faulty-module`. All counts begin anew.
    ///
    /// # Errors
    ///
    /// Where that is no fault, or the control file cannot be written.
    pub fn inject(&self, faults: &[&str]) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for fault in faults {
            fault.parse::<Fault>()?;
            *last += 1;
            text += &format!("{last} {fault}\n");
        }
        // A whole file in one step: somebody reads it at any moment.
        let new = self.control.with_extension("new");
        fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, &self.control)
            .with_context(|| format!("cannot replace {}", self.control.display()))
    }

    /// No fault any more: what hangs goes on, the token is where SoftHSM has it.
    ///
    /// # Errors
    ///
    /// Where the control file cannot be written.
    pub fn clear(&self) -> Result<()> {
        self.inject(&[])
    }

    /// The names of the functions called so far, by whatever process, in their order.
    ///
    /// # Errors
    ///
    /// Where the calls cannot be read.
    pub fn calls(&self) -> Result<Vec<String>> {
        let calls = self.recorded()?;
        Ok(calls.into_iter().map(|(_, function)| function).collect())
    }

    /// The ids of the processes that have called anything so far.
    ///
    /// # Errors
    ///
    /// Where the calls cannot be read.
    pub fn processes(&self) -> Result<BTreeSet<u32>> {
        let calls = self.recorded()?;
        Ok(calls.into_iter().map(|(process, _)| process).collect())
    }

    /// How often that function was called so far.
    ///
    /// # Errors
    ///
    /// Where the calls cannot be read.
    pub fn count(&self, function: &str) -> Result<usize> {
        let calls = self.calls()?;
        Ok(calls.iter().filter(|call| *call == function).count())
    }

    /// Process and function of each call.
    fn recorded(&self) -> Result<Vec<(u32, String)>> {
        if !self.calls.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read_to_string(&self.calls)
            .with_context(|| format!("cannot read {}", self.calls.display()))?;
        let call = |line: &str| {
            let (process, function) = line.split_once(' ')?;
            Some((process.parse().ok()?, function.to_owned()))
        };
        Ok(text.lines().filter_map(call).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use openssl::bn::BigNum;
    use openssl::ecdsa::EcdsaSig;
    use openssl::pkey::{PKey, Public};

    use super::*;
    use crate::softhsm::{KeyKind, KeySpec, Token};

    const DIGEST: [u8; 32] = [7; 32];

    /// A token with the keys `web` and `other`, and pkcs11-tool on the faulty module.
    struct Lab {
        web: PKey<Public>,
        other: PKey<Public>,
        faulty: FaultyModule,
        store: SoftHsm,
        token: Token,
        dir: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Lab {
            let dir = tempfile::tempdir().unwrap();
            let store = SoftHsm::create(dir.path()).unwrap();
            let token = store.add_token("lab", "2684").unwrap();
            let key = |label| {
                let spki = token.generate(&KeySpec::new(label, KeyKind::EcP256));
                PKey::public_key_from_der(&spki.unwrap()).unwrap()
            };
            fs::write(dir.path().join("digest"), DIGEST).unwrap();
            Lab {
                web: key("web"),
                other: key("other"),
                faulty: FaultyModule::new(dir.path()).unwrap(),
                store,
                token,
                dir,
            }
        }

        fn inject(&self, fault: &str) {
            self.faulty.inject(&[fault]).unwrap();
        }

        fn tool(&self, arguments: &[&str]) -> Command {
            let mut tool = crate::command::clean("pkcs11-tool");
            tool.arg("--module").arg(self.faulty.module());
            tool.envs(self.faulty.env()).envs(self.store.env());
            tool.args(arguments).current_dir(self.dir.path());
            tool.stdout(Stdio::piped()).stderr(Stdio::piped());
            tool
        }

        fn sign(&self) -> Command {
            // It looks for keys by their id alone; ours is the label's.
            let id = hex::encode("web");
            let key = ["--token-label", self.token.label(), "--id", &id];
            let login = ["--login", "--pin", self.token.pin()];
            let files = ["--input-file", "digest", "--output-file", "signature"];
            let sign = ["--sign", "--mechanism", "ECDSA"];
            self.tool(&[&sign, &key[..], &login, &files].concat())
        }

        /// What pkcs11-tool makes, and what it says.
        fn signature(&self) -> (Option<Vec<u8>>, String) {
            let file = self.dir.path().join("signature");
            let _ = fs::remove_file(&file); // there need not be one
            let output = self.sign().output().unwrap();
            let signature = fs::read(file).ok().filter(|bytes| !bytes.is_empty());
            (
                signature.filter(|_| output.status.success()),
                words(&output),
            )
        }

        fn slots(&self) -> String {
            words(&self.tool(&["--list-slots"]).output().unwrap())
        }
    }

    fn words(output: &Output) -> String {
        let both = [output.stdout.as_slice(), &output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    fn verifies(key: &PKey<Public>, signature: &[u8]) -> bool {
        let (r, s) = signature.split_at(32);
        let number = |half| BigNum::from_slice(half).unwrap();
        EcdsaSig::from_private_components(number(r), number(s))
            .unwrap()
            .verify(&DIGEST, &key.ec_key().unwrap())
            .unwrap()
    }

    #[test]
    fn without_a_cue_it_is_the_module_behind_it() {
        let lab = Lab::new();
        let (signature, said) = lab.signature();
        assert!(verifies(&lab.web, &signature.expect(&said)));
        for function in ["C_Initialize", "C_Login", "C_Sign", "C_Finalize"] {
            assert_eq!(lab.faulty.count(function).unwrap(), 1, "{function}");
        }
        assert_eq!(lab.faulty.calls().unwrap()[0], "C_Initialize");
        assert_eq!(lab.faulty.processes().unwrap().len(), 1);
        let test = ["--test", "--login", "--pin", lab.token.pin()];
        let output = lab.tool(&test).output().unwrap();
        assert!(output.status.success(), "{}", words(&output));
    }

    #[test]
    fn codes_are_returned_by_name_and_number_and_counted_over_processes() {
        let lab = Lab::new();
        for (fault, code) in [
            ("C_Login return CKR_PIN_LOCKED", "CKR_PIN_LOCKED"),
            ("C_SignInit return CKR_DEVICE_REMOVED", "CKR_DEVICE_REMOVED"),
            ("C_SignInit return 0x80000042", "0x80000042"),
            ("C_OpenSession limit 0", "CKR_SESSION_COUNT"),
        ] {
            lab.inject(fault);
            let (signature, said) = lab.signature();
            assert_eq!(signature, None, "{fault}: {said}");
            assert!(said.contains(code), "{fault}: {said}");
        }
        lab.inject("C_Login return CKR_DEVICE_ERROR after 1 times 2");
        let signed: Vec<bool> = (0..4).map(|_| lab.signature().0.is_some()).collect();
        assert_eq!(signed, [true, false, false, true]);
        lab.faulty.clear().unwrap();
        assert!(lab.signature().0.is_some());
    }

    #[test]
    fn processes_end_as_they_are_told() {
        use std::os::unix::process::ExitStatusExt;
        let lab = Lab::new();
        let end = |fault| {
            lab.inject(fault);
            lab.sign().status().unwrap()
        };
        assert_eq!(end("C_Sign segfault").signal(), Some(11));
        assert_eq!(end("C_Login abort").signal(), Some(6));
        assert_eq!(end("C_Initialize exit 3").code(), Some(3));
    }

    #[test]
    fn a_function_hangs_until_its_cue_is_gone() {
        let lab = Lab::new();
        lab.inject("C_Sign hang times 1");
        let mut hung = lab.sign().spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while lab.faulty.count("C_Sign").unwrap() == 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        // Another one does its work meanwhile.
        assert!(lab.sign().status().unwrap().success());
        assert_eq!(hung.try_wait().unwrap(), None);
        lab.faulty.clear().unwrap();
        assert!(hung.wait().unwrap().success());

        lab.inject("C_Sign hang forever");
        let mut hung = lab.sign().spawn().unwrap();
        while lab.faulty.count("C_Sign").unwrap() < 3 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        lab.faulty.clear().unwrap();
        assert!(lab.sign().status().unwrap().success());
        assert_eq!(hung.try_wait().unwrap(), None);
        hung.kill().unwrap();
        hung.wait().unwrap();
    }

    #[test]
    fn a_slow_function_works() {
        let lab = Lab::new();
        lab.inject("C_Sign sleep 400");
        let start = Instant::now();
        assert!(lab.signature().0.is_some());
        assert!(start.elapsed() >= Duration::from_millis(400));
    }

    #[test]
    fn signatures_are_wrong_in_a_bit_or_of_another_key() {
        let lab = Lab::new();
        lab.inject("C_Sign flip");
        let signature = lab.signature().0.unwrap();
        assert_eq!(signature.len(), 64);
        assert!(!verifies(&lab.web, &signature) && !verifies(&lab.other, &signature));
        lab.inject("C_SignInit key other reopened");
        let signature = lab.signature().0.unwrap();
        assert!(!verifies(&lab.web, &signature) && verifies(&lab.other, &signature));
    }

    #[test]
    fn the_token_goes_and_comes_back_elsewhere() {
        let lab = Lab::new();
        let slot = |listed: &str| {
            let (_, hex) = listed.split_once("(0x").unwrap();
            u64::from_str_radix(hex.split_once(')').unwrap().0, 16).unwrap()
        };
        let before = lab.slots();
        assert!(before.contains("token label        : lab"), "{before}");
        lab.inject("token absent");
        let absent = lab.slots();
        assert!(!absent.contains("token label"), "{absent}");
        assert_eq!(lab.signature().0, None);
        lab.inject("token back shift 1000");
        let back = lab.slots();
        assert_eq!(slot(&back), slot(&before) + 1000, "{back}");
        assert!(lab.signature().0.is_some());
        lab.inject("token back reinitialized");
        assert!(lab.signature().0.is_some());
    }

    #[test]
    fn flags_of_the_token_are_set() {
        let lab = Lab::new();
        let listed = lab.slots();
        assert!(!listed.contains("final user PIN try"), "{listed}");
        lab.inject("C_GetTokenInfo flags CKF_USER_PIN_FINAL_TRY CKF_USER_PIN_LOCKED");
        let listed = lab.slots();
        for flag in ["final user PIN try", "user PIN locked"] {
            assert!(listed.contains(flag), "{listed}");
        }
    }

    #[test]
    fn what_is_no_fault_is_not_injected() {
        let lab = Lab::new();
        let error = lab.faulty.inject(&["C_Sign explode"]).unwrap_err();
        assert!(error.to_string().contains("explode"), "{error}");
        // By hand it is, and nobody takes what follows for a result.
        fs::write(lab.dir.path().join("faults"), "1 C_Sign explode\n").unwrap();
        let (signature, said) = lab.signature();
        assert_eq!(signature, None);
        assert!(said.contains("faulty-module:"), "{said}");
    }
}
