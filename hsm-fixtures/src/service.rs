//! A strict local AWS: IAM Roles Anywhere's CreateSession and STS's GetCallerIdentity over HTTPS.
//!
//! It shares no code with the agent, because it is the judge of what the agent signs: certificates are read by
//! x509-parser, all cryptography is OpenSSL's. The path of a request: [`Service`] (HTTP) → `judge` →
//! `create_session` (`authorization`, `certificate`, `parameters`, `request_date`, `canonical`, `chain`) or `sts` →
//! `vault` → `answer`.

mod answer;
mod arn;
mod authorization;
mod canonical;
mod certificate;
mod chain;
mod config;
mod create_session;
mod journal;
mod judge;
mod parameters;
mod query;
mod received;
mod refusal;
mod registry;
mod request_date;
mod sts;
#[cfg(test)]
mod test_client;
mod vault;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use openssl::rand::rand_bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use config::{DEFAULT_PROFILE_SECONDS, Profile, ServiceConfig, TrustAnchor};
pub use journal::{Decision, Operation};

use answer::Answer;
use judge::Judge;
use received::Received;

/// The largest body that is read; CreateSession's own limits stay far below.
const BODY_LIMIT: usize = 64 * 1024;

/// A running service, with a thread of its own; it stops when dropped.
pub struct Service {
    judge: Arc<Judge>,
    port: u16,
    handle: Handle<SocketAddr>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Service {
    /// Binds 127.0.0.1 and answers from then on.
    ///
    /// # Errors
    ///
    /// Where the port is taken, or the configuration has an ARN, certificate or key that cannot be read.
    pub fn start(config: ServiceConfig) -> Result<Service> {
        let judge = Arc::new(Judge::new(&config)?);
        let tls = RustlsConfig::from_config(Arc::new(tls_config(&config)?));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{}", config.port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let handle = Handle::new();
        let router = Router::new()
            .fallback(handle_request)
            .with_state(Arc::clone(&judge));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = handle.clone();
        let thread = std::thread::Builder::new()
            .name("rolesanywhere".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    axum_server::from_tcp_rustls(listener, tls)?
                        .handle(stop)
                        .serve(router.into_make_service())
                        .await
                })
            })?;
        Ok(Service {
            judge,
            port,
            handle,
            thread: Some(thread),
        })
    }

    /// `https://localhost:PORT`: Roles Anywhere at `/sessions`, STS at `/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether a `POST /sessions` with this query, these headers (by lower-case names) and this body would be
    /// granted a session now. It gets none, and leaves no trace.
    ///
    /// # Errors
    ///
    /// Why it would be refused.
    pub fn would_grant(
        &self,
        query: &str,
        headers: Vec<(String, String)>,
        body: &str,
    ) -> Result<(), String> {
        self.judge.would_grant(&Received {
            method: "POST".to_owned(),
            path: "/sessions".to_owned(),
            query: query.to_owned(),
            headers,
            body: body.as_bytes().to_vec(),
        })
    }

    /// How many sessions have been vended.
    #[must_use]
    pub fn sessions_created(&self) -> u64 {
        self.judge.journal().sessions_created()
    }

    /// The latest decisions, oldest first.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.judge.journal().decisions()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("hsm-fixtures: the service ended with an error: {error}");
        }
    }
}

fn tls_config(config: &ServiceConfig) -> Result<rustls::ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(config.tls.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("the service's TLS certificate is no PEM")?;
    let key = PrivateKeyDer::from_pem_slice(config.tls.key_pem.as_bytes())
        .context("the service's TLS key is no PEM")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the service's TLS certificate and key do not fit")
}

async fn handle_request(State(judge): State<Arc<Judge>>, request: Request) -> Response<Body> {
    let request_id = request_id();
    let answer = match receive(request).await {
        Ok(received) => judge.answer(&received, &request_id),
        Err(message) => judge.answer_unreadable(&message),
    };
    response(answer, &request_id)
}

async fn receive(request: Request) -> Result<Received, String> {
    let (parts, body) = request.into_parts();
    let mut headers = Vec::new();
    for (name, value) in &parts.headers {
        let value = value
            .to_str()
            .map_err(|_| format!("the {name} header is not printable ASCII"))?;
        headers.push((name.as_str().to_owned(), value.to_owned()));
    }
    let body = body::to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|error| format!("cannot read the body: {error}"))?;
    Ok(Received {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers,
        body: body.to_vec(),
    })
}

fn response(answer: Answer, request_id: &str) -> Response<Body> {
    let mut builder = Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type)
        .header("x-amzn-requestid", request_id);
    if let Some(error_type) = answer.error_type {
        builder = builder.header("x-amzn-errortype", error_type);
    }
    builder.body(Body::from(answer.body)).unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// A request's id, for clients to quote; no two need to differ for certain.
fn request_id() -> String {
    let mut bytes = [0; 16];
    if rand_bytes(&mut bytes).is_err() {
        return "00000000000000000000000000000000".to_owned();
    }
    hex::encode(bytes)
}

#[cfg(test)]
mod tests;
