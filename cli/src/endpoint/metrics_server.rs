//! The server of `--metrics`, in a thread of its own: a scrape delays no client, and clients delay no scrape.

use std::io;
use std::thread::{self, JoinHandle};

use client::progress::Progress;
use tokio::sync::oneshot;

use super::listener::{Allowed, ListenAddress, ListenError, Listener};
use super::metrics::Scrape;
use super::router::Router;
use super::server;

/// Where scrapes come in; nobody is answered before [`start`](Self::start).
pub(crate) struct MetricsServer(Listener);

/// Answers until it is dropped.
pub(crate) struct RunningMetricsServer {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens. Metrics are no secret, so any address may be given.
    pub(crate) fn bind(address: &ListenAddress) -> Result<MetricsServer, ListenError> {
        Ok(MetricsServer(Listener::bind(address, Allowed::All)?))
    }

    /// Answers from now on, and says where.
    pub(crate) fn start(self, scrape: Scrape, log: &Progress) -> io::Result<RunningMetricsServer> {
        let address = match self.0.tcp() {
            Some(_) => format!("{}/metrics", self.0.address()),
            None => self.0.address().to_owned(),
        };
        let router = Router {
            metrics: Some(scrape),
            ..Router::default()
        };
        let runtime = server::runtime()?;
        let (end, ended) = oneshot::channel::<()>();
        let end_of_server = async {
            let _ = ended.await; // dropping the other half ends it, too
        };
        let served = async move { server::serve(vec![self.0], router, end_of_server).await };
        let warner = log.clone();
        let thread = thread::Builder::new().name("metrics".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = runtime.block_on(served) {
                warner.warn(&format!("cannot serve metrics: {error}"));
            }
        })?;
        log.say(&format!("metrics at {address}"));
        Ok(RunningMetricsServer {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for RunningMetricsServer {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in it is told already
        }
    }
}
