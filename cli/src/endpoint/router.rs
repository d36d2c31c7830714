//! Everything that is served, the same at every address.

use std::sync::Arc;

use client::moment::Moment;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::answer::{Answer, json, method_not_allowed, not_found, refusal};
use super::container::Container;
use super::guard::{Reached, guard};
use super::health::Health;
use super::imds::Imds;
use super::metrics::Scrape;
use super::service_account::ServiceAccounts;

/// Everything that is served.
#[derive(Default)]
pub(crate) struct Router {
    pub(crate) containers: Vec<Container>,
    pub(crate) imds: Option<Imds>,
    /// In the place of both.
    pub(crate) service_accounts: Option<Arc<ServiceAccounts>>,
    /// Whether `/healthz` is there.
    pub(crate) health: bool,
    /// In the place of everything else.
    pub(crate) metrics: Option<Scrape>,
}

/// As many clients as a large host has at once; each costs two descriptors' worth of memory, some 20 KiB.
const CONNECTIONS: usize = 512;

/// Nobody but Prometheus reads metrics.
const SCRAPES: usize = 16;

impl Router {
    /// How many may be open at once.
    pub(super) fn connections(&self) -> usize {
        match self.metrics {
            Some(_) => SCRAPES,
            None => CONNECTIONS,
        }
    }

    pub(super) async fn answer(&self, request: &Parts, reached: Reached) -> Answer {
        if let Err((status, message)) = guard(request, reached) {
            return refusal(status, message);
        }
        let path = request.uri.path().trim_end_matches('/');
        if let Some(scrape) = &self.metrics {
            return match path {
                "/metrics" => scrape.answer(request),
                _ => not_found(),
            };
        }
        if path == "/healthz" && self.health {
            return self.health(request, reached);
        }
        if path.starts_with("/latest/") {
            return match &self.imds {
                Some(imds) if reached.near() => imds.answer(request, path).await,
                Some(_) => refusal(
                    StatusCode::FORBIDDEN,
                    "instance metadata is served at loopback and link-local addresses only",
                ),
                None => not_found(),
            };
        }
        if let Some(service_accounts) = &self.service_accounts {
            return service_accounts.answer(request, path).await;
        }
        let asked = |container: &&Container| path == Container::path(container.served().name());
        match self.containers.iter().find(asked) {
            Some(container) => container.answer(request).await,
            None => not_found(),
        }
    }

    fn health(&self, request: &Parts, reached: Reached) -> Answer {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        let (now, in_full) = (Moment::now(), reached.local());
        let health = match &self.service_accounts {
            Some(service_accounts) => service_accounts.health(now, in_full),
            None => {
                let containers = self.containers.iter().map(Container::served);
                Health::of(containers.map(|one| one.health(now, in_full)).collect())
            }
        };
        let status = match health.status.gives_credentials() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(status, &health)
    }
}
