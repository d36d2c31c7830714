//! Values that several tables have.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// A value that is read from a string by its `FromStr`.
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Text).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "PathBuf")]
pub(crate) struct AbsolutePath(pub(crate) PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<AbsolutePath, String> {
        if path.is_absolute() {
            Ok(AbsolutePath(path))
        } else {
            Err(format!("{path:?} is not an absolute path"))
        }
    }
}
