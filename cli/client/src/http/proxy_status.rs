//! The status of a proxy that refuses a tunnel.
//!
//! ureq reports it in a message alone. This connector stands behind ureq's own, sees the proxy's answer before ureq
//! does, and reports a refusal as a type.

use thiserror::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport,
};

/// A proxy's answer to CONNECT that makes no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the proxy refuses the tunnel with HTTP status {status}")]
pub(super) struct ProxyRefused {
    pub(super) status: u16,
}

/// Reads the status of each proxy's answer.
#[derive(Debug)]
pub(super) struct ProxyStatus;

impl<In: Transport> Connector<In> for ProxyStatus {
    type Out = Either<In, ProxyConnection<In>>;

    /// A connection without a proxy in its configuration is direct, or is the one to the proxy. The former answers
    /// only to requests, which [`ProxyConnection`] would misread: the caller adds this connector where there is a proxy.
    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let to_proxy = details.config.proxy().is_none();
        Ok(chained.map(|connection| match to_proxy {
            true => Either::B(ProxyConnection {
                connection,
                answered: false,
            }),
            false => Either::A(connection),
        }))
    }
}

/// A connection to a proxy, whose first answer is to CONNECT.
#[derive(Debug)]
pub(super) struct ProxyConnection<T> {
    connection: T,
    answered: bool,
}

impl<T: Transport> Transport for ProxyConnection<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.connection.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let progress = self.connection.await_input(timeout)?;
        if !self.answered
            && let Some(status) = status(self.connection.buffers().input())
        {
            self.answered = true;
            if status != OK {
                return Err(ureq::Error::Other(Box::new(ProxyRefused { status })));
            }
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.connection.is_open()
    }

    fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }
}

/// The only status with which ureq accepts a tunnel.
const OK: u16 = 200;

/// Parses `HTTP/1.1 407 …` (RFC 9112, section 4). `None` where the digits have not arrived, or it is another protocol.
fn status(input: &[u8]) -> Option<u16> {
    let digits = input.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_once_it_is_there() {
        assert_eq!(status(b"HTTP/1.1 407 Proxy"), Some(407));
        assert_eq!(status(b"HTTP/1.0 200"), Some(200));
        for input in [&b""[..], b"HTTP/1.1 4", b"SSH-2.0-x", b"HTTP/1.1 abc "] {
            assert_eq!(status(input), None);
        }
    }
}
