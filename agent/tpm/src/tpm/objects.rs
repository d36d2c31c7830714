//! Objects in the TPM: more than it has room for, since they are swapped out and in by their saved contexts.

use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, TpmHandle};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, Public};
use tss_esapi::utils::TpmsContext;

use super::Tpm;
use crate::error::{Code, Failure, rc};

/// An object in [`Tpm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObjectId(usize);

pub(super) struct Object {
    place: Place,
    /// Its saved context. It can be loaded any number of times, so it is made once.
    saved: Option<TpmsContext>,
    auth: Auth,
    used: u64,
}

enum Place {
    Persistent(KeyHandle),
    Loaded(KeyHandle),
    /// In [`Object::saved`] alone.
    Saved,
    Forgotten,
}

/// So many transient objects fit into a TPM without a resource manager; the kernel's resource manager gives
/// no more to each program either, and answers a fourth with an I/O error.
const LOADED_LIMIT: usize = 3;

impl Tpm {
    /// The object at a persistent handle, and its public area.
    pub(crate) fn find_persistent(&mut self, handle: u32) -> Result<(KeyHandle, Public), Failure> {
        let command = "TPM2_ReadPublic";
        self.make_room(1, None)?;
        let handle = self.run_in_room(None, command, None, |context| {
            let object = context.tr_from_tpm_public(TpmHandle::try_from(handle)?)?;
            Ok(KeyHandle::from(object))
        })?;
        let (public, ..) =
            self.run_in_room(None, command, None, |context| context.read_public(handle))?;
        Ok((handle, public))
    }

    /// Takes in a persistent object.
    pub(crate) fn add_persistent(
        &mut self,
        handle: KeyHandle,
        auth: Auth,
    ) -> Result<ObjectId, Failure> {
        self.add(Place::Persistent(handle), auth)
    }

    /// Loads an object by `call`, to which `parent` is the handle that it needs.
    pub(crate) fn add_loaded(
        &mut self,
        session: Option<AuthSession>,
        command: &'static str,
        parent: Option<ObjectId>,
        auth: Auth,
        mut call: impl FnMut(&mut Context, Option<KeyHandle>) -> tss_esapi::Result<KeyHandle>,
    ) -> Result<ObjectId, Failure> {
        let parent_handle = parent.map(|parent| self.handle(parent)).transpose()?;
        let handle = self.load(session, command, parent, |context| {
            call(context, parent_handle)
        })?;
        self.add(Place::Loaded(handle), auth)
    }

    fn add(&mut self, place: Place, auth: Auth) -> Result<ObjectId, Failure> {
        let id = ObjectId(self.objects.len());
        self.objects.push(Object {
            place,
            saved: None,
            auth,
            used: 0,
        });
        self.set_auth(id)?;
        Ok(id)
    }

    /// The handle of an object, which is brought back in where it was swapped out.
    pub(crate) fn handle(&mut self, id: ObjectId) -> Result<KeyHandle, Failure> {
        self.uses += 1;
        let uses = self.uses;
        let command = "TPM2_ContextLoad";
        let Some(object) = self.objects.get_mut(id.0) else {
            return Err(nothing_to_load(command));
        };
        object.used = uses;
        let saved = match (&object.place, &object.saved) {
            (Place::Loaded(handle), _) => return Ok(*handle),
            (Place::Persistent(handle), _) => {
                let handle = *handle;
                self.make_room(1, None)?;
                // libtss2 has one object for a persistent handle, however many of ours name it, each with
                // the auth value that it was configured with.
                self.set_auth(id)?;
                return Ok(handle);
            }
            (Place::Saved, Some(saved)) => saved.clone(),
            _ => return Err(nothing_to_load(command)),
        };
        let handle = self.load(None, command, None, |context| {
            context.context_load(saved.clone()).map(KeyHandle::from)
        })?;
        if let Some(object) = self.objects.get_mut(id.0) {
            object.place = Place::Loaded(handle);
        }
        self.set_auth(id)?;
        Ok(handle)
    }

    /// Tells libtss2, not the TPM, the auth value: each load makes an object new to it.
    fn set_auth(&mut self, id: ObjectId) -> Result<(), Failure> {
        let Some(Object {
            place: Place::Persistent(handle) | Place::Loaded(handle),
            auth,
            ..
        }) = self.objects.get(id.0)
        else {
            return Ok(());
        };
        let (handle, auth) = (*handle, auth.clone());
        self.run("Esys_TR_SetAuth", |context| {
            context.tr_set_auth(handle.into(), auth.clone())
        })
    }

    /// What is an object's own, to know it by: its TPM name, as libtss2 has it.
    pub(crate) fn entity(&mut self, id: ObjectId) -> Vec<u8> {
        let handle = self.handle(id);
        let name = handle.and_then(|handle| {
            self.run("Esys_TR_GetName", |context| {
                context.tr_get_name(handle.into())
            })
        });
        name.map(|name| name.value().to_vec()).unwrap_or_default()
    }

    /// Whether this object is at a persistent handle, where another one may take its place.
    pub(crate) fn is_persistent(&self, id: ObjectId) -> bool {
        let object = self.objects.get(id.0);
        object.is_some_and(|object| matches!(object.place, Place::Persistent(_)))
    }

    /// Whether the handle of a persistent object has no object, or one of another name, by now.
    pub(crate) fn is_replaced(&mut self, id: ObjectId, name: &[u8]) -> Result<bool, Failure> {
        let handle = self.handle(id)?;
        let read = self.run_in_room(None, "TPM2_ReadPublic", None, |context| {
            context.read_public(handle)
        });
        match read {
            Ok((_, now, _)) => Ok(now.value() != name),
            Err(failure) if failure.is(rc::HANDLE) => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    /// Flushes an object that is needed no more.
    pub(crate) fn forget(&mut self, id: ObjectId) -> Result<(), Failure> {
        let Some(object) = self.objects.get_mut(id.0) else {
            return Ok(());
        };
        match std::mem::replace(&mut object.place, Place::Forgotten) {
            Place::Loaded(handle) => self.flush(handle),
            _ => Ok(()),
        }
    }

    fn flush(&mut self, handle: KeyHandle) -> Result<(), Failure> {
        self.run("TPM2_FlushContext", |context| {
            context.flush_context(handle.into())
        })
    }

    /// Runs a command that loads something, after making room for it; `parent` stays loaded.
    pub(crate) fn load<T>(
        &mut self,
        session: Option<AuthSession>,
        command: &'static str,
        parent: Option<ObjectId>,
        call: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Failure> {
        let of_parent = parent.filter(|parent| self.is_persistent(*parent));
        self.make_room(1 + usize::from(of_parent.is_some()), parent)?;
        self.run_in_room(session, command, parent, call)
    }

    /// Runs a command again after swapping something out, where other programs take part of the room.
    pub(crate) fn run_in_room<T>(
        &mut self,
        session: Option<AuthSession>,
        command: &'static str,
        keep: Option<ObjectId>,
        mut call: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Failure> {
        loop {
            match self.run_with(session, command, &mut call) {
                Err(failure) if failure.is_lack_of_room() && self.swap_out(keep)? => {}
                result => return result,
            }
        }
    }

    /// Makes room for so many objects. A persistent one takes the room of a transient one while it is used.
    fn make_room(&mut self, objects: usize, keep: Option<ObjectId>) -> Result<(), Failure> {
        while self.loaded().count() + objects > LOADED_LIMIT && self.swap_out(keep)? {}
        Ok(())
    }

    fn loaded(&self) -> impl Iterator<Item = (usize, &Object)> {
        let objects = self.objects.iter().enumerate();
        objects.filter(|(_, object)| matches!(object.place, Place::Loaded(_)))
    }

    /// Swaps out the object that was not used for longest; `false` where there is none.
    fn swap_out(&mut self, keep: Option<ObjectId>) -> Result<bool, Failure> {
        let oldest = self
            .loaded()
            .filter(|(index, _)| keep != Some(ObjectId(*index)))
            .min_by_key(|(_, object)| object.used);
        let Some((
            index,
            Object {
                place: Place::Loaded(handle),
                saved,
                ..
            },
        )) = oldest
        else {
            return Ok(false);
        };
        let (handle, saved) = (*handle, saved.clone());
        let saved = match saved {
            Some(saved) => saved,
            None => self.run("TPM2_ContextSave", |context| {
                context.context_save(handle.into())
            })?,
        };
        self.flush(handle)?;
        if let Some(object) = self.objects.get_mut(index) {
            object.saved = Some(saved);
            object.place = Place::Saved;
        }
        Ok(true)
    }
}

fn nothing_to_load(command: &'static str) -> Failure {
    Failure {
        command,
        code: Code::Closed,
    }
}
