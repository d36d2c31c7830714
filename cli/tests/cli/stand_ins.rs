//! An agent, a service and a proxy that record what reaches them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::{ANCHOR, PROFILE, ROLE, SESSION};

/// A directory of its own, with the socket and the CA bundle of a test.
pub(crate) struct Scene(TempDir);

pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) requests: Received,
}

/// What reached a stand-in, in its order.
pub(crate) struct Received(pub(crate) mpsc::Receiver<String>);

impl Received {
    pub(crate) fn next(&self) -> String {
        self.0.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn roleseal(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roleseal"));
        command
            .env_clear()
            .env("ROLESEAL_SOCKET", self.path("agent.sock"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// `roleseal credential-process`, trusting the scene's service where there is one.
    pub(crate) fn session(&self, more: &[&str]) -> Output {
        let mut command = self.roleseal(&["credential-process", ROLE, PROFILE, ANCHOR]);
        let bundle = self.path("ca.pem");
        if bundle.exists() {
            command.arg("--ca-bundle").arg(bundle);
        }
        command.args(more).output().unwrap()
    }

    /// An agent that answers each call with `reply`.
    pub(crate) fn agent(&self, reply: &str) -> Received {
        let listener = UnixListener::bind(self.path("agent.sock")).unwrap();
        let reply = format!("{reply}\0");
        let (tell, received) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut call = Vec::new();
                BufReader::new(&stream).read_until(0, &mut call).unwrap();
                let _ = tell.send(text(&call)); // nobody need listen
                let _ = stream.write_all(reply.as_bytes());
            }
        });
        Received(received)
    }

    /// A service that answers each request alike.
    pub(crate) fn service(&self, status: &str, headers: &str, body: &str) -> Service {
        self.service_in_turn(&[(status, headers, body)])
    }

    /// A service with an answer for each request; the last is for all that follow.
    pub(crate) fn service_in_turn(&self, answers: &[(&str, &str, &str)]) -> Service {
        let tls = self.certify();
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut answers: Vec<_> = answers
            .iter()
            .map(|(status, headers, body)| {
                // What looks like a session is said to be a whole one.
                let length = if SESSION.starts_with(body) && !body.is_empty() {
                    SESSION.len()
                } else {
                    body.len()
                };
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
            })
            .rev()
            .collect();
        let (tell, received) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let answer = match answers.len() {
                    1 => answers[0].clone(),
                    _ => answers.pop().unwrap(),
                };
                if let Ok(request) = serve(&listener, Arc::clone(&tls), &answer) {
                    let _ = tell.send(request);
                }
            }
        });
        Service {
            url: format!("https://localhost:{port}"),
            requests: Received(received),
        }
    }

    /// A CA in the scene's bundle, and a server certificate by it.
    fn certify(&self) -> Arc<ServerConfig> {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        fs::write(self.path("ca.pem"), ca_pem).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(ca, ca_key))
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            );
        Arc::new(config.unwrap())
    }
}

/// A proxy that breaks off after each CONNECT.
pub(crate) fn silent_proxy() -> (String, Received) {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let (tell, received) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let _ = tell.send(head(&mut client.unwrap()));
        }
    });
    (address, Received(received))
}

/// A proxy that answers CONNECT so, and tunnels to localhost where that is a success.
pub(crate) fn proxy(status: &str) -> (String, Received) {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let answer = format!("HTTP/1.1 {status}\r\n\r\n");
    let (tell, received) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let head = head(&mut client);
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let _ = tell.send(head);
            client.write_all(answer.as_bytes()).unwrap();
            if answer.starts_with("HTTP/1.1 200") {
                let server = TcpStream::connect(target).unwrap();
                join(&client, &server);
            }
        }
    });
    (address, Received(received))
}

/// Reads to the empty line and no further.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    text(&head)
}

/// Copies both ways until both have ended.
fn join(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

/// Reads one request as far as its length says, and answers it.
fn serve(listener: &TcpListener, tls: Arc<ServerConfig>, answer: &str) -> std::io::Result<String> {
    let (tcp, _): (TcpStream, _) = listener.accept()?;
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, tcp));
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request)? == 0 {
            return Ok(request);
        }
    }
    let length = lower_lines(&request)
        .iter()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    request.push_str(&text(&body));
    stream.get_mut().write_all(answer.as_bytes())?;
    stream.get_mut().flush()?;
    Ok(request)
}

/// The header lines, in lower case.
pub(crate) fn lower_lines(head: &str) -> Vec<String> {
    head.lines().skip(1).map(str::to_lowercase).collect()
}

pub(crate) fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
