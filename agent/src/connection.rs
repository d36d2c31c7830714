//! One client: read a call, answer it, write the reply, until it goes away.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use token::AmzDate;
use wire::{
    Call, INTERFACE, INTERFACE_NAME, MESSAGE_LIMIT, Refusal, Reply, Request, ServiceInfo,
    Transport, TransportError, UnsignedRequest, codec,
};

use crate::create_session::CreateSession;
use crate::decision::{Decision, Outcome};
use crate::identity::{Identities, Identity};
use crate::log::Refused;
use crate::panics::contain;
use crate::peer::Peer;
use crate::policy::{Authorized, unnamed};
use crate::sigv4;
use crate::state::{Agent, UnderWay};
use crate::token_worker::Caller;

/// How long a thread waits for the next call, or for the rest of one, before the connection goes to the [silent
/// ones](crate::listener), which make room for others: a busy client finds its thread there, one that is slower than
/// this waits some 50 µs for another.
const LINGER: Duration = Duration::from_millis(100);

/// The same for a client whom no rule names, and for one that sends its message bit by bit.
const BRIEF_LINGER: Duration = Duration::from_millis(5);

/// How long a message may take from its first byte to its last: it fits into the socket's buffer.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a request may take, its token's recovery included. The client waits 30 s.
const REQUEST_DEADLINE: Duration = Duration::from_secs(25);

/// How much of a message one batch of identities takes, in bytes; the rest is for the envelope.
const BATCH_LIMIT: usize = MESSAGE_LIMIT - 1024;

/// A connected client.
#[derive(Debug)]
pub struct Connection {
    client: Transport,
    peer: Peer,
    caller: Caller,
    /// When a message must have ended of which a part has arrived.
    unfinished: Option<Instant>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Its client is silent.
    Wait,
    /// Its client has gone, or stalled, or sent what cannot be read.
    Close,
}

impl Connection {
    /// The peer's, at the other end of the stream.
    pub fn new(stream: UnixStream, peer: Peer) -> Connection {
        let client = Transport::new(stream);
        let caller = Caller::client(peer.uid, client.presence());
        Connection {
            client,
            peer,
            caller,
            unfinished: None,
        }
    }

    /// When a message must have ended of which a part has arrived.
    pub fn unfinished(&self) -> Option<Instant> {
        self.unfinished
    }

    /// Answers calls for as long as they come. Before each answer `may_stay` gets the client, after it was found out
    /// whether a rule names it, and says whether it still has a place.
    pub fn serve(&mut self, agent: &Agent, mut may_stay: impl FnMut(&Peer) -> bool) -> Next {
        loop {
            let linger = match self.peer.named && self.unfinished.is_none() {
                true => LINGER,
                false => BRIEF_LINGER,
            };
            let frame = match self.client.receive(linger, linger) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Next::Close,
                Err(TransportError::Idle) => return Next::Wait,
                Err(TransportError::Stalled) if self.may_finish() => return Next::Wait,
                Err(error) => {
                    if let Some(refusal) = last_words(&error) {
                        let _ = send(&mut self.client, &[Reply::Refused(refusal)]); // it may be gone
                    }
                    return Next::Close;
                }
            };
            self.unfinished = None;
            self.find_name(agent);
            if !may_stay(&self.peer) {
                let _ = send(&mut self.client, &[Reply::Refused(no_place())]); // it may be gone
                return Next::Close;
            }
            if self.serve_one(&frame, agent) == Next::Close {
                return Next::Close;
            }
        }
    }

    /// A refusal of its client, for the log.
    pub fn refused(&self, reason: &'static str) -> Refused {
        self.peer.refused(reason)
    }

    /// Says whether the rest of a message may still arrive.
    fn may_finish(&mut self) -> bool {
        let now = Instant::now();
        now < *self.unfinished.get_or_insert(now + MESSAGE_DEADLINE)
    }

    /// Asks whether a rule names the client now; a user database or a launcher that does not answer changes nothing.
    fn find_name(&mut self, agent: &Agent) {
        let identities = agent.identities();
        match identities.name_units() {
            true => self.peer.find_unit(&self.client),
            false => self.peer.forget_unit(),
        }
        let named = identities.know(&self.peer);
        if named || !self.peer.has_unknowns() {
            self.peer.named = named;
        }
    }

    fn serve_one(&mut self, frame: &[u8], agent: &Agent) -> Next {
        if !self.peer.named
            && let Err(refusal) = agent.admit_unnamed(self.peer.uid)
        {
            return self.refuse_unread(refusal, agent);
        }
        let (sent, next) = match codec::decode_request(frame) {
            Ok(Request {
                call,
                more,
                oneway: false,
            }) => {
                let (replies, _under_way) = answer(call, more, &self.peer, &self.caller, agent);
                (send(&mut self.client, &replies), Next::Wait)
            }
            Ok(_) => (Ok(()), Next::Wait), // nothing here has an effect but its answer
            Err(refusal) => {
                let (refusal, next) = match refusal {
                    Refusal::MalformedMessage { .. } => (refusal, Next::Close),
                    Refusal::InvalidParameter { .. } => {
                        (self.concealed(refusal, agent), Next::Wait)
                    }
                    refusal => (refusal, Next::Wait),
                };
                let sent = send(&mut self.client, &[Reply::Refused(refusal)]);
                (sent, next)
            }
        };
        match sent {
            Ok(()) => next,
            Err(_) => Next::Close,
        }
    }

    /// Refuses a message that nobody has parsed.
    fn refuse_unread(&mut self, refusal: Refusal, agent: &Agent) -> Next {
        let decision = Decision {
            peer: &self.peer,
            identity: None,
            request: None,
            serial: None,
            outcome: Outcome::Refused(&refusal),
            token_time: None,
            total_time: Duration::ZERO,
        };
        decided(&decision, agent);
        let sent = send(&mut self.client, &[Reply::Refused(refusal)]);
        agent.pace();
        match sent {
            Ok(()) => Next::Wait,
            Err(_) => Next::Close,
        }
    }

    /// Returns the refusal of a call's parameters; of a caller whom no rule names, the one that any call of his gets.
    fn concealed(&self, refusal: Refusal, agent: &Agent) -> Refusal {
        match agent.identities().shown_to(&self.peer).next() {
            Some(_) => refusal,
            None => unnamed(&self.peer),
        }
    }
}

/// To wait until its client says something.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

/// The answer to a client that gets no place, or loses its own.
pub fn no_place() -> Refusal {
    Refusal::Busy {
        message: "the agent has as many connections as it takes, or as it takes from one user: close some, \
                  or try again later"
            .to_owned(),
    }
}

/// What to tell a client whose message could not be received, if anything.
fn last_words(error: &TransportError) -> Option<Refusal> {
    match error {
        TransportError::TooLarge(_) => Some(Refusal::MessageTooLarge {
            limit: MESSAGE_LIMIT,
            message: format!("a message has at most {MESSAGE_LIMIT} bytes"),
        }),
        TransportError::Stalled => Some(Refusal::DeadlineExceeded {
            message: format!(
                "the message was not finished within {} s: end it with a NUL byte",
                MESSAGE_DEADLINE.as_secs()
            ),
        }),
        TransportError::Idle | TransportError::Cut | TransportError::Io(_) => None,
    }
}

fn send(client: &mut Transport, replies: &[Reply]) -> Result<(), TransportError> {
    replies
        .iter()
        .try_for_each(|reply| client.send(codec::encode_reply(reply), MESSAGE_DEADLINE))
}

/// The replies to a call; a request to sign is under way until they have left.
fn answer<'a>(
    call: Call,
    more: bool,
    peer: &Peer,
    caller: &Caller,
    agent: &'a Agent,
) -> (Vec<Reply>, Option<UnderWay<'a>>) {
    let replies = match call {
        Call::GetInfo => vec![Reply::Info(info())],
        Call::GetInterfaceDescription { interface } => vec![describe(interface)],
        Call::ListIdentities => match agent.list(peer, Timestamp::now()) {
            // None that is shown, or the groups are not known: not the same for who keeps a session.
            listed if listed.is_empty() && peer.has_unknowns() => {
                vec![Reply::Refused(unnamed(peer))]
            }
            listed => in_batches(listed, more),
        },
        Call::GetCertificate { identity } => {
            let deadline = Instant::now() + REQUEST_DEADLINE;
            let identities = agent.identities();
            let identity = identities.choose_shown(identity.as_deref(), peer);
            let chain = identity.and_then(|identity| identity.shown_certificate(deadline));
            vec![chain.map_or_else(Reply::Refused, Reply::Certificate)]
        }
        Call::SignCreateSession(unsigned) => {
            let (reply, under_way) = create_session(unsigned, peer, Some(caller), agent);
            return (vec![reply], under_way);
        }
        Call::MayCreateSession(unsigned) => {
            let (reply, under_way) = create_session(unsigned, peer, None, agent);
            return (vec![reply], under_way);
        }
    };
    (replies, None)
}

fn info() -> ServiceInfo {
    ServiceInfo {
        vendor: "roleseal".to_owned(),
        product: "roleseal-agent".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: env!("CARGO_PKG_REPOSITORY").to_owned(),
        interfaces: vec!["org.varlink.service".to_owned(), INTERFACE_NAME.to_owned()],
    }
}

fn describe(interface: String) -> Reply {
    match interface.as_str() {
        INTERFACE_NAME => Reply::Description(INTERFACE.to_owned()),
        _ => Reply::Refused(Refusal::InterfaceNotFound {
            interface: interface.chars().take(160).collect(),
        }),
    }
}

/// The identities in as many replies as they need, if the caller takes several.
fn in_batches(identities: Vec<wire::Identity>, more: bool) -> Vec<Reply> {
    let mut batches = vec![Vec::new()];
    let mut size = 0;
    for identity in identities {
        let length = codec::encoded_len(&identity) + 1;
        size += length;
        if size > BATCH_LIMIT {
            batches.push(Vec::new());
            size = length;
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(identity);
        }
    }
    if batches.len() > 1 && !more {
        return vec![Reply::Refused(Refusal::ExpectedMore {})];
    }
    let last = batches.len() - 1;
    batches
        .into_iter()
        .enumerate()
        .map(|(at, identities)| Reply::Identities {
            identities,
            continues: at < last,
        })
        .collect()
}

/// Decides about a request, and signs it for that caller, if there is one.
fn create_session<'a>(
    unsigned: UnsignedRequest,
    peer: &Peer,
    sign_for: Option<&Caller>,
    agent: &'a Agent,
) -> (Reply, Option<UnderWay<'a>>) {
    let start = Instant::now();
    let deadline = start + REQUEST_DEADLINE;
    let identities = agent.identities();
    let mut known = RequestFacts::default();
    let (result, under_way) = match agent.begin(peer.uid) {
        Ok(under_way) => {
            let permitted = permitted(unsigned, peer, &identities, &mut known);
            let result = permitted.and_then(|permitted| match sign_for {
                Some(caller) => signed(permitted, caller, deadline, &mut known),
                None => Ok(Reply::Permitted),
            });
            (result, Some(under_way))
        }
        Err(refusal) => (Err(refusal), None),
    };
    let decision = Decision {
        peer,
        identity: known.identity,
        request: known.request.as_ref(),
        serial: known.serial.as_deref(),
        outcome: match &result {
            Ok(_) if sign_for.is_some() => Outcome::Signed,
            Ok(_) => Outcome::Permitted,
            Err(refusal) => Outcome::Refused(refusal),
        },
        token_time: known.token_time,
        total_time: start.elapsed(),
    };
    decided(&decision, agent);
    (result.unwrap_or_else(Reply::Refused), under_way)
}

/// Counts and logs it. The client has its answer whatever becomes of that.
fn decided(decision: &Decision, agent: &Agent) {
    contain(|| agent.metrics.decided(decision, Timestamp::now()));
    contain(|| decision.log());
}

/// What is known of a request for the log, however far it came.
#[derive(Default)]
struct RequestFacts<'a> {
    identity: Option<&'a Identity>,
    request: Option<CreateSession>,
    serial: Option<String>,
    token_time: Option<Duration>,
}

/// The evidence, and the identity that it is for.
type Permitted<'a> = (&'a Identity, Authorized);

/// Whether the policy permits the request. It is not read before the caller is known to be one of the identity's: what
/// a stranger sends makes no difference.
fn permitted<'a>(
    unsigned: UnsignedRequest,
    peer: &Peer,
    identities: &'a Identities,
    known: &mut RequestFacts<'a>,
) -> Result<Permitted<'a>, Refusal> {
    let name = unsigned.identity.as_deref();
    known.identity = name.and_then(|name| identities.named(name)); // for the log, whoever asks
    let identity = identities.choose(name, peer)?;
    known.identity = Some(identity);
    let request = CreateSession::parse(unsigned, &identity.endpoints)?;
    known.request = Some(request.clone());
    Ok((identity, identity.policy.judge(peer, request)?))
}

/// The story of one signature, from the permission on.
fn signed(
    (identity, authorized): Permitted,
    caller: &Caller,
    deadline: Instant,
    known: &mut RequestFacts,
) -> Result<Reply, Refusal> {
    let now = Timestamp::now();
    let certificate = identity.certificate(now, deadline)?;
    known.serial = Some(certificate.serial.clone());
    let text = sigv4::string_to_sign(&authorized, &certificate, AmzDate::from(now));
    let signature = identity.sign(
        &text,
        &certificate,
        caller.clone(),
        deadline,
        &mut known.token_time,
    )?;
    let headers = sigv4::headers(&authorized, &certificate, &text, &signature);
    Ok(Reply::Signed(headers))
}
