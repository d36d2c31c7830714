//! What a service in trouble answers to CreateSession, for tests of its clients.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::Frame;
use jiff::SignedDuration;
use serde_json::json;

use super::answer::Answer;

/// One kind of trouble. STS has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error of this HTTP status, in AWS's form: 403 `AccessDeniedException`, 429 `ThrottlingException`, 500
    /// `InternalServerException`, 503 from a load balancer, in HTML.
    Status(u16),
    /// The same with a `Retry-After` header.
    RetryAfter {
        /// As in [`Fault::Status`].
        status: u16,
        /// The pause that is asked for.
        seconds: u32,
    },
    /// No answer, as long as the client waits.
    Hang,
    /// 201 with something that is no session.
    Garbage,
    /// 201 with a session of which half arrives before the connection ends.
    Truncated,
    /// 201 with a session whose three secrets are empty.
    Empty,
    /// 201 with a session without a token.
    Partial,
    /// 201 with a session that ended a minute ago.
    Expired,
    /// Judged, and dated in the `Date` header, by a clock that is so far ahead.
    Clock(SignedDuration),
}

/// The faults that are due.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Due>);

#[derive(Default)]
struct Due {
    next: VecDeque<Fault>,
    always: Option<Fault>,
}

impl Faults {
    pub(crate) fn add(&self, next: impl IntoIterator<Item = Fault>) {
        self.due().next.extend(next);
    }

    pub(crate) fn set(&self, always: Option<Fault>) {
        let mut due = self.due();
        due.next.clear();
        due.always = always;
    }

    /// The fault of one request.
    pub(crate) fn take(&self) -> Option<Fault> {
        let mut due = self.due();
        due.next.pop_front().or(due.always)
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    /// The answer, where it does not depend on the request.
    pub(crate) fn answer(self) -> Option<Answer> {
        let aws = |status, kind, message: &str| Answer {
            status,
            content_type: "application/json",
            error_type: Some(kind),
            body: json!({ "message": message }).to_string(),
        };
        match self {
            Fault::RetryAfter { status, .. } => Fault::Status(status).answer(),
            Fault::Status(429) => Some(aws(429, "ThrottlingException", "Rate exceeded")),
            Fault::Status(503) => Some(Answer {
                status: 503,
                content_type: "text/html",
                error_type: None,
                body: "<html><h1>503 Service Unavailable</h1></html>".to_owned(),
            }),
            Fault::Status(status @ 500..) => {
                Some(aws(status, "InternalServerException", "Internal error"))
            }
            Fault::Status(status) => Some(aws(
                status,
                "AccessDeniedException",
                "Untrusted Signing Certificate",
            )),
            Fault::Garbage => Some(Answer {
                status: 201,
                content_type: "application/json",
                error_type: None,
                body: "\u{fffd}garbage{".to_owned(),
            }),
            _ => None,
        }
    }

    /// Spoils a good answer.
    pub(crate) fn spoil(self, answer: Answer) -> Answer {
        let with = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut body = answer.body.parse().unwrap_or_default();
            edit(&mut body);
            body.to_string()
        };
        let body = match self {
            Fault::Empty => with(&|body| {
                for name in ["accessKeyId", "secretAccessKey", "sessionToken"] {
                    if let Some(member) = credential(body, name) {
                        *member = "".into();
                    }
                }
            }),
            Fault::Partial => with(&|body| {
                if let Some(member) = credential(body, "sessionToken") {
                    *member = serde_json::Value::Null;
                }
            }),
            _ => return answer,
        };
        Answer { body, ..answer }
    }
}

fn credential<'b>(
    body: &'b mut serde_json::Value,
    name: &str,
) -> Option<&'b mut serde_json::Value> {
    body.pointer_mut(&format!("/credentialSet/0/credentials/{name}"))
}

/// Half of a body, and then an error: the connection ends.
pub(crate) fn truncated(body: &str) -> Body {
    let half = body.as_bytes().get(..body.len() / 2).unwrap_or_default();
    Body::new(Half::Begin(Bytes::copy_from_slice(half)))
}

enum Half {
    Begin(Bytes),
    /// The server sends what it has before it asks again.
    Pause,
    End,
}

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match std::mem::replace(&mut *self, Half::End) {
            Half::Begin(half) => {
                *self = Half::Pause;
                Poll::Ready(Some(Ok(Frame::data(half))))
            }
            Half::Pause => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Half::End => {
                let end = std::io::ErrorKind::UnexpectedEof;
                Poll::Ready(Some(Err(end.into())))
            }
        }
    }
}
