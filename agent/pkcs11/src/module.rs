//! From a module's name to a module that has started; and what helps where it does not.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use files::trust;
use token::{TokenError, softhsm};

use crate::p11_kit;
use crate::raw::{Library, LoadError, Module};
use crate::softhsm_store::Store;

/// A module between `C_Initialize` and `C_Finalize`; loads it where `library` is none yet.
pub(crate) fn start(path: &Path, library: &mut Option<Library>) -> Result<Arc<Module>, TokenError> {
    let loaded = match library {
        Some(library) => *library,
        None => *library.insert(load(path)?),
    };
    let store = Store::in_process();
    let _lock = store.as_ref().map(Store::lock); // the module reads all tokens now
    // Whatever the code: no key and no PIN has had a part in it, and a daemon that the module needs may
    // come up later.
    loaded.initialize().map(Arc::new).map_err(|failure| {
        let module = path.display();
        let why = obstacle(path).map(|obstacle| format!(": {obstacle}"));
        let why = why.unwrap_or_default();
        TokenError::Gone(format!(
            "PKCS#11 module {module} does not start: {failure}{why}"
        ))
    })
}

/// What keeps a module that is there from working: its own configuration, where that is known.
fn obstacle(module: &Path) -> Option<String> {
    if softhsm::is_module(module) {
        return softhsm::obstacle(env::var_os(softhsm::VARIABLE).as_deref());
    }
    if p11_kit::is_proxy(module) {
        return Some(match p11_kit::obstacle() {
            Some(obstacle) => format!("correct {obstacle}"),
            None => "`p11-kit list-modules` shows which of the configured modules fails".to_owned(),
        });
    }
    Some("look into the module's own configuration, and at its environment variables".to_owned())
}

fn load(path: &Path) -> Result<Library, TokenError> {
    let module = path.display();
    // A bare name, as our default is, is searched by the dynamic linker.
    let bare = path.file_name() == Some(path.as_os_str());
    if !bare && !path.is_absolute() {
        return Err(TokenError::Unusable(format!(
            "PKCS#11 module {module}: write its absolute path"
        )));
    }
    if !bare && let Err(error) = path.metadata() {
        return Err(TokenError::Unusable(format!(
            "PKCS#11 module {module} cannot be read: {error}; {}",
            remedy(path)
        )));
    }
    // The linker searches a bare name in directories that are the system's, or its user's, to choose.
    if !bare && let Err(untrusted) = trust::check(path) {
        return Err(TokenError::Unusable(format!(
            "cannot load PKCS#11 module {module}: {}",
            untrusted.explain()
        )));
    }
    Library::load(path).map_err(|fault| {
        let remedy = match &fault {
            // It is there, and a library for PKCS#11.
            LoadError::Refused(_) => obstacle(path).unwrap_or_default(),
            LoadError::NotLoaded(_) | LoadError::NotPkcs11(_) => remedy(path),
        };
        TokenError::Unusable(format!(
            "{module} cannot be loaded as a PKCS#11 module: {fault}; {remedy}"
        ))
    })
}

/// The path of an installed file of that name, else the package that it is in.
fn remedy(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    if let Some(installed) = installed(Path::new(name)).filter(|installed| installed != path) {
        return format!("write {}, which is installed", installed.display());
    }
    let name = name.to_string_lossy();
    let install = match PACKAGES.iter().find(|(part, _)| name.contains(part)) {
        // Nothing to install: the linker has found it, and cannot use it.
        _ if path.is_file() => return CORRECT.to_owned(),
        Some((_, package)) => format!("on Debian and Ubuntu, `apt install {package}`"),
        None => "install the vendor's package".to_owned(),
    };
    format!("{install}, or {CORRECT}")
}

const CORRECT: &str =
    "correct the module's name (--module, module-path in the key's URI, or pkcs11-module)";

/// Where distributions and vendors put modules that the dynamic linker does not look for.
fn installed(name: &Path) -> Option<PathBuf> {
    let own = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    let roots = [own.as_str(), "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let folders = ["", "softhsm", "pkcs11", "opensc", "nss"];
    let places = roots
        .iter()
        .flat_map(|root| folders.map(|folder| Path::new(root).join(folder).join(name)));
    places.into_iter().find(|path| path.is_file())
}

/// Which Debian package a module is in, by a part of its name.
const PACKAGES: [(&str, &str); 7] = [
    ("softhsm", "softhsm2"),
    ("p11-kit-proxy", "p11-kit-modules"),
    ("opensc", "opensc-pkcs11"),
    ("pkcs11-spy", "opensc-pkcs11"),
    ("ykcs11", "ykcs11"),
    ("tpm2_pkcs11", "libtpm2-pkcs11-1"),
    ("softokn3", "libnss3"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> String {
        match load(Path::new(path)) {
            Err(TokenError::Unusable(text)) => text,
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("{path} was loaded"),
        }
    }

    #[test]
    fn what_is_no_module_is_named_with_a_remedy() {
        let text = refusal("/nowhere/libykcs11-absent.so");
        assert!(text.contains("/nowhere/libykcs11-absent.so"), "{text}");
        assert!(text.contains("apt install ykcs11"), "{text}");
        // Debian 12 has no package for a YubiHSM.
        for module in ["libcs_pkcs11_R3.so", "pkcs11/yubihsm_pkcs11.so"] {
            let text = refusal(&format!("/nowhere/{module}"));
            assert!(text.contains("install the vendor's package"), "{text}");
        }
        let text = refusal("lib/libsofthsm2.so");
        assert!(text.contains("absolute path"), "{text}");
        let text = refusal("libopensc-is-not-here.so");
        assert!(text.contains("apt install opensc-pkcs11"), "{text}");
        // What is there is not to be installed: the dynamic linker does not look where it is.
        for name in ["libsofthsm2.so", "/nowhere/libsofthsm2.so"] {
            let text = refusal(name);
            assert!(text.contains("write /usr/"), "{text}");
            assert!(!text.contains("apt install"), "{text}");
        }
        // Neither a library, nor a library that has to do with PKCS#11.
        let text = refusal("/etc/passwd");
        assert!(
            text.contains("cannot be loaded as a PKCS#11 module"),
            "{text}"
        );
        let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = libc.lines().find(|line| line.ends_with("libc.so.6"));
        let libc = libc.unwrap().split_whitespace().last().unwrap();
        let text = refusal(libc);
        assert!(text.contains("C_GetFunctionList"), "{text}");
    }
}
