//! A TPM of its own for each test: swtpm on loopback ports, with its state in a directory that goes away.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use token::Tcti;

/// A running swtpm.
pub(crate) struct Swtpm {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
}

/// swtpm needs some milliseconds to start; a busy machine may need seconds.
const START_DEADLINE: Duration = Duration::from_secs(20);

impl Swtpm {
    pub(crate) fn start() -> Swtpm {
        Swtpm::start_in(tempfile::tempdir().unwrap())
    }

    /// As its maker would deliver it: with endorsement keys' certificates in its NV memory, and their issuer's in
    /// `ca/issuercert.pem`.
    pub(crate) fn start_manufactured() -> Swtpm {
        let directory = tempfile::tempdir().unwrap();
        manufacture(&directory);
        Swtpm::start_in(directory)
    }

    fn start_in(directory: TempDir) -> Swtpm {
        // Another program may take the ports between our look and swtpm's start.
        for _ in 0..20 {
            let port = free_ports();
            let mut child = spawn(&directory, port);
            if wait_for(&mut child, port) {
                return Swtpm {
                    directory,
                    port,
                    child: Some(child),
                };
            }
        }
        panic!("swtpm does not start: {}", directory.path().display());
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again at its old ports, with its old state.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut child = spawn(&self.directory, self.port);
        assert!(wait_for(&mut child, self.port), "swtpm does not restart");
        self.child = Some(child);
    }

    /// TPM_Init, as when the machine is reset, while the connection stays.
    pub(crate) fn reset(&self) {
        let control = format!("127.0.0.1:{}", self.port + 1);
        self.run("swtpm_ioctl", &["--tcp", &control, "-i"]);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn tcti(&self) -> Tcti {
        self.tcti_text().parse().unwrap()
    }

    fn tcti_text(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a tool in the directory, on this TPM: `tpm2_create -C 0x81000001 …`.
    pub(crate) fn tool(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        self.run(program, &words.collect::<Vec<_>>())
    }

    pub(crate) fn run(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> String {
        let output = self.output(program, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn output(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> Output {
        command(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TPM2TOOLS_TCTI", self.tcti_text())
            .env("TPM2OPENSSL_TCTI", self.tcti_text())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| missing(program, &error))
    }

    /// What went over the bus so far, in hex.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("swtpm.log")).unwrap()
    }

    /// The command codes that the TPM has received so far.
    pub(crate) fn commands(&self) -> Vec<u32> {
        let log = self.log();
        let mut lines = log.lines();
        let mut commands = Vec::new();
        while let Some(line) = lines.next() {
            if !line.contains("SWTPM_IO_Read:") {
                continue;
            }
            // tag, size and code: 2, 4 and 4 bytes. swtpm may be writing the last line just now.
            let code: Option<String> = lines.next().and_then(|bytes| {
                let code: String = bytes.split_whitespace().skip(6).take(4).collect();
                (code.len() == 8).then_some(code)
            });
            commands.extend(code.map(|code| u32::from_str_radix(&code, 16).unwrap()));
        }
        commands
    }

    /// How many of them were TPM2_Sign.
    pub(crate) fn signatures(&self) -> usize {
        const TPM2_SIGN: u32 = 0x15d;
        let commands = self.commands();
        commands.iter().filter(|code| **code == TPM2_SIGN).count()
    }

    /// Failed authorizations that the TPM counts.
    pub(crate) fn lockout_counter(&self) -> u32 {
        let properties = self.tool("tpm2_getcap properties-variable");
        let line = properties
            .lines()
            .find(|line| line.starts_with("TPM2_PT_LOCKOUT_COUNTER"));
        let (_, value) = line.unwrap().split_once("0x").unwrap();
        u32::from_str_radix(value.trim(), 16).unwrap()
    }

    /// Transient objects and sessions in the TPM.
    pub(crate) fn handles(&self) -> String {
        let objects = self.tool("tpm2_getcap handles-transient");
        objects + &self.tool("tpm2_getcap handles-loaded-session")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// With nothing of the developer's environment.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("TSS2_LOG", "all+NONE");
    command
}

fn missing(program: &str, error: &std::io::Error) -> ! {
    let package = match program {
        "swtpm" => "swtpm",
        "swtpm_ioctl" | "swtpm_setup" => "swtpm-tools gnutls-bin",
        "openssl" => "openssl tpm2-openssl",
        _ => "tpm2-tools",
    };
    panic!("cannot run {program} ({error}): apt install {package}")
}

fn spawn(directory: &TempDir, port: u16) -> Child {
    let path = directory.path().display();
    command("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--server")
        .arg(format!("type=tcp,bindaddr=127.0.0.1,port={port}"))
        .arg("--ctrl")
        .arg(format!("type=tcp,bindaddr=127.0.0.1,port={}", port + 1))
        .args(["--tpmstate", &format!("dir={path}")])
        .args(["--log", &format!("level=20,file={path}/swtpm.log")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| missing("swtpm", &error))
}

fn manufacture(directory: &TempDir) {
    let place = directory.path().display();
    fs::create_dir(directory.path().join("ca")).unwrap();
    for (name, text) in [
        (
            "setup.conf",
            format!(
                "create_certs_tool=swtpm_localca\ncreate_certs_tool_config={place}/ca.conf\n\
                 create_certs_tool_options={place}/ca.options\n"
            ),
        ),
        (
            "ca.conf",
            format!(
                "statedir = {place}/ca\nsigningkey = {place}/ca/signkey.pem\n\
                 issuercert = {place}/ca/issuercert.pem\ncertserial = {place}/ca/certserial\n"
            ),
        ),
        ("ca.options", "--tpm-model swtpm\n".to_owned()),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let output = command("swtpm_setup")
        .args(["--tpm2", "--ecc", "--create-ek-cert", "--tpmstate", "."])
        .args(["--config", "setup.conf", "--logfile", "setup.log"])
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| missing("swtpm_setup", &error));
    let log = || fs::read_to_string(directory.path().join("setup.log"));
    assert!(output.status.success(), "{output:?} {:?}", log());
}

/// A port such that the next one is free too: libtss2 looks for swtpm's control channel there.
fn free_ports() -> u16 {
    loop {
        let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = data.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return port;
        }
    }
}

/// Whether it listens; `false` when it ended instead.
fn wait_for(child: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + START_DEADLINE;
    let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    while !(listens(port) && listens(port + 1)) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "swtpm does not listen");
        std::thread::yield_now();
    }
    true
}
