//! Where clients connect: addresses of our own, or sockets that systemd passed.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use files::BindError;
use listenfd::ListenFd;
use rustix::net::sockopt::{set_ip_ttl, set_ipv6_unicast_hops};
use thiserror::Error;

use super::guard::Reached;

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who may be able to reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// This host, by loopback.
    Loopback,
    /// The pods of this node, too, by the addresses of EKS's agent.
    Node,
    /// Anybody.
    All,
}

/// A socket for this user only.
const PRIVATE: u32 = 0o600;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, Option<Own>),
}

/// A listener that accepts.
pub(super) enum Open {
    Tcp(tokio::net::TcpListener),
    Unix {
        listener: tokio::net::UnixListener,
        /// Goes with it, where it is ours.
        _path: Option<Own>,
    },
}

/// The path of a socket that we have made: removed when dropped.
#[derive(Debug)]
pub(super) struct Own(PathBuf);

/// Why nobody can connect.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    #[error(
        "{0} is no loopback address: other hosts could connect, and credentials would cross the network in \
         clear text"
    )]
    Remote(String),
    #[error("{0} is neither a loopback address nor one of 169.254.170.23 and [fd00:ec2::23]")]
    NotOfNode(String),
    #[error("another roleseal listens at {}: stop it, or choose another address", .0.display())]
    Taken(PathBuf),
    #[error("{} exists and is not a socket: remove it, or choose another address", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen at {0}: {1}")]
    Io(String, io::Error),
    #[error("a socket from systemd cannot be used: {0}")]
    Activation(io::Error),
}

impl ListenError {
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            ListenError::NotOfNode(_) => {
                "AWS SDKs send tokens over plain HTTP to these addresses only"
            }
            ListenError::Io(_, error) if error.kind() == ErrorKind::AddrNotAvailable => {
                "add the address to an interface of this host first: `ip address add ADDRESS dev lo`"
            }
            ListenError::Remote(_) => "if that network is trusted, add --allow-remote",
            ListenError::Activation(_) => "declare a TCP or Unix socket with ListenStream=",
            ListenError::Taken(_) | ListenError::NotASocket(_) | ListenError::Io(..) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

/// The port of AWS's own helper: who moves from it need not change clients.
pub(crate) const DEFAULT_PORT: u16 = 9911;

impl Default for ListenAddress {
    fn default() -> ListenAddress {
        ListenAddress::Tcp((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into())
    }
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ListenAddress, &'static str> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(ListenAddress::Unix(path.into()));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => &format!("127.0.0.1:{port}"),
            None => text,
        };
        numeric.parse().map(ListenAddress::Tcp).map_err(
            |_| "write it as ADDRESS:PORT, such as 127.0.0.1:9911 or [::1]:9911, or unix:/PATH",
        )
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "http://{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Listens at an address of our own, if it is one of the `allowed`.
    pub(crate) fn bind(address: &ListenAddress, allowed: Allowed) -> Result<Listener, ListenError> {
        let shown = address.to_string();
        let io = |error| ListenError::Io(shown.clone(), error);
        let socket = match address {
            ListenAddress::Tcp(address) => {
                check(*address, allowed)?;
                Socket::Tcp(TcpListener::bind(address).map_err(io)?)
            }
            ListenAddress::Unix(path) => {
                let socket = files::bind(path, PRIVATE).map_err(|error| match error {
                    BindError::Taken => ListenError::Taken(path.clone()),
                    BindError::NotASocket => ListenError::NotASocket(path.clone()),
                    BindError::Io(error) => io(error),
                })?;
                Socket::Unix(socket, Some(Own(path.clone())))
            }
        };
        Listener::new(socket).map_err(io)
    }

    /// The sockets that systemd passed.
    pub(crate) fn passed(allowed: Allowed) -> Result<Vec<Listener>, ListenError> {
        let mut passed = ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..passed.len() {
            let listener = take(&mut passed, index).map_err(ListenError::Activation)?;
            if let Socket::Tcp(socket) = &listener.socket {
                let address = socket.local_addr().map_err(ListenError::Activation)?;
                check(address, allowed)?;
            }
            listeners.push(listener);
        }
        Ok(listeners)
    }

    fn new(socket: Socket) -> io::Result<Listener> {
        let address = match &socket {
            Socket::Tcp(socket) => ListenAddress::Tcp(socket.local_addr()?),
            // It was bound under another name.
            Socket::Unix(_, Some(Own(path))) => ListenAddress::Unix(path.clone()),
            Socket::Unix(socket, None) => {
                let address = socket.local_addr()?;
                ListenAddress::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned())
            }
        };
        Ok(Listener {
            socket,
            address: address.to_string(),
        })
    }

    /// Where it listens, for the log: a URL, where there is one.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The TCP address.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// What is answered here passes no more than `hops - 1` routers.
    pub(crate) fn limit_hops(&self, hops: u8) -> io::Result<()> {
        match self.tcp() {
            Some(SocketAddr::V4(_)) => set_ip_ttl(self.fd(), hops.into())?,
            Some(SocketAddr::V6(_)) => set_ipv6_unicast_hops(self.fd(), Some(hops))?,
            None => {}
        }
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket, _) => socket.as_fd(),
        }
    }

    /// For the runtime that this is called in.
    pub(super) fn open(self) -> io::Result<Open> {
        Ok(match self.socket {
            Socket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Open::Tcp(tokio::net::TcpListener::from_std(socket)?)
            }
            Socket::Unix(socket, own) => {
                socket.set_nonblocking(true)?;
                Open::Unix {
                    listener: tokio::net::UnixListener::from_std(socket)?,
                    _path: own,
                }
            }
        })
    }
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<Listener> {
    let socket = match passed.take_tcp_listener(index) {
        Ok(Some(socket)) => Socket::Tcp(socket),
        _ => match passed.take_unix_listener(index)? {
            Some(socket) => Socket::Unix(socket, None),
            None => return Err(ErrorKind::NotFound.into()),
        },
    };
    Listener::new(socket)
}

fn check(address: SocketAddr, allowed: Allowed) -> Result<(), ListenError> {
    let reached = Reached::Tcp(address.ip());
    match allowed {
        Allowed::Loopback if !reached.local() => Err(ListenError::Remote(address.to_string())),
        Allowed::Node if !reached.local() && !reached.of_node() => {
            Err(ListenError::NotOfNode(address.to_string()))
        }
        _ => Ok(()),
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // somebody else may have done it
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn addresses_are_numbers_or_paths() {
        for (text, shown) in [
            ("127.0.0.1:9911", "http://127.0.0.1:9911"),
            ("localhost:1", "http://127.0.0.1:1"),
            ("[::1]:80", "http://[::1]:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("/run/a.sock", "unix:/run/a.sock"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        for text in [
            "",
            "9911",
            "127.0.0.1",
            "example.com:80",
            "unix:a.sock",
            "::1:80",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        assert_eq!(
            ListenAddress::default().to_string(),
            "http://127.0.0.1:9911"
        );
    }

    #[test]
    fn other_hosts_have_to_be_allowed() {
        for text in ["0.0.0.0:0", "[::]:0", "169.254.169.254:0", "10.0.0.1:0"] {
            let error = Listener::bind(&text.parse().unwrap(), Allowed::Loopback).unwrap_err();
            assert!(matches!(error, ListenError::Remote(_)), "{error}");
            assert!(error.hint().unwrap().contains("--allow-remote"));
        }
        let everywhere = Listener::bind(&"0.0.0.0:0".parse().unwrap(), Allowed::All).unwrap();
        assert_ne!(everywhere.tcp().unwrap().port(), 0);
        for (text, is_of_node) in [
            ("127.0.0.1:0", true),
            ("169.254.170.23:0", true),
            ("[fd00:ec2::23]:0", true),
            ("169.254.170.2:0", false),
            ("[fd00:ec2::254]:0", false),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
        ] {
            // Whether this host has the address does not matter here.
            let bound = Listener::bind(&text.parse().unwrap(), Allowed::Node);
            let refused = matches!(bound, Err(ListenError::NotOfNode(_)));
            assert_eq!(refused, !is_of_node, "{text}");
        }
    }

    #[test]
    fn a_socket_is_for_its_user_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let address = ListenAddress::Unix(path.clone());
        let listener = Listener::bind(&address, Allowed::Loopback).unwrap();
        assert_eq!(listener.address(), format!("unix:{}", path.display()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = Listener::bind(&address, Allowed::Loopback)
            .unwrap_err()
            .to_string();
        assert!(taken.contains("another roleseal listens"), "{taken}");
        drop(listener);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap()); // left by a process that was killed
        drop(Listener::bind(&address, Allowed::Loopback).unwrap());
        fs::write(&path, "").unwrap();
        let error = Listener::bind(&address, Allowed::Loopback)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a socket"), "{error}");
    }
}
