//! A way to a swtpm on which answers are lost.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use token::Tcti;

use crate::swtpm::Swtpm;

/// What becomes of the first command of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The TPM does not get it.
    Command,
    /// The TPM's answer does not come back.
    Answer,
    /// Nobody answers until the client is gone. Then the TPM gets it.
    Hang,
}

pub(crate) const TPM2_LOAD: u32 = 0x157;
const TPM2_SIGN: u32 = 0x15d;
const TPM_RC_RETRY: [u8; 4] = [0, 0, 9, 0x22];

/// Starts to forward, and loses the first TPM2_Sign.
pub(crate) fn start(tpm: &Swtpm, loss: Loss) -> Tcti {
    start_for(tpm, TPM2_SIGN, loss)
}

/// Starts to forward, on two ports of its own as swtpm has them, and loses the first such command.
pub(crate) fn start_for(tpm: &Swtpm, code: u32, loss: Loss) -> Tcti {
    let (commands, control, port) = listen();
    let back = tpm.port();
    let lost = Arc::new(AtomicBool::new(false));
    thread::spawn(move || {
        for client in commands.incoming().flatten() {
            let lost = Arc::clone(&lost);
            thread::spawn(move || forward(client, back, code, loss, &lost));
        }
    });
    thread::spawn(move || {
        for client in control.incoming().flatten() {
            thread::spawn(move || forward_control(client, back + 1));
        }
    });
    format!("swtpm:host=127.0.0.1,port={port}").parse().unwrap()
}

fn listen() -> (TcpListener, TcpListener, u16) {
    loop {
        let commands = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = commands.local_addr().unwrap().port();
        if port < u16::MAX
            && let Ok(control) = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1))
        {
            return (commands, control, port);
        }
    }
}

fn forward(
    mut client: TcpStream,
    back: u16,
    code: u32,
    loss: Loss,
    lost: &AtomicBool,
) -> io::Result<()> {
    let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, back))?;
    loop {
        let command = message(&mut client)?;
        let is_wanted = command[6..10] == code.to_be_bytes();
        let is_lost = || is_wanted && !lost.swap(true, Ordering::SeqCst);
        if loss != Loss::Answer && is_lost() {
            if loss == Loss::Command {
                return Ok(());
            }
            let _ = client.read(&mut [0]); // until it is gone
        }
        tpm.write_all(&command)?;
        let answer = message(&mut tpm)?;
        // A TPM that asks for a retry has not looked at the command.
        if loss == Loss::Answer && answer[6..10] != TPM_RC_RETRY && is_lost() {
            return Ok(());
        }
        client.write_all(&answer)?;
    }
}

/// Forwards the control channel, of which nothing is lost.
fn forward_control(client: TcpStream, back: u16) -> io::Result<()> {
    let tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, back))?;
    let (mut from, mut to) = (client.try_clone()?, tpm.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Both)));
    let (mut from, mut to) = (tpm, client);
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Both)
}

/// A command or an answer: tag, size and code, then the rest.
fn message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 10];
    from.read_exact(&mut message)?;
    let size = u32::from_be_bytes(message[2..6].try_into().unwrap());
    message.resize(size as usize, 0);
    from.read_exact(&mut message[10..])?;
    Ok(message)
}
