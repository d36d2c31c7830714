//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The daemon, `roleseal-agent`.
///
/// # Errors
///
/// Where it has not been built.
pub fn agent() -> Result<PathBuf> {
    beside_us("roleseal-agent")
}

/// The administrator's commands, `roleseal-admin`.
///
/// # Errors
///
/// Where it has not been built.
pub fn admin() -> Result<PathBuf> {
    beside_us("roleseal-admin")
}

/// The command-line client, `roleseal`.
///
/// # Errors
///
/// Where it has not been built.
pub fn roleseal() -> Result<PathBuf> {
    beside_us("roleseal")
}

/// The token program for TPMs, `roleseal-tpm`, which needs libtss2 to be built.
///
/// # Errors
///
/// Where it has not been built.
pub fn tpm() -> Result<PathBuf> {
    beside_us("roleseal-tpm")
}

/// The fixtures as a program, `hsm-fixtures`.
///
/// # Errors
///
/// Where it has not been built.
pub fn fixtures() -> Result<PathBuf> {
    beside_us("hsm-fixtures")
}

/// The PKCS#11 module that misbehaves on cue, which Cargo builds for whoever depends on this crate.
///
/// # Errors
///
/// Where it has not been built.
pub(crate) fn faulty_module() -> Result<PathBuf> {
    // As a dependency: what is in target/PROFILE itself is of a build that named it, and may be older.
    beside_us("deps/libroleseal_faulty_module.so")
}

fn beside_us(name: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe().context("cannot tell where this program is")?;
    // Cargo's test programs are in target/PROFILE/deps, the others in target/PROFILE.
    let folders = executable.ancestors().skip(1).take(2);
    search(name, folders)
}

fn search<'a>(name: &str, folders: impl Iterator<Item = &'a Path> + Clone) -> Result<PathBuf> {
    let found = folders
        .clone()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    let Some(path) = found else {
        let searched: Vec<_> = folders.map(|folder| folder.display().to_string()).collect();
        bail!(
            "no {name} in {}: run `cargo build --workspace` first",
            searched.join(" or ")
        );
    };
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_test_program_is_searched_and_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let deps = dir.path().join("deps");
        std::fs::write(dir.path().join("roleseal"), "").unwrap();
        assert_eq!(
            search("roleseal", deps.ancestors().take(2)).unwrap(),
            dir.path().join("roleseal")
        );
        let error = search("roleseal-agent", deps.ancestors().take(2))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cargo build --workspace"), "{error}");
    }
}
