//! Why there is no answer, and what to check.

use std::io;
use std::path::PathBuf;

use rustls::CertificateError;
use thiserror::Error;

use super::proxy_status::ProxyRefused;
use super::timeouts::{ANSWER_TIMEOUT, CONNECT_TIMEOUT};
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;

/// Why there is no answer.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum HttpError {
    #[error("cannot read the CA bundle {}: {error}", .path.display())]
    CaBundleUnreadable { path: PathBuf, error: io::Error },
    #[error("cannot use the CA bundle {}: {fault}", .path.display())]
    CaBundleUnusable { path: PathBuf, fault: String },
    #[error("cannot use the proxy {shown}: {fault}")]
    ProxyUnusable { shown: String, fault: String },
    #[error("no answer from https://{host}{}: {fault}", through(.proxy.as_deref()))]
    NoAnswer {
        host: String,
        proxy: Option<String>,
        fault: String,
        hint: &'static str,
        /// How far the request came.
        stage: Stage,
        /// The same request may succeed in a moment.
        passing: bool,
    },
}

/// Where on its way a request was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The name of the host, or of the proxy, has no address.
    Name,
    /// Nobody takes the connection, or it broke.
    Connection,
    /// The proxy does not make the tunnel.
    Proxy,
    /// The handshake, or the server's certificate.
    Tls,
    /// There is no whole answer.
    Answer,
}

fn through(proxy: Option<&str>) -> String {
    proxy
        .map(|proxy| format!(" through the proxy {proxy}"))
        .unwrap_or_default()
}

impl Diagnostic for HttpError {
    fn exit(&self) -> Exit {
        match self {
            HttpError::NoAnswer { .. } => Exit::Network,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            HttpError::CaBundleUnreadable { .. } | HttpError::CaBundleUnusable { .. } => {
                "name a readable PEM file with one or more certificates with --ca-bundle or AWS_CA_BUNDLE"
            }
            HttpError::ProxyUnusable { .. } => "correct --proxy, the target's proxy or HTTPS_PROXY",
            HttpError::NoAnswer { hint, .. } => hint,
        };
        Some(hint.to_owned())
    }
}

impl HttpError {
    /// Whether the same request may succeed in a moment.
    pub fn passing(&self) -> bool {
        matches!(self, HttpError::NoAnswer { passing: true, .. })
    }

    /// How far the request came, if it was sent at all.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            HttpError::NoAnswer { stage, .. } => Some(*stage),
            _ => None,
        }
    }
}

/// Explains a request without an answer.
pub(super) fn no_answer(host: &str, proxy: Option<String>, error: &ureq::Error) -> HttpError {
    let (stage, hint, passing) = classify(error);
    HttpError::NoAnswer {
        host: host.to_owned(),
        proxy,
        fault: fault(error),
        hint,
        stage,
        passing,
    }
}

/// Returns how far the request came, what to do, and whether the same request may succeed in a moment.
///
/// A connection that breaks does not show how far it had come: ureq waits for the handshake with the first byte that
/// it sends.
fn classify(error: &ureq::Error) -> (Stage, &'static str, bool) {
    use ureq::{Error, Timeout};
    if let Some(refused) = proxy_refused(error) {
        let (hint, passing) = proxy_hint(refused.status);
        return (Stage::Proxy, hint, passing);
    }
    if let Some(error) = tls_error(error) {
        return (Stage::Tls, tls_hint(error), false);
    }
    match error {
        Error::HostNotFound | Error::Timeout(Timeout::Resolve) => (Stage::Name, UNREACHABLE, true),
        Error::Io(_) | Error::Timeout(Timeout::Connect) => (Stage::Connection, UNREACHABLE, true),
        Error::ConnectionFailed => (Stage::Connection, ENDPOINT, false),
        Error::ConnectProxyFailed(_) => (Stage::Proxy, UNREACHABLE, true), // it closes the connection
        Error::Timeout(_) => (Stage::Answer, UNREACHABLE, true),
        _ => (Stage::Answer, ENDPOINT, false),
    }
}

fn fault(error: &ureq::Error) -> String {
    use ureq::{Error, Timeout};
    let (connect, answer) = (CONNECT_TIMEOUT.as_secs(), ANSWER_TIMEOUT.as_secs());
    match error {
        Error::Timeout(Timeout::Resolve) => format!("its name is not resolved within {connect} s"),
        Error::Timeout(Timeout::Connect) => format!("not connected within {connect} s"),
        Error::Timeout(Timeout::RecvResponse | Timeout::RecvBody) => {
            format!("no whole answer for {answer} s")
        }
        Error::Timeout(_) => "not complete in time".to_owned(),
        Error::HostNotFound => "the host name is unknown".to_owned(),
        Error::Io(error) => error.to_string(),
        Error::Rustls(error) => error.to_string(),
        Error::Other(error) => error.to_string(),
        error => error.to_string(),
    }
}

const ENDPOINT: &str = "check --endpoint";

const UNREACHABLE: &str =
    "check the network, name resolution, --endpoint and the proxy (HTTPS_PROXY, NO_PROXY, --proxy)";

/// Returns what to do, and whether the same request may succeed in a moment.
fn proxy_hint(status: u16) -> (&'static str, bool) {
    match status {
        407 => ("the proxy requires another user or password", false),
        403 => ("the proxy does not permit this host", false),
        500.. => (UNREACHABLE, true),
        _ => (
            "check the proxy's address, and that it is an HTTP proxy",
            false,
        ),
    }
}

fn proxy_refused(error: &ureq::Error) -> Option<&ProxyRefused> {
    match error {
        ureq::Error::Other(error) => error.downcast_ref(),
        _ => None,
    }
}

/// Finds rustls's error, which may stand within an I/O error.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn tls_hint(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name: check --endpoint",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "the server's certificate is not valid now: check this host's clock",
        _ => {
            "if the server's certificate comes from a CA of your own, name that CA's certificate with --ca-bundle or \
             AWS_CA_BUNDLE"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_stage_and_may_pass() {
        use ureq::Timeout;
        let tls = |error| ureq::Error::Io(io::Error::other(rustls::Error::from(error)));
        let proxy = |status| ureq::Error::Other(Box::new(ProxyRefused { status }));
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        let timeout = ureq::Error::Timeout;
        let silent = ureq::Error::ConnectProxyFailed("no answer".into());
        for (error, stage, passing) in [
            (ureq::Error::HostNotFound, Stage::Name, true),
            (timeout(Timeout::Resolve), Stage::Name, true),
            (timeout(Timeout::Connect), Stage::Connection, true),
            (timeout(Timeout::RecvResponse), Stage::Answer, true),
            (timeout(Timeout::Global), Stage::Answer, true),
            (
                io(io::ErrorKind::ConnectionRefused),
                Stage::Connection,
                true,
            ),
            (io(io::ErrorKind::UnexpectedEof), Stage::Connection, true),
            (proxy(407), Stage::Proxy, false),
            (proxy(503), Stage::Proxy, true),
            (silent, Stage::Proxy, true),
            (tls(CertificateError::UnknownIssuer), Stage::Tls, false),
            (tls(CertificateError::NotValidForName), Stage::Tls, false),
            (tls(CertificateError::Expired), Stage::Tls, false),
            (ureq::Error::TooManyRedirects, Stage::Answer, false),
        ] {
            let error = no_answer("aws.example", Some("http://p:1".into()), &error);
            assert_eq!(
                (error.stage(), error.passing()),
                (Some(stage), passing),
                "{error}"
            );
            assert_eq!(error.exit(), Exit::Network);
            assert!(error.hint().is_some());
            let text = error.to_string();
            assert!(text.contains("aws.example through the proxy http://p:1"));
            assert!(!text.contains('\n'));
        }
    }
}
