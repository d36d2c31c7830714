//! The targets files: the user's own, then the system's.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use files::trust::{self, Untrusted};
use serde::Deserialize;
use toml::Spanned;

use super::kubernetes::KubernetesSettings;
use super::{Settings, TargetError, TargetName};
use crate::input;

/// Where the system's targets are.
const SYSTEM_FILE: &str = "/etc/roleseal/targets.toml";

/// Some thousand targets: more is a mistake, such as a device.
const FILE_LIMIT: u64 = 1024 * 1024;

/// The files that may have a target, first the one that wins.
#[derive(Debug, Clone)]
pub struct TargetFiles {
    paths: Vec<PathBuf>,
    /// Somebody named it: it has to be there.
    named: bool,
}

/// A table of a file.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each name says it")]
pub struct TargetTable {
    pub name: TargetName,
    pub file: PathBuf,
    /// Where in the file it begins.
    pub line: usize,
    pub settings: Settings,
}

/// The table `[kubernetes]` of a file.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each name says it")]
pub struct KubernetesTable {
    pub file: PathBuf,
    pub settings: KubernetesSettings,
}

impl TargetFiles {
    /// The file that somebody named, or the usual ones: the user's, below `user_config`, and the system's.
    pub fn new(named: Option<PathBuf>, user_config: Option<PathBuf>) -> TargetFiles {
        match named {
            Some(path) => TargetFiles {
                paths: vec![path],
                named: true,
            },
            None => TargetFiles {
                paths: user_config
                    .map(|directory| directory.join("roleseal/targets.toml"))
                    .into_iter()
                    .chain([PathBuf::from(SYSTEM_FILE)])
                    .collect(),
                named: false,
            },
        }
    }

    /// A target's table: the first file that has it says all of it.
    pub fn find(&self, name: &TargetName) -> Result<TargetTable, TargetError> {
        let mut known = Vec::new();
        for path in &self.paths {
            let Some(mut targets) = self.targets(path)? else {
                continue;
            };
            match targets.remove(name) {
                Some(table) => return Ok(table),
                None => known.extend(targets.into_keys()),
            }
        }
        Err(self.unknown(name, known))
    }

    /// All targets, by name.
    pub fn all(&self) -> Result<Vec<TargetTable>, TargetError> {
        let mut tables = BTreeMap::new();
        for path in &self.paths {
            for (name, table) in self.targets(path)?.unwrap_or_default() {
                tables.entry(name).or_insert(table);
            }
        }
        Ok(tables.into_values().collect())
    }

    /// The cluster whose tokens are accepted: the first file that has the table says all of it.
    pub fn kubernetes(&self) -> Result<Option<KubernetesTable>, TargetError> {
        for path in &self.paths {
            if let Some((document, _)) = self.read(path)?
                && let Some(settings) = document.kubernetes
            {
                let file = path.clone();
                return Ok(Some(KubernetesTable { file, settings }));
            }
        }
        Ok(None)
    }

    /// Where they are looked for.
    pub fn searched(&self) -> String {
        let paths: Vec<_> = self
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        paths.join(" or ")
    }

    fn unknown(&self, name: &TargetName, mut known: Vec<TargetName>) -> TargetError {
        known.sort();
        known.dedup();
        TargetError::Unknown {
            name: name.clone(),
            searched: self.searched(),
            known,
        }
    }

    fn targets(
        &self,
        path: &Path,
    ) -> Result<Option<BTreeMap<TargetName, TargetTable>>, TargetError> {
        let Some((document, text)) = self.read(path)? else {
            return Ok(None);
        };
        let table = |(name, settings): (TargetName, Spanned<Settings>)| {
            let table = TargetTable {
                name: name.clone(),
                file: path.to_owned(),
                line: line(&text, settings.span().start),
                settings: settings.into_inner(),
            };
            (name, table)
        };
        Ok(Some(document.target.into_iter().map(table).collect()))
    }

    /// The file and its text; `None` where there is no such file and need be none.
    fn read(&self, path: &Path) -> Result<Option<(Document, String)>, TargetError> {
        let error = |fault: String| TargetError::File {
            path: path.to_owned(),
            line: None,
            fault,
        };
        // It names proxies and CAs: who writes it can have the credentials. What cannot be seen is told of below.
        let opened = match input::is_stream(path) {
            true => input::read_text(path, FILE_LIMIT),
            false => match trust::open(path) {
                Ok(file) => input::text_of(file, FILE_LIMIT),
                Err(Untrusted::Io { error, .. }) => Err(error),
                Err(untrusted) => return Err(error(untrusted.explain())),
            },
        };
        let text = match opened {
            Ok(text) => text,
            Err(fault) if fault.kind() == ErrorKind::NotFound && !self.named => return Ok(None),
            Err(fault) => return Err(error(format!("cannot read it: {fault}"))),
        };
        let document: Document = toml::from_str(&text).map_err(|fault| TargetError::File {
            path: path.to_owned(),
            line: fault.span().map(|span| line(&text, span.start)),
            // Not its Display, which quotes the line: there may be a proxy's password in it.
            fault: fault.message().to_owned(),
        })?;
        Ok(Some((document, text)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    target: BTreeMap<TargetName, Spanned<Settings>>,
    kubernetes: Option<KubernetesSettings>,
}

fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::diagnostic::Diagnostic;

    const WEB: &str = "[target.web]\nidentity = \"web\"\n";

    struct Files {
        directory: tempfile::TempDir,
        files: TargetFiles,
    }

    /// A user's and a system's file.
    fn files(user: &str, system: &str) -> Files {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["user", "system"].map(|name| directory.path().join(name));
        for (path, text) in paths.iter().zip([user, system]) {
            fs::write(path, text).unwrap();
        }
        Files {
            directory,
            files: TargetFiles {
                paths: paths.into(),
                named: false,
            },
        }
    }

    fn identity(files: &Files, name: &str) -> Option<String> {
        let table = files.files.find(&name.parse().unwrap()).unwrap();
        table.settings.identity
    }

    #[test]
    fn the_users_target_replaces_the_systems_as_a_whole() {
        let system = "[target.web]\nidentity = \"system\"\nfips = true\n[target.other]\nidentity = \"other\"\n";
        let both = files(WEB, system);
        assert_eq!(identity(&both, "web").as_deref(), Some("web"));
        assert_eq!(identity(&both, "other").as_deref(), Some("other"));
        let web = both.files.find(&"web".parse().unwrap()).unwrap();
        assert_eq!(web.settings.fips, None);
        let all = both.files.all().unwrap();
        let names: Vec<_> = all.iter().map(|table| table.name.as_ref()).collect();
        assert_eq!(names, ["other", "web"]);
        assert!(all[1].file.ends_with("user") && all[0].file.ends_with("system"));
        let lines: Vec<_> = all.iter().map(|table| table.line).collect();
        assert_eq!(lines, [4, 1]);
    }

    #[test]
    fn a_target_of_the_user_does_not_need_the_systems_file() {
        let both = files(WEB, "nonsense");
        assert_eq!(identity(&both, "web").as_deref(), Some("web"));
        fs::remove_file(both.directory.path().join("user")).unwrap();
        assert!(both.files.find(&"web".parse().unwrap()).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let both = files(WEB, "");
        let user = both.directory.path().join("user");
        for (mode, is_good) in [(0o646, false), (0o644, true), (0o600, true)] {
            fs::set_permissions(&user, fs::Permissions::from_mode(mode)).unwrap();
            let found = both.files.find(&"web".parse().unwrap());
            assert_eq!(found.is_ok(), is_good, "{mode:o}");
        }
    }

    #[test]
    fn an_unknown_target_names_the_known_ones_and_the_files() {
        let both = files(WEB, "[target.db]\n");
        let error = both.files.find(&"wep".parse().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\"wep\"") && text.contains("/user or "));
        assert!(error.hint().unwrap().contains("db, web"));
        let none = files("", "").files.find(&"wep".parse().unwrap());
        assert!(none.unwrap_err().hint().unwrap().contains("[target.wep]"));
    }

    #[test]
    fn a_mistake_is_named_by_file_and_line_and_quotes_nothing() {
        let cases = [
            ("role = \"x\"", "unknown field `role`"),
            ("role-arn = \"web\"", "arn:aws:iam::123456789012:role/NAME"),
            ("session-duration = \"1 week\"", "write seconds"),
            ("session-duration = 60", "900 to 43200"),
            ("session-duration = true", "a number of seconds"),
            ("endpoint = \"http://x\"", "https"),
            ("ca-bundle = \"ca.pem\"", "absolute"),
            ("fips = \"yes\"", "boolean"),
            ("proxy = \"ftp://u:s3cret@x\"", "http://"),
            ("service-accounts = [\"*/*\"]", "NAMESPACE/NAME"),
            ("role-session-name = \"{pod}\"", "{namespace}"),
            ("identity = \"a\"\nidentity = \"b\"", "duplicate key"),
        ];
        for (line, expected) in cases {
            let both = files(&format!("{WEB}# one more\n[target.x]\n{line}\n"), "");
            let error = both.files.find(&"x".parse().unwrap()).unwrap_err();
            let text = error.to_string();
            let line = if line.contains('\n') { 6 } else { 5 };
            assert!(text.contains(&format!("/user:{line}: ")), "{text}");
            assert!(
                text.contains(expected) && !text.contains("s3cret"),
                "{text}"
            );
        }
        for (text, expected) in [
            ("[target.\"a/b\"]\n", "letters"),
            ("[targets.web]\n", "targets"),
            ("target", ":1: "),
        ] {
            let error = files(text, "").files.all().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_first_file_with_a_cluster_says_all_of_it() {
        let cluster = "[kubernetes]\nissuer = \"https://c\"\nnode = \"n\"\n";
        let other = "[kubernetes]\nissuer = \"https://other\"\naudience = \"a\"\n";
        let table = |user: &str, system: &str| files(user, system).files.kubernetes();
        assert!(table(WEB, "").unwrap().is_none());
        let settings = table(cluster, other).unwrap().unwrap().settings;
        assert_eq!(settings.issuer, "https://c");
        assert_eq!(
            (settings.audience.as_str(), settings.jwks),
            ("roleseal", None)
        );
        let settings = table(WEB, other).unwrap().unwrap().settings;
        assert_eq!(settings.audience, "a");
        for wrong in [
            "",
            "issuer = \"i\"\nkeys = 1",
            "issuer = \"i\"\njwks = \"http://x/\"",
        ] {
            let error = table(&format!("[kubernetes]\n{wrong}\n"), "").unwrap_err();
            assert!(
                matches!(error, TargetError::File { line: Some(_), .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_was_named_has_to_be_there() {
        let named = TargetFiles::new(Some("/nonexistent/t.toml".into()), None);
        let error = named.find(&"web".parse().unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/t.toml: cannot read"),
            "{error}"
        );
        let endless = TargetFiles::new(Some("/dev/zero".into()), None);
        assert!(endless.all().unwrap_err().to_string().contains("more than"));
        let nothing = TargetFiles::new(Some("/dev/null".into()), None);
        assert!(nothing.all().unwrap().is_empty());
        let usual = TargetFiles::new(None, Some("/home/u/.config".into()));
        assert_eq!(
            usual.searched(),
            "/home/u/.config/roleseal/targets.toml or /etc/roleseal/targets.toml"
        );
    }
}
