//! The one HTTP request, over TLS with ring.

mod error;
mod proxy_status;
mod timeouts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use wire::UnsignedRequest;

use crate::answer::Answer;
use crate::input;
use crate::proxy::Proxy;
use crate::target::Route;

use error::no_answer;
pub use error::{HttpError, Stage};
use proxy_status::ProxyStatus;
use timeouts::{ANSWER_TIMEOUT, CONNECT_TIMEOUT};

/// A session takes some 3 KiB.
const ANSWER_LIMIT: u64 = 1024 * 1024;

/// A client for one route.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    /// The proxy, for messages.
    proxy: Option<String>,
}

impl Http {
    /// Trusts the CAs of the route's bundle only; without one, those of the system, which are not read
    /// before the first request.
    pub fn new(route: &Route) -> Result<Http, HttpError> {
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
        let agent = match &route.proxy {
            Some(_) => {
                let connector = DefaultConnector::default().chain(ProxyStatus);
                Agent::with_parts(config, connector, DefaultResolver::default())
            }
            None => config.into(),
        };
        Ok(Http {
            agent,
            proxy: route.proxy.as_ref().map(|proxy| proxy.shown().to_owned()),
        })
    }

    /// Sends an unsigned request for the host's root: any answer proves the connection. Waits until `timeout` for the
    /// whole answer.
    pub fn probe(&self, host: &str, timeout: Duration) -> Result<Answer, HttpError> {
        let request = self.agent.get(format!("https://{host}/"));
        let request = request.config().timeout_global(Some(timeout)).build();
        request
            .header("host", host)
            .call()
            .and_then(read)
            .map_err(|error| no_answer(host, self.proxy.clone(), &error))
    }

    /// Gets a document, with this token where there is one. Waits until `timeout` for the whole answer.
    pub fn get(
        &self,
        url: &str,
        bearer: Option<&SecretString>,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        let request = self.agent.get(url);
        let mut request = request.config().timeout_global(Some(timeout)).build();
        if let Some(token) = bearer {
            let value = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
            request = request.header("authorization", value.as_str());
        }
        let host = url.trim_start_matches("https://");
        let host = host.split('/').next().unwrap_or_default();
        let answer = request.call().and_then(read);
        answer.map_err(|error| no_answer(host, self.proxy.clone(), &error))
    }

    /// Sends the request as it was signed. Waits until `timeout` for the whole answer.
    pub fn post_session(
        &self,
        signed: &UnsignedRequest,
        headers: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        self.exchange(signed, headers, timeout)
            .map_err(|error| no_answer(&signed.host, self.proxy.clone(), &error))
    }

    fn exchange(
        &self,
        signed: &UnsignedRequest,
        headers: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Answer, ureq::Error> {
        let url = format!("https://{}/sessions?{}", signed.host, signed.query);
        let mut request = self
            .agent
            .post(url)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("host", &signed.host)
            .header("content-type", &signed.content_type);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        read(request.send(&signed.body)?)
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ok(Answer {
        status: response.status().as_u16(),
        error_type: text("x-amzn-errortype"),
        date: text("date"),
        retry_after: text("retry-after"),
        body: response
            .body_mut()
            .with_config()
            .limit(ANSWER_LIMIT)
            .read_to_vec()?
            .into(),
    })
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
    let pem =
        input::read(path, CA_BUNDLE_LIMIT).map_err(|error| HttpError::CaBundleUnreadable {
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

/// The bundle of all public CAs has some 200 KiB: more is a mistake, such as a device.
const CA_BUNDLE_LIMIT: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::diagnostic::Diagnostic;
    use crate::exit::Exit;

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
            assert!(error.to_string().contains("ca.pem") && error.hint().is_some());
            error
        };
        for unusable in ["", "-----BEGIN CERTIFICATE-----\nMII"] {
            let error = error(unusable);
            assert!(
                matches!(error, HttpError::CaBundleUnusable { .. }),
                "{error}"
            );
        }
        let large = error(&" ".repeat(CA_BUNDLE_LIMIT as usize + 1));
        assert!(
            matches!(large, HttpError::CaBundleUnreadable { .. }),
            "{large}"
        );
        fs::remove_file(&path).unwrap();
        let missing = Http::new(&route).unwrap_err();
        assert!(
            matches!(missing, HttpError::CaBundleUnreadable { .. }),
            "{missing}"
        );
    }
}
