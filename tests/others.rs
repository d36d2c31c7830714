//! Other users of this host, by their uid alone: what they connect to sees it, and they need no account.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use hsm_fixtures::Scene;
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};
use serde_json::{Value, json};

/// A user without an account, whom no rule names.
pub(crate) const STRANGER: u32 = 4_000_001;

/// Makes this thread another user's, for what it connects to and opens from now on. Only root may.
pub(crate) fn become_user(uid: u32) {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    // Each thread has ids of its own; its real one stays root's, so that it can change again.
    set_thread_res_uid(None, Uid::ROOT, None).unwrap();
    set_thread_res_gid(None, group, None).unwrap();
    set_thread_res_uid(None, user, None).unwrap();
}

/// Lets other users reach the socket of a scene.
pub(crate) fn open_to_others(scene: &Scene) {
    let permissions = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(scene.dir(), permissions).unwrap();
}

/// A connection that is used for many calls.
pub(crate) struct Caller(BufReader<UnixStream>);

impl Caller {
    pub(crate) fn new(socket: &Path) -> Caller {
        Caller(BufReader::new(UnixStream::connect(socket).unwrap()))
    }

    /// The answer, or `None` where the agent has closed the connection.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Option<Value> {
        let call = json!({ "method": method, "parameters": parameters });
        self.send(format!("{call}\0").as_bytes())
    }

    pub(crate) fn send(&mut self, message: &[u8]) -> Option<Value> {
        let _ = self.0.get_mut().write_all(message); // it may have been closed: then nothing comes
        let mut reply = Vec::new();
        let read = self.0.read_until(0, &mut reply).unwrap_or_default();
        reply.pop();
        (read > 0).then(|| serde_json::from_slice(&reply).unwrap())
    }
}

/// Makes so many requests to sign on one connection, as that user; the answers by their error's name.
pub(crate) fn flood(
    socket: &Path,
    uid: u32,
    request: &Value,
    requests: usize,
) -> BTreeMap<String, u64> {
    become_user(uid);
    let mut caller = Caller::new(socket);
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        let reply = caller.call("org.roleseal.Agent.SignCreateSession", request);
        *answers.entry(error_of(&reply.unwrap())).or_default() += 1;
    }
    answers
}

/// The error's name without its interface; empty for none.
pub(crate) fn error_of(reply: &Value) -> String {
    let error = reply["error"].as_str().unwrap_or_default();
    error.rsplit('.').next().unwrap_or_default().to_owned()
}
