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

/// TCP and TLS together. A healthy endpoint takes some 100 ms from anywhere; a firewall that drops
/// packets should not cost an AWS CLI call the whole [`TOTAL_TIMEOUT`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From the name's resolution to the answer's last byte. AWS's Go SDK gives a credential
/// process a minute, of which the agent may take the other half.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A session takes some 3 KiB.
const ANSWER_LIMIT: u64 = 1024 * 1024;

/// A client that trusts one set of CAs.
#[derive(Debug)]
pub(crate) struct Http(Agent);

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
    #[error("no answer from https://{host}: {fault}\n{hint}")]
    NoAnswer {
        host: String,
        fault: String,
        hint: &'static str,
    },
}

impl HttpError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            HttpError::NoAnswer { .. } => Exit::Network,
            _ => Exit::Failed,
        }
    }
}

impl Http {
    /// Trusts the CAs of the bundle only; without one, those of the system, which are not read before
    /// the first request.
    pub(crate) fn new(ca_bundle: Option<&Path>) -> Result<Http, HttpError> {
        let roots = match ca_bundle {
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
            .proxy(None) // ureq would take one from the environment
            .user_agent(concat!("roleseal/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TOTAL_TIMEOUT))
            .build();
        Ok(Http(config.into()))
    }

    /// Sends the request as it was signed.
    pub(crate) fn post_session(
        &self,
        signed: &UnsignedRequest,
        headers: &BTreeMap<String, String>,
    ) -> Result<Answer, HttpError> {
        self.exchange(signed, headers)
            .map_err(|error| no_answer(&signed.host, &error))
    }

    fn exchange(
        &self,
        signed: &UnsignedRequest,
        headers: &BTreeMap<String, String>,
    ) -> Result<Answer, ureq::Error> {
        let url = format!("https://{}/sessions?{}", signed.host, signed.query);
        let mut request = self
            .0
            .post(url)
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

fn no_answer(host: &str, error: &ureq::Error) -> HttpError {
    let (fault, hint) = match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => (
            format!("not connected within {} s", CONNECT_TIMEOUT.as_secs()),
            UNREACHABLE,
        ),
        ureq::Error::Timeout(_) => (
            format!("not complete within {} s", TOTAL_TIMEOUT.as_secs()),
            UNREACHABLE,
        ),
        ureq::Error::HostNotFound => ("the host name is unknown".to_owned(), UNREACHABLE),
        ureq::Error::Io(error) => match tls_error(error) {
            Some(error) => (error.to_string(), tls_hint(error)),
            None => (error.to_string(), UNREACHABLE),
        },
        ureq::Error::Rustls(error) => (error.to_string(), tls_hint(error)),
        error => (error.to_string(), "Is --endpoint the right host?"),
    };
    HttpError::NoAnswer {
        host: host.to_owned(),
        fault,
        hint,
    }
}

const UNREACHABLE: &str = "Check the network, name resolution and --endpoint. roleseal connects \
                           directly: HTTPS_PROXY is not used.";

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
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            let error = Http::new(Some(&path)).unwrap_err();
            assert_eq!(error.exit(), Exit::Failed);
            error.to_string()
        };
        assert!(error("").contains("no certificate"));
        let cut = error("-----BEGIN CERTIFICATE-----\nMII");
        assert!(cut.contains("not usable"), "{cut}");
        fs::remove_file(&path).unwrap();
        let missing = Http::new(Some(&path)).unwrap_err().to_string();
        assert!(missing.contains("cannot read") && missing.contains("ca.pem"));
    }

    #[test]
    fn failures_say_what_to_check() {
        let tls = |error| ureq::Error::Io(io::Error::other(rustls::Error::from(error)));
        let cases = [
            (ureq::Error::HostNotFound, "name resolution"),
            (ureq::Error::Timeout(ureq::Timeout::Connect), "within 5 s"),
            (ureq::Error::Timeout(ureq::Timeout::Global), "within 30 s"),
            (
                ureq::Error::Io(io::ErrorKind::ConnectionRefused.into()),
                "HTTPS_PROXY",
            ),
            (tls(CertificateError::UnknownIssuer), "--ca-bundle"),
            (tls(CertificateError::NotValidForName), "another name"),
            (tls(CertificateError::Expired), "clock"),
        ];
        for (error, expected) in cases {
            let error = no_answer("aws.example", &error);
            assert_eq!(error.exit(), Exit::Network);
            let text = error.to_string();
            assert!(
                text.contains("aws.example") && text.contains(expected),
                "{text}"
            );
        }
    }
}
