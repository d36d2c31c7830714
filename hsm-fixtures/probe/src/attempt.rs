//! The attempts. Each returns the error's number, or 0. Where the arguments make no sense, a call that is permitted fails
//! in the kernel with another error than ENOSYS, by which filters refuse.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr::null;

use libc::*;

/// Names the variable with the path of a Unix socket, for `unix-connect` and `unix-datagram`.
const SOCKET: &str = "ROLESEAL_PROBE_SOCKET";

/// Names the variable with a port of this host, for `tcp-connect`.
const PORT: &str = "ROLESEAL_PROBE_PORT";

/// `IPPROTO_MPTCP` (include/uapi/linux/in.h).
const MPTCP: c_int = 262;

/// Numbers that the C library's headers do not have yet.
const STATMOUNT: c_long = 457;
const LISTMOUNT: c_long = 458;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_GETATTR: c_long = 468;

/// A number that no kernel has.
const FUTURE: c_long = 5000;

/// Makes the attempt of that name, if there is one.
pub(crate) fn by_name(name: &str) -> Option<i32> {
    let result = match name {
        // What every program has to be able to do.
        "thread" => std::thread::Builder::new()
            .spawn(|| {})
            .map(|thread| _ = thread.join()),
        "own-limit" => call(SYS_prlimit64, [0, RLIMIT_NOFILE.into(), 0, 0, 0]),
        "read-passwd" => File::open("/etc/passwd").map(drop),
        // Files.
        "write-etc" => OpenOptions::new()
            .create(true)
            .append(true)
            .open("/etc/roleseal-probe")
            .map(drop),
        "execve" => {
            let path = c"/nowhere/program".as_ptr();
            call(SYS_execve, [path as c_long, 0, 0, 0, 0])
        }
        "exec-descriptor" => {
            let empty = c"".as_ptr();
            call(
                SYS_execveat,
                [-1, empty as c_long, 0, 0, AT_EMPTY_PATH.into()],
            )
        }
        "memfd" => memory_file(0),
        "memfd-exec" => memory_file(MFD_EXEC),
        "memfd-sealed" => memory_file(MFD_NOEXEC_SEAL),
        "code" => map(PROT_READ | PROT_EXEC),
        "data" => map(PROT_READ | PROT_WRITE),
        // Sockets.
        "tcp" => socket(AF_INET, SOCK_STREAM, 0).map(drop),
        "tcp6" => socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP).map(drop),
        "udp" => socket(AF_INET, SOCK_DGRAM, 0).map(drop),
        "mptcp" => socket(AF_INET, SOCK_STREAM, MPTCP).map(drop),
        "netlink" => socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE).map(drop),
        "uevents" => socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT).map(drop),
        "vsock" => socket(AF_VSOCK, SOCK_STREAM, 0).map(drop),
        "unix" => socket(AF_UNIX, SOCK_STREAM, 0).map(drop),
        "unix-connect" => UnixStream::connect(variable(SOCKET)?).map(drop),
        "unix-datagram" => datagram(&variable(SOCKET)?),
        "tcp-connect" => TcpStream::connect(("127.0.0.1", variable(PORT)?.parse().ok()?)).map(drop),
        "datagram-pair" => UnixDatagram::pair().map(drop),
        "stream-pair" => UnixStream::pair().map(drop),
        "sendmsg" => message(SYS_sendmsg),
        "recvmsg" => message(SYS_recvmsg),
        "sendmmsg" => call(SYS_sendmmsg, [-1, 0, 0, 0, 0]),
        // Processes.
        "fork" => process(SYS_clone, [SIGCHLD.into(), 0, 0, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "vfork" => vfork(),
        "clone-user" => process(SYS_clone, [(SIGCHLD | CLONE_NEWUSER).into(), 0, 0, 0, 0]),
        "clone3" => clone3(0),
        "clone3-user" => clone3(CLONE_NEWUSER.cast_unsigned().into()),
        "unshare-user" => call(SYS_unshare, [CLONE_NEWUSER.into(), 0, 0, 0, 0]),
        "setns" => call(SYS_setns, [-1, 0, 0, 0, 0]),
        "signal-parent" => call(SYS_kill, [parent(), 0, 0, 0, 0]),
        "owner-parent" => UnixStream::pair().and_then(|(ours, _theirs)| {
            let (fd, set_owner) = (ours.as_raw_fd().into(), F_SETOWN.into());
            call(SYS_fcntl, [fd, set_owner, parent(), 0, 0])
        }),
        "limit-parent" => call(SYS_prlimit64, [parent(), RLIMIT_NOFILE.into(), 0, 0, 0]),
        "ptrace" => call(SYS_ptrace, [PTRACE_PEEKDATA.into(), -1, 0, 0, 0]),
        "process_vm_readv" => call(SYS_process_vm_readv, [-1, 0, 0, 0, 0]),
        "pidfd_getfd" => call(SYS_pidfd_getfd, [-1, 0, 0, 0, 0]),
        // Mounts.
        "mount" => call(SYS_mount, [0; 5]),
        "open_tree" => call(SYS_open_tree, [-1, 0, 0, 0, 0]),
        "open_tree_attr" => call(OPEN_TREE_ATTR, [-1, 0, 0, 0, 0]),
        "move_mount" => call(SYS_move_mount, [-1, 0, -1, 0, 0]),
        "fsopen" => call(SYS_fsopen, [0, -1, 0, 0, 0]),
        "fsconfig" => call(SYS_fsconfig, [-1, 0, 0, 0, 0]),
        "fsmount" => call(SYS_fsmount, [-1, 0, 0, 0, 0]),
        "fspick" => call(SYS_fspick, [-1, 0, 0, 0, 0]),
        "mount_setattr" => call(SYS_mount_setattr, [-1, 0, 0, 0, 0]),
        "statmount" => call(STATMOUNT, [0; 5]),
        "listmount" => call(LISTMOUNT, [0; 5]),
        // The kernel.
        "bpf" => call(SYS_bpf, [-1, 0, 0, 0, 0]),
        "keyctl" => call(SYS_keyctl, [-1, 0, 0, 0, 0]),
        "io_uring" => call(SYS_io_uring_setup, [0; 5]),
        "userfaultfd" => call(SYS_userfaultfd, [-1, 0, 0, 0, 0]),
        // Calls that are newer than the lists of the programs, and other ABIs.
        "file_getattr" => call(FILE_GETATTR, [-1, 0, 0, 0, -1]),
        "future" => call(FUTURE, [0; 5]),
        #[cfg(target_arch = "x86_64")]
        "x32" => call(0x4000_0000 | SYS_getpid, [0; 5]),
        #[cfg(target_arch = "x86_64")]
        "i386" => i386(),
        _ => return None,
    };
    Some(match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn result(returned: c_long) -> io::Result<c_long> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

fn call(number: c_long, arguments: [c_long; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: pointers among the arguments are null or lead to constants that the kernel only reads.
    result(unsafe { syscall(number, a, b, c, d, e, 0) }).map(drop)
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let made = result(unsafe { syscall(SYS_socket, family, kind | SOCK_CLOEXEC, protocol) })?;
    // SAFETY: a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(made as c_int) })
}

fn memory_file(flags: c_uint) -> io::Result<()> {
    // SAFETY: the kernel reads the name.
    let made = result(unsafe { syscall(SYS_memfd_create, c"probe".as_ptr(), flags) })?;
    // SAFETY: a new descriptor, which nobody else has.
    drop(unsafe { OwnedFd::from_raw_fd(made as c_int) });
    Ok(())
}

fn map(protection: c_int) -> io::Result<()> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    // SAFETY: a new mapping, which replaces none; it stays.
    result(unsafe { syscall(SYS_mmap, null::<u8>(), 4096, protection, flags, -1, 0) }).map(drop)
}

/// Sends to the address, through a socket that is made for it, or else through one that is there.
fn datagram(path: &str) -> io::Result<()> {
    if let Ok(socket) = UnixDatagram::unbound() {
        return socket.send_to(b"probe", path).map(drop);
    }
    let (ours, _theirs) = UnixStream::pair()?;
    // SAFETY: all zeros are an address without a name.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = AF_UNIX as sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from.cast_signed();
    }
    let length = size_of::<sockaddr_un>();
    let address = &raw const address;
    let (fd, text) = (ours.as_raw_fd(), b"probe".as_ptr());
    // SAFETY: the kernel reads text and address, whose lengths are right.
    result(unsafe { syscall(SYS_sendto, fd, text, 5, 0, address, length) }).map(drop)
}

/// Sends or receives on a pair of our own, with nothing in it.
fn message(number: c_long) -> io::Result<()> {
    let (ours, _theirs) = UnixStream::pair()?;
    // SAFETY: all zeros are a message without anything.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    let (fd, message) = (ours.as_raw_fd(), &raw mut message);
    // SAFETY: the message is ours, and leads nowhere.
    result(unsafe { syscall(number, fd, message, MSG_DONTWAIT) }).map(drop)
}

fn parent() -> c_long {
    // SAFETY: no arguments.
    unsafe { getppid() }.into()
}

/// Makes a process, which ends at once.
fn process(number: c_long, arguments: [c_long; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: as fork: the child has a copy of all memory, and only exits.
    match result(unsafe { syscall(number, a, b, c, d, e) })? {
        0 => loop {
            // SAFETY: no destructor runs.
            unsafe { syscall(SYS_exit_group, 0) };
        },
        _ => Ok(()), // reaped by the program's own end
    }
}

fn clone3(flags: u64) -> io::Result<()> {
    /// `struct clone_args`, as the first kernels with clone3 had it.
    #[repr(C)]
    struct Arguments {
        flags: u64,
        descriptors: [u64; 3],
        exit_signal: u64,
        stack: [u64; 3],
    }
    let arguments = Arguments {
        flags,
        descriptors: [0; 3],
        exit_signal: SIGCHLD.cast_unsigned().into(),
        stack: [0; 3],
    };
    let place = &raw const arguments;
    process(
        SYS_clone3,
        [place as c_long, size_of::<Arguments>() as c_long, 0, 0, 0],
    )
}

/// The child exits before it returns: it runs on its parent's stack.
#[cfg(target_arch = "x86_64")]
fn vfork() -> io::Result<()> {
    let returned: c_long;
    // SAFETY: the child leaves memory alone, and only exits.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "2:",
            exit = const SYS_exit_group,
            inlateout("rax") SYS_vfork => returned,
            out("rcx") _,
            out("r11") _,
            out("rdi") _,
        );
    }
    match returned {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}

/// `getpid` of the i386 ABI, 20.
#[cfg(target_arch = "x86_64")]
fn i386() -> io::Result<()> {
    let returned: c_long;
    // SAFETY: the call has no arguments and changes nothing.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => returned, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    match returned {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}
