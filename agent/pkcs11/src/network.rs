//! Which modules work without networks, where the configuration does not say it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What the files of modules begin with whose token is in this machine: SoftHSM, NSS and Kryoptic keep it in files, OpenSC
/// and Yubico's PIV module reach it by pcscd.
const LOCAL: [&str; 6] = [
    "libsofthsm",
    "libsoftokn3",
    "libkryoptic",
    "opensc-pkcs11",
    "onepin-opensc-pkcs11",
    "libykcs11",
];

/// Yubico's module for the YubiHSM 2: its configuration says whether it reaches it by HTTP or by USB.
const YUBIHSM: &str = "yubihsm_pkcs11";

/// The environment variable that names that configuration.
const YUBIHSM_CONFIGURATION: &str = "YUBIHSM_PKCS11_CONF";

/// Whether a module needs networks, by its file's name, or that of the file where its links lead: any module that is
/// not known to do without.
pub(crate) fn is_needed(module: &Path) -> bool {
    let target = module.is_absolute().then(|| module.canonicalize().ok());
    let file = target.flatten().unwrap_or_else(|| module.to_owned());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(YUBIHSM) {
        return !is_by_usb(&configuration(
            std::env::var_os(YUBIHSM_CONFIGURATION).as_deref(),
        ));
    }
    !LOCAL.iter().any(|local| name.starts_with(local))
}

fn configuration(named: Option<&OsStr>) -> String {
    let path = named.map_or_else(|| PathBuf::from("yubihsm_pkcs11.conf"), PathBuf::from);
    fs::read_to_string(path).unwrap_or_default()
}

/// Whether all connectors are USB devices: `connector = yhusb://serial=123`.
fn is_by_usb(configuration: &str) -> bool {
    let mut connectors = configuration
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("connector"))
        .map(|rest| rest.trim_start_matches([' ', '\t', '=', '"']))
        .peekable();
    connectors.peek().is_some() && connectors.all(|connector| connector.starts_with("yhusb:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::symlink;

    #[test]
    fn modules_are_known_by_the_file_that_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, needed) in [
            ("libsofthsm2.so", false),
            ("libsoftokn3.so", false),
            ("opensc-pkcs11.so", false),
            ("libykcs11.so.2.5.2", false),
            ("libcloudhsm_pkcs11.so", true),
            ("libCryptoki2_64.so", true),
            ("p11-kit-proxy.so", true),
            ("p11-kit-client.so", true),
            ("unknown.so", true),
        ] {
            fs::write(path(name), "").unwrap();
            assert_eq!(is_needed(&path(name)), needed, "{name}");
        }
        for (link, target, needed) in [
            ("libsofthsm.so", "p11-kit-proxy.so", true),
            ("default.so", "libsofthsm2.so", false),
            ("libykcs11.so", "libykcs11.so.2.5.2", false),
        ] {
            symlink(target, path(link)).unwrap();
            assert_eq!(is_needed(&path(link)), needed, "{link}");
        }
        assert!(is_needed(Path::new("p11-kit-proxy.so")));
        assert!(!is_needed(&path("absent/libsofthsm2.so")));
    }

    #[test]
    fn a_yubihsm_is_by_usb_where_all_its_connectors_are() {
        for (text, by_usb) in [
            ("connector = yhusb://\n", true),
            ("# connector = http://a\nconnector=yhusb://serial=1\n", true),
            ("connector = http://127.0.0.1:12345\n", false),
            ("connector = yhusb://\nconnector = http://a\n", false),
            ("debug\n", false),
            ("", false),
        ] {
            assert_eq!(is_by_usb(text), by_usb, "{text}");
        }
    }
}
