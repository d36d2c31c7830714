//! The endpoint for pods: a service-account token of the cluster, in the place of a target's own token.
//!
//! The path of a request: `token` → [`Expected`] → [`Keys`] → [`Cluster::choose`] → the target's session, or that of the
//! account's name.

mod keys;
mod lines;
mod named;
mod recent;

use std::fmt::Write;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use client::moment::Moment;
use client::progress::Progress;
use client::session::Session;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use service_account::{AccountPattern, Caller, Expected, Refusal, ServiceAccount, quoted};

use super::answer::{Answer, Authorized, credentials, method_not_allowed, not_found, refusal};
use super::health::{Health, TargetHealth};
use super::metrics::{Metrics, Snapshot, TokenOutcome};
use super::served::Served;

pub(crate) use keys::{KeySource, Keys};
pub(crate) use named::Named;

use lines::Lines;

/// Everything that pods are served.
pub(crate) struct ServiceAccounts {
    cluster: RwLock<Arc<Cluster>>,
    lines: Mutex<Lines<Event>>,
    metrics: Arc<Metrics>,
    log: Progress,
}

/// A cluster, and what its pods may have.
pub(crate) struct Cluster {
    pub(crate) expected: Expected,
    pub(crate) keys: Arc<Keys>,
    pub(crate) offers: Vec<Offer>,
}

/// A target, and whose it is.
pub(crate) struct Offer {
    pub(crate) accounts: Vec<AccountPattern>,
    pub(crate) offered: Offered,
}

/// The sessions of a target.
#[derive(Clone)]
pub(crate) enum Offered {
    /// One for all.
    Shared(Arc<Served>),
    /// One for each role session's name.
    Named(Arc<Named>),
}

/// What the log has lines of, a few a second of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Event {
    NoToken,
    NoKeys,
    Refused(Discriminant<Refusal>),
    Denied(ServiceAccount),
    NoSession(ServiceAccount),
    Served(Caller),
}

/// Why there is no caller.
enum NoCaller {
    NoToken,
    NoKeys,
    Refused(Refusal),
}

/// Below the path of EKS's agent.
const PATH: &str = "/v1/credentials";

/// How often sessions that nobody uses are looked for.
const LOOK: Duration = Duration::from_secs(60);

/// How often the log says how many lines it left out.
const FLUSH: Duration = Duration::from_secs(1);

impl ServiceAccounts {
    /// Serves this cluster, in the runtime that this is called in.
    pub(crate) fn start(
        cluster: Cluster,
        metrics: &Arc<Metrics>,
        log: Progress,
    ) -> Arc<ServiceAccounts> {
        metrics.expect_tokens();
        let all = Arc::new(ServiceAccounts {
            cluster: RwLock::new(Arc::new(cluster)),
            lines: Mutex::default(),
            metrics: Arc::clone(metrics),
            log,
        });
        let kept = Arc::downgrade(&all);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(all) = kept.upgrade() else { break };
                for offer in &all.cluster().offers {
                    if let Offered::Named(named) = &offer.offered {
                        named.drop_idle(Instant::now());
                    }
                }
            }
        });
        all
    }

    /// Serves another cluster from now on.
    pub(crate) fn replace(&self, cluster: Cluster) {
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(cluster);
    }

    /// The cluster that is served.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The path of `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub(crate) fn path(target: &str) -> String {
        format!("{PATH}/{target}")
    }

    /// Answers say nothing but the status: the log has the reason.
    pub(super) async fn answer(self: &Arc<Self>, request: &Parts, path: &str) -> Answer {
        let wanted = match path.strip_prefix(PATH) {
            Some("") => None,
            Some(rest) if rest.starts_with('/') => rest.strip_prefix('/'),
            _ => return not_found(),
        };
        if request.method != Method::GET {
            return method_not_allowed();
        }
        let cluster = self.cluster();
        match self.caller(&cluster, request).await {
            Ok(caller) => self.serve(&cluster, &caller, wanted).await,
            Err(NoCaller::NoKeys) => {
                self.metrics.token(TokenOutcome::NoKeys);
                self.refuse(Event::NoKeys, "no key of the cluster is known");
                unavailable()
            }
            Err(NoCaller::NoToken) => {
                self.metrics.token(TokenOutcome::NoToken);
                self.refuse(Event::NoToken, "it has no Authorization header, or several");
                unauthorized()
            }
            Err(NoCaller::Refused(why)) => {
                self.metrics.token(TokenOutcome::Refused(why.kind()));
                self.refuse(Event::Refused(discriminant(&why)), &format!("token: {why}"));
                unauthorized()
            }
        }
    }

    /// The holder of the request's token. A token that names an unknown key waits for the keys to be read again, where
    /// that is due.
    async fn caller(&self, cluster: &Cluster, request: &Parts) -> Result<Caller, NoCaller> {
        let mut shown = request.headers.get_all(AUTHORIZATION).iter();
        let (Some(token), None) = (shown.next(), shown.next()) else {
            return Err(NoCaller::NoToken);
        };
        let read = || {
            let token = token.as_bytes().trim_ascii();
            let token = cluster.expected.read(token, Timestamp::now().as_second());
            let token = token.map_err(NoCaller::Refused)?;
            match cluster.keys.current() {
                Some(keys) => token.verify(&keys).map_err(NoCaller::Refused),
                None => Err(NoCaller::NoKeys),
            }
        };
        match read() {
            Err(NoCaller::NoKeys | NoCaller::Refused(Refusal::UnknownKey(_))) => {
                cluster.keys.read_again().await;
                read()
            }
            outcome => outcome,
        }
    }

    async fn serve(
        self: &Arc<Self>,
        cluster: &Cluster,
        caller: &Caller,
        wanted: Option<&str>,
    ) -> Answer {
        let account = &caller.account;
        let offer = match cluster.choose(account, wanted) {
            Ok(offer) => offer,
            Err(why) => {
                self.metrics.token(TokenOutcome::Denied);
                self.refuse(Event::Denied(account.clone()), &why);
                let message = "no permission for these credentials";
                return refusal(StatusCode::FORBIDDEN, message);
            }
        };
        self.metrics.token(TokenOutcome::Accepted);
        let session = match offer.session(account).await {
            Ok(session) => session,
            Err(why) => {
                let target = offer.name();
                let what = format!("{account}: no session of the target {target}: {why}");
                self.refuse(Event::NoSession(account.clone()), &what);
                return unavailable();
            }
        };
        let line = line(offer.name(), caller, &session);
        self.note(Event::Served(caller.clone()), &line);
        let mut answer = credentials(&session);
        let authorized = Authorized::Account(account.to_string());
        answer.extensions_mut().insert(authorized);
        answer
    }

    fn refuse(self: &Arc<Self>, event: Event, why: &str) {
        self.note(event, &format!("refused: {why}"));
    }

    fn note(self: &Arc<Self>, event: Event, line: &str) {
        let (may_say, is_first) = self.lines().note(event, line, Instant::now());
        if may_say {
            self.log.say(line);
        }
        if is_first {
            let all = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(FLUSH).await;
                    let (ended, is_empty) = all.lines().ended(Instant::now());
                    for (line, more) in ended {
                        all.log
                            .say(&format!("{more} more within a second, the last: {line}"));
                    }
                    if is_empty {
                        break;
                    }
                }
            });
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines<Event>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions of each target, and the keys.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let cluster = self.cluster();
        let targets = cluster.offers.iter().map(|offer| {
            let statuses = match &offer.offered {
                Offered::Shared(served) => vec![served.status()],
                Offered::Named(named) => named.all().iter().map(|one| one.status()).collect(),
            };
            (offer.name().to_owned(), statuses)
        });
        Snapshot {
            targets: targets.collect(),
            keys: Some(cluster.keys.count()),
        }
    }

    /// How it stands with the keys and each target.
    pub(super) fn health(&self, now: Moment, in_full: bool) -> Health {
        let cluster = self.cluster();
        let targets = cluster.offers.iter().map(|offer| match &offer.offered {
            Offered::Shared(served) => served.health(now, in_full),
            Offered::Named(named) => {
                let all = named.all();
                let each = all.iter().map(|served| served.health(now, in_full));
                TargetHealth::of_all(named.name(), each.collect())
            }
        });
        Health::of(targets.collect()).with_keys(cluster.keys.health(in_full))
    }
}

impl Cluster {
    /// The target that the path names, or the only one that the account may have; or why it gets none.
    fn choose(&self, account: &ServiceAccount, wanted: Option<&str>) -> Result<&Offer, String> {
        let may = |offer: &&Offer| offer.accounts.iter().any(|one| one.matches(account));
        let mut permitted = self.offers.iter().filter(may);
        if let Some(wanted) = wanted {
            return permitted
                .find(|offer| offer.name() == wanted)
                .ok_or_else(|| {
                    let wanted = quoted(wanted.to_owned());
                    format!("{account} may not have the target {wanted:?}")
                });
        }
        match (permitted.next(), permitted.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(format!("{account} may have no target")),
            (Some(one), Some(other)) => Err(format!(
                "{account} may have several targets, such as {} and {}: its URL has to name one",
                one.name(),
                other.name()
            )),
        }
    }
}

impl Offer {
    pub(crate) fn name(&self) -> &str {
        match &self.offered {
            Offered::Shared(served) => served.name(),
            Offered::Named(named) => named.name(),
        }
    }

    /// Repeats requests for sessions that failed.
    pub(crate) fn retry(&self) {
        match &self.offered {
            Offered::Shared(served) => served.refresher().retry(),
            Offered::Named(named) => {
                for served in named.all() {
                    served.refresher().retry();
                }
            }
        }
    }

    async fn session(&self, account: &ServiceAccount) -> Result<Arc<Session>, String> {
        let served = match &self.offered {
            Offered::Shared(served) => Arc::clone(served),
            Offered::Named(named) => named
                .served(account, Instant::now())
                .map_err(|error| error.to_string())?,
        };
        served.session().await.map_err(|error| error.to_string())
    }
}

/// Whose credentials these are, for whoever looks for them in CloudTrail.
fn line(target: &str, caller: &Caller, session: &Session) -> String {
    let account = &caller.account;
    let mut line = format!(
        "target {target}: credentials for namespace={} service-account={}",
        account.namespace(),
        account.name()
    );
    if let Some(pod) = &caller.pod {
        let _ = write!(line, " pod={} pod-uid={}", pod.name, pod.uid); // into a String
    }
    let credentials = &session.credentials;
    let (key, until) = (&credentials.access_key_id, credentials.expiration);
    let _ = write!(line, " access-key={key} until={until:.0}");
    line
}

fn unauthorized() -> Answer {
    refusal(StatusCode::UNAUTHORIZED, "the token is not accepted")
}

fn unavailable() -> Answer {
    let message = "there are no credentials at present";
    refusal(StatusCode::SERVICE_UNAVAILABLE, message)
}
