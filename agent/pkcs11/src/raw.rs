//! The PKCS#11 functions that we call, made safe: the only file with `unsafe`.
//!
//! Not the `cryptoki` crate: its `sign()` makes three calls and leaves no room for a context-specific
//! login, and its function list cannot be had for a `C_Sign` of our own. Nor can a second list be used
//! beside it: p11-kit-proxy, our default module, makes a new instance for each `C_GetFunctionList`,
//! which knows nothing of the other's sessions. So there is one list, and every call goes through it.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki_sys::*;
use thiserror::Error;
use token::Pin;

use crate::error::Failure;

/// A PKCS#11 module that was loaded. It stays loaded: vendor libraries leave threads behind.
#[derive(Clone, Copy)]
pub struct Library(&'static CK_FUNCTION_LIST);

/// Why a file is not loaded as a module.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The dynamic linker does not find it, or does not take it.
    #[error("{0}")]
    NotLoaded(String),
    /// It is a library for something else.
    #[error("{0}")]
    NotPkcs11(&'static str),
    /// It does not give its functions away, as p11-kit's proxy with a configuration that it cannot read.
    #[error("{0}")]
    Refused(Failure),
}

/// A module between `C_Initialize` and `C_Finalize`.
pub struct Module {
    library: Library,
    /// The slots whose tokens have no sessions but those to write.
    without_read_only: Mutex<BTreeSet<CK_SLOT_ID>>,
}

/// A session, closed on drop.
pub struct Session {
    module: Arc<Module>,
    handle: CK_SESSION_HANDLE,
}

/// An attribute of a template and its value.
pub type Attribute<'a> = (CK_ATTRIBUTE_TYPE, &'a [u8]);

/// A key pair that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPair {
    pub(crate) public: CK_OBJECT_HANDLE,
    pub(crate) private: CK_OBJECT_HANDLE,
}

/// More slots than any module has: its count is not believed beyond this.
const SLOT_LIMIT: CK_ULONG = 4096;

/// How often the slots are listed while tokens come in between.
const SLOT_LIST_TRIES: usize = 4;

/// An attribute that is longer is not read. Certificates are the longest; Roles Anywhere sends them in
/// headers, which are shorter than this.
pub(crate) const ATTRIBUTE_LIMIT: usize = 16 * 1024;

/// RSA-4096; the longest ECDSA signature, on P-521, takes 132. So large that nobody has to be asked.
const SIGNATURE_LIMIT: usize = 512;

/// Calls a function of the module, which must be a function pointer of that function's type.
macro_rules! call {
    ($library:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $library.0.$function {
            Some(function) => check(stringify!($function), function($($argument),*)),
            None => check(stringify!($function), CKR_FUNCTION_NOT_SUPPORTED),
        }
    };
}

impl Library {
    /// Loads the module.
    pub fn load(path: &Path) -> Result<Library, LoadError> {
        // SAFETY: runs the module's initialisers. The operator chose it, and this process is there to
        // take its faults.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) };
        let library = library.map_err(|error| LoadError::NotLoaded(error.to_string()))?;
        let library = Box::leak(Box::new(library));
        let list = match &library.C_GetFunctionList {
            Ok(function) => function_list(*function).map_err(LoadError::Refused)?,
            Err(_) => return Err(LoadError::NotPkcs11("it has no function C_GetFunctionList")),
        };
        // SAFETY: null is refused; anything else points to the module's function list (PKCS#11 2.40,
        // section 5.4), which lives as long as the module is loaded: that is for ever.
        match unsafe { list.as_ref() } {
            Some(list) => Ok(Library(list)),
            None => Err(LoadError::NotPkcs11("C_GetFunctionList returned nothing")),
        }
    }

    /// `C_Initialize`, with the system's own locks: workers call from several threads.
    pub fn initialize(self) -> Result<Module, Failure> {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: CKF_OS_LOCKING_OK,
            pReserved: null_mut(),
        };
        // SAFETY: the arguments outlive the call; modules copy what they keep.
        unsafe { call!(self, C_Initialize((&raw mut arguments).cast())) }?;
        Ok(Module {
            library: self,
            without_read_only: Mutex::default(),
        })
    }
}

fn function_list(
    function: unsafe extern "C" fn(*mut CK_FUNCTION_LIST_PTR) -> CK_RV,
) -> Result<CK_FUNCTION_LIST_PTR, Failure> {
    let mut list = null_mut();
    // SAFETY: the module's C_GetFunctionList, which writes one pointer.
    check("C_GetFunctionList", unsafe { function(&raw mut list) })?;
    Ok(list)
}

fn check(function: &'static str, code: CK_RV) -> Result<(), Failure> {
    match code {
        CKR_OK => Ok(()),
        code => Err(Failure { function, code }),
    }
}

impl Module {
    /// The slots with a token.
    pub fn slots(&self) -> Result<Vec<CK_SLOT_ID>, Failure> {
        for _ in 0..SLOT_LIST_TRIES {
            match self.slots_now() {
                // A token came between the two calls.
                Err(failure) if failure.code == CKR_BUFFER_TOO_SMALL => {}
                result => return result,
            }
        }
        self.slots_now()
    }

    fn slots_now(&self) -> Result<Vec<CK_SLOT_ID>, Failure> {
        // Asks for the count first, although the limit would do: that call makes modules look for
        // tokens (PKCS#11 2.40, C_GetSlotList).
        let mut count = 0;
        // SAFETY: no list is given, so only the count is written.
        unsafe {
            call!(
                self.library,
                C_GetSlotList(CK_TRUE, null_mut(), &raw mut count)
            )
        }?;
        if count == 0 {
            return Ok(Vec::new()); // p11-kit-client has no room for a list of none
        }
        count = count.min(SLOT_LIMIT);
        let mut slots = vec![0; count as usize];
        let list = slots.as_mut_ptr();
        // SAFETY: the list has room for `count` slots.
        unsafe { call!(self.library, C_GetSlotList(CK_TRUE, list, &raw mut count)) }?;
        slots.truncate(count as usize);
        Ok(slots)
    }

    pub(crate) fn slot_info(&self, slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO, Failure> {
        let mut info = CK_SLOT_INFO::default();
        // SAFETY: the module fills in the one struct.
        unsafe { call!(self.library, C_GetSlotInfo(slot, &raw mut info)) }?;
        Ok(info)
    }

    /// `C_GetTokenInfo`
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Failure> {
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: the module fills in the one struct.
        unsafe { call!(self.library, C_GetTokenInfo(slot, &raw mut info)) }?;
        Ok(info)
    }

    /// Who made the module (`CK_INFO.manufacturerID`); empty where it does not tell.
    pub(crate) fn manufacturer(&self) -> String {
        let mut info = CK_INFO::default();
        // SAFETY: the module fills in the one struct.
        match unsafe { call!(self.library, C_GetInfo(&raw mut info)) } {
            Ok(()) => token::unpad(&String::from_utf8_lossy(&info.manufacturerID)).to_owned(),
            Err(_) => String::new(),
        }
    }

    /// Whether the token signs with this mechanism. One that does not tell does not.
    pub(crate) fn signs_with(&self, slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE) -> bool {
        let mut info = CK_MECHANISM_INFO::default();
        // SAFETY: the module fills in the one struct.
        let result = unsafe {
            call!(
                self.library,
                C_GetMechanismInfo(slot, mechanism, &raw mut info)
            )
        };
        result.is_ok() && info.flags & CKF_SIGN != 0
    }

    /// `C_OpenSession`, to read and to sign. Read-only, where the token has such sessions: some versions of AWS
    /// CloudHSM's module have none.
    pub fn open_session(self: &Arc<Module>, slot: CK_SLOT_ID) -> Result<Session, Failure> {
        let mut without = self
            .without_read_only
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if without.contains(&slot) {
            return self.open_writing_session(slot);
        }
        let refused = match self.open(slot, CKF_SERIAL_SESSION) {
            Err(failure) if !is_about_the_device(failure.code) => failure,
            result => return result,
        };
        let session = self.open_writing_session(slot).map_err(|_| refused)?;
        without.insert(slot);
        Ok(session)
    }

    /// `C_OpenSession`, to make and destroy objects as well.
    pub(crate) fn open_writing_session(
        self: &Arc<Module>,
        slot: CK_SLOT_ID,
    ) -> Result<Session, Failure> {
        self.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION)
    }

    fn open(self: &Arc<Module>, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<Session, Failure> {
        let mut handle = 0;
        let handle_out = &raw mut handle;
        // SAFETY: no callback is registered; the module writes the one handle.
        unsafe {
            call!(
                self.library,
                C_OpenSession(slot, flags, null_mut(), None, handle_out)
            )
        }?;
        let module = Arc::clone(self);
        Ok(Session { module, handle })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: no session is left, since each holds the module. What it returns helps nobody now.
        let _ = unsafe { call!(self.library, C_Finalize(null_mut())) };
    }
}

impl Session {
    /// Its module.
    pub(crate) fn module(&self) -> &Module {
        &self.module
    }

    /// `C_Login`: as `CKU_USER`, or as `CKU_CONTEXT_SPECIFIC` between `sign_init` and `sign`.
    pub fn login(&self, user: CK_USER_TYPE, pin: &Pin) -> Result<(), Failure> {
        let pin = pin.secret();
        let (bytes, length) = (pin.as_ptr().cast_mut(), pin.len() as CK_ULONG);
        // SAFETY: the module reads `length` bytes and, whatever its pointer's type says, writes none.
        unsafe {
            call!(
                self.module.library,
                C_Login(self.handle, user, bytes, length)
            )
        }
    }

    /// Whether nobody is logged in to a token that has a user PIN: it may show private objects only then, whether it says
    /// `CKF_LOGIN_REQUIRED` or not.
    pub(crate) fn hides_private_objects(&self) -> bool {
        let mut info = CK_SESSION_INFO::default();
        let library = &self.module.library;
        // SAFETY: the module fills in the one struct.
        let told = unsafe { call!(library, C_GetSessionInfo(self.handle, &raw mut info)) };
        let nobody = matches!(info.state, CKS_RO_PUBLIC_SESSION | CKS_RW_PUBLIC_SESSION);
        told.is_ok() && nobody && self.module.token_info(info.slotID).is_ok_and(has_user_pin)
    }

    /// The objects with all of these attributes; no more than `limit`.
    pub fn find(
        &self,
        template: &[Attribute],
        limit: usize,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
        let mut template = list_of(template);
        let (list, length) = (template.as_mut_ptr(), template.len() as CK_ULONG);
        let library = &self.module.library;
        // SAFETY: `list` has `length` attributes, whose values the caller lends until the end of this
        // function; the module only reads them.
        unsafe { call!(library, C_FindObjectsInit(self.handle, list, length)) }?;
        let found = self.found(limit);
        // SAFETY: ends the search that was begun above.
        let ended = unsafe { call!(library, C_FindObjectsFinal(self.handle)) };
        found.and_then(|objects| ended.map(|()| objects))
    }

    /// What the search that is under way finds.
    fn found(&self, limit: usize) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
        let mut objects = Vec::new();
        let mut batch = [0; 64];
        while objects.len() < limit {
            let mut count = 0;
            let (list, length) = (batch.as_mut_ptr(), batch.len() as CK_ULONG);
            let (library, count_out) = (&self.module.library, &raw mut count);
            // SAFETY: the list has room for `length` handles.
            unsafe { call!(library, C_FindObjects(self.handle, list, length, count_out)) }?;
            if count == 0 {
                break; // fewer than asked for do not mean the end
            }
            objects.extend(batch.iter().take(count as usize));
        }
        objects.truncate(limit);
        Ok(objects)
    }

    /// One attribute; `None` where the object has none or does not show it.
    pub(crate) fn attribute(
        &self,
        object: CK_OBJECT_HANDLE,
        type_: CK_ATTRIBUTE_TYPE,
    ) -> Result<Option<Vec<u8>>, Failure> {
        self.read(object, type_, vec![0; ATTRIBUTE_LIMIT])
    }

    /// One attribute that is a number. NSS's softoken gives four bytes of its own database instead when
    /// there is room for more than a `CK_ULONG`.
    pub(crate) fn number(
        &self,
        object: CK_OBJECT_HANDLE,
        type_: CK_ATTRIBUTE_TYPE,
    ) -> Result<Option<CK_ULONG>, Failure> {
        let value = self.read(object, type_, vec![0; size_of::<CK_ULONG>()])?;
        let number = value.and_then(|value| value.try_into().ok());
        Ok(number.map(CK_ULONG::from_ne_bytes))
    }

    /// One attribute a call: some modules answer nothing when they do not know one of several.
    fn read(
        &self,
        object: CK_OBJECT_HANDLE,
        type_: CK_ATTRIBUTE_TYPE,
        mut value: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut attribute = CK_ATTRIBUTE {
            type_,
            pValue: value.as_mut_ptr().cast(),
            ulValueLen: value.len() as CK_ULONG,
        };
        let (library, list) = (&self.module.library, &raw mut attribute);
        // SAFETY: one attribute, whose value has room for `ulValueLen` bytes.
        match unsafe { call!(library, C_GetAttributeValue(self.handle, object, list, 1)) } {
            Ok(()) => {}
            Err(failure) if is_about_the_attribute(failure.code) => return Ok(None),
            Err(failure) => return Err(failure),
        }
        let length = attribute.ulValueLen as usize; // CK_UNAVAILABLE_INFORMATION is beyond the limit
        if length > value.len() {
            return Ok(None);
        }
        value.truncate(length);
        Ok(Some(value))
    }

    /// `C_GenerateKeyPair`, with a mechanism that has no parameter.
    pub(crate) fn generate_key_pair(
        &self,
        mechanism: CK_MECHANISM_TYPE,
        public: &[Attribute],
        private: &[Attribute],
    ) -> Result<KeyPair, Failure> {
        let mut mechanism = without_parameter(mechanism);
        let (mut public, mut private) = (list_of(public), list_of(private));
        let (mut public_key, mut private_key) = (0, 0);
        let (library, mechanism) = (&self.module.library, &raw mut mechanism);
        let (public_list, public_length) = (public.as_mut_ptr(), public.len() as CK_ULONG);
        let (private_list, private_length) = (private.as_mut_ptr(), private.len() as CK_ULONG);
        let (public_out, private_out) = (&raw mut public_key, &raw mut private_key);
        // SAFETY: mechanism and lists outlive the call, and so do their values, which the caller lends and
        // the module only reads; it writes the two handles.
        unsafe {
            call!(
                library,
                C_GenerateKeyPair(
                    self.handle,
                    mechanism,
                    public_list,
                    public_length,
                    private_list,
                    private_length,
                    public_out,
                    private_out,
                )
            )
        }?;
        Ok(KeyPair {
            public: public_key,
            private: private_key,
        })
    }

    /// `C_CreateObject`
    pub(crate) fn create_object(
        &self,
        template: &[Attribute],
    ) -> Result<CK_OBJECT_HANDLE, Failure> {
        let mut template = list_of(template);
        let mut object = 0;
        let (list, length) = (template.as_mut_ptr(), template.len() as CK_ULONG);
        let (library, object_out) = (&self.module.library, &raw mut object);
        // SAFETY: `list` has `length` attributes, whose values the caller lends and the module only reads;
        // it writes the one handle.
        unsafe {
            call!(
                library,
                C_CreateObject(self.handle, list, length, object_out)
            )
        }?;
        Ok(object)
    }

    /// `C_SetAttributeValue`, of one attribute.
    pub(crate) fn set_attribute(
        &self,
        object: CK_OBJECT_HANDLE,
        attribute: Attribute,
    ) -> Result<(), Failure> {
        let mut template = list_of(&[attribute]);
        let (library, list) = (&self.module.library, template.as_mut_ptr());
        // SAFETY: one attribute, whose value the caller lends and the module only reads.
        unsafe { call!(library, C_SetAttributeValue(self.handle, object, list, 1)) }
    }

    /// `C_DestroyObject`
    pub(crate) fn destroy_object(&self, object: CK_OBJECT_HANDLE) -> Result<(), Failure> {
        // SAFETY: takes two handles and writes nothing.
        unsafe { call!(self.module.library, C_DestroyObject(self.handle, object)) }
    }

    /// `C_SignInit`, with a mechanism that has no parameter.
    pub fn sign_init(
        &self,
        mechanism: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<(), Failure> {
        let mut mechanism = without_parameter(mechanism);
        let (library, mechanism) = (&self.module.library, &raw mut mechanism);
        // SAFETY: the mechanism outlives the call and has no parameter.
        unsafe { call!(library, C_SignInit(self.handle, mechanism, key)) }
    }

    /// `C_Sign`: the signature, in one call.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut signature = vec![0_u8; SIGNATURE_LIMIT];
        let mut length = signature.len() as CK_ULONG;
        let (handle, library) = (self.handle, &self.module.library);
        let (data, data_length) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let (out, out_length) = (signature.as_mut_ptr(), &raw mut length);
        // SAFETY: the module reads `data_length` bytes and writes no more than `length`.
        unsafe { call!(library, C_Sign(handle, data, data_length, out, out_length)) }?;
        if length as usize > signature.len() {
            // The module claims more than it was given room for: what CKR_BUFFER_TOO_SMALL is for.
            check("C_Sign", CKR_BUFFER_TOO_SMALL)?;
        }
        signature.truncate(length as usize);
        Ok(signature)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: a handle of this module. What it returns helps nobody now.
        let _ = unsafe { call!(self.module.library, C_CloseSession(self.handle)) };
    }
}

/// The module is not to use it for longer than the values live.
fn list_of(template: &[Attribute]) -> Vec<CK_ATTRIBUTE> {
    let attribute = |(type_, value): &Attribute| CK_ATTRIBUTE {
        type_: *type_,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: value.len() as CK_ULONG,
    };
    template.iter().map(attribute).collect()
}

fn without_parameter(mechanism: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism,
        pParameter: null_mut(),
        ulParameterLen: 0,
    }
}

/// Whether one session is as good as another: there is no token, or no room for one more.
fn is_about_the_device(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_TOKEN_NOT_PRESENT
            | CKR_TOKEN_NOT_RECOGNIZED
            | CKR_DEVICE_REMOVED
            | CKR_DEVICE_ERROR
            | CKR_SLOT_ID_INVALID
            | CKR_SESSION_COUNT
            | CKR_DEVICE_MEMORY
            | CKR_HOST_MEMORY
            | CKR_CRYPTOKI_NOT_INITIALIZED
    )
}

fn has_user_pin(token: CK_TOKEN_INFO) -> bool {
    token.flags & CKF_USER_PIN_INITIALIZED != 0
}

fn is_about_the_attribute(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_ATTRIBUTE_TYPE_INVALID
            | CKR_ATTRIBUTE_SENSITIVE
            | CKR_ATTRIBUTE_VALUE_INVALID
            | CKR_BUFFER_TOO_SMALL
    )
}
