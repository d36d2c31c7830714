//! What agent and launcher say to each other: one JSON message a packet, of the same version at both ends.
//! Whatever the agent has become, it can ask for these things and for nothing else.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use config::process::Process;
use token::Program;

/// From the agent.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Comes back with the answer.
    pub(super) number: u64,
    pub(super) ask: LauncherRequest,
}

/// What the launcher does.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum LauncherRequest {
    /// Starts a token program; its link and its [`end`](super::Running) come with the answer.
    Start { program: Program, confined: bool },
    /// Kills one that it has started.
    Kill { pid: i32 },
    /// What `/proc` shows of a process.
    Process {
        pid: i32,
        /// Since the boot, in milliseconds: when it was there.
        at: u64,
    },
    /// The number of a user.
    User { name: String },
    /// The number of a group.
    Group { name: String },
    /// The groups of a user.
    Groups { uid: u32 },
    /// Has a bug.
    #[cfg(test)]
    Panic { in_thread: bool },
}

/// From the launcher.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum FromLauncher {
    Answer {
        number: u64,
        answer: Answer,
    },
    /// A token program ended otherwise than it should, and how.
    Ended {
        pid: i32,
        how: String,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    Started(i32),
    Killed,
    Process(Process),
    Number(Option<u32>),
    Groups(Vec<u32>),
    /// It could not be done, and why.
    Failed(String),
}

impl Answer {
    /// Why there is no other answer.
    pub(super) fn into_failure(self) -> String {
        match self {
            Answer::Failed(why) => why,
            other => format!("unexpected answer of the launcher: {other:?}"),
        }
    }
}

/// The longest request: a user's name of 256 bytes, each of which may be escaped.
pub(super) const REQUEST_LIMIT: usize = 4 * 1024;

/// The longest answer: some thousand groups in decimal.
pub(super) const ANSWER_LIMIT: usize = 64 * 1024;

/// The most descriptors that come with a packet: link and end of a token program.
const DESCRIPTORS: usize = 2;

/// Sends one packet.
pub(super) fn send(
    to: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if descriptors.is_empty() {
        // The agent's sandbox leaves it no call that passes descriptors.
        rustix::io::retry_on_intr(|| rustix::net::send(&to, &text, SendFlags::NOSIGNAL))?;
        return Ok(());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let packet = [IoSlice::new(&text)];
    rustix::io::retry_on_intr(|| sendmsg(&to, &packet, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet of at most `limit` bytes, and `descriptors` with it; `None` when the other side is
/// gone. Descriptors that were not expected are closed by the kernel.
pub(super) fn receive<T: DeserializeOwned>(
    from: impl AsFd,
    limit: usize,
    with_descriptors: bool,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut packet = vec![0; limit];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = match with_descriptors {
        true => RecvAncillaryBuffer::new(&mut space),
        false => RecvAncillaryBuffer::default(),
    };
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            &from,
            &mut [IoSliceMut::new(&mut packet)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    // Wanted descriptors that this process has no place for are missing, and so is what they belong to.
    let fault = match with_descriptors {
        true => ReturnFlags::TRUNC,
        false => ReturnFlags::TRUNC | ReturnFlags::CTRUNC,
    };
    if received.flags.intersects(fault) {
        return Err(io::Error::other("a packet is too long"));
    }
    match packet.get(..received.bytes) {
        None | Some([]) => Ok(None),
        Some(text) => Ok(Some((serde_json::from_slice(text)?, descriptors))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn parse(text: &str) -> Result<Request, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn requests_survive_the_socket() {
        let (agent, launcher) = pair();
        for ask in [
            LauncherRequest::Start {
                program: Program::Tpm,
                confined: true,
            },
            LauncherRequest::Kill { pid: 7 },
            LauncherRequest::Process { pid: 7, at: 1 },
            LauncherRequest::User {
                name: "\u{1}".repeat(256),
            },
            LauncherRequest::Groups { uid: u32::MAX },
        ] {
            let request = Request { number: 1, ask };
            send(&agent, &request, &[]).unwrap();
            let received = receive(&launcher, REQUEST_LIMIT, false).unwrap().unwrap();
            assert_eq!((received.0, received.1.len()), (request, 0));
        }
        drop(agent);
        assert!(
            receive::<Request>(&launcher, REQUEST_LIMIT, false)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn no_other_program_can_be_asked_for() {
        let good = r#"{"number":1,"ask":{"Start":{"program":"Pkcs11","confined":true}}}"#;
        assert!(parse(good).is_ok());
        for (part, other) in [
            ("\"Pkcs11\"", "\"/bin/sh\""),
            ("\"Pkcs11\"", "\"pkcs11\""),
            ("\"Pkcs11\"", "{\"Pkcs11\":\"/bin/sh\"}"),
            ("\"Pkcs11\"", "[\"Pkcs11\",\"/bin/sh\"]"),
            ("\"confined\"", "\"arguments\":[\"-c\",\"id\"],\"confined\""),
            (",\"confined\":true", ""),
            ("true", "1"),
            ("\"number\"", "\"path\":\"/bin/sh\",\"number\""),
            ("\"Start\"", "\"Run\""),
            ("1,", "-1,"),
            ("1,", "1,\"number\":2,"),
            ("}}}", "}}}{}"),
        ] {
            let text = good.replacen(part, other, 1);
            assert_ne!(text, good);
            assert!(parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_descriptors_that_nobody_wants_are_not_taken() {
        let (agent, launcher) = pair();
        let name = "x".repeat(REQUEST_LIMIT);
        let ask = LauncherRequest::User { name };
        send(&agent, &Request { number: 1, ask }, &[]).unwrap();
        assert!(receive::<Request>(&launcher, REQUEST_LIMIT, false).is_err());
        let ask = LauncherRequest::Kill { pid: 1 };
        send(&agent, &Request { number: 1, ask }, &[agent.as_fd()]).unwrap();
        assert!(receive::<Request>(&launcher, REQUEST_LIMIT, false).is_err());
    }

    #[test]
    fn descriptors_come_with_an_answer() {
        let (agent, launcher) = pair();
        let answer = FromLauncher::Answer {
            number: 3,
            answer: Answer::Started(7),
        };
        let descriptors = [launcher.as_fd(), launcher.as_fd()];
        send(&launcher, &answer, &descriptors).unwrap();
        let received = receive(&agent, ANSWER_LIMIT, true).unwrap().unwrap();
        assert_eq!((received.0, received.1.len()), (answer, 2));
    }
}
