//! What agent and token program say to each other: JSON with its length in front, over a socketpair
//! that is the token program's standard input. Both ends are ours and of the same version, which the first message
//! of the token program, its [`greeting`](crate::greeting), has shown.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Algorithm, Failures, PinFingerprint, PinKey, PinSource, Pkcs11Token, Pkcs11Uri, Signature,
    Tcti, TokenError,
};

/// From the agent.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum ToToken {
    /// The first message. Sent again, it closes what is open and opens it anew, in the same program.
    Open {
        /// The token.
        open: Open,
        /// For fingerprints of PINs.
        pin_key: PinKey,
    },
    /// The answer to [`FromToken::AwaitingTurn`]: no other token program tries a PIN of this token now.
    YourTurn,
    /// The answer to [`FromToken::HasPin`].
    Pin(Permission),
    /// Any number of these, before or after the answers to earlier ones.
    Sign {
        /// Comes back with the answer.
        id: u64,
        /// Which of the keys of [`Open`].
        key: usize,
        /// A [`StringToSign`](crate::StringToSign), as text.
        text: String,
    },
}

/// From the token program.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum FromToken {
    /// Before the answer to [`ToToken::Open`]: a PIN is to be tried, once no other token program does so on the same
    /// token. The agent answers with [`ToToken::YourTurn`].
    AwaitingTurn {
        /// What the token says of itself: the same under every name of its module.
        token: String,
    },
    /// Before the answer to [`ToToken::Open`], any number of these: what the token will be opened with. The agent
    /// answers with [`ToToken::Pin`], and has recorded the try by then.
    HasPin {
        /// Whose it is; `None` for the whole token's.
        key: Option<usize>,
        /// What the token or key says of itself.
        token: String,
        /// To know it again.
        fingerprint: PinFingerprint,
        /// As the token counts them before the try.
        failures: Failures,
        /// Whether it is tried as soon as it may be; else by the key's first signature. Whoever hears nothing after
        /// that does not know whether the try counted.
        at_once: bool,
    },
    /// Before the answer to [`ToToken::Open`], any number of these: the sessions that this program has in a TPM without
    /// a resource manager now. They stay there if it is killed.
    Sessions(Vec<u32>),
    /// The answer to [`ToToken::Open`]: each key's report, in the order of [`Open`]; or why the token as
    /// a whole cannot be used.
    Opened(Result<Vec<KeyReport>, TokenError>),
    /// The answer to [`ToToken::Sign`], in any order.
    Signed {
        /// The request's.
        id: u64,
        /// The signature, or why there is none.
        result: Result<Signature, TokenError>,
    },
}

/// Whether a PIN may be tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// It may.
    Try,
    /// The token has refused it.
    Refused,
    /// It was tried, and whether the token has refused it is unknown.
    Unanswered,
    /// The try cannot be recorded now, and why.
    Unrecorded(String),
    /// The try is not recorded before an operator removes records, and why.
    TooManyRecords(String),
}

/// Which token to open, and what on it. Each kind of token has a program of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// For `roleseal-pkcs11`.
    Pkcs11(Box<OpenPkcs11>),
    /// For `roleseal-tpm`.
    Tpm(OpenTpm),
}

/// A PKCS#11 token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPkcs11 {
    /// Which one.
    pub token: Pkcs11Token,
    /// The keys, of which one failing leaves the others alone.
    pub keys: Vec<OpenKey>,
}

/// One key to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenKey {
    /// Which private key.
    pub uri: Pkcs11Uri,
    /// Which certificate to read from the token, if any.
    pub certificate: Option<CertificateOnToken>,
    /// The SubjectPublicKeyInfo of a certificate that is elsewhere: of several keys that match the URI, that one is
    /// meant.
    #[serde(with = "crate::hex_bytes::optional")]
    pub public_key: Option<Vec<u8>>,
}

/// A certificate object of the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateOnToken {
    /// The one with the key's `CKA_ID`.
    OfTheKey,
    /// The one that the URI names.
    Named(Box<Pkcs11Uri>),
}

/// A TPM 2.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTpm {
    /// How to reach it.
    pub tcti: Tcti,
    /// The keys, of which one failing leaves the others alone; `None` for one that was
    /// [set aside](Open::set_aside).
    pub keys: Vec<Option<OpenTpmKey>>,
    /// What an earlier program that was killed has told by [`FromToken::Sessions`].
    #[serde(default)]
    pub left_sessions: Vec<u32>,
}

/// One key of a TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTpmKey {
    /// Which one.
    pub source: TpmKeySource,
    /// The key's own auth value.
    pub pin: Option<PinSource>,
    /// The auth value of the key that a key file's key is stored under.
    pub parent_pin: Option<PinSource>,
    /// The auth value of the hierarchy, where that parent has to be derived in it.
    pub owner_pin: Option<PinSource>,
}

/// Where a key of a TPM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TpmKeySource {
    /// In a `TSS2 PRIVATE KEY` file, which only its own TPM can load.
    File(PathBuf),
    /// In the TPM, at a persistent handle.
    Handle(u32),
}

impl OpenTpmKey {
    /// Where its auth values come from.
    pub fn pins(&self) -> impl Iterator<Item = &PinSource> {
        let pins = [&self.pin, &self.parent_pin, &self.owner_pin];
        pins.into_iter().flatten()
    }

    /// The key's file, where it has one.
    pub fn file(&self) -> Option<&Path> {
        match &self.source {
            TpmKeySource::File(path) => Some(path),
            TpmKeySource::Handle(_) => None,
        }
    }
}

impl Open {
    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        match self {
            Open::Pkcs11(open) => open.keys.len(),
            Open::Tpm(open) => open.keys.len(),
        }
    }

    /// How many requests to give to the token program at once: for each session one to work on and the
    /// next one at hand, so that it does not wait for the agent between the two.
    pub fn at_once(&self) -> usize {
        match self {
            Open::Pkcs11(open) => open.token.sessions.saturating_mul(2),
            Open::Tpm(_) => 2, // it does one thing at a time
        }
    }

    /// Whether a key with a PIN is found by its place alone: another key may be there by now, which has to be opened
    /// before the PIN is tried.
    pub fn has_pin_at_handle(&self) -> bool {
        match self {
            Open::Pkcs11(_) => false,
            Open::Tpm(open) => open
                .keys
                .iter()
                .flatten()
                .any(|key| matches!(key.source, TpmKeySource::Handle(_)) && key.pin.is_some()),
        }
    }

    /// Remembers sessions that an earlier program has left in the TPM.
    pub fn set_left_sessions(&mut self, sessions: &[u32]) {
        if let Open::Tpm(open) = self {
            open.left_sessions = sessions.to_vec();
        }
    }

    /// Leaves out a key whose PIN was refused, so that no later program tries that PIN again. Says
    /// `false` where the PIN is not the key's but the whole token's.
    pub fn set_aside(&mut self, key: usize) -> bool {
        match self {
            Open::Pkcs11(_) => false,
            Open::Tpm(open) => {
                if let Some(key) = open.keys.get_mut(key) {
                    *key = None;
                }
                true
            }
        }
    }

    /// Whether both may be about one token, so that one of them should be closed before the other is opened.
    pub fn may_be_the_token_of(&self, other: &Open) -> bool {
        match (self, other) {
            (Open::Pkcs11(one), Open::Pkcs11(other)) => one.token.overlaps(&other.token),
            (Open::Tpm(one), Open::Tpm(other)) => one.tcti == other.tcti,
            _ => false,
        }
    }

    /// Takes a key back in that was set aside, as `original` has it.
    pub fn take_back(&mut self, key: usize, original: &Open) {
        if let (Open::Tpm(open), Open::Tpm(original)) = (self, original)
            && let (Some(place), Some(key)) = (open.keys.get_mut(key), original.keys.get(key))
        {
            place.clone_from(key);
        }
    }
}

/// The token's name, for the log.
impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Open::Pkcs11(open) => open.token.fmt(f),
            Open::Tpm(open) => write!(f, "TPM {}", open.tcti),
        }
    }
}

/// As the configuration writes it.
impl fmt::Display for TpmKeySource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            TpmKeySource::File(path) => path.display().fmt(f),
            TpmKeySource::Handle(handle) => write!(f, "handle:0x{handle:08X}"),
        }
    }
}

/// What was found of a key.
pub type KeyReport = Result<OpenedKey, TokenError>;

/// A key that can sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedKey {
    /// How it signs.
    pub algorithm: Algorithm,
    /// The certificate that was asked for.
    pub certificate: Option<FoundCertificate>,
    /// What works, but should not stay so.
    pub warnings: Vec<String>,
    /// Whether each of its signatures tries the token's PIN again.
    pub logs_in: bool,
}

/// A certificate of the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCertificate {
    /// DER
    #[serde(with = "crate::hex_bytes")]
    pub der: Vec<u8>,
    /// DER of others of the token that may have issued it or each other, judged by their names alone.
    #[serde(with = "crate::hex_bytes::list")]
    pub issuers: Vec<Vec<u8>>,
}

/// The longest message, in bytes: a thousand certificates of 8 KiB in hex.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// Sends one message. Its buffer is wiped, since [`Open`] may carry a PIN; and measured before it is
/// filled, since one that grows leaves pieces of itself behind.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut measured = Measure(0);
    serde_json::to_writer(&mut measured, message)?;
    let length = u32::try_from(measured.0).map_err(io::Error::other)?;
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + measured.0));
    frame.extend_from_slice(&length.to_be_bytes());
    serde_json::to_writer(&mut *frame, message)?;
    to.write_all(&frame)
}

/// Counts what is written.
struct Measure(usize);

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receives one message; `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_LIMIT {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut text = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Waits for the next message and receives it.
pub fn next<T: DeserializeOwned>(from: &mut UnixStream) -> io::Result<Option<T>> {
    // Not in a read: the kernel wakes whoever waits there each time that the other side has read something
    // of ours.
    while let Err(error) = poll(&mut [PollFd::new(from, PollFlags::IN)], None) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    receive(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pin, TokenMatch};

    fn lab() -> TokenMatch {
        "pkcs11:token=lab".parse::<Pkcs11Uri>().unwrap().into()
    }

    #[test]
    fn messages_survive_the_link() {
        let pin = Pin::from("1234".to_owned());
        let open = ToToken::Open {
            open: Open::Pkcs11(Box::new(OpenPkcs11 {
                token: Pkcs11Token {
                    module: "/lib/module.so".into(),
                    network: Some(false),
                    token: lab(),
                    pin: Some(PinSource::Value(pin)),
                    sessions: 4,
                },
                keys: vec![OpenKey {
                    uri: "pkcs11:object=web".parse().unwrap(),
                    certificate: Some(CertificateOnToken::OfTheKey),
                    public_key: Some(vec![0x30, 0]),
                }],
            })),
            pin_key: PinKey::random().unwrap(),
        };
        let mut bytes = Vec::new();
        send(&mut bytes, &open).unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(receive::<ToToken>(&mut from).unwrap(), Some(open));
        assert_eq!(receive::<ToToken>(&mut from).unwrap(), None);

        let opened = FromToken::Opened(Ok(vec![
            Ok(OpenedKey {
                algorithm: Algorithm::RsaSha256,
                certificate: Some(FoundCertificate {
                    der: vec![0, 255],
                    issuers: vec![vec![7], vec![]],
                }),
                warnings: vec!["extractable".into()],
                logs_in: true,
            }),
            Err(TokenError::Unusable("no key".into())),
        ]));
        let mut bytes = Vec::new();
        send(&mut bytes, &opened).unwrap();
        assert_eq!(receive(&mut bytes.as_slice()).unwrap(), Some(opened));
    }

    #[test]
    fn only_keys_of_a_tpm_are_set_aside() {
        let key = OpenTpmKey {
            source: TpmKeySource::Handle(0x8100_0101),
            pin: None,
            parent_pin: None,
            owner_pin: None,
        };
        let mut open = Open::Tpm(OpenTpm {
            tcti: Tcti::default(),
            keys: vec![Some(key.clone()), Some(key.clone())],
            left_sessions: vec![],
        });
        assert!(open.set_aside(0));
        assert_eq!(open.key_count(), 2);
        let Open::Tpm(OpenTpm { keys, .. }) = &open else {
            panic!()
        };
        assert_eq!(keys[..], [None, Some(key.clone())]);
        let original = Open::Tpm(OpenTpm {
            tcti: Tcti::default(),
            keys: vec![Some(key.clone()), Some(key)],
            left_sessions: vec![],
        });
        open.take_back(0, &original);
        assert_eq!(open, original);

        let mut open = Open::Pkcs11(Box::new(OpenPkcs11 {
            token: Pkcs11Token {
                module: "/lib/module.so".into(),
                network: None,
                token: lab(),
                pin: None,
                sessions: 4,
            },
            keys: vec![],
        }));
        assert!(!open.set_aside(0));
        assert_eq!(open.to_string(), "pkcs11:token=lab");
    }

    #[test]
    fn a_broken_message_is_an_error() {
        for bytes in [
            &[255, 255, 255, 255][..],
            &[0, 0, 0, 9, b'{'],
            &[0, 0, 0, 2, b'{', b'}'],
            &[0, 0, 0, 1, 0xff],
        ] {
            assert!(receive::<FromToken>(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
