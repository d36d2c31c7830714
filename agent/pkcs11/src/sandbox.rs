//! What PKCS#11 modules in general can do without. They need much: files, devices and networks of all
//! kinds. Left to take away are system calls, which `token::program` does; programs from anywhere but the
//! system's directories; changes in those; and signals to other programs, the agent among them.

use std::path::PathBuf;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};
use token::link::Open;
use token::sandbox::{self, Confined};

/// Where programs may be run from: some modules have helpers (p11-kit's `remote:` runs ssh).
const PROGRAMS: &[&str] = &[
    "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu",
];

/// Directories of `/` that nothing is changed in. Not `/opt`: some vendors keep their logs there.
const UNCHANGED: &[&str] = &[
    "bin", "sbin", "usr", "lib", "lib32", "lib64", "libx32", "nix", "gnu", "etc", "boot",
];

pub(crate) fn confine(_: &Open) -> Confined {
    match changed() {
        Ok(changed) => sandbox::enforce(ruleset(changed)),
        Err(error) => Confined::Not(sandbox::Unconfined::Failed(format!(
            "cannot list /: {error}"
        ))),
    }
}

fn ruleset(changed: Vec<PathBuf>) -> Result<landlock::RulesetCreated, RulesetError> {
    Ruleset::default()
        // Without this right, the first Landlock forbids every move of a file to another directory.
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writing() | AccessFs::Execute)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, AccessFs::Execute))?
        .add_rules(path_beneath_rules(changed, writing()))
}

/// All ways to change files that Landlock knows, but requests to devices.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::from_write(ABI::V4)
}

/// All of `/` but [`UNCHANGED`], whatever an administrator has put there. Links lead to one of these.
fn changed() -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir("/")? {
        let entry = entry?;
        let unchanged = UNCHANGED.iter().any(|name| entry.file_name() == *name);
        if !unchanged && !entry.file_type()?.is_symlink() {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::io::ErrorKind;
    use std::process::Command;

    use token::link::OpenPkcs11;

    fn open() -> Open {
        Open::Pkcs11(Box::new(OpenPkcs11 {
            module: "/usr/lib/module.so".into(),
            token: "pkcs11:token=lab".parse().unwrap(),
            pin: None,
            sessions: 1,
            keys: vec![],
        }))
    }

    /// Runs it in a thread that is confined: Landlock is a thread's, and ends with it.
    fn confined<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                assert_eq!(confine(&open()), Confined::Wholly);
                run()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn programs_are_run_from_the_systems_directories_alone() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("true");
        // Not copied by this process: while a file is open for writing in one that forks, it cannot be
        // executed.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/bin/true"]).arg(&program);
        assert!(install.status().unwrap().success());
        assert!(Command::new(&program).status().unwrap().success());
        let (there, system) = confined(|| {
            (
                Command::new(&program).status(),
                Command::new("/bin/true").status(),
            )
        });
        assert_eq!(there.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(system.unwrap().success());
    }

    #[test]
    fn the_systems_directories_stay_as_they_are_and_the_others_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let own = |name: &str| directory.path().join(name);
        fs::create_dir(own("sub")).unwrap();
        confined(|| {
            fs::write(own("token"), "object").unwrap();
            fs::write(own("token"), "other").unwrap();
            fs::rename(own("token"), own("sub/token")).unwrap();
            fs::remove_file(own("sub/token")).unwrap();
            fs::File::options().write(true).open("/dev/null").unwrap();
            for place in ["/usr/lib/roleseal-test", "/etc/roleseal-test"] {
                let error = fs::write(place, "").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{place}");
            }
            assert!(fs::read_dir("/etc").is_ok());
        });
    }

    #[test]
    fn other_programs_get_no_signals() {
        let mut sleeping = Command::new("sleep").arg("60").spawn().unwrap();
        let result = confined(|| sleeping.kill());
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
