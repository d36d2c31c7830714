//! The HTTP endpoints that AWS tools take credentials from, for `roleseal serve` and `roleseal exec`.
//!
//! The path of a request: [`Listener`] → [`server`] (limits, one thread for all connections) → `guard` →
//! [`Router`] → `container`, `service_account`, `imds` or `health` → [`Served`], whose session a thread of its own keeps fresh.

mod answer;
mod container;
mod guard;
mod health;
mod imds;
mod imds_token;
mod listener;
mod metrics;
mod metrics_server;
mod room;
mod router;
mod secret;
mod served;
pub(crate) mod server;
mod service_account;

pub(crate) use container::Container;
pub(crate) use health::Health;
pub(crate) use imds::Imds;
pub(crate) use listener::{Allowed, ListenAddress, ListenError, Listener};
pub(crate) use metrics::{Metrics, Scrape, Snapshot, TargetCounts};
pub(crate) use metrics_server::{MetricsServer, RunningMetricsServer};
pub(crate) use router::Router;
pub(crate) use secret::Secret;
pub(crate) use served::Served;
pub(crate) use service_account::{
    Cluster, KeySource, Keys, Named, Offer, Offered, ServiceAccounts,
};
