//! `GET /metrics`, on a loopback port or a Unix socket. HTTP as far as a scrape needs it: one request a
//! connection, of which the first line counts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use thiserror::Error;

use crate::log;
use crate::panics::contain;
use crate::state::Agent;
use crate::sync::left;
use crate::unix_socket::{self, ListenError};
use config::MetricsAddress;

/// Where scrapes come in.
#[derive(Debug)]
pub struct Server {
    listener: Arc<OwnedFd>,
    address: String,
    /// The path to remove at the end.
    path: Option<PathBuf>,
}

/// Why nobody can scrape.
#[derive(Debug, Error)]
pub enum BindError {
    /// At a path.
    #[error("metrics: {0}")]
    Socket(#[from] ListenError),
    /// At a port.
    #[error("metrics: cannot listen at {0}: {1}")]
    Port(SocketAddr, #[source] io::Error),
}

/// Who reaches the socket may read it, as on a port: its directory can keep others out.
const SOCKET_MODE: u32 = 0o666;

/// Clients at once. When there are more, the idlest makes room, one whose request has not arrived first: nobody who is
/// silent keeps others out.
const CLIENTS: usize = 16;

/// Out of descriptors, most likely: connections that end give some back.
const PAUSE: Duration = Duration::from_millis(100);

/// Encoding 1,000 identities in a debug build takes a part of it.
const STACK: usize = 256 * 1024;

/// For a whole scrape. Prometheus gives up after 10 s.
const DEADLINE: Duration = Duration::from_secs(2);

/// Of what comes before a body, in bytes; Prometheus sends some 300.
const HEAD_LIMIT: usize = 8 * 1024;

impl Server {
    /// Listens; nobody is answered before [`start`](Self::start).
    pub fn bind(address: &MetricsAddress) -> Result<Server, BindError> {
        match address {
            MetricsAddress::Socket(path) => {
                let socket: UnixListener = unix_socket::bind_at(path, SOCKET_MODE)?;
                let fault = |error| ListenError::Io(path.clone(), error);
                socket.set_nonblocking(true).map_err(fault)?;
                Ok(Server {
                    listener: Arc::new(socket.into()),
                    address: path.display().to_string(),
                    path: Some(path.clone()),
                })
            }
            MetricsAddress::Loopback(asked) => {
                let fault = |error| BindError::Port(*asked, error);
                let socket = TcpListener::bind(asked).map_err(fault)?;
                socket.set_nonblocking(true).map_err(fault)?;
                // The port is another one where any was asked for.
                let bound = socket.local_addr().map_err(fault)?;
                Ok(Server {
                    listener: Arc::new(socket.into()),
                    address: format!("http://{bound}/metrics"),
                    path: None,
                })
            }
        }
    }

    /// Where it listens, for the log.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Answers from now on, in a thread of its own.
    pub fn start(&self, agent: &Arc<Agent>) -> io::Result<()> {
        let (listener, agent) = (Arc::clone(&self.listener), Arc::clone(agent));
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&listener, &agent))?;
        Ok(())
    }

    /// Removes the socket, if there is one.
    pub fn remove(&self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path); // somebody else may have done it
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    state: State,
    /// When something arrived or left the last time.
    moved: Instant,
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    /// What has arrived of the head.
    Reading(Vec<u8>),
    /// What has not left of the answer.
    Writing(Vec<u8>),
}

fn run(listener: &OwnedFd, agent: &Agent) {
    let mut clients = Vec::new();
    let mut failing = false;
    loop {
        let ready = wait(listener, &clients);
        let now = Instant::now();
        let mut ready = ready.into_iter();
        let connects = ready.next() == Some(true);
        clients.retain_mut(|client: &mut Client| {
            let ready = ready.next() == Some(true);
            now < client.deadline && (!ready || client.goes_on(agent))
        });
        if connects {
            accept(listener, &mut clients, agent, &mut failing);
        }
    }
}

/// Says of the listener, then of each client, whether something can be done, once there is one of which it can or a deadline
/// has come.
fn wait(listener: &OwnedFd, clients: &[Client]) -> Vec<bool> {
    let mut events = vec![PollFd::new(listener, PollFlags::IN)];
    events.extend(clients.iter().map(|client| {
        let wanted = match client.state {
            State::Reading(_) => PollFlags::IN,
            State::Writing(_) => PollFlags::OUT,
        };
        PollFd::new(&client.socket, wanted)
    }));
    let deadline = clients.iter().map(|client| client.deadline).min();
    let timeout = deadline.and_then(|deadline| Timespec::try_from(left(deadline)).ok());
    match poll(&mut events, timeout.as_ref()) {
        Ok(_) => events.iter().map(|one| !one.revents().is_empty()).collect(),
        Err(Errno::INTR) => Vec::new(),
        Err(error) => {
            log::warn(&format!("metrics: cannot wait for clients: {error}"));
            std::thread::sleep(PAUSE);
            Vec::new()
        }
    }
}

fn accept(listener: &OwnedFd, clients: &mut Vec<Client>, agent: &Agent, failing: &mut bool) {
    match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => {
            *failing = false;
            if clients.len() >= CLIENTS {
                let idlest = clients.iter().enumerate().min_by_key(|(_, client)| {
                    let asked = matches!(client.state, State::Writing(_));
                    (asked, client.moved)
                });
                if let Some((idlest, _)) = idlest {
                    clients.swap_remove(idlest);
                }
            }
            let now = Instant::now();
            let mut client = Client {
                socket,
                state: State::Reading(Vec::new()),
                moved: now,
                deadline: now + DEADLINE,
            };
            // Its request is there already, most likely.
            if client.goes_on(agent) {
                clients.push(client);
            }
        }
        Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
        Err(error) => {
            if !*failing {
                log::warn(&format!("metrics: cannot accept connections: {error}"));
            }
            *failing = true;
            std::thread::sleep(PAUSE);
        }
    }
}

impl Client {
    /// Reads and writes as much as there is; `false` when it is served, or gone.
    fn goes_on(&mut self, agent: &Agent) -> bool {
        match contain(|| self.go_on(agent)) {
            Some(Err(Errno::AGAIN)) => true,
            Some(Err(_) | Ok(())) | None => false,
        }
    }

    fn go_on(&mut self, agent: &Agent) -> Result<(), Errno> {
        loop {
            match &mut self.state {
                State::Reading(head) => {
                    let mut part = [0; 1024];
                    let count = retry_on_intr(|| rustix::io::read(&self.socket, &mut part))?;
                    if count == 0 {
                        return Ok(()); // it is gone
                    }
                    self.moved = Instant::now();
                    head.extend(part.iter().take(count));
                    let answer = if head.windows(4).any(|four| four == b"\r\n\r\n") {
                        answer(&String::from_utf8_lossy(head), agent)
                    } else if head.len() >= HEAD_LIMIT {
                        plain("431 Request Header Fields Too Large")
                    } else {
                        continue;
                    };
                    self.state = State::Writing(answer.into_bytes());
                }
                State::Writing(rest) if rest.is_empty() => return Ok(()),
                State::Writing(rest) => {
                    let sent = || send(&self.socket, rest, SendFlags::NOSIGNAL);
                    let count = retry_on_intr(sent)?;
                    self.moved = Instant::now();
                    rest.drain(..count);
                }
            }
        }
    }
}

fn answer(head: &str, agent: &Agent) -> String {
    let line = head.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else {
        return plain("400 Bad Request");
    };
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => match agent.metrics.text(&agent.identities()) {
            Ok(text) => response("200 OK", OPENMETRICS, &text),
            Err(_) => plain("500 Internal Server Error"),
        },
        ("GET", _) => plain("404 Not Found"),
        _ => plain("405 Method Not Allowed\r\nAllow: GET"),
    }
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn plain(status: &str) -> String {
    let (line, _) = status.split_once('\r').unwrap_or((status, ""));
    response(status, "text/plain; charset=utf-8", &format!("{line}\n"))
}

fn response(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Accounts;
    use crate::launcher::Launcher;
    use crate::sandbox::Sandbox;
    use config::{Config, Hardening, Limits};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use crate::token_worker::PinTries;

    /// Of an agent without identities.
    fn agent() -> Arc<Agent> {
        let config = Config {
            socket: PathBuf::new(),
            state: None,
            metrics: None,
            limits: Limits::default(),
            identities: Vec::new(),
            tokens: Vec::new(),
            hardening: Hardening {
                landlock: false,
                seccomp: false,
                token_programs: false,
                read: Vec::new(),
            },
        };
        let launcher = Launcher::in_thread(PathBuf::from("/")).unwrap();
        let programs = launcher.token_programs(false);
        let (sandbox, tries) = (Sandbox::default(), PinTries::in_memory().unwrap());
        Arc::new(Agent::start(config, programs, Accounts::own(), sandbox, tries).unwrap())
    }

    fn start(address: &str) -> (Server, SocketAddr) {
        let asked = MetricsAddress::Loopback(address.parse().unwrap());
        let server = Server::bind(&asked).unwrap();
        server.start(&agent()).unwrap();
        let address = server.address();
        let bound = address.strip_prefix("http://").unwrap();
        let bound = bound.strip_suffix("/metrics").unwrap().parse().unwrap();
        (server, bound)
    }

    fn ask(mut client: impl Read + Write, request: &[u8]) -> String {
        client.write_all(request).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_scrape_is_answered_at_a_port_and_at_a_socket() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.sock");
        let server = Server::bind(&MetricsAddress::Socket(path.clone())).unwrap();
        server.start(&agent()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let mut answers = vec![ask(UnixStream::connect(&path).unwrap(), request)];
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (_server, bound) = start(address);
            answers.push(ask(TcpStream::connect(bound).unwrap(), request));
        }
        for answer in answers {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("application/openmetrics-text"), "{head}");
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            assert!(body.contains("roleseal_build_info{version="), "{body}");
            assert!(body.ends_with("# EOF\n"), "{body}");
        }
        server.remove();
        assert!(!path.exists());
    }

    #[test]
    fn anything_else_is_refused() {
        let (_server, bound) = start("127.0.0.1:0");
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("\0\r\n\r\n", "400 Bad Request"),
            (&long, "431 Request Header Fields Too Large"),
        ] {
            let mut client = TcpStream::connect(bound).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            let mut status_line = vec![0; 9 + status.len()];
            client.read_exact(&mut status_line).unwrap();
            assert_eq!(status_line, format!("HTTP/1.1 {status}").as_bytes());
        }
    }

    #[test]
    fn silent_clients_make_room_and_are_cut_off() {
        let (_server, bound) = start("127.0.0.1:0");
        let mut slow: Vec<_> = (0..CLIENTS * 4)
            .map(|_| TcpStream::connect(bound).unwrap())
            .collect();
        slow.last_mut()
            .unwrap()
            .write_all(b"GET /metrics HT")
            .unwrap();
        let client = TcpStream::connect(bound).unwrap();
        client.set_read_timeout(Some(DEADLINE * 10)).unwrap();
        let answer = ask(client, b"GET /metrics HTTP/1.0\r\n\r\n");
        assert!(answer.contains("200 OK"), "{answer}");
        for client in &mut slow {
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer); // reset, or at its end
            assert!(answer.is_empty());
        }
    }

    /// Some read slowly, and others not at all.
    #[test]
    fn an_answer_that_is_not_read_keeps_nobody_out() {
        let (_server, bound) = start("127.0.0.1:0");
        let request = b"GET /metrics HTTP/1.1\r\n\r\n";
        let deaf: Vec<_> = (0..CLIENTS * 2)
            .map(|_| {
                let mut client = TcpStream::connect(bound).unwrap();
                client.write_all(request).unwrap();
                client
            })
            .collect();
        let answer = ask(TcpStream::connect(bound).unwrap(), request);
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        drop(deaf);
    }
}
