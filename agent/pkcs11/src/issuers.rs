//! The certificates of a token that may have issued another one of it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use cryptoki_sys::*;
use token::ObjectMatch;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::error::Failure;
use crate::find;
use crate::raw::Session;

/// Looks for each issuer once, for all keys of an opening.
pub(crate) struct Issuers<'s> {
    session: &'s Session,
    /// The certificates of each name that was looked for, by its DER.
    known: RefCell<BTreeMap<Vec<u8>, Vec<Vec<u8>>>>,
    /// All that are on the token, once they were read.
    all: RefCell<Option<Vec<Vec<u8>>>>,
}

/// How far up to look: Roles Anywhere takes five intermediates.
const LEVELS: usize = 5;

/// Certificates of one name: a CA has a new one every few years, and some for others who have certified it.
const NAMESAKES: usize = 8;

/// Read where a token cannot be searched by name. Those that cannot are cards, with a few certificates.
const ALL_LIMIT: usize = 64;

impl<'s> Issuers<'s> {
    pub(crate) fn on(session: &'s Session) -> Issuers<'s> {
        Issuers {
            session,
            known: RefCell::default(),
            all: RefCell::default(),
        }
    }

    /// The session that it looks in.
    pub(crate) fn session(&self) -> &'s Session {
        self.session
    }

    /// DER of those that may have issued `leaf` or each other, judged by their names alone. None for what cannot be
    /// read as a certificate.
    pub(crate) fn of(&self, leaf: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let mut issuers: Vec<Vec<u8>> = Vec::new();
        let mut names: Vec<Vec<u8>> = issuer(leaf).into_iter().collect();
        for _ in 0..LEVELS {
            let mut next = Vec::new();
            for name in names {
                for der in self.named(&name)? {
                    if !issuers.contains(&der) && der != leaf {
                        next.extend(issuer(&der));
                        issuers.push(der);
                    }
                }
            }
            names = next;
        }
        Ok(issuers)
    }

    /// Those with this subject that have an issuer of another name: a root is not sent.
    fn named(&self, name: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        if let Some(known) = self.known.borrow().get(name) {
            return Ok(known.clone());
        }
        let mut found = self.search(name);
        if found.is_empty() {
            found = self.all()?;
        }
        found.retain(|der| subject(der).as_deref() == Some(name));
        found.retain(|der| issuer(der).as_deref() != Some(name));
        found.truncate(NAMESAKES);
        self.known.borrow_mut().insert(name.to_vec(), found.clone());
        Ok(found)
    }

    /// By `CKA_SUBJECT`, which some tokens do not have, or do not look for.
    fn search(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let class = CKO_CERTIFICATE.to_ne_bytes();
        let template = [(CKA_CLASS, &class[..]), (CKA_SUBJECT, name)];
        let objects = self.session.find(&template, NAMESAKES).unwrap_or_default();
        let value = |object| self.session.attribute(object, CKA_VALUE).ok().flatten();
        objects.into_iter().filter_map(value).collect()
    }

    fn all(&self) -> Result<Vec<Vec<u8>>, Failure> {
        if let Some(all) = &*self.all.borrow() {
            return Ok(all.clone());
        }
        let any = ObjectMatch::default();
        let objects = find::objects_up_to(ALL_LIMIT, self.session, CKO_CERTIFICATE, &any)?;
        let mut all = Vec::new();
        for object in objects {
            all.extend(self.session.attribute(object, CKA_VALUE)?);
        }
        *self.all.borrow_mut() = Some(all.clone());
        Ok(all)
    }
}

fn subject(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    certificate.tbs_certificate().subject().to_der().ok()
}

fn issuer(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    certificate.tbs_certificate().issuer().to_der().ok()
}
