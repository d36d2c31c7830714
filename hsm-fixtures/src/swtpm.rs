//! A TPM 2.0 of one's own, in software: swtpm.

mod commands;
mod ports;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command;
use crate::process::Process;
use ports::PortPair;

/// How long swtpm may take until it answers. On an idle machine it takes a few milliseconds; making its first
/// state, it works out the seeds of its hierarchies.
const READY: Duration = Duration::from_secs(20);
/// How long it may take for one command, before it is asked again.
const ANSWER: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// How many pairs of ports are tried, where programs that are not ours have taken some.
const ATTEMPTS: usize = 20;

/// TPM2_GetCapability for one property, TPM2_PT_MANUFACTURER.
const GET_CAPABILITY: [u8; 22] = [
    0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x01, 0x05, 0, 0, 0, 1,
];

/// A running swtpm on loopback ports of its own, started up (TPM2_Startup(CLEAR)) and logging each command. It ends
/// when dropped.
///
/// It has no resource manager: three transient objects fill it, and what a program leaves in it stays there. Several
/// programs may use it at the same time, since libtss2 connects to it anew for each command.
pub struct Swtpm {
    /// `None` after [`Swtpm::kill`].
    process: Option<Process>,
    ports: PortPair,
    dir: PathBuf,
}

impl Swtpm {
    /// Starts one in `dir`, which is made: its state in `state`, its log in `swtpm.log`.
    ///
    /// # Errors
    ///
    /// Where swtpm is missing, or `dir` exists, or it does not answer within 20 seconds.
    pub fn start(dir: &Path) -> Result<Swtpm> {
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::create_dir(dir.join("state"))?;
        for _ in 0..ATTEMPTS {
            let mut swtpm = Swtpm {
                process: None,
                ports: PortPair::reserve()?,
                dir: dir.to_owned(),
            };
            if swtpm.launch()? {
                return Ok(swtpm);
            }
        }
        bail!("other programs have taken each of {ATTEMPTS} pairs of ports");
    }

    /// How libtss2 finds it.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.ports.command())
    }

    /// The variables through which tpm2-tools and tpm2-openssl find it.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        ["TPM2TOOLS_TCTI", "TPM2OPENSSL_TCTI"]
            .map(|name| (name.to_owned(), self.tcti()))
            .to_vec()
    }

    /// Where its state and its log are, and the keys that are made on it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program that uses this TPM, with a clean environment.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = command::clean(program);
        command.envs(self.env());
        command
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// Where it does not; the error names its log.
    pub fn check(&self) -> Result<()> {
        let running = self.process.as_ref().is_some_and(Process::is_running);
        ensure!(
            running,
            "swtpm has ended; its log is {}",
            self.log_path().display()
        );
        Ok(())
    }

    /// Kills it without warning, as where the power fails. Its ports stay reserved for it.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to tell of it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Kills it, where it runs, and starts it again: the same state, the same ports.
    ///
    /// # Errors
    ///
    /// As for [`Swtpm::start`], and where another program has taken a port meanwhile.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        ensure!(
            self.launch()?,
            "another program has taken port {} or {}",
            self.ports.command(),
            self.ports.control()
        );
        Ok(())
    }

    /// Resets the TPM while swtpm runs, then TPM2_Startup(CLEAR): what a machine does when it resumes from suspend to
    /// RAM without saved state.
    ///
    /// # Errors
    ///
    /// Where swtpm_ioctl or tpm2_startup is missing or refuses.
    pub fn reset(&self) -> Result<()> {
        let control = format!("127.0.0.1:{}", self.ports.control());
        command::output(self.tool("swtpm_ioctl").args(["--tcp", &control, "-i"]))?;
        command::output(self.tool("tpm2_startup").arg("--clear"))?;
        Ok(())
    }

    /// Its log since its first start, with each command and each answer in hexadecimal.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The TPM commands since its first start, such as `TPM2_Sign`, or `0x17d` for one whose name we do not know.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        commands::commands(&self.log())
    }

    /// What `tpm2_getcap CAPABILITY` prints, such as of `handles-transient`.
    ///
    /// # Errors
    ///
    /// Where tpm2_getcap is missing or the TPM refuses.
    pub fn capability(&self, capability: &str) -> Result<String> {
        let output = command::output(self.tool("tpm2_getcap").arg(capability))?;
        Ok(String::from_utf8(output)?)
    }

    /// How many failed authorizations the TPM counts against dictionary attacks (TPM2_PT_LOCKOUT_COUNTER).
    ///
    /// # Errors
    ///
    /// Where tpm2_getcap is missing or the TPM refuses.
    pub fn lockout_counter(&self) -> Result<u32> {
        let properties = self.capability("properties-variable")?;
        let value = properties
            .lines()
            .find_map(|line| line.strip_prefix("TPM2_PT_LOCKOUT_COUNTER: 0x"))
            .context("tpm2_getcap tells no TPM2_PT_LOCKOUT_COUNTER")?;
        Ok(u32::from_str_radix(value.trim(), 16)?)
    }

    /// After how many failed authorizations it locks itself; one is forgotten every 1000 s. A new swtpm takes 3, the TPM
    /// of a PC usually 32. To lose power counts as one, too, where a key that is protected has been used.
    ///
    /// # Errors
    ///
    /// Where tpm2_dictionarylockout is missing or the TPM refuses.
    pub fn set_max_tries(&self, tries: u32) -> Result<()> {
        let mut setup = self.tool("tpm2_dictionarylockout");
        setup.args(["--setup-parameters", &format!("--max-tries={tries}")]);
        setup.args(["--recovery-time=1000", "--lockout-recovery-time=1000"]);
        command::output(&mut setup)?;
        Ok(())
    }

    /// Removes every transient object and session, whosesoever.
    ///
    /// # Errors
    ///
    /// Where tpm2_flushcontext is missing or the TPM refuses.
    pub fn flush(&self) -> Result<()> {
        for kind in ["--transient-object", "--loaded-session", "--saved-session"] {
            command::output(self.tool("tpm2_flushcontext").arg(kind))?;
        }
        Ok(())
    }

    /// Starts swtpm; says `false` where a port is taken.
    fn launch(&mut self) -> Result<bool> {
        let (command, control) = (self.ports.command(), self.ports.control());
        let mut swtpm = command::clean("swtpm");
        swtpm.args(["socket", "--tpm2", "--server"]);
        swtpm.arg(format!("type=tcp,port={command},bindaddr=127.0.0.1"));
        swtpm.arg("--ctrl");
        swtpm.arg(format!("type=tcp,port={control},bindaddr=127.0.0.1"));
        swtpm.args(["--flags", "not-need-init,startup-clear", "--tpmstate"]);
        swtpm.arg(format!("dir={}", self.dir.join("state").display()));
        swtpm.arg("--log");
        swtpm.arg(format!("level=20,file={}", self.log_path().display()));
        let before = self.log().len();
        let process = Process::spawn(swtpm, &self.dir.join("swtpm.err"))?;
        let deadline = Instant::now() + READY;
        // What answers may be another program on that port: then our log has not seen the question.
        while !(answers(command).is_ok() && self.log_since(before).contains("SWTPM_IO_Read")) {
            if !process.is_running() {
                let log = self.log_since(before);
                ensure!(
                    log.contains("Address already in use"),
                    "swtpm ended at once; its log:\n{log}{}",
                    process.log_tail()
                );
                return Ok(false);
            }
            ensure!(
                Instant::now() < deadline,
                "swtpm did not answer within {} s; its log:\n{}",
                READY.as_secs(),
                self.log_since(before)
            );
            std::thread::sleep(POLL);
        }
        self.process = Some(process);
        Ok(true)
    }

    fn log_since(&self, before: usize) -> String {
        self.log().get(before..).unwrap_or_default().to_owned()
    }

    /// Where [`Swtpm::log`] is.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("swtpm.log")
    }
}

/// Whether a TPM answers TPM2_GetCapability with success.
fn answers(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&GET_CAPABILITY)?;
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    ensure!(
        header.ends_with(&[0; 4]),
        "the TPM refuses to tell of itself"
    );
    // All of the answer: swtpm would log an error for a client that goes away earlier.
    let mut rest = [0; 17];
    stream.read_exact(&mut rest)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn swtpm() -> (tempfile::TempDir, Swtpm) {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
        (dir, swtpm)
    }

    #[test]
    fn its_log_tells_the_commands() {
        let (_dir, swtpm) = swtpm();
        assert_eq!(swtpm.commands().last().unwrap(), "TPM2_GetCapability");
        let before = swtpm.commands().len();
        command::output(swtpm.tool("tpm2_getrandom").args(["--hex", "8"])).unwrap();
        let commands = swtpm.commands();
        assert_eq!(commands[before..].last().unwrap(), "TPM2_GetRandom");
        assert!(swtpm.log().contains("SWTPM_IO_Write"));
        assert_eq!(swtpm.lockout_counter().unwrap(), 0);
    }

    /// A key in the TPM, at a transient handle.
    fn add_transient(swtpm: &Swtpm) {
        let mut create = swtpm.tool("tpm2_createprimary");
        create.args(["-Q", "-G", "ecc", "-c"]);
        command::output(create.arg(swtpm.dir().join("primary.ctx"))).unwrap();
    }

    #[test]
    fn it_comes_back_with_its_state_on_its_ports() {
        let (_dir, mut swtpm) = swtpm();
        add_transient(&swtpm);
        let mut persist = swtpm.tool("tpm2_evictcontrol");
        persist.args(["-Q", "0x81000001", "-c"]);
        command::output(persist.arg(swtpm.dir().join("primary.ctx"))).unwrap();
        let tcti = swtpm.tcti();
        swtpm.kill().unwrap();
        assert!(swtpm.capability("handles-persistent").is_err());
        for _ in 0..2 {
            swtpm.restart().unwrap();
            assert_eq!(swtpm.tcti(), tcti);
            let persistent = swtpm.capability("handles-persistent").unwrap();
            assert_eq!(persistent, "- 0x81000001\n");
            assert_eq!(swtpm.capability("handles-transient").unwrap(), "");
        }
    }

    #[test]
    fn a_reset_loses_what_is_transient() {
        let (_dir, swtpm) = swtpm();
        add_transient(&swtpm);
        assert_ne!(swtpm.capability("handles-transient").unwrap(), "");
        swtpm.reset().unwrap();
        assert_eq!(swtpm.capability("handles-transient").unwrap(), "");
    }

    #[test]
    fn many_start_at_once_and_none_is_left() {
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(swtpm)).collect();
        let running: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        let tctis: BTreeSet<String> = running.iter().map(|(_, swtpm)| swtpm.tcti()).collect();
        assert_eq!(tctis.len(), running.len());
        let ids: Vec<u32> = running
            .iter()
            .map(|(_, swtpm)| swtpm.process.as_ref().unwrap().id())
            .collect();
        drop(running);
        for id in ids {
            assert!(!Path::new(&format!("/proc/{id}")).exists());
        }
    }

    #[test]
    fn a_port_that_a_stranger_has_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let mut swtpm = Swtpm {
            process: None,
            ports: PortPair::reserve().unwrap(),
            dir: dir.path().to_owned(),
        };
        let taken = (Ipv4Addr::LOCALHOST, swtpm.ports.control());
        let stranger = std::net::TcpListener::bind(taken).unwrap();
        assert!(!swtpm.launch().unwrap());
        drop(stranger);
        // The first swtpm had the other port for an instant, and may have been asked on it.
        let deadline = Instant::now() + READY;
        while !swtpm.launch().unwrap() {
            assert!(Instant::now() < deadline);
        }
    }
}
