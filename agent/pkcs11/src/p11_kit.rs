//! p11-kit's own configuration: a line that it cannot read in one file keeps every module from loading.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where p11-kit looks for `*.module` (pkcs11.conf(5)), with the directory of the user's own.
fn directories() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let mut all: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    all.extend(own.map(|own| own.join("pkcs11/modules")));
    all
}

const SYSTEM: [&str; 2] = ["/usr/share/p11-kit/modules", "/etc/pkcs11/modules"];

/// Longer than any that is meant to be read, in bytes.
const FILE_LIMIT: u64 = 64 * 1024;

/// Whether a module is p11-kit's proxy for all that are configured, by its file's name.
pub(crate) fn is_proxy(module: &Path) -> bool {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("p11-kit-proxy")
}

/// The first `*.module` file that p11-kit cannot read, and why.
pub(crate) fn obstacle() -> Option<String> {
    let directories = directories();
    let mut files: Vec<PathBuf> = directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "module"))
        .collect();
    files.sort();
    files.into_iter().find_map(|file| {
        let fault = fault_of(&file)?;
        Some(format!("{}: {fault}", file.display()))
    })
}

fn fault_of(file: &Path) -> Option<String> {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => return Some(format!("cannot read it: {error}")),
    };
    let (at, line) = text.lines().enumerate().find(|(_, line)| !is_fit(line))?;
    let line: String = line.chars().take(60).collect();
    Some(format!("line {}: {line:?} is not NAME: VALUE", at + 1))
}

fn read(file: &Path) -> io::Result<String> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_LIMIT {
        return Err(io::Error::other("not a regular file of a usual size"));
    }
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

fn is_fit(line: &str) -> bool {
    let line = line.trim();
    let has_name = |line: &str| {
        line.split_once(':')
            .is_some_and(|(name, _)| !name.is_empty())
    };
    line.is_empty() || line.starts_with('#') || (!line.starts_with(['[', '-']) && has_name(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_p11_kit_cannot_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("vendor.module");
        let fault = |text: &str| {
            fs::write(&file, text).unwrap();
            fault_of(&file)
        };
        assert_eq!(fault("# x\n\n module: /lib/a.so\npriority: 1\n"), None);
        for wrong in ["nonsense", "[section]", ": value", "-----BEGIN X-----"] {
            let found = fault(&format!("module: a.so\n{wrong}\n")).unwrap();
            assert!(found.contains("line 2"), "{found}");
        }
        assert!(fault_of(&directory.path().join("absent.module")).is_some());
        assert!(is_proxy(Path::new("p11-kit-proxy.so")));
        assert!(!is_proxy(Path::new("/usr/lib/p11-kit-client.so")));
    }
}
