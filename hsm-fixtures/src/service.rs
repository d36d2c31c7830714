//! A strict local AWS: IAM Roles Anywhere's CreateSession and STS's GetCallerIdentity over HTTPS.
//!
//! It shares no code with the agent, because it is the judge of what the agent signs: certificates are read by
//! x509-parser, all cryptography is OpenSSL's. What a role's trust policy says is `roleseal-trust-policy`'s to tell, the one
//! crate of ours that it uses. The path of a request: [`Service`] (HTTP) → `judge` → `create_session` (`authorization_header`,
//! `certificate`, `parameters`, `request_date`, `canonical`) → `decision` (`chain`, `revocation`, `attributes`), or
//! `sts` → `vault` → `answer`.

mod answer;
mod arn;
mod attribute_mapping;
mod attributes;
mod authorization_header;
mod canonical;
mod certificate;
mod chain;
mod config;
mod config_file;
mod create_session;
mod decision;
mod explain;
mod explanation;
mod fault;
mod journal;
mod judge;
mod own_hosts;
mod parameters;
mod query;
mod received;
mod refusal;
mod registry;
mod request_date;
mod revocation;
mod server;
mod session_policy;
mod sts;
mod tags;
#[cfg(test)]
mod test_client;
mod vault;
mod verification;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use jiff::Timestamp;
use openssl::rand::rand_bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use attribute_mapping::{AttributeMapping, CertificateField};
pub use config::{DEFAULT_PROFILE_SECONDS, Profile, Role, ServiceConfig, TrustAnchor};
pub use explain::{Explained, Question};
pub use fault::Fault;
pub use journal::{Decision, Operation};

use answer::Answer;
use judge::Judge;
use received::Received;
use server::{Server, Shut};

/// The largest body that is read; CreateSession's own limits stay far below.
const BODY_LIMIT: usize = 64 * 1024;

/// A running service, with a thread of its own; it stops when dropped.
pub struct Service {
    judge: Arc<Judge>,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    port: u16,
    door: Mutex<Door>,
}

/// Whether the service can be reached.
enum Door {
    Open(Server),
    Shut(Shut),
    /// It could be neither opened nor shut.
    Broken,
}

impl Service {
    /// Binds 127.0.0.1 and answers from then on.
    ///
    /// # Errors
    ///
    /// Where the port is taken, or the configuration has an ARN, certificate or key that cannot be read.
    pub fn start(config: ServiceConfig) -> Result<Service> {
        let listener = server::listen(config.port)?;
        let port = listener.local_addr()?.port();
        let judge = Arc::new(Judge::new(&config, port)?);
        let tls = Arc::new(tls_config(&config)?);
        let router = Router::new()
            .fallback(handle_request)
            .with_state(Arc::clone(&judge));
        let server = Server::start(listener, Arc::clone(&tls), router.clone())?;
        Ok(Service {
            judge,
            tls,
            router,
            port,
            door: Mutex::new(Door::Open(server)),
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

    /// Adds a certificate revocation list, PEM or DER, to a trust anchor: it counts from the next request on.
    ///
    /// # Errors
    ///
    /// Where it is no CRL, there is no such trust anchor, or the CRL names its CA and is not signed by it.
    pub fn import_crl(&self, trust_anchor_arn: &str, crl: &[u8]) -> Result<()> {
        self.judge.import_crl(trust_anchor_arn, crl)
    }

    /// How many sessions have been vended.
    #[must_use]
    pub fn sessions_created(&self) -> u64 {
        self.judge.journal().sessions_created()
    }

    /// How many CreateSession requests have arrived, whatever became of them.
    #[must_use]
    pub fn create_session_requests(&self) -> u64 {
        self.judge.journal().create_session_requests()
    }

    /// The latest decisions, oldest first. A request that met a fault is there with its status; with 0 where it
    /// hangs.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.judge.journal().decisions()
    }

    /// The next CreateSession requests meet these faults, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.judge.faults().add(faults);
    }

    /// Every CreateSession request meets this fault from now on, or none; what [`Service::fail_next`] said is
    /// forgotten.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.judge.faults().set(fault);
    }

    /// Cuts all connections and refuses new ones, those to STS as well.
    ///
    /// # Errors
    ///
    /// Where the port cannot be kept from others.
    pub fn stop_listening(&self) -> Result<()> {
        let mut door = self.door();
        *door = match std::mem::replace(&mut *door, Door::Broken) {
            Door::Open(server) => Door::Shut(server.shut()?),
            door => door,
        };
        Ok(())
    }

    /// Is there again, on the same port.
    ///
    /// # Errors
    ///
    /// Where somebody else took the port.
    pub fn listen_again(&self) -> Result<()> {
        let mut door = self.door();
        *door = match std::mem::replace(&mut *door, Door::Broken) {
            Door::Shut(shut) => Door::Open(Server::start_again(
                shut,
                self.port,
                &self.tls,
                &self.router,
            )?),
            door => door,
        };
        Ok(())
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
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
    let fault = match request.uri().path() {
        "/sessions" => judge.faults().take(),
        _ => None,
    };
    if fault == Some(Fault::Hang) {
        judge.record_fault(0, "hangs");
        std::future::pending::<()>().await; // until the client gives up
    }
    let now = judge.now(fault);
    let answer = match receive(request).await {
        Ok(received) => judge.answer(&received, &request_id, now, fault),
        Err(message) => judge.answer_unreadable(&message),
    };
    let mut response = response(&answer, &request_id, now);
    if fault == Some(Fault::Truncated) {
        *response.body_mut() = fault::truncated(&answer.body);
        let length = answer.body.len().into();
        response.headers_mut().insert("content-length", length);
    }
    if let Some(Fault::RetryAfter { seconds, .. }) = fault {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
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

fn response(answer: &Answer, request_id: &str, now: Timestamp) -> Response<Body> {
    let mut builder = Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type)
        .header(
            "date",
            now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        )
        .header("x-amzn-requestid", request_id);
    if let Some(error_type) = answer.error_type {
        builder = builder.header("x-amzn-errortype", error_type);
    }
    builder
        .body(Body::from(answer.body.clone()))
        .unwrap_or_else(|_| {
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
