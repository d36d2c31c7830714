//! Which slot has the token that is wanted.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, thread};

use cryptoki_sys::{
    CK_FLAGS, CK_SLOT_ID, CKF_LOGIN_REQUIRED, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKR_GENERAL_ERROR,
};
use token::{Failures, Pkcs11Uri, TokenError, TokenMatch, unpad};

use crate::error::Failure;
use crate::raw::Module;
use crate::softhsm_store::Store;

/// How long a slot that cannot be read is left alone before it is read again.
const TIMEOUT: Duration = Duration::from_millis(50);

/// A wrong PIN was given since the last login.
const WRONG_PIN: CK_FLAGS = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;

/// A token in its slot. `Display` is a URI that names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) slot: CK_SLOT_ID,
    /// `CK_TOKEN_INFO.flags`
    pub(crate) flags: CK_FLAGS,
    /// Every attribute, as the token has it.
    attributes: TokenMatch,
}

/// What is in a module's slots.
pub(crate) struct Slots {
    /// Initialised or not.
    pub(crate) tokens: Vec<Token>,
    /// Where there is something that cannot be read, and why.
    pub(crate) unreadable: Vec<(CK_SLOT_ID, Failure)>,
    pub(crate) hidden: Hidden,
}

/// SoftHSM's tokens that do not show: another process logs in to them, or they are damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// As many are shown as there are in the store; or there is no SoftHSM.
    Nothing,
    /// SoftHSM is in another process, and its store unknown.
    Unknown,
    Tokens {
        count: usize,
        store: PathBuf,
    },
}

/// The one token that matches.
pub(crate) fn find(module: &Module, wanted: &TokenMatch) -> Result<Token, TokenError> {
    all(module)?.find(wanted)
}

/// Every token there is.
pub(crate) fn all(module: &Module) -> Result<Slots, TokenError> {
    let store = Store::in_process();
    let _lock = store.as_ref().map(Store::lock);
    let slots = module
        .slots()
        .map_err(|failure| failure.while_doing("cannot list the module's slots"))?;
    let mut tokens = Vec::new();
    let mut unreadable = Vec::new();
    for slot in slots {
        match read_patiently(module, slot) {
            Ok(token) => tokens.push(token),
            // A broken card in one reader is no reason to refuse the token in the next.
            Err(failure) => unreadable.push((slot, failure)),
        }
    }
    Ok(Slots {
        hidden: hidden(store.as_ref(), &tokens),
        tokens,
        unreadable,
    })
}

fn hidden(store: Option<&Store>, tokens: &[Token]) -> Hidden {
    let mut softhsm = tokens.iter().filter(|token| token.is_softhsm());
    let Some(store) = store else {
        return match softhsm.next() {
            Some(_) => Hidden::Unknown,
            None => Hidden::Nothing,
        };
    };
    let shown = softhsm.filter(|token| token.is_initialized()).count();
    match store.token_count().saturating_sub(shown) {
        0 => Hidden::Nothing,
        count => Hidden::Tokens {
            count,
            store: store.path().to_owned(),
        },
    }
}

impl Slots {
    /// The one token that matches.
    pub(crate) fn find(&self, wanted: &TokenMatch) -> Result<Token, TokenError> {
        let found = self.find_shown(wanted);
        match (found, &self.hidden) {
            (Err(TokenError::Gone(text)), Hidden::Tokens { count, store }) => {
                Err(TokenError::Gone(format!(
                    "{text}; not shown: {count} of SoftHSM's tokens in {}, which another process logs in to, or which \
                     are damaged",
                    store.display()
                )))
            }
            (found, _) => found,
        }
    }

    fn find_shown(&self, wanted: &TokenMatch) -> Result<Token, TokenError> {
        let (initialized, blank): (Vec<Token>, Vec<Token>) =
            self.tokens.iter().cloned().partition(Token::is_initialized);
        let is_meant = |token: &Token| token.matches(wanted);
        if !initialized.iter().any(is_meant)
            && let Some(token) = blank.iter().find(|token| is_meant(token))
        {
            return Err(TokenError::Gone(format!(
                "the token in slot {} is not initialized (CKF_TOKEN_INITIALIZED), so {} names no token yet: \
                 initialize it (pkcs11-tool --init-token, or the vendor's own tool)",
                token.slot,
                uri(wanted)
            )));
        }
        choose(initialized, &self.unreadable, wanted)
    }
}

/// SoftHSM's token cannot be read at the instant at which another process logs in to it.
fn read_patiently(module: &Module, slot: CK_SLOT_ID) -> Result<Token, Failure> {
    match read(module, slot) {
        Err(failure) if failure.code == CKR_GENERAL_ERROR => {
            thread::sleep(TIMEOUT);
            read(module, slot)
        }
        result => result,
    }
}

fn read(module: &Module, slot: CK_SLOT_ID) -> Result<Token, Failure> {
    let slot_info = module.slot_info(slot)?;
    let token_info = module.token_info(slot)?;
    Ok(Token {
        slot,
        flags: token_info.flags,
        attributes: TokenMatch {
            label: text(&token_info.label),
            manufacturer: text(&token_info.manufacturerID),
            model: text(&token_info.model),
            serial: text(&token_info.serialNumber),
            slot_description: text(&slot_info.slotDescription),
            slot_manufacturer: text(&slot_info.manufacturerID),
            slot_id: Some(slot),
        },
    })
}

/// Padded with blanks by the standard, with zeros by some modules.
fn text(padded: &[u8]) -> Option<String> {
    Some(unpad(&String::from_utf8_lossy(padded)).to_owned())
}

fn choose(
    tokens: Vec<Token>,
    unreadable: &[(CK_SLOT_ID, Failure)],
    wanted: &TokenMatch,
) -> Result<Token, TokenError> {
    let (mut matching, others): (Vec<_>, Vec<_>) =
        tokens.into_iter().partition(|token| token.matches(wanted));
    match (matching.pop(), matching.is_empty()) {
        (Some(token), true) => Ok(token),
        (Some(token), false) => {
            matching.push(token);
            Err(TokenError::Unusable(format!(
                "{} tokens match {}: write which one is meant: {}",
                matching.len(),
                uri(wanted),
                list(matching.iter().map(|token| token.unambiguous(&matching)))
            )))
        }
        (None, _) => {
            let there = match others.as_slice() {
                [] => "the module shows no token: plug it in, or check the module's own settings"
                    .to_owned(),
                others => format!("there are: {}", list(others)),
            };
            let unreadable = match unreadable {
                [] => String::new(),
                unreadable => {
                    let slots = unreadable.iter();
                    let slots = slots.map(|(slot, failure)| format!("slot-id={slot} ({failure})"));
                    format!("; not readable: {}", list(slots))
                }
            };
            Err(TokenError::Gone(format!(
                "no token matches {}; {there}{unreadable}",
                uri(wanted)
            )))
        }
    }
}

impl Token {
    /// Whether it has every attribute that is asked for.
    pub(crate) fn matches(&self, wanted: &TokenMatch) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, found: &Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let found = &self.attributes;
        fits(&wanted.label, &found.label)
            && fits(&wanted.manufacturer, &found.manufacturer)
            && fits(&wanted.model, &found.model)
            && fits(&wanted.serial, &found.serial)
            && fits(&wanted.slot_description, &found.slot_description)
            && fits(&wanted.slot_manufacturer, &found.slot_manufacturer)
            && fits(&wanted.slot_id, &found.slot_id)
    }

    /// The URI that names this one of the `candidates` alone.
    fn unambiguous(&self, candidates: &[Token]) -> Pkcs11Uri {
        let by_serial = self.name();
        let alike = candidates.iter().filter(|token| token.matches(&by_serial));
        if alike.count() == 1 {
            return uri(&by_serial);
        }
        uri(&TokenMatch {
            slot_id: Some(self.slot),
            ..by_serial
        })
    }

    fn name(&self) -> TokenMatch {
        TokenMatch {
            label: self.attributes.label.clone(),
            serial: self.attributes.serial.clone(),
            ..TokenMatch::default()
        }
    }
}

impl Token {
    /// Whether it can have keys.
    pub(crate) fn is_initialized(&self) -> bool {
        self.flags & CKF_TOKEN_INITIALIZED != 0
    }

    /// Whether it needs a login.
    pub(crate) fn needs_login(&self) -> bool {
        self.flags & CKF_LOGIN_REQUIRED != 0
    }

    /// The least that names this one of the `candidates` alone.
    pub(crate) fn shortest(&self, candidates: &[Token]) -> TokenMatch {
        let by_label = TokenMatch {
            label: self.attributes.label.clone(),
            ..TokenMatch::default()
        };
        let by_slot = TokenMatch {
            slot_id: Some(self.slot),
            ..TokenMatch::default()
        };
        if !self.is_initialized() {
            return by_slot; // its other attributes are empty, or no longer true tomorrow
        }
        let alone = |token: &TokenMatch| {
            let alike = candidates.iter().filter(|other| other.matches(token));
            alike.count() == 1
        };
        [by_label, self.name()]
            .into_iter()
            .find(alone)
            .unwrap_or_else(|| TokenMatch {
                slot_id: Some(self.slot),
                ..self.name()
            })
    }

    /// Whether it is one of SoftHSM's.
    pub(crate) fn is_softhsm(&self) -> bool {
        self.attributes.manufacturer.as_deref() == Some("SoftHSM project")
    }

    /// `manufacturerID` and `model`.
    pub(crate) fn model(&self) -> String {
        let parts = [&self.attributes.manufacturer, &self.attributes.model];
        let parts = parts.into_iter().flatten().map(String::as_str);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        parts.join(" ")
    }

    /// The same whenever it is the same token, in any slot of any module. Its label tells it apart only where it has no
    /// serial number: a card with several PINs is several tokens, each with a label of its own.
    pub(crate) fn identity(&self) -> String {
        let has_serial = self
            .attributes
            .serial
            .as_deref()
            .is_some_and(|serial| !serial.is_empty());
        self.described(self.attributes.label.clone().filter(|_| !has_serial))
    }

    /// Its identity and its label: the same as long as it is not initialized anew under another label, which removes
    /// its PIN.
    pub(crate) fn with_label(&self) -> String {
        self.described(self.attributes.label.clone())
    }

    fn described(&self, label: Option<String>) -> String {
        uri(&TokenMatch {
            label,
            manufacturer: self.attributes.manufacturer.clone(),
            model: self.attributes.model.clone(),
            serial: self.attributes.serial.clone(),
            ..TokenMatch::default()
        })
        .to_string()
    }

    /// The token as it is now.
    pub(crate) fn read_again(&self, module: &Module) -> Result<Token, TokenError> {
        read_patiently(module, self.slot)
            .map_err(|failure| failure.while_doing(format_args!("cannot read {self}")))
    }

    /// How it counts wrong PINs: by flags, if its module is known to set them (the standard lets a token hide them).
    pub(crate) fn failures(&self) -> Failures {
        match self.is_softhsm() {
            true => Failures::Flagged(self.flags & WRONG_PIN != 0),
            false => Failures::Untold,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        uri(&self.name()).fmt(f)
    }
}

fn uri(token: &TokenMatch) -> Pkcs11Uri {
    Pkcs11Uri {
        token: token.clone(),
        ..Pkcs11Uri::default()
    }
}

/// More are not named in an error.
const LIST_LIMIT: usize = 20;

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let shown = items.by_ref().take(LIST_LIMIT);
    let shown: Vec<String> = shown.map(|item| item.to_string()).collect();
    let more = if items.next().is_some() {
        " and more"
    } else {
        ""
    };
    shown.join(", ") + more
}

#[cfg(test)]
impl Token {
    pub(crate) fn with_flags(flags: CK_FLAGS) -> Token {
        Token {
            slot: 1,
            flags,
            attributes: TokenMatch::default(),
        }
    }
}

#[cfg(test)]
mod tests;
