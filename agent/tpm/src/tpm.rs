//! The open TPM: runs commands, has patience where the TPM asks for it, and knows everything of ours that
//! is in it, so that nothing is left there.

mod leftovers;
mod objects;
mod sessions;

use std::thread;
use std::time::{Duration, Instant};

use token::{Tcti, TokenError};
use tss_esapi::Context;
use tss_esapi::constants::{CapabilityType, StartupType};
use tss_esapi::handles::TpmHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::CapabilityData;

pub(crate) use self::leftovers::left_sessions;
use self::objects::Object;
pub(crate) use self::objects::ObjectId;
use self::sessions::Session;
use crate::auth_value::Refused;
use crate::caller::Caller;
use crate::connection::{self, connect};
use crate::error::{Code, Failure, rc};
use crate::lockout::Lockout;

/// An open TPM. Dropping it flushes all that is ours.
pub(crate) struct Tpm {
    tcti: Tcti,
    /// Who is to correct an auth value that is refused.
    pub(crate) caller: Caller,
    /// `None` once it was given up: everything of ours is flushed by then.
    context: Option<Context>,
    /// The last command that had no answer.
    unanswered: Option<Failure>,
    objects: Vec<Object>,
    /// How often objects were used: the time by which the one unused for longest is found.
    uses: u64,
    sessions: Vec<Session>,
    /// The key whose policy was the last one to be asserted, and that used it up.
    pub(crate) last_policy: Option<ObjectId>,
    pub(crate) refused: Refused,
}

/// How long the TPM may ask for patience, in one command: less than the worker has.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries of a command.
const PAUSE: Duration = Duration::from_millis(20);

impl Drop for Tpm {
    fn drop(&mut self) {
        self.close();
    }
}

impl Tpm {
    pub(crate) fn open(tcti: &Tcti, caller: Caller) -> Result<Tpm, TokenError> {
        let mut tpm = Tpm {
            tcti: tcti.clone(),
            caller,
            context: Some(connect(tcti)?),
            unanswered: None,
            objects: Vec::new(),
            uses: 0,
            sessions: Vec::new(),
            last_policy: None,
            refused: Refused::default(),
        };
        let state = match tpm.lockout() {
            // Nobody has started it since it was powered, so no state of anybody's is lost by doing it.
            Err(failure) if failure.is(rc::INITIALIZE) => tpm
                .run("TPM2_Startup", |context| {
                    context.startup(StartupType::Clear)
                })
                .and_then(|()| tpm.lockout()),
            state => state,
        };
        let _: Lockout = state.map_err(|failure| failure.gone(format_args!("TPM {tcti}")))?;
        Ok(tpm)
    }

    /// Its name for people.
    pub(crate) fn name(&self) -> String {
        format!("TPM {}", self.tcti)
    }

    /// What helps where the TPM did not answer, and a program stands before it.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        let is_device = matches!(self.tcti, Tcti::Device(_));
        self.unanswered
            .filter(|_| !is_device)
            .map(|_| connection::remedy(&self.tcti))
    }

    /// Gives the TPM up, after flushing what is ours: other programs may need the room, and the agent may
    /// kill this program now.
    pub(crate) fn close(&mut self) {
        if self.context.is_some() {
            self.end_sessions();
        }
        self.context = None;
    }

    /// How near the TPM is to its lockout.
    pub(crate) fn lockout(&mut self) -> Result<Lockout, Failure> {
        self.run("TPM2_GetCapability", Lockout::read)
    }

    /// The handles in use from this one on, so many at the most; and whether there are more.
    pub(crate) fn handles_from(
        &mut self,
        first: u32,
        count: u32,
    ) -> Result<(Vec<TpmHandle>, bool), Failure> {
        self.run("TPM2_GetCapability", |context| {
            let (data, more) = context.get_capability(CapabilityType::Handles, first, count)?;
            Ok(match data {
                CapabilityData::Handles(handles) => (handles.into_inner(), more),
                _ => (Vec::new(), false),
            })
        })
    }

    /// Runs a command without a session.
    pub(crate) fn run<T>(
        &mut self,
        command: &'static str,
        call: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Failure> {
        self.run_with(None, command, call)
    }

    /// Runs a command with a session, again where the TPM says "later".
    pub(crate) fn run_with<T>(
        &mut self,
        session: Option<AuthSession>,
        command: &'static str,
        mut call: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Failure> {
        let code = Code::Closed;
        let closed = self.unanswered.unwrap_or(Failure { command, code });
        let context = self.context.as_mut().ok_or(closed)?;
        let deadline = Instant::now() + TIMEOUT;
        context.set_sessions((session, None, None));
        loop {
            let failure = match call(context) {
                Ok(answer) => return Ok(answer),
                Err(error) => Failure::new(command, error),
            };
            if !failure.is_passing() || Instant::now() > deadline {
                if failure.is_without_answer() {
                    self.unanswered.get_or_insert(failure);
                }
                return Err(failure);
            }
            thread::sleep(PAUSE);
        }
    }
}
