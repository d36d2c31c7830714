//! `roleseal update`: profiles of the shared credentials file, written once or kept fresh.

mod keeping;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use clap::Args;
use client::Diagnostic;
use client::cache::Cache;
use client::environment::Environment;
use client::exit::Exit;
use client::progress::{self, Progress};
use client::sessions::{Sessions, Shared};
use client::target::{Settings, Target, TargetError, TargetName};
use jiff::Timestamp;
use thiserror::Error;

use crate::common::{Common, StartArguments};
use crate::credentials_file::{CredentialsFile, FileError, ProfileName};
use crate::endpoint::{ListenAddress, ListenError, MetricsServer};

/// Which sessions go into which profiles.
#[derive(Debug, Args)]
pub(crate) struct UpdateArguments {
    /// A target of the targets file; may be repeated; the options below win over its settings
    #[arg(id = "target", long, value_name = "NAME")]
    targets: Vec<TargetName>,
    /// The profile to write; for several targets, one for each in the same order
    /// [default: the target's name; "default" without a target]
    #[arg(id = "profile", long, value_name = "NAME")]
    profiles: Vec<ProfileName>,
    #[command(flatten)]
    settings: Settings,
    /// The file to write [default: $AWS_SHARED_CREDENTIALS_FILE, then ~/.aws/credentials]
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    /// Write new credentials once, and end
    #[arg(long)]
    once: bool,
    /// Serve metrics for Prometheus at ADDRESS:PORT or unix:/PATH, to every client that can connect
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    metrics: Option<ListenAddress>,
    /// Overwrite keys in the profile that roleseal has not written
    #[arg(long)]
    force: bool,
    /// Keep the sessions for no other command (those of --once never are)
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    start: StartArguments,
}

pub(crate) const EXAMPLE: &str = "\
Example, with the targets web and batch in the targets file:
  roleseal update --target web --target batch
  then: aws --profile web sts get-caller-identity
For one that systemd keeps running: roleseal-update@.service
A process that read the file does not look again when its credentials end: what runs for longer than
a session should be given credential_process, or a container endpoint.

";

/// Why the credentials file is not as it should be.
#[derive(Debug, Error)]
pub(crate) enum UpdateError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    File(#[from] FileError),
    /// Why a profile got no session.
    #[error("profile {profile}: {error}")]
    Profile {
        profile: ProfileName,
        error: Arc<client::Error>,
    },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot keep the credentials file fresh: {0}")]
    Io(#[from] io::Error),
}

impl Diagnostic for UpdateError {
    fn exit(&self) -> Exit {
        match self {
            UpdateError::Target(_) => Exit::Usage,
            UpdateError::Profile { error, .. } => error.exit(),
            UpdateError::File(_) | UpdateError::Listen(_) | UpdateError::Io(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            UpdateError::Target(error) => error.hint(),
            UpdateError::File(error) => error.hint(),
            UpdateError::Profile { error, .. } => error.hint(),
            UpdateError::Listen(error) => error.hint(),
            UpdateError::Io(_) => None,
        }
    }
}

/// A profile, and where its credentials come from.
struct Pair {
    profile: ProfileName,
    target: Target,
}

pub(crate) fn run(common: &Common, wanted: UpdateArguments) -> Result<(), UpdateError> {
    let environment = Environment::of_process();
    let progress = common.progress();
    let path = wanted.credentials_file.clone();
    let path = path.or_else(|| environment.credentials_file());
    let path =
        path.ok_or_else(|| misfit("$HOME is not set: give --credentials-file".to_owned()))?;
    let file = CredentialsFile::new(path, wanted.force);
    let cache = match wanted.once || wanted.no_cache {
        // A session from the cache could end before cron runs this again.
        true => None,
        false => Cache::usual(&environment, &progress),
    };
    let once = wanted.once;
    let metrics = wanted.metrics.clone();
    let start = wanted.start.start(&environment);
    let pairs = pairs(common, &environment, wanted)?;
    if let Some(warning) = file.check(pairs.iter().map(|pair| &pair.profile))? {
        progress.warn(&warning);
    }
    let names = pairs.iter().map(|pair| &pair.profile);
    for name in names.filter(|name| !name.is_read_by_all()) {
        progress.warn(&format!(
            "profile {name}: SDKs for Go and JavaScript read no profile with a space in its name"
        ));
    }
    let sessions = Sessions::new(cache, progress.clone());
    match once {
        true => write_once(&file, &pairs, &sessions, &progress),
        false => {
            let metrics = metrics.as_ref().map(MetricsServer::bind).transpose()?;
            keeping::keep(file, pairs, sessions, start, metrics, progress)
        }
    }
}

fn pairs(
    common: &Common,
    environment: &Environment,
    wanted: UpdateArguments,
) -> Result<Vec<Pair>, UpdateError> {
    let names = profiles(&wanted.targets, wanted.profiles).map_err(misfit)?;
    let targets: Vec<_> = match wanted.targets.is_empty() {
        true => vec![None],
        false => wanted.targets.into_iter().map(Some).collect(),
    };
    let pair = |(profile, name)| {
        let target = common.target(environment, name, wanted.settings.clone())?;
        Ok(Pair { profile, target })
    };
    names.into_iter().zip(targets).map(pair).collect()
}

/// The profile of each target; of the one without a name, where none is named.
fn profiles(
    targets: &[TargetName],
    profiles: Vec<ProfileName>,
) -> Result<Vec<ProfileName>, String> {
    let count = targets.len().max(1);
    let profiles = match profiles.len() {
        0 if targets.is_empty() => vec!["default".parse()?],
        0 => {
            let names = targets.iter().map(|name| name.as_ref().parse());
            names.collect::<Result<_, _>>()?
        }
        given if given == count => profiles,
        given => {
            return Err(format!(
                "--profile is given {given} times, for {count} targets: give it for each, in their \
                 order, or not at all"
            ));
        }
    };
    let mut counts = BTreeMap::new();
    for profile in &profiles {
        *counts.entry(profile.to_string()).or_insert(0) += 1;
    }
    match counts.into_iter().find(|(_, count)| *count > 1) {
        Some((profile, _)) => Err(format!("the profile {profile} is to be written twice")),
        None => Ok(profiles),
    }
}

fn misfit(fault: String) -> UpdateError {
    TargetError::Misfit { name: None, fault }.into()
}

/// A profile that gets no session keeps what it has until that ends; the others do not wait for it.
fn write_once(
    file: &CredentialsFile,
    pairs: &[Pair],
    sessions: &Sessions,
    progress: &Progress,
) -> Result<(), UpdateError> {
    let outcomes: Vec<Shared> = thread::scope(|scope| {
        let asking = pairs
            .iter()
            .map(|pair| scope.spawn(|| sessions.get(&pair.target)));
        let asking: Vec<_> = asking.collect();
        let lost = |_| Err(Arc::new(client::Error::Lost));
        asking
            .into_iter()
            .map(|one| one.join().unwrap_or_else(lost))
            .collect()
    });
    let (mut written, mut failures) = (Vec::new(), Vec::new());
    for (pair, outcome) in pairs.iter().zip(outcomes) {
        match outcome {
            Ok(session) => written.push((&pair.profile, session)),
            Err(error) => {
                let profile = pair.profile.clone();
                let end = match error.refused_by_agent() {
                    true => Timestamp::MAX,
                    false => Timestamp::now(),
                };
                failures.push(UpdateError::Profile { profile, error });
                if file.withdraw(&pair.profile, end)? {
                    progress.warn(&keeping::withdrawn(&pair.profile, file));
                }
            }
        }
    }
    file.put(
        written
            .iter()
            .map(|(profile, session)| (*profile, &**session)),
    )?;
    for (profile, session) in &written {
        progress.say(&keeping::written(profile, session, file));
    }
    let last = failures.pop();
    for failure in &failures {
        progress::note(&failure.report());
    }
    last.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(targets: &[&str], names: &[&str]) -> Result<Vec<String>, String> {
        let targets: Vec<_> = targets.iter().map(|name| name.parse().unwrap()).collect();
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let profiles = profiles(&targets, names)?;
        Ok(profiles.iter().map(ProfileName::to_string).collect())
    }

    #[test]
    fn a_space_in_a_name_keeps_some_tools_out() {
        let read_by_all = |name: &str| name.parse::<ProfileName>().unwrap().is_read_by_all();
        assert!(read_by_all("my-web") && !read_by_all("my web"));
    }

    #[test]
    fn a_profile_is_named_as_its_target_or_in_order() {
        assert_eq!(named(&[], &[]).unwrap(), ["default"]);
        assert_eq!(named(&[], &["web"]).unwrap(), ["web"]);
        assert_eq!(named(&["a", "b"], &[]).unwrap(), ["a", "b"]);
        assert_eq!(
            named(&["a", "b"], &["my web", "b"]).unwrap(),
            ["my web", "b"]
        );
        let cases: [(&[&str], &[&str], &str); 4] = [
            (&["a", "b"], &["c"], "1 times, for 2 targets"),
            (&[], &["a", "b"], "2 times, for 1 targets"),
            (&["a", "b"], &["c", "c"], "profile c"),
            (&["a", "a"], &[], "profile a"),
        ];
        for (targets, names, reason) in cases {
            let error = named(targets, names).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
