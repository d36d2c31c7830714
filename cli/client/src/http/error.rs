//! Why there is no answer, and what to check.

use std::io;
use std::path::PathBuf;

use rustls::CertificateError;
use thiserror::Error;

use super::timeouts::{ANSWER_TIMEOUT, CONNECT_TIMEOUT};
use crate::exit::Exit;

/// Why there is no answer.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum HttpError {
    #[error("cannot read the CA bundle {}: {error}", .path.display())]
    CaBundleUnreadable { path: PathBuf, error: io::Error },
    #[error(
        "the CA bundle {} is not usable: {fault}\n\
         It should hold one or more certificates in PEM form.", .path.display()
    )]
    CaBundleUnusable { path: PathBuf, fault: String },
    #[error("the proxy {shown} is not usable: {fault}")]
    ProxyUnusable { shown: String, fault: String },
    #[error("no answer from https://{host}{}: {fault}\n{hint}", through(.proxy.as_deref()))]
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

impl HttpError {
    /// The exit code of a command that fails for this.
    pub fn exit(&self) -> Exit {
        match self {
            HttpError::NoAnswer { .. } => Exit::Network,
            _ => Exit::Failed,
        }
    }

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

/// What became of a request without an answer.
pub(super) fn no_answer(host: &str, proxy: Option<String>, error: &ureq::Error) -> HttpError {
    let (fault, hint, passing) = match error {
        ureq::Error::Timeout(timeout) => {
            let fault = match timeout {
                ureq::Timeout::Resolve => {
                    format!(
                        "its name is not resolved within {} s",
                        CONNECT_TIMEOUT.as_secs()
                    )
                }
                ureq::Timeout::Connect => {
                    format!("not connected within {} s", CONNECT_TIMEOUT.as_secs())
                }
                ureq::Timeout::RecvResponse | ureq::Timeout::RecvBody => {
                    format!("no whole answer for {} s", ANSWER_TIMEOUT.as_secs())
                }
                _ => "not complete in time".to_owned(),
            };
            (fault, UNREACHABLE, true)
        }
        ureq::Error::HostNotFound => ("the host name is unknown".to_owned(), UNREACHABLE, true),
        ureq::Error::ConnectProxyFailed(fault) => {
            let (hint, passing) = proxy_hint(proxy_status(fault));
            (fault.clone(), hint, passing)
        }
        ureq::Error::Io(error) => match tls_error(error) {
            Some(error) => (error.to_string(), tls_hint(error), false),
            None => (error.to_string(), UNREACHABLE, true),
        },
        ureq::Error::Rustls(error) => (error.to_string(), tls_hint(error), false),
        error => (error.to_string(), "Is --endpoint the right host?", false),
    };
    HttpError::NoAnswer {
        host: host.to_owned(),
        proxy,
        fault,
        hint,
        stage: stage(error),
        passing,
    }
}

/// A connection that breaks tells nothing of how far it had come: ureq waits for the handshake with the
/// first byte that it sends.
fn stage(error: &ureq::Error) -> Stage {
    match error {
        ureq::Error::HostNotFound | ureq::Error::Timeout(ureq::Timeout::Resolve) => Stage::Name,
        ureq::Error::ConnectProxyFailed(_) => Stage::Proxy,
        ureq::Error::Rustls(_) => Stage::Tls,
        ureq::Error::Io(error) if tls_error(error).is_some() => Stage::Tls,
        ureq::Error::Io(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(ureq::Timeout::Connect) => Stage::Connection,
        _ => Stage::Answer,
    }
}

const UNREACHABLE: &str = "Check the network, name resolution, --endpoint and the proxy \
                           (HTTPS_PROXY, NO_PROXY, --proxy).";

/// The status of a proxy that answered. ureq has it in its text only.
fn proxy_status(fault: &str) -> Option<u16> {
    let (_, status) = fault.rsplit_once('/')?;
    status.parse().ok()
}

/// What to do, and whether the same request may succeed in a moment: so where the proxy broke off.
fn proxy_hint(status: Option<u16>) -> (&'static str, bool) {
    match status {
        Some(407) => ("The proxy wants another user or password.", false),
        Some(403) => ("The proxy does not permit this host.", false),
        Some(500..) | None => (UNREACHABLE, true),
        Some(_) => (
            "Is the proxy's address right, and is it an HTTP proxy?",
            false,
        ),
    }
}

/// A failed handshake arrives as an I/O error around rustls's.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_hint(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "The server's certificate is for another name: check --endpoint.",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "The server's certificate is not valid now: check this host's clock.",
        _ => {
            "Where the server's certificate comes from a CA of your own, name that CA's certificate \
             with --ca-bundle or AWS_CA_BUNDLE."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_to_check_and_whether_they_pass() {
        let tls = |error| ureq::Error::Io(io::Error::other(rustls::Error::from(error)));
        let proxy = |status: u16| {
            let reason = format!("proxy server responded {status}/{status}");
            ureq::Error::ConnectProxyFailed(reason)
        };
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        let timeout = ureq::Error::Timeout;
        let cases = [
            (
                ureq::Error::HostNotFound,
                "name resolution",
                true,
                Stage::Name,
            ),
            (
                timeout(ureq::Timeout::Resolve),
                "name is not resolved",
                true,
                Stage::Name,
            ),
            (
                timeout(ureq::Timeout::Connect),
                "connected within 5 s",
                true,
                Stage::Connection,
            ),
            (
                timeout(ureq::Timeout::RecvResponse),
                "no whole answer for 10 s",
                true,
                Stage::Answer,
            ),
            (
                timeout(ureq::Timeout::Global),
                "in time",
                true,
                Stage::Answer,
            ),
            (
                io(io::ErrorKind::ConnectionRefused),
                "HTTPS_PROXY",
                true,
                Stage::Connection,
            ),
            (
                io(io::ErrorKind::UnexpectedEof),
                "network",
                true,
                Stage::Connection,
            ),
            (proxy(407), "password", false, Stage::Proxy),
            (proxy(503), "503", true, Stage::Proxy),
            (proxy(403), "permit", false, Stage::Proxy),
            (
                ureq::Error::ConnectProxyFailed("proxy server did not respond".into()),
                "network",
                true,
                Stage::Proxy,
            ),
            (
                tls(CertificateError::UnknownIssuer),
                "--ca-bundle",
                false,
                Stage::Tls,
            ),
            (
                tls(CertificateError::NotValidForName),
                "another name",
                false,
                Stage::Tls,
            ),
            (tls(CertificateError::Expired), "clock", false, Stage::Tls),
        ];
        for (error, expected, passing, stage) in cases {
            let error = no_answer("aws.example", Some("http://p:1".into()), &error);
            assert_eq!((error.exit(), error.passing()), (Exit::Network, passing));
            assert_eq!(error.stage(), Some(stage), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("aws.example through the proxy http://p:1"),
                "{text}"
            );
            assert!(text.contains(expected), "{text}");
        }
    }
}
