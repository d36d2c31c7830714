//! Clients of the agent: a connection each, one request after the other.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use hsm_fixtures::{PROFILE_ARN, REGION, Scene, TRUST_ANCHOR_ARN, WEB_ROLE_ARN};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::raw::Run;

/// Longer than the agent takes for anything.
const PATIENCE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// The request that all clients send, and where to.
#[derive(Clone)]
pub(crate) struct Caller {
    socket: PathBuf,
    message: Vec<u8>,
}

impl Caller {
    /// For `identity` of the agent at `socket`.
    pub(crate) fn new(scene: &Scene, socket: &Path, identity: &str) -> Caller {
        let query = [
            ("profileArn", PROFILE_ARN),
            ("roleArn", WEB_ROLE_ARN),
            ("trustAnchorArn", TRUST_ANCHOR_ARN),
        ];
        let query = query
            .map(|(name, arn)| format!("{name}={}", arn.replace(':', "%3A").replace('/', "%2F")));
        let message = json!({
            "method": "org.roleseal.Agent.SignCreateSession",
            "parameters": {
                "identity": identity,
                "region": REGION,
                "host": format!("localhost:{}", scene.service().port()),
                "query": query.join("&"),
                "contentType": "application/json",
                "body": "{\"durationSeconds\":900}",
            },
        });
        Caller {
            socket: socket.to_owned(),
            message: format!("{message}\0").into_bytes(),
        }
    }

    pub(crate) fn connect(&self) -> Result<Client> {
        let stream = UnixStream::connect(&self.socket)?;
        Ok(Client {
            stream,
            message: self.message.clone(),
            reply: vec![0; 64 * 1024],
        })
    }

    /// As many clients at once, for that long.
    pub(crate) fn run(&self, clients: usize, duration: Duration) -> Result<Run> {
        let mut connected = Vec::new();
        for _ in 0..clients {
            let mut client = self.connect()?;
            client.sign()?; // until then the agent may have no thread for it
            connected.push(client);
        }
        let began = Instant::now();
        let until = began + duration;
        let times = std::thread::scope(|scope| {
            let spawn = |mut client: Client| scope.spawn(move || client.sign_until(until));
            let threads: Vec<_> = connected.into_iter().map(spawn).collect();
            let mut times = Vec::new();
            for thread in threads {
                let own = thread.join().map_err(|_| anyhow!("a client panicked"))?;
                times.extend(own?);
            }
            anyhow::Ok(times)
        })?;
        let elapsed = began.elapsed();
        Ok(Run { times, elapsed })
    }
}

/// A connected client.
pub(crate) struct Client {
    stream: UnixStream,
    message: Vec<u8>,
    reply: Vec<u8>,
}

impl Client {
    /// Has the request signed.
    pub(crate) fn sign(&mut self) -> Result<()> {
        self.stream.write_all(&self.message)?;
        let mut length = 0;
        loop {
            let room = self.reply.get_mut(length..).unwrap_or_default();
            // As wire::Client does; without it the kernel wakes us also when our request was read.
            let waited = poll(
                &mut [PollFd::new(&self.stream, PollFlags::IN)],
                Some(&PATIENCE),
            )?;
            ensure!(waited > 0, "the agent did not answer in time");
            let count = self.stream.read(room)?;
            ensure!(count > 0, "the agent closed the connection");
            length += count;
            let reply = self.reply.get(..length).unwrap_or_default();
            // It is one reply, since there was one request. Not parsed further: that is work of ours.
            match reply.strip_suffix(&[0]) {
                None => {}
                Some(reply) if reply.starts_with(b"{\"parameters\":{\"headers\":") => return Ok(()),
                Some(reply) => bail!("the agent answered {}", String::from_utf8_lossy(reply)),
            }
        }
    }

    fn sign_until(&mut self, until: Instant) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let mut before = Instant::now();
        while before < until {
            self.sign()?;
            let now = Instant::now();
            times.push(now - before);
            before = now;
        }
        Ok(times)
    }
}
