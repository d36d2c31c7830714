//! Where a file is to be written, behind the links that this process may follow.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::process::geteuid;
use thiserror::Error;

use crate::directory;
use crate::walk::{Step, walk};

/// A name in a directory that is held open: another directory that comes under its path later changes nothing.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub directory: OwnedFd,
    /// The name, which is no symbolic link's.
    pub name: OsString,
    /// Without links; for messages.
    pub path: PathBuf,
    /// Of the directory.
    owner: u32,
}

/// Why nothing is written there.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A link that another user could have made, out of that user's directories.
    #[error("{} is a symbolic link in the hand of user {user}, and leads to {} of user {owner}: not followed", .link.display(), .directory.display())]
    Link {
        /// The link.
        link: PathBuf,
        /// Who could have made it.
        user: u32,
        /// Where it leads.
        directory: PathBuf,
        /// Whose that is.
        owner: u32,
    },
    /// A second name of a file that the directory's owner has no right to.
    #[error("{} is a hard link to a file of user {owner} in a directory of user {user}: not replaced", .path.display())]
    HardLink {
        /// The name.
        path: PathBuf,
        /// The directory's owner.
        user: u32,
        /// The file's owner.
        owner: u32,
    },
}

impl PlaceError {
    /// What to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            PlaceError::Io(_) => None,
            PlaceError::Link { user, .. } | PlaceError::HardLink { user, .. } => {
                Some(format!("run this as user {user}, or remove the link"))
            }
        }
    }
}

impl From<PlaceError> for io::Error {
    fn from(error: PlaceError) -> io::Error {
        match error {
            PlaceError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::PermissionDenied, other),
        }
    }
}

impl Place {
    /// Finds where `path` leads. A link that another user could have made is followed only to where that user could
    /// write as well: into a directory of the same user.
    pub fn find(path: &Path) -> Result<Place, PlaceError> {
        let mut strange: Vec<(PathBuf, u32)> = Vec::new();
        let end = walk(path, |step| {
            if let Step::Link(path, link, inside) = step
                && let Some(user) = stranger(link, inside)
            {
                strange.push((path.to_owned(), user));
            }
            Ok::<_, PlaceError>(())
        })?;
        let owner = end.stat.st_uid;
        match strange.into_iter().find(|(_, user)| *user != owner) {
            Some((link, user)) => Err(PlaceError::Link {
                link,
                user,
                directory: end.path.parent().unwrap_or(&end.path).to_owned(),
                owner,
            }),
            None => Ok(Place {
                directory: readable(end.directory),
                name: end.name,
                path: end.path,
                owner,
            }),
        }
    }

    /// Another name in the same directory.
    pub fn beside(&self, name: impl AsRef<OsStr>) -> io::Result<Place> {
        Ok(Place {
            directory: self.directory.try_clone()?,
            name: name.as_ref().to_owned(),
            path: self.path.with_file_name(name.as_ref()),
            owner: self.owner,
        })
    }

    /// Opens the file to read; `None` where there is none.
    pub fn open(&self) -> Result<Option<(File, Stat)>, PlaceError> {
        match directory::open_file(&self.directory, &self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => {
                let file = file?;
                let stat = fstat(&file).map_err(io::Error::from)?;
                Ok(Some((file, self.own(stat)?)))
            }
        }
    }

    /// What is there now; `None` where nothing is.
    pub fn stat(&self) -> Result<Option<Stat>, PlaceError> {
        let stat = directory::stat(&self.directory, &self.name)?;
        stat.map(|stat| self.own(stat)).transpose()
    }

    /// Root takes no file for the directory's owner's that has a name elsewhere, too.
    fn own(&self, stat: Stat) -> Result<Stat, PlaceError> {
        let is_strange = geteuid().is_root() && self.owner != 0;
        match is_strange && stat.st_uid != self.owner && stat.st_nlink > 1 {
            true => Err(PlaceError::HardLink {
                path: self.path.clone(),
                user: self.owner,
                owner: stat.st_uid,
            }),
            false => Ok(stat),
        }
    }
}

/// The other user who could have made the link: its owner; for root also the owner of its directory, who can move root's
/// links there.
fn stranger(link: &Stat, inside: &Stat) -> Option<u32> {
    let own = geteuid().as_raw();
    match (link.st_uid, inside.st_uid) {
        (link, _) if link != 0 && link != own => Some(link),
        (_, directory) if own == 0 && directory != 0 => Some(directory),
        _ => None,
    }
}

/// The same directory, to list and to sync; one that this user may write to and not list, as it is.
fn readable(directory: OwnedFd) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(&directory, ".", flags, Mode::empty()).unwrap_or(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{lchown, symlink};

    const OTHER: u32 = 65_534;

    /// An ordinary user's own links, and root's in directories of root's.
    #[test]
    fn own_links_are_followed() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir(root.join("dotfiles")).unwrap();
        symlink("dotfiles", root.join("aws")).unwrap();
        let found = Place::find(&root.join("aws/credentials")).unwrap();
        assert_eq!(found.path, root.join("dotfiles/credentials"));
        assert!(found.stat().unwrap().is_none() && found.open().unwrap().is_none());
        fs::write(&found.path, "x").unwrap();
        assert_eq!(found.open().unwrap().unwrap().1.st_size, 1);
        let beside = found.beside("other").unwrap();
        assert_eq!(beside.path, root.join("dotfiles/other"));
    }

    #[test]
    fn root_follows_another_users_link_to_that_users_directory_alone() {
        if as_root::by_sudo!() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        for directory in ["home", "home/real", "mine", "home/third"] {
            fs::create_dir(path(directory)).unwrap();
        }
        for (name, to) in [
            ("inside", "real"),
            ("outside", "../mine"),
            ("third", "third"),
        ] {
            let link = path("home").join(format!("to-{name}"));
            symlink(to, &link).unwrap();
            lchown(&link, Some(OTHER), None).unwrap();
        }
        symlink("../mine", path("home/roots")).unwrap();
        for (name, owner) in [("home", OTHER), ("home/real", OTHER), ("home/third", 1)] {
            lchown(path(name), Some(owner), None).unwrap();
        }
        let find = |name: &str| Place::find(&path(name));
        assert_eq!(find("home/to-inside/f").unwrap().path, path("home/real/f"));
        assert_eq!(find("home/real/f").unwrap().path, path("home/real/f"));
        for link in ["home/to-outside", "home/to-third", "home/roots"] {
            match find(&format!("{link}/f")) {
                Err(PlaceError::Link {
                    link: named, user, ..
                }) => {
                    assert_eq!((named, user), (path(link), OTHER));
                }
                other => panic!("{link}: {other:?}"),
            }
        }
        fs::write(path("mine/secret"), "").unwrap();
        fs::hard_link(path("mine/secret"), path("home/real/f")).unwrap();
        let linked = find("home/real/f").unwrap();
        assert!(matches!(linked.stat(), Err(PlaceError::HardLink { .. })));
        assert!(matches!(linked.open(), Err(PlaceError::HardLink { .. })));
    }
}
