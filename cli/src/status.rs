//! `roleseal status`

mod agent;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use client::Diagnostic;
use client::agent_client::AgentError;
use client::exit::Exit;
use client::timeout::timeout;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use wire::Identity;

use crate::common::Common;
use crate::endpoint::{Health, ListenAddress};
use crate::output::{self, OutputError};
use crate::table::table;
use agent::AgentStatus;

/// Whose status is wanted.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Where roleseal serve listens: ADDRESS:PORT or unix:/PATH [default: 127.0.0.1:9911, if one does]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<ListenAddress>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no status, or no good one.
#[derive(Debug, Error)]
pub(crate) enum StatusError {
    #[error("no answer from roleseal serve at {address}: {error}")]
    NoAnswer {
        address: ListenAddress,
        error: io::Error,
    },
    #[error("what answers at {0} is not roleseal serve")]
    Stranger(ListenAddress),
    #[error("some targets have no session")]
    Failing,
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Diagnostic for StatusError {
    fn exit(&self) -> Exit {
        match self {
            StatusError::NoAnswer { .. } | StatusError::Stranger(_) => Exit::Network,
            StatusError::Agent(error) => error.exit(),
            StatusError::Failing | StatusError::Output(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            StatusError::NoAnswer { .. } => {
                Some("start roleseal serve, or name its address with --listen".to_owned())
            }
            StatusError::Agent(error) => error.hint(),
            StatusError::Stranger(_) | StatusError::Failing | StatusError::Output(_) => None,
        }
    }
}

/// Shows all that there is, and then says what is not.
pub(crate) fn run(common: &Common, wanted: &StatusArguments) -> Result<(), StatusError> {
    let agent = AgentStatus::ask(common.socket());
    let serve = ServeStatus::ask(wanted.listen.clone());
    let text = match wanted.json {
        true => json(&agent, &serve).map_err(OutputError::from)?,
        false => format!("{}\n{}", agent.show(Timestamp::now()), serve.show()),
    };
    output::print_text(&text)?;
    match &serve.health {
        Ok(Some(health)) if !health.status.gives_credentials() => {
            return Err(StatusError::Failing);
        }
        Ok(_) => {}
        Err(_) if wanted.listen.is_none() => {}
        Err(_) => return serve.health.map(|_| ()),
    }
    agent.identities.map(|_| ()).map_err(StatusError::from)
}

/// What `roleseal serve` tells.
struct ServeStatus {
    address: ListenAddress,
    /// `None` where nobody listens at the usual address.
    health: Result<Option<Health>, StatusError>,
}

impl ServeStatus {
    fn ask(named: Option<ListenAddress>) -> ServeStatus {
        let usual = named.is_none();
        let address = named.unwrap_or_default();
        let health = match ask(&address) {
            Ok(answer) => read(&answer)
                .map(Some)
                .ok_or_else(|| StatusError::Stranger(address.clone())),
            Err(error) if usual && error.kind() == ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(StatusError::NoAnswer {
                address: address.clone(),
                error,
            }),
        };
        ServeStatus { address, health }
    }

    fn show(&self) -> String {
        let address = &self.address;
        match &self.health {
            Ok(Some(health)) => format!("roleseal serve at {address}\n{}", show(health)),
            Ok(None) => format!("roleseal serve at {address}: none runs\n"),
            Err(_) => format!("roleseal serve at {address}: no answer\n"),
        }
    }
}

fn json(agent: &AgentStatus, serve: &ServeStatus) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'s> {
        agent: Agent<'s>,
        serve: Option<Serve<'s>>,
    }
    #[derive(Serialize)]
    struct Agent<'s> {
        socket: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        identities: Option<&'s [Identity]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    }
    #[derive(Serialize)]
    struct Serve<'s> {
        listen: String,
        #[serde(flatten)]
        health: Option<&'s Health>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    }
    let health = serve.health.as_ref().ok().and_then(Option::as_ref);
    let error = serve.health.as_ref().err();
    let agent_error = agent.identities.as_ref().err();
    let there = health.is_some() || error.is_some();
    let document = Document {
        agent: Agent {
            socket: agent.socket.display().to_string(),
            identities: agent.identities.as_deref().ok(),
            error: agent_error.map(ToString::to_string),
            hint: agent_error.and_then(Diagnostic::hint),
        },
        serve: there.then(|| Serve {
            listen: serve.address.to_string(),
            health,
            error: error.map(ToString::to_string),
            hint: error.and_then(Diagnostic::hint),
        }),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// The server answers at once, or is in trouble.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Some thousand targets.
const LIMIT: u64 = 4 * 1024 * 1024;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n";

/// Within that time altogether: a server in trouble may take the connection late, or drip.
fn ask(address: &ListenAddress) -> io::Result<Vec<u8>> {
    let address = address.clone();
    let answer = timeout(TIMEOUT, move || match address {
        ListenAddress::Tcp(address) => exchange(TcpStream::connect(address)?),
        ListenAddress::Unix(path) => exchange(UnixStream::connect(path)?),
    });
    answer.unwrap_or_else(|| Err(ErrorKind::TimedOut.into()))
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
                target.served.to_string(),
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
    let keys = health.keys.as_ref().map(|keys| {
        let error = keys.error.as_ref().map(|error| format!(": {error}"));
        let (count, state) = (keys.count, keys.state.word());
        format!(
            "keys of the cluster: {count}, {state}{}\n",
            error.unwrap_or_default()
        )
    });
    let headings = ["TARGET", "STATE", "SERVED", "SESSION UNTIL", "NEXT TRY"];
    table(headings, &rows) + &keys.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentStatus {
        AgentStatus {
            socket: "/s".into(),
            identities: Ok(vec![]),
        }
    }

    fn serve(health: Result<Option<Health>, StatusError>) -> ServeStatus {
        let address = ListenAddress::default();
        ServeStatus { address, health }
    }

    const HEALTH: &str = r#"{"status":"ok","targets":[{"name":"web","state":"ok","served":12,
        "expiration":"2026-01-01T01:00:00Z","nextTry":"2026-01-01T00:40:00Z"}]}"#;

    #[test]
    fn people_see_both_and_that_none_runs() {
        let health = serde_json::from_str(HEALTH).unwrap();
        assert_eq!(
            serve(Ok(Some(health))).show(),
            "\
roleseal serve at http://127.0.0.1:9911
TARGET  STATE  SERVED  SESSION UNTIL         NEXT TRY
web     ok     12      2026-01-01T01:00:00Z  2026-01-01T00:40:00Z
"
        );
        assert!(serve(Ok(None)).show().ends_with(": none runs\n"));
        assert!(
            agent()
                .show(Timestamp::UNIX_EPOCH)
                .starts_with("roleseal-agent at /s\nThe agent has no identity")
        );
    }

    #[test]
    fn a_server_that_drips_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            while client.write_all(b" ").is_ok() {
                std::thread::sleep(TIMEOUT / 50);
            }
        });
        let begin = std::time::Instant::now();
        assert_eq!(ask(&address).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() < TIMEOUT * 4);
    }

    #[test]
    fn programs_see_null_where_none_runs_and_errors_where_one_should() {
        let read = |health| -> serde_json::Value {
            serde_json::from_str(&json(&agent(), &serve(health)).unwrap()).unwrap()
        };
        let health = serde_json::from_str(HEALTH).unwrap();
        let document = read(Ok(Some(health)));
        assert_eq!(document["serve"]["targets"][0]["served"], 12);
        assert_eq!(document["serve"]["status"], "ok");
        assert_eq!(document["agent"]["identities"], serde_json::json!([]));
        assert!(read(Ok(None))["serve"].is_null());
        let error = &read(Err(StatusError::Stranger(ListenAddress::default())))["serve"]["error"];
        assert!(error.as_str().unwrap().contains("is not roleseal serve"));
    }
}
