//! The one HTTP request, over TLS with ring.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use secrecy::SecretSlice;
use thiserror::Error;
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use wire::UnsignedRequest;

use crate::exit::Exit;
use crate::proxy::Proxy;
use crate::target::Route;

/// TCP and TLS together. A healthy endpoint takes some 100 ms from anywhere; a firewall that drops
/// packets should not cost an AWS CLI call the time for all tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From the request's last byte to the answer's head, and from there to its end. The service takes less than a second; a try that
/// hangs should leave time for another.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A session takes some 3 KiB.
const ANSWER_LIMIT: u64 = 1024 * 1024;

/// A client for one route.
#[derive(Debug)]
pub(crate) struct Http {
    agent: Agent,
    /// The proxy, for messages.
    proxy: Option<String>,
}

/// What came back, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `x-amzn-ErrorType`
    pub(crate) error_type: Option<String>,
    /// `Date`
    pub(crate) date: Option<String>,
    /// Credentials, where all went well.
    pub(crate) body: SecretSlice<u8>,
}

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

impl Http {
    /// Trusts the CAs of the route's bundle only; without one, those of the system, which are not read
    /// before the first request.
    pub(crate) fn new(route: &Route) -> Result<Http, HttpError> {
        let roots = match &route.ca_bundle {
            Some(path) => read_ca_bundle(path)?,
            None => RootCerts::PlatformVerifier,
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(roots)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0) // what was signed is for this host only
            .proxy(route.proxy.as_ref().map(ureq_proxy).transpose()?)
            .user_agent(concat!("roleseal/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(ANSWER_TIMEOUT))
            .build();
        Ok(Http {
            agent: config.into(),
            proxy: route.proxy.as_ref().map(|proxy| proxy.shown().to_owned()),
        })
    }

    /// Sends the request as it was signed. The answer has to be complete `within` that time.
    pub(crate) fn post_session(
        &self,
        signed: &UnsignedRequest,
        headers: &BTreeMap<String, String>,
        within: Duration,
    ) -> Result<Answer, HttpError> {
        self.exchange(signed, headers, within)
            .map_err(|error| no_answer(&signed.host, self.proxy.clone(), &error))
    }

    fn exchange(
        &self,
        signed: &UnsignedRequest,
        headers: &BTreeMap<String, String>,
        within: Duration,
    ) -> Result<Answer, ureq::Error> {
        let url = format!("https://{}/sessions?{}", signed.host, signed.query);
        let mut request = self
            .agent
            .post(url)
            .config()
            .timeout_global(Some(within))
            .build()
            .header("host", &signed.host)
            .header("content-type", &signed.content_type);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send(&signed.body)?;
        let text = |name: &str| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Ok(Answer {
            status: response.status().as_u16(),
            error_type: text("x-amzn-errortype"),
            date: text("date"),
            body: response
                .body_mut()
                .with_config()
                .limit(ANSWER_LIMIT)
                .read_to_vec()?
                .into(),
        })
    }
}

fn ureq_proxy(proxy: &Proxy) -> Result<ureq::Proxy, HttpError> {
    ureq::Proxy::new(proxy.url()).map_err(|error| HttpError::ProxyUnusable {
        shown: proxy.shown().to_owned(),
        fault: error.to_string(),
    })
}

fn read_ca_bundle(path: &Path) -> Result<RootCerts, HttpError> {
    let unusable = |fault| HttpError::CaBundleUnusable {
        path: path.to_owned(),
        fault,
    };
    let pem = fs::read(path).map_err(|error| HttpError::CaBundleUnreadable {
        path: path.to_owned(),
        error,
    })?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(unusable(error.to_string())),
        }
    }
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certificates.into())
}

fn no_answer(host: &str, proxy: Option<String>, error: &ureq::Error) -> HttpError {
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
    fn a_ca_bundle_without_certificates_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let route = Route {
            ca_bundle: Some(path.clone()),
            proxy: None,
        };
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            let error = Http::new(&route).unwrap_err();
            assert_eq!(error.exit(), Exit::Failed);
            error.to_string()
        };
        assert!(error("").contains("no certificate"));
        let cut = error("-----BEGIN CERTIFICATE-----\nMII");
        assert!(cut.contains("not usable"), "{cut}");
        fs::remove_file(&path).unwrap();
        let missing = Http::new(&route).unwrap_err().to_string();
        assert!(missing.contains("cannot read") && missing.contains("ca.pem"));
    }

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
