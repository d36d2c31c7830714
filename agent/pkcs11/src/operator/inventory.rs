//! The objects of a token by their names: found one by one, or all at once.

use std::collections::{BTreeMap, BTreeSet};

use cryptoki_sys::*;
use token::{ObjectMatch, TokenError};

use crate::error::Failure;
use crate::find::{self, OBJECT_LIMIT};
use crate::raw::Session;

/// Where the objects are that belong to another one.
pub(crate) trait Lookup {
    /// The objects of this class that match; one more than [`OBJECT_LIMIT`] at the most. Of certificates those that
    /// are stored, where there are any.
    fn matching(
        &self,
        class: CK_OBJECT_CLASS,
        wanted: &ObjectMatch,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Failure>;
}

/// The token searches.
impl Lookup for Session {
    fn matching(
        &self,
        class: CK_OBJECT_CLASS,
        wanted: &ObjectMatch,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
        match class {
            CKO_CERTIFICATE => find::certificates(self, wanted),
            _ => find::objects(self, class, wanted),
        }
    }
}

/// All keys and certificates of a token. A search of SoftHSM's looks at every object: there are as many searches as
/// classes, however many objects there are.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) private: Objects,
    pub(super) public: Objects,
    pub(super) certificates: Objects,
    /// Certificates that are stored, and not made up by the module.
    stored: BTreeSet<CK_OBJECT_HANDLE>,
}

/// The objects of a class.
#[derive(Default)]
pub(super) struct Objects {
    all: Vec<(CK_OBJECT_HANDLE, ObjectMatch)>,
    by_id: BTreeMap<Vec<u8>, Vec<usize>>,
    by_label: BTreeMap<String, Vec<usize>>,
    /// Whether there are more than were looked at.
    pub(super) has_more: bool,
}

/// More objects of a class are not looked at: their names take some megabytes.
pub(super) const CLASS_LIMIT: usize = 100_000;

impl Inventory {
    /// Reads the names of all keys; of certificates too, unless there is no key and `without_keys` is false. `working`
    /// is called again and again meanwhile.
    pub(super) fn read(
        session: &Session,
        without_keys: bool,
        working: &mut dyn FnMut() -> Result<(), TokenError>,
    ) -> Result<Inventory, TokenError> {
        let private = Objects::read(session, CKO_PRIVATE_KEY, working)?;
        let public = Objects::read(session, CKO_PUBLIC_KEY, working)?;
        let mut inventory = Inventory {
            private,
            public,
            ..Inventory::default()
        };
        if without_keys || !inventory.has_no_keys() {
            inventory.certificates = Objects::read(session, CKO_CERTIFICATE, working)?;
            let class = CKO_CERTIFICATE.to_ne_bytes();
            let stored = [(CKA_CLASS, class.as_slice()), (CKA_TOKEN, &[CK_TRUE])];
            // A token that does not know the attribute has only what is stored.
            let stored = session.find(&stored, CLASS_LIMIT);
            inventory.stored = stored.unwrap_or_default().into_iter().collect();
        }
        Ok(inventory)
    }

    fn has_no_keys(&self) -> bool {
        self.private.all.is_empty() && self.public.all.is_empty()
    }

    /// Whether a public key is that of a private one: by its id, or by its label if it has none.
    pub(super) fn has_private_of(&self, public: &ObjectMatch) -> bool {
        match (&public.id, &public.label) {
            (Some(id), _) => self.private.by_id.contains_key(id),
            (None, Some(label)) => self.private.by_label.contains_key(label),
            (None, None) => self.private.all.iter().any(|(_, own)| own.label.is_none()),
        }
    }
}

impl Lookup for Inventory {
    fn matching(
        &self,
        class: CK_OBJECT_CLASS,
        wanted: &ObjectMatch,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
        let mut found = match class {
            CKO_PRIVATE_KEY => self.private.matching(wanted),
            CKO_PUBLIC_KEY => self.public.matching(wanted),
            _ => self.certificates.matching(wanted),
        };
        if class == CKO_CERTIFICATE && found.iter().any(|one| self.stored.contains(one)) {
            found.retain(|one| self.stored.contains(one));
        }
        found.truncate(OBJECT_LIMIT + 1);
        Ok(found)
    }
}

impl Objects {
    fn read(
        session: &Session,
        class: CK_OBJECT_CLASS,
        working: &mut dyn FnMut() -> Result<(), TokenError>,
    ) -> Result<Objects, TokenError> {
        let failed = |failure: Failure| failure.while_doing("cannot list the token's objects");
        let wanted = ObjectMatch::default();
        let mut handles =
            find::objects_up_to(CLASS_LIMIT + 1, session, class, &wanted).map_err(failed)?;
        let mut objects = Objects {
            has_more: handles.len() > CLASS_LIMIT,
            ..Objects::default()
        };
        handles.truncate(CLASS_LIMIT);
        for handle in handles {
            working()?;
            match find::name(session, handle) {
                Ok(name) => objects.add(handle, name),
                Err(failure) if failure.code == CKR_OBJECT_HANDLE_INVALID => {} // deleted meanwhile
                Err(failure) => return Err(failed(failure)),
            }
        }
        Ok(objects)
    }

    fn add(&mut self, handle: CK_OBJECT_HANDLE, name: ObjectMatch) {
        let index = self.all.len();
        if let Some(id) = name.id.clone() {
            self.by_id.entry(id).or_default().push(index);
        }
        if let Some(label) = name.label.clone() {
            self.by_label.entry(label).or_default().push(index);
        }
        self.all.push((handle, name));
    }

    /// Those that match, with their names, in the token's order.
    pub(super) fn shown<'a>(
        &'a self,
        wanted: &'a ObjectMatch,
    ) -> impl Iterator<Item = (CK_OBJECT_HANDLE, &'a ObjectMatch)> {
        let fits = |own: &ObjectMatch| {
            (wanted.id.is_none() || wanted.id == own.id)
                && (wanted.label.is_none() || wanted.label == own.label)
        };
        let all = self.all.iter();
        all.filter(move |(_, own)| fits(own))
            .map(|(handle, own)| (*handle, own))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn matching(&self, wanted: &ObjectMatch) -> Vec<CK_OBJECT_HANDLE> {
        let indexes = match (&wanted.id, &wanted.label) {
            (Some(id), _) => self.by_id.get(id),
            (None, Some(label)) => self.by_label.get(label),
            (None, None) => return self.all.iter().map(|(handle, _)| *handle).collect(),
        };
        let named = indexes.into_iter().flatten();
        let named = named.filter_map(|index| self.all.get(*index));
        named
            .filter(|(_, own)| wanted.label.is_none() || wanted.label == own.label)
            .map(|(handle, _)| *handle)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(label: &str, id: &[u8]) -> ObjectMatch {
        ObjectMatch {
            label: Some(label.to_owned()).filter(|label| !label.is_empty()),
            id: Some(id.to_vec()).filter(|id| !id.is_empty()),
            class: None,
        }
    }

    #[test]
    fn objects_are_found_as_a_token_finds_them() {
        let mut inventory = Inventory::default();
        for (handle, label, id) in [
            (1, "web", &[1][..]),
            (2, "web", &[2]),
            (3, "api", &[1]),
            (4, "bare", &[]),
        ] {
            inventory.private.add(handle, name(label, id));
        }
        for (wanted, expected) in [
            (name("web", &[]), &[1, 2][..]),
            (name("", &[1]), &[1, 3]),
            (name("web", &[1]), &[1]),
            (name("api", &[2]), &[]),
            (name("", &[]), &[1, 2, 3, 4]),
        ] {
            assert_eq!(
                inventory.matching(CKO_PRIVATE_KEY, &wanted).unwrap(),
                expected
            );
            let shown: Vec<_> = inventory
                .private
                .shown(&wanted)
                .map(|(key, _)| key)
                .collect();
            assert_eq!(shown, expected);
        }
        assert!(inventory.has_private_of(&name("other", &[1])));
        assert!(inventory.has_private_of(&name("bare", &[])));
        assert!(!inventory.has_private_of(&name("web", &[9])));
    }

    /// libykcs11 shows attestations under the key's own id.
    #[test]
    fn certificates_that_are_stored_go_before_others() {
        let mut inventory = Inventory::default();
        for (handle, id) in [(1, 1), (2, 1), (3, 2)] {
            inventory.certificates.add(handle, name("", &[id]));
        }
        inventory.stored.insert(2);
        let found = |id| {
            inventory
                .matching(CKO_CERTIFICATE, &name("", &[id]))
                .unwrap()
        };
        assert_eq!(found(1), [2]);
        assert_eq!(found(2), [3]);
    }
}
