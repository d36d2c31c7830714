//! `GET /metrics`, on a loopback port or a Unix socket. HTTP as far as a scrape needs it: one request a
//! connection, of which the first line counts.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use thiserror::Error;

use crate::log;
use crate::panics::contain;
use crate::state::Agent;
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

/// A client that is slow keeps one; what waits beyond these costs no descriptor.
const THREADS: usize = 2;

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
                Ok(Server {
                    listener: Arc::new(socket.into()),
                    address: path.display().to_string(),
                    path: Some(path.clone()),
                })
            }
            MetricsAddress::Loopback(asked) => {
                let fault = |error| BindError::Port(*asked, error);
                let socket = TcpListener::bind(asked).map_err(fault)?;
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

    /// Answers from now on, in threads of its own.
    pub fn start(&self, agent: &Arc<Agent>) -> io::Result<()> {
        for _ in 0..THREADS {
            let (listener, agent) = (Arc::clone(&self.listener), Arc::clone(agent));
            std::thread::Builder::new()
                .name("metrics".to_owned())
                .stack_size(STACK)
                .spawn(move || run(&listener, &agent))?;
        }
        Ok(())
    }

    /// Removes the socket, if there is one.
    pub fn remove(&self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path); // somebody else may have done it
        }
    }
}

fn run(listener: &OwnedFd, agent: &Agent) {
    let mut failing = false;
    loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(client) => {
                failing = false;
                contain(|| serve(&client, agent).ok()); // it is gone, or too slow
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                if !failing {
                    log::warn(&format!("metrics: cannot accept connections: {error}"));
                }
                failing = true;
                // Out of descriptors, most likely: connections that end give some back.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// One request and its answer.
fn serve(client: &OwnedFd, agent: &Agent) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let answer = match read_head(client, deadline)? {
        Some(head) => answer(&String::from_utf8_lossy(&head), agent),
        None => plain("431 Request Header Fields Too Large"),
    };
    write_whole(client, answer.as_bytes(), deadline)
}

/// Everything up to the empty line; `None` if that is too much.
fn read_head(client: &OwnedFd, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() >= HEAD_LIMIT {
            return Ok(None);
        }
        set_socket_timeout(client, Timeout::Recv, Some(left(deadline)?))?;
        match rustix::io::read(client, &mut part) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend(part.iter().take(count)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(head))
}

fn write_whole(client: impl AsFd, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        set_socket_timeout(&client, Timeout::Send, Some(left(deadline)?))?;
        match send(&client, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The time left; never zero, which would be for ever.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
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

    /// Of an agent without identities.
    fn agent() -> Arc<Agent> {
        let config = Config {
            socket: PathBuf::new(),
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
        Arc::new(Agent::start(config, programs, Accounts::own(), Sandbox::default()).unwrap())
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
    fn a_slow_client_is_cut_off_and_keeps_nobody_out() {
        let (_server, bound) = start("127.0.0.1:0");
        let mut slow: Vec<_> = (0..THREADS)
            .map(|_| TcpStream::connect(bound).unwrap())
            .collect();
        slow[0].write_all(b"GET /metrics HT").unwrap();
        let start = Instant::now();
        // Waits until one of them is cut off.
        let client = TcpStream::connect(bound).unwrap();
        client.set_read_timeout(Some(DEADLINE * 10)).unwrap();
        let answer = ask(client, b"GET /metrics HTTP/1.0\r\n\r\n");
        assert!(answer.contains("200 OK"), "{answer}");
        assert!(start.elapsed() >= DEADLINE / 2);
        for client in &mut slow {
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer); // reset, or at its end
            assert!(answer.is_empty());
        }
    }
}
