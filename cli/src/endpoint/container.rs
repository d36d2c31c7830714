//! The endpoint of ECS and EKS: one path and one secret for each target.

use std::sync::Arc;

use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::answer::{Answer, Authorized, credentials, method_not_allowed, refusal};
use super::secret::Secret;
use super::served::Served;

/// A target's part of the endpoint.
pub(crate) struct Container {
    served: Arc<Served>,
    secret: Secret,
}

impl Container {
    pub(crate) fn new(served: Arc<Served>, secret: Secret) -> Container {
        Container { served, secret }
    }

    /// The path of `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub(crate) fn path(target: &str) -> String {
        format!("/credentials/{target}")
    }

    pub(crate) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    pub(super) async fn answer(&self, request: &Parts) -> Answer {
        if request.method != Method::GET {
            return method_not_allowed();
        }
        let mut shown = request.headers.get_all(AUTHORIZATION).iter();
        let authorized = match (shown.next(), shown.next()) {
            (Some(shown), None) => self.secret.is(shown.as_bytes()),
            _ => false,
        };
        if !authorized {
            let message = "the Authorization header does not hold this target's token";
            return refusal(StatusCode::UNAUTHORIZED, message);
        }
        let mut answer = match self.served.session().await {
            Ok(session) => credentials(&session),
            Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        };
        answer.extensions_mut().insert(Authorized::Owner);
        answer
    }
}
