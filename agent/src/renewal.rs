//! Renewal of certificates by the agent itself: when it is time, an operator's command is given the certificate
//! request and answers with a certificate, which takes the place of the old one in its file.
//!
//! A PKCS#10 request holds no date and no nonce, so that the one of the enrolment serves for every renewal of
//! the same key: no token is touched, and token programs still sign nothing but requests to AWS. The confined
//! agent only sees that it is time ([`Timer`], [`Schedule`]); it asks its launcher for a renewal of an identity,
//! by name. That starts `roleseal-agent renew` (`program`), which reads the configuration itself, and so runs
//! what the configuration says whatever became of the agent. What it leaves in the file is taken over as any
//! other renewed certificate, by [`watch`](crate::watch).

pub(crate) mod command;
pub(crate) mod install;
pub(crate) mod lock;
pub(crate) mod program;
pub(crate) mod renew;
mod schedule;
mod timer;

pub use schedule::Schedule;
pub use timer::Timer;
