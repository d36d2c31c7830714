//! Why a command failed: its text and its exit code.

use client::exit::Exit;
use thiserror::Error;

use crate::aws_setup::AwsSetupError;
use crate::common::CommandError;
use crate::completions::CompletionsError;
use crate::exec::ExecError;
use crate::inspect::InspectError;
use crate::serve::ServeError;
use crate::status::StatusError;
use crate::trust_policy::TrustPolicyError;
use crate::update::UpdateError;

/// The error of any command. Its text names the causes itself, and after a line break what to do.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    AwsSetup(#[from] AwsSetupError),
    #[error(transparent)]
    Completions(#[from] CompletionsError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    TrustPolicy(#[from] TrustPolicyError),
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl Failure {
    /// The exit code of the program.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Command(error) => error.exit(),
            Failure::AwsSetup(error) => error.exit(),
            Failure::Completions(_) => Exit::Failed,
            Failure::Exec(error) => error.exit(),
            Failure::Inspect(error) => error.exit(),
            Failure::Serve(error) => error.exit(),
            Failure::Status(error) => error.exit(),
            Failure::TrustPolicy(error) => error.exit(),
            Failure::Update(error) => error.exit(),
        }
    }
}
