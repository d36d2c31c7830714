//! The way to the service manager (sd_notify(3)), opened before the agent confines itself: from then on it makes no
//! socket and chooses no address.

use std::env;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// The service manager that started this process, if one did.
#[derive(Debug)]
pub struct ServiceManager(Option<UnixDatagram>);

/// Names its socket: a path, or an abstract name after `@`.
const VARIABLE: &str = "NOTIFY_SOCKET";

impl ServiceManager {
    /// Connects to the service manager.
    pub fn connect() -> io::Result<ServiceManager> {
        let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
            return Ok(ServiceManager(None));
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(ServiceManager(Some(socket)))
    }

    /// Tells it these states, in one message.
    pub fn notify(&self, states: &[NotifyState]) -> io::Result<()> {
        let Some(socket) = &self.0 else {
            return Ok(());
        };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send(message.as_bytes())? {
            sent if sent == message.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }
}
