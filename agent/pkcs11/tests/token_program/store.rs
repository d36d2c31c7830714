//! SoftHSM stores, modules, and `roleseal-pkcs11` with them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use token::link::{KeyReport, Open, OpenKey, OpenPkcs11};
use token::{PinSource, Pkcs11Token, Pkcs11Uri, TokenError, TokenMatch};

use crate::harness::Program;

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_roleseal-pkcs11");
pub(super) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(super) const PIN: &str = "1234";

/// A SoftHSM store of its own, with a token `lab`, in a directory that goes away.
pub(super) struct Store {
    pub(super) directory: TempDir,
}

impl Store {
    pub(super) fn new() -> Store {
        let store = Store {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(store.path("tokens")).unwrap();
        let tokens = store.path("tokens");
        let conf = format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            tokens.display()
        );
        store.file("softhsm2.conf", &conf);
        store.file("lab.pin", PIN);
        store.token("lab");
        store
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(super) fn conf(&self) -> String {
        self.path("softhsm2.conf").to_str().unwrap().to_owned()
    }

    pub(super) fn token(&self, label: &str) {
        let init = ["--init-token", "--free", "--so-pin", "5678", "--pin", PIN];
        let arguments = [&init[..], &["--label", label]].concat();
        self.run("softhsm2-util", "softhsm2", &arguments);
    }

    /// A key pair, made on the token.
    pub(super) fn generate(&self, kind: &str, id: &str, label: &str, more: &[&str]) {
        let key = ["--keypairgen", "--key-type", kind, "--id", id];
        let login = ["--login", "--pin", PIN, "--label", label];
        let usage = ["--usage-sign", "--sensitive"];
        self.tool(&[&key, &login[..], &usage, more].concat());
    }

    /// A key pair of a label alone, without a CKA_ID.
    pub(super) fn generate_without_id(&self, label: &str) {
        let key = ["--keypairgen", "--key-type", "EC:prime256v1"];
        let login = ["--login", "--pin", PIN, "--label", label, "--usage-sign"];
        self.tool(&[&key[..], &login].concat());
    }

    /// A key pair made by `openssl`; its public half stays beside the token too.
    pub(super) fn import(&self, kind: &str, id: &str, more: &[&str]) {
        self.openssl(&format!("genpkey -algorithm {kind} -out key.pem"));
        self.openssl(&format!("pkey -in key.pem -pubout -out {id}.pem"));
        let import = ["--import", "key.pem", "--token", "lab", "--pin", PIN];
        let name = ["--id", id, "--label", "imported"];
        self.run(
            "softhsm2-util",
            "softhsm2",
            &[&import, &name[..], more].concat(),
        );
    }

    /// A database without a password.
    pub(super) fn nss_database(&self) -> String {
        let database = format!("sql:{}", self.path("").display());
        self.certutil("-N --empty-password", &database);
        database
    }

    pub(super) fn certutil(&self, command: &str, database: &str) {
        let arguments = command.split(' ').chain(["-d", database]);
        let arguments: Vec<&str> = arguments.collect();
        self.run("certutil", "libnss3-tools", &arguments);
    }

    /// The program with NSS's token in that database: the module to name, and what to spawn. The token takes its
    /// parameters through p11-kit, from the user's own configuration, which p11-kit does not read for root.
    pub(super) fn softoken(&self, database: &str, flags: &str) -> (String, Command) {
        let modules = self.path("home/.config/pkcs11/modules");
        fs::create_dir_all(&modules).unwrap();
        let softoken = module("libsoftokn3.so", "libnss3");
        let parameters = format!("configDir='{database}' {flags}");
        let settings = format!("module: {softoken}\nx-init-reserved: {parameters}\n");
        fs::write(modules.join("softoken.module"), settings).unwrap();

        // Not copied by this process: while a file is open for writing in one that forks, it cannot be
        // executed. And whoever runs the tests: as the owner of the store, root's being given away.
        self.run("install", "coreutils", &["-m", "755", PROGRAM, "program"]);
        let mut command = Command::new(self.path("program"));
        command.env_clear().env("HOME", self.path("home"));
        if fs::metadata(self.path("")).unwrap().uid() == 0 {
            self.run("chown", "coreutils", &["-R", "nobody", "."]);
            command.uid(fs::metadata(self.path("")).unwrap().uid());
        }
        let proxy = module("p11-kit-proxy.so", "p11-kit-modules");
        (proxy, command)
    }

    pub(super) fn certificate(&self, name: &str) -> Vec<u8> {
        let der = format!("{name}.der");
        let subject = format!("/CN={name}");
        let request =
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem";
        let mut arguments: Vec<&str> = request.split(' ').collect();
        arguments.extend(["-subj", &subject, "-outform", "DER", "-out", &der]);
        self.run("openssl", "openssl", &arguments);
        fs::read(self.path(&der)).unwrap()
    }

    pub(super) fn write_certificate(&self, file: &str, id: &str, label: &str, more: &[&str]) {
        let write = ["--login", "--pin", PIN, "--write-object", file];
        let what = ["--type", "cert", "--id", id, "--label", label];
        self.tool(&[&write, &what[..], more].concat());
    }

    /// Whether `openssl` finds that this is the key's signature over the text.
    pub(super) fn verifies(&self, id: &str, text: &str, signature: &[u8]) -> bool {
        let public = format!("{id}.pem");
        if !self.path(&public).exists() {
            let read = ["--read-object", "--type", "pubkey", "--id", id];
            self.tool(&[&read[..], &["--output-file", "public.der"]].concat());
            let convert = ["pkey", "-pubin", "-inform", "DER", "-in", "public.der"];
            let arguments = [&convert[..], &["-out", &public]].concat();
            self.run("openssl", "openssl", &arguments);
        }
        fs::write(self.path("text"), text).unwrap();
        fs::write(self.path("signature"), signature).unwrap();
        let verify = ["dgst", "-sha256", "-verify", &public];
        let arguments = [&verify[..], &["-signature", "signature", "text"]].concat();
        self.try_run("openssl", "openssl", &arguments)
            .status
            .success()
    }

    pub(super) fn tool(&self, arguments: &[&str]) -> String {
        let module = ["--module", SOFTHSM, "--token-label", "lab"];
        self.run("pkcs11-tool", "opensc", &[&module[..], arguments].concat())
    }

    pub(super) fn openssl(&self, command: &str) -> String {
        let arguments: Vec<&str> = command.split(' ').collect();
        self.run("openssl", "openssl", &arguments)
    }

    /// What it wrote to standard output.
    pub(super) fn run(&self, program: &str, package: &str, arguments: &[&str]) -> String {
        let output = self.try_run(program, package, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn try_run(&self, program: &str, package: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SOFTHSM2_CONF", self.conf())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; run `apt install {package}`"))
    }

    pub(super) fn open<K: AsRef<str>>(&self, keys: &[K]) -> OpenPkcs11 {
        self.open_in(SOFTHSM, keys)
    }

    pub(super) fn open_in<K: AsRef<str>>(&self, module: &str, keys: &[K]) -> OpenPkcs11 {
        let key = |uri: &K| OpenKey {
            uri: uri.as_ref().parse().unwrap(),
            certificate: None,
            public_key: None,
        };
        OpenPkcs11 {
            token: Pkcs11Token {
                network: None,
                module: module.into(),
                token: TokenMatch::default(),
                pin: Some(PinSource::File(self.path("lab.pin"))),
                sessions: 2,
            },
            keys: keys.iter().map(key).collect(),
        }
    }

    /// Why the token as a whole cannot be opened.
    pub(super) fn refusal(&self, open: OpenPkcs11) -> TokenError {
        let opened = Program::start(self).reports(Open::Pkcs11(Box::new(open)));
        opened.unwrap_err()
    }
}

/// The token that a URI names.
pub(super) fn token(uri: &str) -> TokenMatch {
    uri.parse::<Pkcs11Uri>().unwrap().token
}

/// pkcs11-spy: the module that logs every call to the one behind it.
pub(super) struct Spy {
    pub(super) module: String,
    pub(super) log: PathBuf,
    pub(super) environment: [(&'static str, String); 3],
}

impl Spy {
    pub(super) fn new(store: &Store) -> Spy {
        let module = module("pkcs11-spy.so", "opensc-pkcs11");
        let log = store.path("spy.log");
        let environment = [
            ("SOFTHSM2_CONF", store.conf()),
            ("PKCS11SPY", SOFTHSM.to_owned()),
            ("PKCS11SPY_OUTPUT", log.to_str().unwrap().to_owned()),
        ];
        Spy {
            module,
            log,
            environment,
        }
    }

    /// The names of the functions called so far.
    pub(super) fn calls(&self) -> Vec<String> {
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        let call = |line: &str| {
            let (number, name) = line.split_once(": ")?;
            number.parse::<u32>().ok()?;
            name.starts_with("C_").then(|| name.trim().to_owned())
        };
        log.lines().filter_map(call).collect()
    }
}

pub(super) fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| *call == name).count()
}

/// A module in the directory of this machine's architecture, as `/usr/lib/x86_64-linux-gnu`.
pub(super) fn module(name: &str, package: &str) -> String {
    let directories = fs::read_dir("/usr/lib").unwrap();
    directories
        .map(|directory| directory.unwrap().path().join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run `apt install {package}`"))
        .to_str()
        .unwrap()
        .to_owned()
}

impl Program {
    pub(super) fn start(store: &Store) -> Program {
        Program::start_with(store, &[("SOFTHSM2_CONF", store.conf())])
    }

    pub(super) fn start_with(store: &Store, environment: &[(&str, String)]) -> Program {
        let mut command = Command::new(PROGRAM);
        command.current_dir(store.directory.path()).env_clear();
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        Program::spawn(command)
    }

    pub(super) fn opened(&mut self, open: OpenPkcs11) -> Vec<KeyReport> {
        self.reports(Open::Pkcs11(Box::new(open))).unwrap()
    }

    pub(super) fn ask_to_open(&mut self, open: OpenPkcs11) {
        self.send_open(Open::Pkcs11(Box::new(open)));
    }
}
