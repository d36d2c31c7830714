//! The caller's side of a connection.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use thiserror::Error;

use crate::{
    Call, Identity, MESSAGE_LIMIT, Refusal, Reply, Request, ServiceInfo, Transport, TransportError,
    UnsignedRequest, codec,
};

/// How long an answer may take. The agent gives up earlier (25 s), with a reason.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// How long the agent may take to accept a connection, to read a request, or to send the rest of an
/// answer.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

/// A connection to the agent.
#[derive(Debug)]
pub struct Client(Transport);

/// Why a call brought no result.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens at the socket, or the caller may not connect.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The request does not fit into a message.
    #[error("the request is too large: a message to the agent has at most {MESSAGE_LIMIT} bytes")]
    TooLarge,
    /// The connection broke or the agent did not answer.
    #[error("the agent did not answer: {0}")]
    Transport(#[from] TransportError),
    /// What came back is not an answer to the call.
    #[error("the agent's answer makes no sense: {0}")]
    Garbled(String),
    /// The agent said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Client {
    /// Connects to the agent's socket.
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let stream = connect(socket).map_err(ClientError::Connect)?;
        Ok(Client(Transport::of_client(stream)))
    }

    /// Who answers.
    pub fn info(&mut self) -> Result<ServiceInfo, ClientError> {
        let request = Request {
            call: Call::GetInfo,
            more: false,
            oneway: false,
        };
        self.send(&request)?;
        match self.receive(&request.call)? {
            Reply::Info(info) => Ok(info),
            other => Err(ClientError::Garbled(format!("{other:?}"))),
        }
    }

    /// The identities that this process may use.
    pub fn list_identities(&mut self) -> Result<Vec<Identity>, ClientError> {
        let request = Request {
            call: Call::ListIdentities,
            more: true,
            oneway: false,
        };
        self.send(&request)?;
        let mut all = Vec::new();
        loop {
            match self.receive(&request.call)? {
                Reply::Identities {
                    identities,
                    continues,
                } => {
                    all.extend(identities);
                    if !continues {
                        return Ok(all);
                    }
                }
                other => return Err(ClientError::Garbled(format!("{other:?}"))),
            }
        }
    }

    /// The certificate that an identity signs with: base64 of DER, the leaf first.
    pub fn certificate(&mut self, identity: Option<&str>) -> Result<Vec<String>, ClientError> {
        let request = Request {
            call: Call::GetCertificate {
                identity: identity.map(str::to_owned),
            },
            more: false,
            oneway: false,
        };
        self.send(&request)?;
        match self.receive(&request.call)? {
            Reply::Certificate(chain) => Ok(chain),
            other => Err(ClientError::Garbled(format!("{other:?}"))),
        }
    }

    /// The headers that sign the request, by name.
    pub fn sign_create_session(
        &mut self,
        unsigned: UnsignedRequest,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let request = Request {
            call: Call::SignCreateSession(unsigned),
            more: false,
            oneway: false,
        };
        self.send(&request)?;
        match self.receive(&request.call)? {
            Reply::Signed(headers) => Ok(headers),
            other => Err(ClientError::Garbled(format!("{other:?}"))),
        }
    }

    /// Whether the agent would sign the request, by its policy: no token is asked. A refusal is an error.
    pub fn may_create_session(&mut self, unsigned: UnsignedRequest) -> Result<(), ClientError> {
        let request = Request {
            call: Call::MayCreateSession(unsigned),
            more: false,
            oneway: false,
        };
        self.send(&request)?;
        match self.receive(&request.call)? {
            Reply::Permitted => Ok(()),
            other => Err(ClientError::Garbled(format!("{other:?}"))),
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let frame = codec::encode_request(request);
        match self.0.send(frame, TRANSFER_DEADLINE) {
            Err(TransportError::TooLarge(_)) => Err(ClientError::TooLarge),
            // An agent that takes no more clients says so and closes: that is still to be read.
            Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    /// The next reply; a refusal is an error.
    fn receive(&mut self, call: &Call) -> Result<Reply, ClientError> {
        let frame = self
            .0
            .receive(REPLY_DEADLINE, TRANSFER_DEADLINE)?
            .ok_or(TransportError::Cut)?;
        match codec::decode_reply(call, &frame).map_err(ClientError::Garbled)? {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        }
    }
}

/// Connects within the deadline: an agent that no longer accepts would hold us for ever once its
/// backlog is full. A socket's send time-out bounds its connect, too (socket(7)).
fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(TRANSFER_DEADLINE))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}
