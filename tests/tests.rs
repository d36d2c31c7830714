//! The real binaries on real tokens. Each scene has its own token store, PKI, service and agent, so
//! everything runs in parallel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

mod agent; // what the modules share: a running agent to call, by its socket and by the CLI
mod crowd; // the same: many clients at once
mod http; // the same: HTTP by hand
mod others; // the same: other users of this host
mod serving; // the same: roleseal serve with a target

mod access; // who may not open what: each says which file, and what its user lacks
mod audit; // the log: every decision, nothing secret, nothing forged, and a reader that hangs
mod aws_setup; // the AWS side as script, template and Terraform file, each read by what it is for
mod check; // --check with the eyes of the agent's user
mod client_metrics; // Prometheus of serve and update: tries, sessions, tokens of pods, counted exactly
mod clients; // the AWS CLI and boto3 by credential_process, all at once and for long
mod clock; // a wall clock that is set, while credentials are handed out
mod credentials; // from a key on a token to credentials that work, for every kind of key
mod doctor; // roleseal doctor: every failure named, by its check, its cause and its exit code
mod doctor_aws; // the same for what AWS refuses, and why
mod endpoints; // where CreateSession goes, in botocore's view
mod enroll; // from a blank token to credentials in one command, stopped and run again
mod enroll_module; // enroll: which PKCS#11 module, given or not
mod enroll_users; // the same without root, and as root for the agent's user
mod exec; // commands with credentials: environment, signals, exit status
mod faults; // every fault that a PKCS#11 module can have, under load
mod fences; // what a hostile library is denied inside each process
mod fleet; // what a host costs AWS: requests for each refresh, refusal, throttling and restart
mod foreign_tokens; // tokens, certificates and clients made by others
mod hardening; // what agent, launcher and token programs may still do, and how they end
mod help; // the words of --help, as tests/help has them
mod hostile; // users who flood and hold connections: what they cost the others and the log
mod identities; // identities that cannot sign: each says why, none takes another down
mod inspect; // certificates as AWS sees them, of files and of identities; who is shown them
mod install; // docs/install.md, as root pastes it on a server
mod kubernetes; // pods and their service-account tokens: who gets what, rotation, floods, the addresses of a node
mod life; // start, end, sockets, --check
mod links; // root writes nothing where another user's link leads
mod load; // many clients, slow ones, those that leave; limits; the end under load
mod metrics; // Prometheus: counts are exact, states are those of now, the text is as its parser wants it
mod old_kernels; // what older kernels lack
mod one_token; // one token under several names of its module; keys and certificates that lie on it
mod operator; // an operator's commands: keys made, requested, attested, listed, deleted; PINs at a terminal
mod pin_sources; // what a PIN in a file takes to be mended, and what one in a systemd credential
mod pin_tries; // PINs that are not tried again: across restarts, kills, names and damage; and those that are
mod pins; // a wrong PIN is tried once
mod policy; // who may have what
mod policy_emulator; // trust policies, CRLs and attribute mappings of the local Roles Anywhere
mod promises; // the table of docs/security.md names tests that exist
mod quickstart; // the quickstarts of docs/, line by line, as a reader pastes them
mod recovery; // token programs that die, hang or lie
mod refusals; // what is not signed, each with its error
mod reload; // another configuration, renewed certificates, mended PINs, without a lost request
mod renewal; // certificates that are renewed by a command, and commands that fail
mod separation; // what is in which process, and what a signature costs
mod serve; // the endpoints as bytes: who gets what, and who is refused
mod serve_clients; // the AWS CLI and boto3 by serve and exec, for longer than a session
mod serve_load; // many clients across a refresh
mod serve_trouble; // a service that fails in every way while serve and exec hand out
mod sessions; // sessions that are asked for once, kept in memory, and never wrong
mod status; // roleseal status: what was signed, what is wrong, and until when it goes on
mod strangers; // callers whom no rule names, or who have no number here, learn nothing and get nothing
mod tightened; // groups and rules that change while connections and sessions live
mod tpm; // keys on a TPM: every kind signs, what that costs, wrong auth values, a TPM that goes away
mod trust; // modules, programs, commands and configurations that others could replace
mod units; // callers by the systemd unit of their process, and processes that pretend to be in one
mod update; // the credentials file: written, kept fresh, whole whatever happens
mod verdicts; // certificates that roleseal inspect refuses: the local service refuses them, too
