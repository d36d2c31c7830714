//! The listening socket and the thread behind it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

/// Answers until it is dropped.
pub(crate) struct Server {
    port: u16,
    handle: Handle<SocketAddr>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Keeps a port from others without listening on it: who connects is refused.
pub(crate) struct Shut(#[expect(dead_code, reason = "it is held")] OwnedFd);

/// Connections of the past, in TIME-WAIT, do not count; for an instant, a client may have the port, or a program that is
/// just being started a copy of the socket.
const FREE: Duration = Duration::from_secs(10);

/// Binds 127.0.0.1, at any free port for 0.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Serves what connects to a listener of [`listen`].
    pub(crate) fn start(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        router: Router,
    ) -> Result<Server> {
        let port = listener.local_addr()?.port();
        let tls = RustlsConfig::from_config(tls);
        let handle = Handle::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = handle.clone();
        let thread = std::thread::Builder::new()
            .name("rolesanywhere".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    axum_server::from_tcp_rustls(listener, tls)?
                        .handle(stop)
                        .serve(router.into_make_service())
                        .await
                })
            })?;
        Ok(Server {
            port,
            handle,
            thread: Some(thread),
        })
    }

    /// The same on a port that we had before.
    pub(crate) fn start_again(
        shut: Shut,
        port: u16,
        tls: &Arc<rustls::ServerConfig>,
        router: &Router,
    ) -> Result<Server> {
        drop(shut);
        let deadline = Instant::now() + FREE;
        loop {
            match listen(port) {
                Ok(listener) => return Server::start(listener, Arc::clone(tls), router.clone()),
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends, with all connections, and keeps the port.
    pub(crate) fn shut(self) -> Result<Shut> {
        let port = self.port;
        drop(self);
        let placeholder = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&placeholder, true)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + FREE;
        loop {
            match bind(&placeholder, &address) {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => {
                    result.with_context(|| format!("cannot keep 127.0.0.1:{port}"))?;
                    return Ok(Shut(placeholder));
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("hsm-fixtures: the service ended with an error: {error}");
        }
    }
}
