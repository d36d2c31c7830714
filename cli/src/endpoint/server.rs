//! HTTP/1 on one thread: connections, and what they may cost.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::answer::Authorized;
use super::guard::Reached;
use super::listener::{Listener, Open};
use super::room::{Clients, Place, Room};
use super::router::Router;

/// For a request's head, and between two requests: a slow or silent client makes room for others.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that never rests, or a client that never reads, ends as well.
const LIFETIME: Duration = Duration::from_secs(300);

/// For the answer that is under way when a connection or the server is to end.
const GRACE: Duration = Duration::from_secs(3);

/// A head of an AWS tool has less than 2 KiB. This is also the largest chunk that is read.
const HEAD_LIMIT: usize = 16 * 1024;
const HEADERS: usize = 64;

/// Out of descriptors, most likely: connections that end give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Runs all that is served, in the thread that asks for it.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
}

/// Serves until `end` is done; then gives the answers that are under way some time.
pub(crate) async fn serve(
    listeners: Vec<Listener>,
    site: Router,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let clients = match &site.service_accounts {
        Some(_) => Clients::Tenants,
        None => Clients::Trusted,
    };
    let room = Arc::new(Room::new(site.connections(), clients));
    let (ending, ended) = watch::channel(());
    let site = Arc::new(site);
    let doors: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let door = AcceptLoop {
                site: Arc::clone(&site),
                room: Arc::clone(&room),
                ended: ended.clone(),
            };
            listener.open().map(|open| tokio::spawn(door.accept(open)))
        })
        .collect::<io::Result<_>>()?;
    end.await;
    for door in doors {
        door.abort(); // closes the listener
    }
    drop(ending);
    let _ = timeout(GRACE, room.emptied()).await; // those that are left are cut
    Ok(())
}

struct AcceptLoop {
    site: Arc<Router>,
    room: Arc<Room>,
    ended: watch::Receiver<()>,
}

impl AcceptLoop {
    async fn accept(self, open: Open) {
        loop {
            let accepted = match &open {
                Open::Tcp(listener) => self.accept_tcp(listener).await,
                Open::Unix { listener, .. } => self.accept_unix(listener).await,
            };
            if accepted.is_err() {
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept_tcp(&self, listener: &tokio::net::TcpListener) -> io::Result<()> {
        let (stream, peer) = listener.accept().await?;
        let _ = stream.set_nodelay(true); // else an answer may wait 40 ms for an acknowledgement
        if let Ok(address) = stream.local_addr() {
            let reached = Reached::Tcp(address.ip());
            self.admit(stream, reached, Some(peer.ip())).await;
        }
        Ok(())
    }

    async fn accept_unix(&self, listener: &tokio::net::UnixListener) -> io::Result<()> {
        let (stream, _) = listener.accept().await?;
        self.admit(stream, Reached::Unix, None).await;
        Ok(())
    }

    async fn admit<S>(&self, stream: S, reached: Reached, peer: Option<IpAddr>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (place, evicted) = self.room.enter(peer).await;
        let (site, mut ended) = (Arc::clone(&self.site), self.ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = converse(stream, reached, &site, &place, &mut ended) => {}
                _ = evicted => {} // another takes its place
            }
        });
    }
}

/// One connection, to its end.
async fn converse<S>(
    stream: S,
    reached: Reached,
    site: &Router,
    place: &Place,
    ended: &mut watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| async move {
        let (parts, _body) = hyper::Request::into_parts(request); // no document takes one
        place.begin();
        let answer = site.answer(&parts, reached).await;
        place.end(answer.extensions().get::<Authorized>().cloned());
        Ok::<_, Infallible>(answer)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .half_close(true) // `printf … | socat` sends its end with the request
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service)
    );
    // An error is the client's: it went away, or spoke no HTTP.
    tokio::select! {
        _ = &mut connection => return,
        _ = ended.changed() => {}
        () = sleep(LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}
