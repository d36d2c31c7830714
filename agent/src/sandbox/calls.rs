//! The system calls of the agent. What is not here does not exist for it: a C library that tries a newer
//! call then takes the older one, which an error of another kind would not tell it to. What only an
//! intruder would call ends the agent at once, and loudly.

use std::ffi::c_long;

use libc::*;
use seccompiler::{BackendError, SeccompAction};
use token::sandbox::{Calls, Confined, allow_only, common_calls, forbid, free, masked, one_of};

/// Confines this thread, and those that it starts.
pub(super) fn confine() -> Confined {
    match forbid(free(HOSTILE), SeccompAction::KillProcess) {
        Confined::Wholly => allow_only(calls()),
        other => other,
    }
}

/// Calls that only an intruder makes: to run a program, or to take over another process, the kernel or the machine.
const HOSTILE: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    // Other processes' memory and descriptors.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_perf_event_open,
    // Ways into the kernel that exploits are fond of.
    SYS_bpf,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    // The kernel itself.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    OPEN_TREE_ATTR,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    // The machine.
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_syslog,
    SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
];

/// `open_tree_attr` of Linux 6.15, one number on all architectures.
const OPEN_TREE_ATTR: c_long = 467;

/// The agent's own, beyond those of every program. Landlock knows of files.
const OWN: &[c_long] = &[
    SYS_unlinkat,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_renameat,
    SYS_renameat2,
    SYS_fsync,
    // Whether others could replace the configuration: mounts, access-control lists.
    SYS_fstatfs,
    SYS_lgetxattr,
    SYS_inotify_init1,
    SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    #[cfg(target_arch = "x86_64")]
    SYS_unlink,
    // Clients. No `socket`, no `connect`: all that it needs was there before.
    SYS_accept,
    SYS_accept4,
    // The launcher passes descriptors. The agent passes none: no `sendmsg`.
    SYS_recvmsg,
    SYS_wait4,
    SYS_waitid,
    // Before Linux 6.5: that the process of a client has not ended.
    SYS_pidfd_open,
];

fn calls() -> Result<Calls, BackendError> {
    let names = [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA];
    // Nothing that was written is run.
    let no_code = || masked(2, PROT_EXEC, 0);
    let mut calls = common_calls()?;
    calls.extend(free(OWN));
    calls.extend([
        (SYS_mmap, vec![no_code()?]),
        (SYS_mprotect, vec![no_code()?]),
        (SYS_prctl, one_of(0, names)?),
    ]);
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io;
    use std::net::TcpStream;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use memmap2::MmapMut;

    /// Runs it in a thread that is confined: a filter is a thread's, and ends with it.
    fn confined<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                assert_eq!(confine(), Confined::Wholly);
                run()
            });
            thread.join().unwrap()
        })
    }

    fn is_unknown<T>(result: io::Result<T>) -> bool {
        result.err().and_then(|error| error.raw_os_error()) == Some(ENOSYS)
    }

    #[test]
    fn no_process_no_connection_no_code() {
        confined(|| {
            assert!(is_unknown(Command::new("/bin/true").spawn()));
            assert!(is_unknown(TcpStream::connect(("127.0.0.1", 1))));
            assert!(is_unknown(UnixStream::connect(
                "/run/dbus/system_bus_socket"
            )));
            assert!(is_unknown(
                MmapMut::map_anon(1).and_then(MmapMut::make_exec).map(drop)
            ));
            assert!(is_unknown(std::fs::create_dir("/tmp/roleseal-test")));
        });
    }

    #[test]
    fn what_the_agent_does_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let service_manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let datagrams = UnixDatagram::unbound().unwrap();
        datagrams.connect(directory.path().join("notify")).unwrap();
        confined(|| {
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            datagrams.send(b"READY=1").unwrap();
            std::fs::read("/etc/passwd").unwrap();
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
            std::fs::remove_file(directory.path().join("notify")).unwrap();
        });
        assert_eq!(service_manager.recv(&mut [0; 16]).unwrap(), 7);
    }

    /// Runs this test program again, for this test alone: what is to end is a process.
    #[test]
    fn to_run_a_program_is_the_end() {
        let name = "sandbox::calls::tests::to_run_a_program_is_the_end";
        if std::env::var_os("ROLESEAL_TEST_CHILD").is_some() {
            confined(|| panic!("{}", Command::new("/bin/true").exec()));
        }
        let own = std::env::current_exe().unwrap();
        let mut child = Command::new(own);
        child
            .args(["--exact", name])
            .env("ROLESEAL_TEST_CHILD", "1");
        let output = child.output().unwrap();
        assert_eq!(output.status.signal(), Some(SIGSYS), "{output:?}");
    }
}
