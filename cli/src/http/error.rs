//! Why there is no answer, and what to check.

use std::io;
use std::path::PathBuf;

use rustls::CertificateError;
use thiserror::Error;

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT};
use crate::exit::Exit;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
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
        /// The same request may succeed in a moment.
        passing: bool,
    },
}

fn through(proxy: Option<&str>) -> String {
    proxy
        .map(|proxy| format!(" through the proxy {proxy}"))
        .unwrap_or_default()
}

impl HttpError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            HttpError::NoAnswer { .. } => Exit::Network,
            _ => Exit::Failed,
        }
    }

    /// Whether the same request may succeed in a moment.
    pub(crate) fn passing(&self) -> bool {
        matches!(self, HttpError::NoAnswer { passing: true, .. })
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
            let own_fault = fault.contains("responded 5");
            (fault.clone(), PROXY, own_fault)
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
        passing,
    }
}

const UNREACHABLE: &str = "Check the network, name resolution, --endpoint and the proxy \
                           (HTTPS_PROXY, NO_PROXY, --proxy).";

const PROXY: &str = "407 is a proxy that wants another user or password, 403 one that does not \
                     permit this host.";

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
            (ureq::Error::HostNotFound, "name resolution", true),
            (
                timeout(ureq::Timeout::Resolve),
                "name is not resolved",
                true,
            ),
            (
                timeout(ureq::Timeout::Connect),
                "connected within 5 s",
                true,
            ),
            (
                timeout(ureq::Timeout::RecvResponse),
                "no whole answer for 10 s",
                true,
            ),
            (timeout(ureq::Timeout::Global), "in time", true),
            (io(io::ErrorKind::ConnectionRefused), "HTTPS_PROXY", true),
            (io(io::ErrorKind::UnexpectedEof), "network", true),
            (proxy(407), "password", false),
            (proxy(503), "503", true),
            (tls(CertificateError::UnknownIssuer), "--ca-bundle", false),
            (
                tls(CertificateError::NotValidForName),
                "another name",
                false,
            ),
            (tls(CertificateError::Expired), "clock", false),
        ];
        for (error, expected, passing) in cases {
            let error = no_answer("aws.example", Some("http://p:1".into()), &error);
            assert_eq!((error.exit(), error.passing()), (Exit::Network, passing));
            let text = error.to_string();
            assert!(
                text.contains("aws.example through the proxy http://p:1"),
                "{text}"
            );
            assert!(text.contains(expected), "{text}");
        }
    }
}
