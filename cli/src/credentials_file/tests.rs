use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;

use rustix::fs::{FlockOperation, XattrFlags, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::test_support::session as session_until;

fn session(key: &str) -> Session {
    session_until(key, "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z")
}

fn name(text: &str) -> ProfileName {
    text.parse().unwrap()
}

fn put(path: &Path, profile: &str) -> Result<(), FileError> {
    let file = CredentialsFile::new(path.to_owned(), false);
    file.put([(&name(profile), &session("ASIA"))])
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    (dir, path)
}

/// The names in the directory, but for the lock.
fn names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

#[test]
fn a_new_file_and_its_directory_are_their_owners_alone() {
    let (dir, _) = place();
    let path = dir.path().join(".aws/credentials");
    put(&path, "web").unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(
        mode(&path.with_file_name(".credentials.roleseal.lock")),
        0o600
    );
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .starts_with("[web]\naws_access_key_id = ASIA\n")
    );
}

#[test]
fn owner_permissions_and_attributes_stay() {
    let (dir, path) = place();
    fs::write(&path, "[a]\nx = 1\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let other = [1234, 4321].map(Some);
    let root = std::os::unix::fs::chown(&path, other[0], other[1]).is_ok();
    let attribute = rustix::fs::setxattr(&path, "user.note", b"keep", XattrFlags::empty());
    assert!(matches!(attribute, Ok(()) | Err(Errno::OPNOTSUPP)));
    let before = fs::metadata(&path).unwrap();
    put(&path, "web").unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!(
        (before.uid(), before.gid(), before.mode()),
        (after.uid(), after.gid(), after.mode())
    );
    assert!(!root || after.uid() == 1234);
    if attribute.is_ok() {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(&path, "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"keep");
    }
    assert_eq!(names(dir.path()), ["credentials"]);
}

#[test]
fn links_are_followed_and_stay() {
    let (dir, path) = place();
    let real = dir.path().join("dotfiles");
    fs::create_dir(&real).unwrap();
    symlink("dotfiles/link", &path).unwrap();
    symlink("secret", real.join("link")).unwrap();
    put(&path, "web").unwrap(); // the file at the end need not be there
    put(&path, "batch").unwrap();
    for link in [&path, &real.join("link")] {
        assert!(fs::symlink_metadata(link).unwrap().is_symlink());
    }
    let text = fs::read_to_string(real.join("secret")).unwrap();
    assert!(text.contains("[web]") && text.contains("[batch]"), "{text}");
    assert_eq!(names(&real), ["link", "secret"]);
    symlink("loop", dir.path().join("loop")).unwrap();
    let error = put(&dir.path().join("loop"), "web")
        .unwrap_err()
        .to_string();
    assert!(error.contains("leads to no file"), "{error}");
}

#[test]
fn what_is_no_credentials_file_is_refused_and_untouched() {
    let (_elsewhere, directory) = place();
    fs::create_dir(&directory).unwrap();
    let error = put(&directory, "web").unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    let (dir, path) = place();
    for (text, reason) in [
        (
            &b"{\"json\": true}"[..],
            "line 1 comes before the first section",
        ),
        (b"[web]\n\xff = 1\n", "UTF-8"),
        (b"[web]\naws_access_key_id = A\n", "holds long-lived keys"),
        (&vec![b'\n'; 1024 * 1024 + 1], "more than"),
    ] {
        fs::write(&path, text).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let file = CredentialsFile::new(path.clone(), false);
        let errors = [
            put(&path, "web").unwrap_err().to_string(),
            file.check([&name("web")]).unwrap_err().to_string(),
        ];
        for error in errors {
            assert!(
                error.contains(reason) && error.contains("credentials"),
                "{error}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), text);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }
    assert_eq!(names(dir.path()), ["credentials"]);
}

#[test]
fn what_a_killed_run_left_goes_and_nothing_else() {
    let (dir, path) = place();
    let others = [
        ".credentials.roleseal.0123456789abcde",
        ".credentials.roleseal.0123456789abcdefg",
        ".credentials.swp",
        ".other.roleseal.0123456789abcdef",
    ];
    for name in others
        .iter()
        .chain(&[".credentials.roleseal.0123456789abcdef"])
    {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    put(&path, "web").unwrap();
    let mut expected: Vec<_> = others.iter().chain(&["credentials"]).copied().collect();
    expected.sort_unstable();
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn nothing_to_change_changes_nothing() {
    let (_dir, path) = place();
    put(&path, "web").unwrap();
    let before = fs::metadata(&path).unwrap();
    put(&path, "web").unwrap();
    let file = CredentialsFile::new(path.clone(), false);
    assert!(
        !file
            .withdraw(&name("web"), "2026-01-01T12:59:59Z".parse().unwrap())
            .unwrap()
    );
    assert_eq!(before.ino(), fs::metadata(&path).unwrap().ino());
    assert!(
        file.withdraw(&name("web"), "2026-01-01T13:00:00Z".parse().unwrap())
            .unwrap()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "[web]\n");
}

#[test]
fn a_file_that_all_may_read_is_told_of() {
    let (_dir, path) = place();
    let file = CredentialsFile::new(path.clone(), false);
    assert_eq!(file.check([]).unwrap(), None);
    fs::write(&path, "").unwrap();
    for (mode, told) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(file.check([]).unwrap().is_some(), told, "{mode:o}");
    }
}

/// Of many that write at once, none is lost.
#[test]
fn many_at_once_lose_nothing() {
    let (dir, path) = place();
    fs::write(&path, "# mine\n[a]\nx = 1\n").unwrap();
    thread::scope(|scope| {
        for writer in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for profile in 0..4 {
                    put(path, &format!("p{writer}-{profile}")).unwrap();
                }
            });
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# mine\n[a]\nx = 1\n"), "{text}");
    assert_eq!(text.matches("[p").count(), 32);
    assert_eq!(names(dir.path()), ["credentials"]);
}

#[test]
fn who_holds_the_lock_for_ever_is_named() {
    let (dir, path) = place();
    let lock = File::create(dir.path().join(".credentials.roleseal.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let hint = put(&path, "web").unwrap_err().hint().unwrap();
    assert!(
        hint.contains("fuser") && hint.contains("roleseal.lock"),
        "{hint}"
    );
    assert!(!path.exists());
    drop(lock);
    put(&path, "web").unwrap();
}

/// Another program, which knows no lock of ours, writes between our reading and our writing.
#[test]
fn an_edit_begins_anew_where_the_file_has_changed() {
    let (dir, path) = place();
    fs::write(&path, "[a]\n").unwrap();
    let place = place::find(&path).unwrap();
    let old = replace::read(&place).unwrap();
    fs::write(&path, "[b]\n").unwrap();
    assert!(!replace::replace(&place, &old, &"[c]\n".into()).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "[b]\n");
    fs::remove_file(&path).unwrap();
    let old = replace::read(&place).unwrap();
    fs::write(&path, "[d]\n").unwrap();
    assert!(!replace::replace(&place, &old, &"[c]\n".into()).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "[d]\n");
    assert_eq!(names(dir.path()), ["credentials"]);
}
