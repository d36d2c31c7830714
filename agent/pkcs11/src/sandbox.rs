//! What PKCS#11 modules in general can do without. They need much: files, devices and helpers of all kinds, and some
//! of them networks. Left to take away are system calls beyond a service's usual ones; programs from anywhere but the
//! system's directories; changes in those; and signals to other programs, the agent among them.

use std::ffi::c_long;
use std::path::PathBuf;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};
use libc::*;
use seccompiler::BackendError;
use token::link::Open;
use token::sandbox::{
    self, Calls, Confined, Fence, Sockets, Unconfined, free, library_calls, masked,
};

use crate::network;

/// Where programs may be run from: some modules have helpers (p11-kit's `remote:` runs ssh).
const PROGRAMS: &[&str] = &[
    "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu",
];

/// Directories of `/` that nothing is changed in. Not `/opt`: some vendors keep their logs there.
const UNCHANGED: &[&str] = &[
    "bin", "sbin", "usr", "lib", "lib32", "lib64", "libx32", "nix", "gnu", "etc", "boot",
];

pub(crate) fn confine(open: &Open) -> Fence {
    let with_network = match open {
        Open::Pkcs11(open) => open
            .token
            .network
            .unwrap_or_else(|| network::is_needed(&open.token.module)),
        Open::Tpm(_) => false, // it is not opened here
    };
    let files = confine_files();
    let calls = sandbox::allow_only(calls(with_network));
    [("Landlock", files), ("seccomp", calls)]
}

/// Calls of modules and of the helpers that they start, beyond those of every library: files, processes, servers.
const MODULE: &[c_long] = &[
    SYS_fcntl,
    SYS_ioctl,
    SYS_sync,
    SYS_syncfs,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fallocate,
    SYS_truncate,
    SYS_ftruncate,
    SYS_copy_file_range,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_utimensat,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_wait4,
    SYS_waitid,
    SYS_execve,
    SYS_setpgid,
    SYS_setsid,
    SYS_socketpair,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_recvmsg,
    SYS_recvmmsg,
    SYS_io_setup,
    SYS_io_submit,
    SYS_io_getevents,
    SYS_io_cancel,
    SYS_io_destroy,
    SYS_mq_open,
    SYS_mq_unlink,
    SYS_mq_timedsend,
    SYS_mq_timedreceive,
    SYS_mq_notify,
    SYS_mq_getsetattr,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_semctl,
    SYS_shmget,
    SYS_shmat,
    SYS_shmdt,
    SYS_shmctl,
    #[cfg(target_arch = "x86_64")]
    SYS_fork,
    #[cfg(target_arch = "x86_64")]
    SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    SYS_creat,
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    SYS_link,
    #[cfg(target_arch = "x86_64")]
    SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    SYS_rename,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    SYS_utime,
    #[cfg(target_arch = "x86_64")]
    SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    SYS_futimesat,
];

/// New namespaces. `clone3`, whose flags a filter cannot see, and `unshare` are not in the list at all.
const NAMESPACES: c_int = CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWUSER
    | CLONE_NEWUTS;

fn calls(with_network: bool) -> Result<Calls, BackendError> {
    let mut calls = library_calls(match with_network {
        true => Sockets::Network,
        false => Sockets::Local,
    })?;
    calls.extend(free(MODULE));
    let sealed = MFD_NOEXEC_SEAL.cast_signed();
    calls.extend([
        (SYS_clone, vec![masked(0, NAMESPACES, 0)?]),
        // Landlock's rules for programs do not hold for a file in memory: none that could be one is made, and none is run
        // by its descriptor.
        (SYS_memfd_create, vec![masked(1, sealed, sealed)?]),
        (SYS_execveat, vec![masked(4, AT_EMPTY_PATH, 0)?]),
    ]);
    Ok(calls)
}

fn confine_files() -> Confined {
    match changed() {
        Ok(changed) => sandbox::enforce(ruleset(changed)),
        Err(error) => Confined::Not(Unconfined::Failed(format!("cannot list /: {error}"))),
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

    /// Runs it in a thread that is confined: Landlock is a thread's, and ends with it.
    fn confined<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                assert_eq!(confine_files(), Confined::Wholly);
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
