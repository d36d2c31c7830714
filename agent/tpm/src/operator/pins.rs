//! The auth values of tasks: each source is read once for all tasks of a command, since it may be a person.

use token::link::OpenTpmKey;
use token::operator::Outcome;
use token::operator::tpm::{NewKey, Task};
use token::{Pin, PinSource, TokenError};

/// What was read so far.
#[derive(Default)]
pub(super) struct Pins(Vec<(PinSource, Pin)>);

impl Pins {
    /// Puts what each source gives in its place.
    pub(super) fn read(&mut self, task: &mut Task) -> Outcome<()> {
        for source in sources(task) {
            *source = PinSource::Value(self.pin(source)?);
        }
        Ok(())
    }

    fn pin(&mut self, source: &PinSource) -> Outcome<Pin> {
        if let Some((_, pin)) = self.0.iter().find(|(read, _)| read == source) {
            return Ok(pin.clone());
        }
        let pin = source
            .read()
            .map_err(|error| TokenError::Unusable(error.to_string()))?;
        self.0.push((source.clone(), pin.clone()));
        Ok(pin)
    }
}

fn sources(task: &mut Task) -> Vec<&mut PinSource> {
    let sources = match task {
        Task::List => vec![],
        Task::Generate(NewKey {
            parent_pin,
            owner_pin,
            pin,
            ..
        }) => vec![parent_pin, owner_pin, pin],
        Task::Key(key) | Task::SignRequest { key, .. } => of_key(key).into(),
        Task::Attest {
            key,
            endorsement_pin,
            ..
        } => {
            let mut sources = Vec::from(of_key(key));
            sources.push(endorsement_pin);
            sources
        }
        Task::Delete { owner_pin, .. } => vec![owner_pin],
    };
    sources.into_iter().filter_map(Option::as_mut).collect()
}

fn of_key(key: &mut OpenTpmKey) -> [&mut Option<PinSource>; 3] {
    let OpenTpmKey {
        pin,
        parent_pin,
        owner_pin,
        ..
    } = key;
    [parent_pin, owner_pin, pin]
}
