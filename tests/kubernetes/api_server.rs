//! An API server that publishes its keys to those who show a token.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hsm_fixtures::Scene;
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

/// A running server; it ends with the process.
pub(crate) struct ApiServer {
    address: SocketAddr,
    state: Arc<State>,
    token_file: PathBuf,
}

struct State {
    jwks: Mutex<String>,
    token: Mutex<String>,
    away: AtomicBool,
    /// Connections, while it is away as well.
    asked: AtomicU64,
    answered: AtomicU64,
}

impl ApiServer {
    pub(crate) fn start(scene: &Scene, jwks: String) -> ApiServer {
        let identity = scene.pki().tls_identity().unwrap();
        let key = PKey::private_key_from_pem(identity.key_pem.as_bytes()).unwrap();
        let certificate = X509::from_pem(identity.certificate_pem.as_bytes()).unwrap();
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        tls.set_private_key(&key).unwrap();
        tls.set_certificate(&certificate).unwrap();
        let tls = tls.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            jwks: Mutex::new(jwks),
            token: Mutex::default(),
            away: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                served.answer(&tls, stream.unwrap());
            }
        });
        let server = ApiServer {
            address,
            state,
            token_file: scene.path("api-token"),
        };
        server.rotate_token("first-token");
        server
    }

    /// What `[kubernetes]` says of it.
    pub(crate) fn settings(&self, scene: &Scene) -> String {
        format!(
            "jwks = \"https://{}/openid/v1/jwks\"\nca-bundle = \"{}\"\ntoken-file = \"{}\"\n",
            self.address,
            scene.pki().root_path().display(),
            self.token_file.display()
        )
    }

    /// From now on only this token will do, which is in the file.
    pub(crate) fn rotate_token(&self, token: &str) {
        token.clone_into(&mut self.state.token.lock().unwrap());
        std::fs::write(&self.token_file, format!("{token}\n")).unwrap();
    }

    pub(crate) fn publish(&self, jwks: String) {
        *self.state.jwks.lock().unwrap() = jwks;
    }

    pub(crate) fn go_away(&self) {
        self.state.away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn come_back(&self) {
        self.state.away.store(false, Ordering::SeqCst);
    }

    /// How often somebody connected.
    pub(crate) fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// How often somebody got the keys.
    pub(crate) fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::SeqCst)
    }
}

impl State {
    fn answer(&self, tls: &SslAcceptor, stream: TcpStream) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return; // the connection breaks
        }
        let Ok(mut stream) = tls.accept(stream) else {
            return;
        };
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let token = format!(
            "\r\nauthorization: bearer {}\r\n",
            self.token.lock().unwrap()
        );
        let is_good = head.starts_with("get /openid/v1/jwks http") && head.contains(&token);
        let (status, body) = match is_good {
            true => ("200 OK", self.jwks.lock().unwrap().clone()),
            false => ("401 Unauthorized", String::new()),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let _ = stream.write_all(answer.as_bytes()); // the client may be gone
        let _ = stream.shutdown();
        self.answered
            .fetch_add(u64::from(is_good), Ordering::SeqCst);
    }
}
