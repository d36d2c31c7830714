//! Everything that is served, the same at every address.

use client::moment::Moment;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::answer::{Answer, json, method_not_allowed, not_found, refusal};
use super::container::Container;
use super::guard::{Reached, guard};
use super::health::{Health, TargetHealth};
use super::imds::Imds;

/// Everything that is served.
pub(crate) struct Router {
    pub(crate) containers: Vec<Container>,
    pub(crate) imds: Option<Imds>,
    /// Whether `/healthz` is there.
    pub(crate) health: bool,
}

impl Router {
    pub(super) async fn answer(&self, request: &Parts, reached: Reached) -> Answer {
        if let Err((status, message)) = guard(request, reached) {
            return refusal(status, message);
        }
        let path = request.uri.path().trim_end_matches('/');
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
        let health = Health::of(
            self.containers
                .iter()
                .map(Container::served)
                .map(|served| {
                    let status = served.refresher().status();
                    let how = (&status, served.handed_out());
                    TargetHealth::of(served.name(), how, now, in_full)
                })
                .collect(),
        );
        let status = match health.targets.iter().all(|t| t.state.gives_credentials()) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(status, &health)
    }
}
