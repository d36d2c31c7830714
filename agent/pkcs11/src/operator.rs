//! An operator's tasks: one at a time, for as long as the command keeps its link.

mod certificate;
mod delete;
mod generate;
mod inventory;
mod list;
mod place;
pub(crate) mod public_key;
mod remains;
mod report;
mod request;
mod user;

use token::operator::pkcs11::{Answer, Request, Task};
use token::operator::{Outcome, Tell};

use crate::unbroken::Unbroken;
use list::Listing;
use place::Places;

/// What the tasks of one link have in common: modules that are loaded, tokens that are logged in to.
#[derive(Default)]
pub(crate) struct Operator(Places);

impl Operator {
    /// Does one task.
    pub(crate) fn work(&mut self, request: Request, tell: Tell<Answer>) -> Outcome<Answer> {
        let Request {
            module,
            mut pin,
            user,
            task,
        } = request;
        if let Some(user) = &user {
            user::become_owner(user, &module, &mut pin)?;
        }
        let places = &mut self.0;
        let mut at = |key| places.at(&module, key, pin.as_ref());
        match task {
            Task::Generate { key, key_type } => {
                let place = at(&key)?;
                user::check_owner(user.as_ref(), &place)?;
                let _whole = Unbroken::begin();
                let report = generate::key_pair(&place, &key, key_type)?;
                Ok(Answer::Key(Box::new(report)))
            }
            Task::Key { key } => {
                let report = at(&key)?.report(&key)?;
                Ok(Answer::Key(Box::new(report)))
            }
            Task::SignRequest { key, info } => {
                request::sign(&at(&key)?, &key, &info).map(Answer::Signature)
            }
            Task::ImportCertificate { key, certificate } => {
                let place = at(&key)?;
                user::check_owner(user.as_ref(), &place)?;
                let _whole = Unbroken::begin();
                certificate::import(&place, &key, &certificate.0).map(Answer::Done)
            }
            Task::Delete { key, shown } => {
                let place = at(&key)?;
                let _whole = Unbroken::begin();
                delete::key(&place, &key, &shown).map(Answer::Done)
            }
            Task::NeedsPin { token } => {
                let all = places.slots(&module, &token.token)?;
                Ok(Answer::NeedsPin(all.find(&token.token)?.needs_login()))
            }
            Task::List { token } => Listing {
                places,
                path: &module,
                wanted: &token,
                pin: pin.as_ref(),
                tell,
            }
            .run(),
        }
    }
}
