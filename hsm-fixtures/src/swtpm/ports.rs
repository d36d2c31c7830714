//! Two loopback ports in a row that no other fixture on this machine uses.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Result, bail};

/// Where ports are taken from: below those that Linux gives to outgoing connections (32768 and up), which
/// would otherwise take a port while its swtpm is being restarted.
const FIRST: u16 = 10_000;
const PAIRS: u16 = 11_000;

/// Far more than all scenes of a machine together need.
const ATTEMPTS: usize = 100;

/// A port for commands and, as libtss2 expects it, the next one for control. Taken as long as this lives.
pub(super) struct PortPair {
    command: u16,
    /// An abstract socket as a lock: other processes and threads see it, and the kernel frees it.
    _lock: UnixListener,
}

impl PortPair {
    /// Takes a pair. At random, so that a client of a TPM that has ended does not meet the next one.
    pub(super) fn reserve() -> Result<PortPair> {
        for _ in 0..ATTEMPTS {
            let mut random = [0; 2];
            openssl::rand::rand_bytes(&mut random)?;
            let command = FIRST + 2 * (u16::from_be_bytes(random) % PAIRS);
            if let Ok(lock) = lock(command) {
                return Ok(PortPair {
                    command,
                    _lock: lock,
                });
            }
        }
        bail!("no free pair of ports in {ATTEMPTS} attempts")
    }

    pub(super) fn command(&self) -> u16 {
        self.command
    }

    pub(super) fn control(&self) -> u16 {
        self.command + 1
    }
}

fn lock(port: u16) -> io::Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("roleseal-swtpm-{port}"))?;
    UnixListener::bind_addr(&name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn no_pair_is_given_twice() {
        let pairs: Vec<_> = (0..500).map(|_| PortPair::reserve().unwrap()).collect();
        let ports: BTreeSet<u16> = pairs
            .iter()
            .flat_map(|pair| [pair.command(), pair.control()])
            .collect();
        assert_eq!(ports.len(), 1000);
        assert!(ports.iter().all(|port| (10_000..32_000).contains(port)));
        let taken = pairs[0].command();
        assert!(lock(taken).is_err());
        drop(pairs);
        // A program that another test is starting has the sockets, too, until it is executed.
        let deadline = Instant::now() + Duration::from_secs(20);
        while lock(taken).is_err() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
