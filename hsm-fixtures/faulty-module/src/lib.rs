//! A PKCS#11 2.40 module that passes every call on to a real one, and misbehaves on cue.
//!
//! | variable | what |
//! | --- | --- |
//! | `FAULTY_MODULE_TARGET` | the path of the real module |
//! | `FAULTY_MODULE_CONTROL` | the control file, read anew at each call: none, or an empty one, is no fault |
//! | `FAULTY_MODULE_CALLS` | where to append a line for each call, as it begins: `PID C_Name` |
//!
//! # The control file
//!
//! One cue a line: a number of its own, and a fault. Whoever writes it renames a whole file into its place.
//! A line that makes no sense aborts the process, with a word on standard error.
//!
//! ```text
//! NUMBER FUNCTION ACTION [after N] [times N] [reopened]
//! NUMBER destructor ACTION
//! NUMBER token absent [CODE]
//! NUMBER token back [shift N] [reinitialized]
//! ```
//!
//! `FUNCTION` is a function's name, such as `C_Sign`. Several cues for one act in their order. `after N` lets
//! the first N calls pass, `times N` acts on the N calls after those. They count the calls since the cue came,
//! of all processes together: in files `CONTROL.NUMBER` beside the control file. With `reopened` a cue acts
//! only in sessions that were opened while it was there. `destructor` stands for a destructor of the module, which runs
//! when the process exits normally.
//!
//! | action | what the function does |
//! | --- | --- |
//! | `hang` | returns only when the cue is gone, and then does its work |
//! | `hang forever` | does not return |
//! | `segfault`, `abort`, `exit N` | ends the process in that way |
//! | `sleep MS` | takes so many milliseconds longer |
//! | `return CODE` | returns that at once: a name (`CKR_DEVICE_REMOVED`) or a number (`0x80000042`) |
//! | `flip` | `C_Sign` alone: a bit of the signature is wrong |
//! | `overlong` | `C_Sign` alone: says that the signature is a byte longer than the caller had room for |
//! | `key LABEL` | `C_SignInit` alone: takes the private key of that label, whatever was asked for |
//! | `flags FLAG…` | `C_GetTokenInfo` alone: these are set (`CKF_USER_PIN_FINAL_TRY`) |
//! | `no-flags FLAG…` | `C_GetTokenInfo` alone: these are not |
//! | `attribute NAME HEX` | `C_GetAttributeValue` alone: every object has it so (`CKA_SIGN 00`) |
//! | `limit N` | `C_OpenSession` alone: no more than N sessions at a time in a process (`CKR_SESSION_COUNT`) |
//! | `read-only CODE` | `C_OpenSession` alone: returns that unless a session to write is asked for |
//! | `copy LABEL HEX` | `C_OpenSession` alone: each session has a copy of that certificate as a session object, with this `CKA_ID` |
//! | `unknown NAME` | `C_FindObjectsInit` alone: returns `CKR_ATTRIBUTE_TYPE_INVALID` where that attribute is looked for |
//! | `verify` | `C_Login` alone, context-specific: any call between it and the end of its session's `C_Sign` undoes it (`CKR_USER_NOT_LOGGED_IN`), as on a smart card |
//! | `lost` | `C_Login` alone: does its work, and ends the process before it returns |
//! | `made CODE` | `C_GenerateKeyPair` alone: does its work, and returns that all the same |
//!
//! `token absent` takes all tokens away: slots are empty, and to use a session returns `CODE`, which is
//! `CKR_SESSION_HANDLE_INVALID` if not given. `token back` brings them back; with `shift N` in other slots, each
//! number being N more; with `reinitialized` only for a process that has called `C_Initialize` since the cue came.
//! Of several such cues the last one holds. Whenever it is another one than before, or none any more, the tokens
//! were away: sessions that were opened before are closed, and nobody is logged in. (Where nobody called while
//! it was another one, nobody noticed.)

mod call;
mod calls;
mod codes;
mod control;
mod fault;
mod module;
mod sessions;
mod settings;
mod target;

pub use fault::{Action, Fault, NotAFault, Presence, When};
pub use settings::{CALLS, CONTROL, TARGET};
