//! Tasks for `roleseal-pkcs11`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Der, KeyType, PublicKeyInfo};
use crate::account::Account;
use crate::{PinSource, Pkcs11Uri, Signature};

/// A task, and where it is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The user PIN; `None` to do without a login, which shows public objects alone. One link logs in to a
    /// token once, with the first PIN that it is given.
    pub pin: Option<PinSource>,
    /// Whose the files of a module are to be that keeps its tokens in files; `None` for this process's user.
    pub user: Option<Account>,
    /// What to do.
    pub task: Task,
}

/// What `roleseal-pkcs11` does for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Tells of every slot with a token that matches, and of the keys and certificates of each. Logs in only
    /// where one token matches and a PIN is given. Answers: [`Answer::Tokens`]; for each of them
    /// [`Answer::Token`], [`Answer::ListedKey`], [`Answer::Certificate`] and [`Answer::Warning`]; at last
    /// [`Answer::Listed`].
    List {
        /// Its token attributes.
        token: Pkcs11Uri,
    },
    /// Tells whether a token needs a login (`CKF_LOGIN_REQUIRED`). Answer: [`Answer::NeedsPin`].
    NeedsPin {
        /// Its token attributes.
        token: Pkcs11Uri,
    },
    /// Makes a key pair: private key sensitive, not extractable, for signing alone; refused where the token
    /// has a private or public key of that label already, or anything of that id. What fails half-way is
    /// destroyed again. Answer: [`Answer::Key`].
    Generate {
        /// The token, and as its object the label; and the `CKA_ID`, where it is not to be the one made from
        /// the public key: its key identifier by RFC 7093, method 1 (or random, where the token lets no id
        /// be changed).
        key: Pkcs11Uri,
        /// Its kind.
        key_type: KeyType,
    },
    /// Finds one private key and what belongs to it. Answer: [`Answer::Key`].
    Key {
        /// Which one.
        key: Pkcs11Uri,
    },
    /// Signs the DER of a `CertificationRequestInfo` (RFC 2986) that has this key's public key and nothing
    /// else. Answer: [`Answer::Signature`].
    SignRequest {
        /// With which key.
        key: Pkcs11Uri,
        /// What to sign.
        info: Der,
    },
    /// Stores a certificate beside its key, with the key's `CKA_ID` and label, in place of one for the same
    /// key that is there. Refused where it is another key's, or the key has no `CKA_ID` of its own. Answer:
    /// [`Answer::Done`]: what was written, then what it replaces.
    ImportCertificate {
        /// The key.
        key: Pkcs11Uri,
        /// The certificate.
        certificate: Der,
    },
    /// Destroys a private key, then its public key and certificates: what has its `CKA_ID`, and its label
    /// too where another private key has that id. Refused where it is not as it was shown. Answer:
    /// [`Answer::Done`].
    Delete {
        /// The key.
        key: Pkcs11Uri,
        /// The answer to [`Task::Key`] that a person has agreed to.
        shown: Box<KeyReport>,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Task::List`]: every token that matches, before any login.
    Tokens(Vec<TokenReport>),
    /// To [`Task::List`]: what follows is on this token.
    Token(Box<TokenReport>),
    /// To [`Task::List`]: a private key of the token, or a public key whose private key does not show.
    ListedKey(Box<KeyReport>),
    /// To [`Task::List`]: a certificate of the token; but none of a token that nothing can be written to and that has
    /// no keys, as a store of CA certificates.
    Certificate(Box<CertificateReport>),
    /// To [`Task::List`]: what an operator should look at, found out while objects were read.
    Warning(String),
    /// To [`Task::List`]: the token answers, and there is nothing to tell yet.
    Working,
    /// To [`Task::List`]: that was all.
    Listed,
    /// To [`Task::NeedsPin`].
    NeedsPin(bool),
    /// To [`Task::Generate`] and [`Task::Key`].
    Key(Box<KeyReport>),
    /// To [`Task::SignRequest`].
    Signature(Signature),
    /// It is done; these are URIs of what was written or destroyed.
    Done(Vec<Pkcs11Uri>),
}

/// A token in its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReport {
    /// The shortest URI that names this token alone.
    pub uri: Pkcs11Uri,
    /// `CK_SLOT_ID`
    pub slot: u64,
    /// `manufacturerID` and `model`, for people.
    pub model: String,
    /// Its flags that matter, by their names in PKCS#11, such as `CKF_LOGIN_REQUIRED`.
    pub flags: Vec<String>,
    /// Whether this link is logged in to it, or it needs no login: otherwise private objects do not show.
    pub logged_in: bool,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// A key on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// A URI that names it alone, for the agent's configuration.
    pub uri: Pkcs11Uri,
    /// Such as `EC-P-256` or `RSA-2048`.
    pub algorithm: String,
    /// Its attributes that matter, by their names in PKCS#11.
    pub attributes: KeyAttributes,
    /// Where the token tells it, or tells enough to make it.
    pub public_key: Option<PublicKeyInfo>,
    /// The public key or certificate that tells it, where the private key does not.
    pub public_key_from: Option<Pkcs11Uri>,
    /// Why the agent cannot use the key.
    pub unusable: Option<String>,
    /// The certificates with its `CKA_ID`.
    pub certificates: Vec<CertificateReport>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// What the token says of a private key; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAttributes {
    /// Whether the private key showed at all.
    pub private_key: bool,
    /// `CKA_SIGN`
    pub sign: Option<bool>,
    /// `CKA_SENSITIVE`
    pub sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`
    pub extractable: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`
    pub always_sensitive: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`
    pub never_extractable: Option<bool>,
    /// `CKA_LOCAL`: made on this token.
    pub local: Option<bool>,
    /// `CKA_ALWAYS_AUTHENTICATE`
    pub always_authenticate: Option<bool>,
}

/// A certificate on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// A URI that names it.
    pub uri: Pkcs11Uri,
    /// Its DER.
    pub certificate: Der,
}
