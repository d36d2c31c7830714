//! One PKCS#11 module may have several names.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether both paths name one module: they are equal, or lead to one file by links. A bare name is one that the dynamic
/// linker looks up: where, is not known here.
pub(crate) fn is_same_module(one: &Path, other: &Path) -> bool {
    one == other || file(one).is_some_and(|file_of_one| file(other) == Some(file_of_one))
}

/// Device and inode.
fn file(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.is_absolute().then(|| path.metadata().ok())??;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_to_one_module_and_copies_to_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("module.so"), "").unwrap();
        symlink("module.so", path("link.so")).unwrap();
        symlink("link.so", path("link of link.so")).unwrap();
        fs::hard_link(path("module.so"), path("hard.so")).unwrap();
        fs::copy(path("module.so"), path("copy.so")).unwrap();
        for (name, is_same) in [
            ("link.so", true),
            ("link of link.so", true),
            ("hard.so", true),
            ("copy.so", false),
            ("absent.so", false),
        ] {
            assert_eq!(is_same_module(&path("module.so"), &path(name)), is_same);
        }
        assert!(is_same_module(&path("absent.so"), &path("absent.so")));
        assert!(!is_same_module(Path::new("a.so"), Path::new("b.so")));
    }
}
