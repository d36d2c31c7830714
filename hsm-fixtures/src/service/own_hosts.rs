//! The names under which the service may be asked.

use anyhow::{Result, anyhow};
use std::net::IpAddr;
use x509_parser::prelude::{GeneralName, X509Certificate};

use super::config::ServiceConfig;
use super::received::Received;

/// The values of `Host` that are the service's own.
pub(crate) struct OwnHosts(Vec<String>);

impl OwnHosts {
    /// Returns `localhost`, `127.0.0.1` and the names in the TLS certificate, each with this port.
    ///
    /// # Errors
    ///
    /// Where the TLS certificate cannot be read.
    pub(crate) fn new(config: &ServiceConfig, port: u16) -> Result<OwnHosts> {
        let unreadable = |error: String| anyhow!("the service's TLS certificate: {error}");
        let pem = config.tls.certificate_pem.as_bytes();
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem).map_err(|error| unreadable(error.to_string()))?;
        let certificate = pem
            .parse_x509()
            .map_err(|error| unreadable(error.to_string()))?;
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        names.extend(certified(&certificate).map_err(unreadable)?);
        let mut hosts: Vec<String> = names.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 443 {
            hosts.extend(names); // a client leaves the scheme's own port out
        }
        Ok(OwnHosts(hosts))
    }

    /// Checks that the request's one Host header is an own name.
    pub(crate) fn check(&self, request: &Received) -> Result<(), String> {
        let host = request.header("host")?;
        match self.0.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            true => Ok(()),
            false => Err(format!("the Host {host} is not {}", self.0.join(" or "))),
        }
    }
}

/// The DNS names and addresses that a TLS certificate is for.
fn certified(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            bytes if bytes.len() == 4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
        .map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }),
        _ => None,
    };
    let names = names
        .iter()
        .flat_map(|found| &found.value.general_names)
        .filter_map(text);
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;

    fn verdict(port: u16, hosts: &[&str]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki")).unwrap();
        let config = ServiceConfig::new(pki.tls_identity().unwrap());
        let header = |host: &&str| ("host".to_owned(), (*host).to_owned());
        let request = Received {
            method: "POST".to_owned(),
            path: "/sessions".to_owned(),
            query: String::new(),
            headers: hosts.iter().map(header).collect(),
            body: Vec::new(),
        };
        OwnHosts::new(&config, port)
            .unwrap()
            .check(&request)
            .is_ok()
    }

    #[test]
    fn a_host_is_the_services_own_name_and_port() {
        for own in ["localhost:8443", "LOCALHOST:8443", "127.0.0.1:8443"] {
            assert!(verdict(8443, &[own]), "{own}");
        }
        for other in [
            "localhost",
            "localhost:443",
            "rolesanywhere.eu-central-1.amazonaws.com",
            "localhost.example:8443",
            "",
        ] {
            assert!(!verdict(8443, &[other]), "{other}");
        }
        assert!(verdict(443, &["localhost"]));
        assert!(!verdict(8443, &[]));
        assert!(!verdict(8443, &["localhost:8443", "localhost:8443"]));
    }
}
