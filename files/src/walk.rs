//! A path that is walked from one open directory to the next: each directory and each symbolic link on it is seen before
//! it is passed. In steps and not by openat2(2), which knows no owners.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;

/// What is passed on the way.
pub(crate) enum Step<'s> {
    /// A directory, which is open as a place alone (`O_PATH`).
    Directory(&'s Path, &'s Stat, &'s OwnedFd),
    /// A symbolic link, and the directory that it is in.
    Link(&'s Path, &'s Stat, &'s Stat),
}

/// Where a path ends: a name, of a file or of nothing, that is no symbolic link.
#[derive(Debug)]
pub(crate) struct End {
    /// Open as a place alone (`O_PATH`).
    pub(crate) directory: OwnedFd,
    pub(crate) stat: Stat,
    pub(crate) name: OsString,
    /// Without the links that were followed.
    pub(crate) path: PathBuf,
}

/// As many links as the kernel follows.
const LINKS: usize = 40;

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Walks to the end of a path, past links; `see` may stop at any step.
pub(crate) fn walk<E: From<io::Error>>(
    path: &Path,
    mut see: impl FnMut(Step) -> Result<(), E>,
) -> Result<End, E> {
    let (mut links, mut names) = (0, VecDeque::new());
    let mut here = begin(path, &mut names, None)?;
    see(Step::Directory(&here.path, &here.stat, &here.directory))?;
    while let Some(name) = names.pop_front() {
        let next = here.path.join(&name);
        let is_last = names.is_empty();
        let file = match open(&here.directory, &name, is_last) {
            Ok(file) => Some(file),
            Err(Errno::NOENT) if is_last => None,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let stat = file.as_ref().map(fstat).transpose();
        let stat = stat.map_err(io::Error::from)?;
        let (file, stat, kind) = match (file, stat) {
            (Some(file), Some(stat)) => (file, stat, FileType::from_raw_mode(stat.st_mode)),
            _ => return Ok(here.end(name)),
        };
        match kind {
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(io::Error::from(Errno::LOOP).into());
                }
                see(Step::Link(&next, &stat, &here.stat))?;
                let to = readlinkat(&file, "", Vec::new()).map_err(io::Error::from)?;
                let to = PathBuf::from(OsString::from_vec(to.into_bytes()));
                here = begin(&to, &mut names, Some(here))?;
                see(Step::Directory(&here.path, &here.stat, &here.directory))?;
            }
            _ if is_last && name != ".." => return Ok(here.end(name)),
            FileType::Directory => {
                here = Here {
                    directory: file,
                    stat,
                    path: next,
                };
                see(Step::Directory(&here.path, &here.stat, &here.directory))?;
            }
            _ => return Err(io::Error::from(Errno::NOTDIR).into()),
        }
    }
    Err(io::Error::other("not the name of a file").into())
}

/// A directory on the way.
struct Here {
    directory: OwnedFd,
    stat: Stat,
    path: PathBuf,
}

impl Here {
    fn end(self, name: OsString) -> End {
        End {
            path: self.path.join(&name),
            directory: self.directory,
            stat: self.stat,
            name,
        }
    }
}

/// Where a path begins; its names come before those that are left.
fn begin(path: &Path, names: &mut VecDeque<OsString>, here: Option<Here>) -> io::Result<Here> {
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    for component in path.components().rev() {
        if let Component::Normal(_) | Component::ParentDir = component {
            names.push_front(component.as_os_str().to_owned());
        }
    }
    let start = match (path.is_absolute(), here) {
        (true, _) => "/",
        (false, Some(here)) => return Ok(here),
        (false, None) => ".",
    };
    let directory = openat(CWD, start, PLACE | OFlags::DIRECTORY, Mode::empty())?;
    Ok(Here {
        stat: fstat(&directory)?,
        directory,
        path: start.into(),
    })
}

/// Opens a name as a place. First as a directory: only so, an automount is mounted.
fn open(directory: &OwnedFd, name: &OsStr, is_last: bool) -> rustix::io::Result<OwnedFd> {
    if !is_last {
        match openat(directory, name, PLACE | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            opened => return opened,
        }
    }
    openat(directory, name, PLACE, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn end(path: &Path) -> io::Result<PathBuf> {
        walk(path, |_| Ok::<_, io::Error>(())).map(|end| end.path)
    }

    /// It ends where the kernel would end.
    #[test]
    fn it_walks_as_the_kernel_does() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), "").unwrap();
        symlink("b", path("a/relative")).unwrap();
        symlink(path("a"), path("absolute")).unwrap();
        symlink("../a/relative/file", path("a/up")).unwrap();
        symlink("absent", path("a/dangling")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for (name, expected) in [
            ("a/b/file", "a/b/file"),
            ("absolute/relative/file", "a/b/file"),
            ("absolute/relative/./file", "a/b/file"),
            ("a/dangling", "a/absent"),
            ("a/absent", "a/absent"),
            ("absolute/b", "a/b"),
        ] {
            assert_eq!(end(&path(name)).unwrap(), path(expected), "{name}");
        }
        let up = end(&path("a/up")).unwrap();
        assert_eq!(up.canonicalize().unwrap(), path("a/b/file"));
        for name in ["loop", "absent/file", "a/b/file/below", "a/b/.."] {
            assert!(end(&path(name)).is_err(), "{name}");
        }
        assert!(end(Path::new("")).is_err() && end(Path::new("/")).is_err());
        assert_eq!(end(Path::new("x")).unwrap(), Path::new("./x"));
    }

    #[test]
    fn each_step_is_seen_before_it_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir(root.join("a")).unwrap();
        symlink("a", root.join("link")).unwrap();
        let mut seen = Vec::new();
        walk(&root.join("link/file"), |step| {
            seen.push(match step {
                Step::Directory(path, ..) => path.to_owned(),
                Step::Link(path, link, inside) => {
                    assert_ne!(link.st_ino, inside.st_ino);
                    path.to_owned()
                }
            });
            Ok::<_, io::Error>(())
        })
        .unwrap();
        let end: Vec<_> = seen.iter().rev().take(2).collect();
        assert_eq!(end, [&root.join("a"), &root]);
        assert!(seen.contains(&root.join("link")) && seen.contains(&PathBuf::from("/")));
        let stopped = walk(&root.join("link/file"), |step| match step {
            Step::Link(..) => Err(io::Error::other("no")),
            Step::Directory(..) => Ok(()),
        });
        assert_eq!(stopped.unwrap_err().to_string(), "no");
    }
}
