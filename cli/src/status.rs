//! `roleseal status`

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use thiserror::Error;

use crate::endpoint::{Health, ListenAddress};
use crate::error::Error;
use crate::exit::Exit;
use crate::output;
use crate::table::table;

/// Whose status is wanted.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Where roleseal serve listens: ADDRESS:PORT or unix:/PATH [default: 127.0.0.1:9911]
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value_t,
        hide_default_value = true
    )]
    listen: ListenAddress,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no status, or no good one.
#[derive(Debug, Error)]
pub(crate) enum StatusError {
    #[error(
        "no answer from roleseal serve at {address}: {error}\nIs it running? Where it listens elsewhere, say so with --listen."
    )]
    NoAnswer {
        address: ListenAddress,
        error: io::Error,
    },
    #[error("what answers at {0} is not roleseal serve")]
    Stranger(ListenAddress),
    #[error("some targets have no session")]
    Failing,
}

impl StatusError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            StatusError::NoAnswer { .. } | StatusError::Stranger(_) => Exit::Network,
            StatusError::Failing => Exit::Failed,
        }
    }
}

pub(crate) fn run(wanted: &StatusArguments) -> Result<(), Error> {
    let address = &wanted.listen;
    let answer = ask(address).map_err(|error| StatusError::NoAnswer {
        address: address.clone(),
        error,
    })?;
    let health = read(&answer).ok_or_else(|| StatusError::Stranger(address.clone()))?;
    let text = match wanted.json {
        true => serde_json::to_string_pretty(&health).map_err(io::Error::from)? + "\n",
        false => show(&health),
    };
    output::print_text(&text)?;
    match health.status.gives_credentials() {
        true => Ok(()),
        false => Err(StatusError::Failing.into()),
    }
}

/// The server answers at once, or is in trouble.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Some thousand targets.
const LIMIT: u64 = 4 * 1024 * 1024;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n";

fn ask(address: &ListenAddress) -> io::Result<Vec<u8>> {
    match address {
        ListenAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
    }
}

fn exchange(mut stream: impl Read + Write) -> io::Result<Vec<u8>> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer)?;
    Ok(answer)
}

fn read(answer: &[u8]) -> Option<Health> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    serde_json::from_slice(answer.get(head + 4..)?).ok()
}

fn show(health: &Health) -> String {
    let time = |time: Option<Timestamp>| match time {
        Some(time) => format!("{time:.0}"),
        None => "-".to_owned(),
    };
    let rows: Vec<_> = health
        .targets
        .iter()
        .map(|target| {
            let cells = [
                target.name.clone(),
                target.state.word().to_owned(),
                time(target.expiration),
                time(target.next_try),
            ];
            let since = target.failing_since.map(|since| {
                let why = target.error.as_deref().unwrap_or("see its log");
                format!("failing since {since:.0}: {why}")
            });
            (cells, since.into_iter().collect())
        })
        .collect();
    table(["TARGET", "STATE", "SESSION UNTIL", "NEXT TRY"], &rows)
}
