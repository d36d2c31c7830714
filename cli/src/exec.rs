//! `roleseal exec`: a command with a private container endpoint.

mod child_environment;
mod signals;
mod token_file;

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Args;
use client::Diagnostic;
use client::cache::Cache;
use client::environment::Environment;
use client::exit::Exit;
use client::moment::Moment;
use client::progress::Progress;
use client::refresher::{Start, Status};
use client::session::Session;
use client::sessions::{Sessions, Shared};
use client::target::TargetError;
use secrecy::SecretString;
use thiserror::Error;

use crate::common::{Common, SessionArguments};
use crate::endpoint::{
    Allowed, Container, ListenAddress, ListenError, Listener, Router, Secret, Served, TargetCounts,
    server,
};

use signals::Signals;
use token_file::TokenFile;

/// Which session is wanted, and for what.
#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    #[command(flatten)]
    session: SessionArguments,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why the command did not run.
#[derive(Debug, Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Why there is no first session.
    #[error(transparent)]
    Session(#[from] Arc<client::Error>),
    #[error("cannot start {}: {error}", .command.display())]
    Command { command: OsString, error: io::Error },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot write a token file in {}: {error}", .directory.display())]
    TokenFile {
        directory: PathBuf,
        error: io::Error,
    },
    #[error("cannot run a command: {0}")]
    Io(#[from] io::Error),
}

impl Diagnostic for ExecError {
    /// As env(1) and shells have it.
    fn exit(&self) -> Exit {
        match self {
            ExecError::Command { error, .. } if error.kind() == ErrorKind::NotFound => {
                Exit::CommandNotFound
            }
            ExecError::Command { .. } => Exit::CommandNotRunnable,
            ExecError::Target(_) => Exit::Usage,
            ExecError::Session(error) => error.exit(),
            ExecError::Listen(_) | ExecError::TokenFile { .. } | ExecError::Io(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ExecError::Target(error) => error.hint(),
            ExecError::Session(error) => error.hint(),
            ExecError::Listen(error) => error.hint(),
            _ => None,
        }
    }
}

pub(crate) fn run(common: &Common, wanted: ExecArguments) -> Result<ExitCode, ExecError> {
    let mut signals = Signals::take()?;
    let environment = Environment::of_process();
    let session = wanted.session;
    let target = common.target(&environment, session.target, session.settings)?;
    let log = common.log();
    let cache = match session.no_cache {
        true => None,
        false => Cache::usual(&environment, &log),
    };
    let sessions = Arc::new(Sessions::new(cache, log.clone()));
    let running = Arc::new(AtomicBool::new(false));
    let started = Arc::clone(&running);
    let told = move |status: &Status| {
        if running.load(Ordering::Relaxed) {
            tell(&log, status);
        }
    };
    let uncounted = TargetCounts::default();
    let served = Served::start(&sessions, target, Start::Awaited, uncounted, told)?;
    let served = Arc::new(served);
    first_session(&served, &mut signals)??;

    let mut command = command(&wanted.command);
    let (endpoint, secret) = serve(&served)?;
    let directory = environment
        .runtime_directory()
        .unwrap_or_else(env::temp_dir);
    let file = TokenFile::create(&directory, &secret)
        .map_err(|error| ExecError::TokenFile { directory, error })?;
    let target = served.target();
    child_environment::set(&mut command, &target, &endpoint, &secret, file.path());
    started.store(true, Ordering::Relaxed);
    let child = command.spawn().map_err(|error| ExecError::Command {
        command: command.get_program().to_owned(),
        error,
    })?;
    let status = signals.forward_to(child)?;
    Ok(exit_code(status))
}

/// How often a signal is looked for while there is no command yet.
const LOOK: Duration = Duration::from_millis(50);

/// The first session, or why there is none. A signal meanwhile does what it does to any program.
fn first_session(served: &Arc<Served>, signals: &mut Signals) -> Result<Shared, ExecError> {
    let (answer, answered) = mpsc::channel();
    let asking = Arc::clone(served);
    thread::spawn(move || answer.send(asking.refresher().session()));
    loop {
        match answered.recv_timeout(LOOK) {
            Ok(outcome) => return Ok(outcome),
            Err(mpsc::RecvTimeoutError::Timeout) => signals.obey()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Ok(Err(Arc::new(client::Error::Lost)));
            }
        }
    }
}

/// Serves the target on a port of its own in a thread, until the process ends: its URL, and its token.
fn serve(served: &Arc<Served>) -> Result<(String, SecretString), ExecError> {
    let any = ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let listener = Listener::bind(&any, Allowed::Loopback)?;
    let url = format!("{}{}", listener.address(), Container::path(served.name()));
    let secret = Secret::random().map_err(io::Error::from)?;
    let expected = Secret::new(&secret).map_err(io::Error::from)?;
    let site = Router {
        containers: vec![Container::new(Arc::clone(served), expected)],
        ..Router::default()
    };
    let runtime = server::runtime()?;
    thread::Builder::new()
        .name("endpoint".to_owned())
        .spawn(move || {
            runtime.block_on(server::serve(vec![listener], site, std::future::pending()))
        })?;
    Ok((url, secret))
}

fn command(words: &[OsString]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().cloned().unwrap_or_default()); // clap requires one
    command.args(words);
    command
}

/// The terminal is the command's: only what is new is said.
fn tell(log: &Progress, status: &Status) {
    let Some(failure) = status.failure.as_ref().filter(|failure| failure.tries == 1) else {
        return;
    };
    let end = |session: &Session| session.credentials.expiration;
    let stands = match &status.session {
        Some(session) if session.valid(Moment::now()) => {
            format!(
                "cannot be renewed yet; the latest one ends at {}",
                end(session)
            )
        }
        Some(session) => format!(
            "cannot be renewed in time; the latest one ended at {}",
            end(session)
        ),
        None => "is no longer permitted by the agent, and is not handed out any more".to_owned(),
    };
    log.warn(&format!("the session {stands}\n{}", failure.error.report()));
}

/// As shells have it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
