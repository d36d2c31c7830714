//! The programs that a shell command names, which nobody else may be able to replace.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use files::trust::{self, Untrusted};

/// Refuses a command for `/bin/sh` that names a program which others can replace. A program is the first word of each of
/// its commands, found on `PATH`; and each word that is the absolute path of an executable file or of a script. A word
/// that the shell expands is not known before it is run, nor which programs a program runs.
pub fn check(command: &str) -> Result<(), Untrusted> {
    programs(command)
        .iter()
        .try_for_each(|path| trust::check(path))
}

fn programs(command: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut is_first = true;
    for token in tokens(command) {
        match token {
            Token::Separator => is_first = true,
            Token::Word(word) if is_first && is_before_program(&word) => {}
            Token::Word(word) => {
                let path = Path::new(&word);
                match path.is_absolute() {
                    true if is_program(path) => {
                        found.insert(path.to_owned());
                    }
                    false if is_first => found.extend(on_path(path)),
                    _ => {}
                }
                is_first = false;
            }
            Token::Expanded => is_first = false,
        }
    }
    found
}

/// A reserved word or an assignment, behind which a command begins.
fn is_before_program(word: &str) -> bool {
    const RESERVED: [&str; 13] = [
        "!", "{", "}", "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "exec",
    ];
    let is_name = |name: &str| {
        name.chars()
            .all(|one| one.is_ascii_alphanumeric() || one == '_')
    };
    let assigned = word.split_once('=').is_some_and(|(name, _)| is_name(name));
    RESERVED.contains(&word) || assigned
}

/// As the shell finds it: a relative path is one from its working directory, which is ours.
fn on_path(word: &Path) -> Option<PathBuf> {
    if word.components().count() > 1 {
        return is_program(word).then(|| word.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut candidates = env::split_paths(&path).map(|directory| directory.join(word));
    candidates.find(|candidate| is_executable(candidate))
}

/// The shell's own, where there is none in its environment.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
}

/// An interpreter runs a script that is not executable, too.
fn is_program(path: &Path) -> bool {
    let is_script = || {
        let mut mark = [0; 2];
        File::open(path).is_ok_and(|mut file| file.read_exact(&mut mark).is_ok()) && mark == *b"#!"
    };
    is_executable(path) || path.is_file() && is_script()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Without its quotes.
    Word(String),
    /// A word that the shell makes something else of.
    Expanded,
    /// Between two commands.
    Separator,
}

/// The words of a command, as far as they are known before it runs; no redirections.
fn tokens(command: &str) -> Vec<Token> {
    let mut words = Words::default();
    let (mut quote, mut rest) = (None, command.chars());
    while let Some(one) = rest.next() {
        match (one, quote) {
            (one, Some(open)) if one == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(one);
                words.word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => words.word.get_or_insert_default().extend(rest.next()),
            ('$' | '`', None | Some('"')) | ('*' | '?' | '[' | '~', None) => {
                words.expands = true;
                words.word.get_or_insert_default().push(one);
            }
            (' ' | '\t', None) => words.finish(),
            ('<' | '>', None) => {
                words.word.take_if(|word| word.parse::<u32>().is_ok()); // a descriptor's number
                words.finish();
                words.is_redirected = true;
            }
            ('&' | '|', None) if words.is_redirected && words.word.is_none() => {}
            (';' | '&' | '|' | '\n' | '(' | ')', None) => {
                words.finish();
                words.tokens.push(Token::Separator);
            }
            (one, _) => words.word.get_or_insert_default().push(one),
        }
    }
    words.finish();
    words.tokens
}

#[derive(Default)]
struct Words {
    tokens: Vec<Token>,
    word: Option<String>,
    expands: bool,
    /// The word is a redirection's.
    is_redirected: bool,
}

impl Words {
    fn finish(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        match (self.is_redirected, self.expands) {
            (true, _) => {}
            (false, true) => self.tokens.push(Token::Expanded),
            (false, false) => self.tokens.push(Token::Word(word)),
        }
        (self.is_redirected, self.expands) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_programs_of_a_command_are_found() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for (name, text, mode) in [
            ("issue", "", 0o755),
            ("with space", "", 0o755),
            ("script", "#!/bin/sh\n", 0o644),
            ("data", "x", 0o644),
        ] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
        }
        let in_place = |text: &str| text.replace("@", place.path().to_str().unwrap());
        let names = |command: &str| {
            let found = programs(&in_place(command)).into_iter();
            let found = found.map(|path| path.file_name().unwrap().to_owned());
            let found: BTreeSet<_> = found.collect();
            let found = found.into_iter();
            found
                .map(|name| name.into_string().unwrap())
                .collect::<Vec<_>>()
        };
        for (command, expected) in [
            ("@/issue --flag", &["issue"][..]),
            ("  '@/with space' x", &["with space"]),
            ("@/with\\ space x", &["with space"]),
            ("A=1 B=\"x y\" @/issue", &["issue"]),
            ("cat | @/issue > @/data", &["cat", "issue"]),
            ("</dev/null >>@/issue 2>&1 cat", &["cat"]),
            ("env X=1 @/issue", &["env", "issue"]),
            ("sh @/script", &["script", "sh"]),
            ("if true; then exec @/issue; fi", &["issue", "true"]),
            ("true && (cd /; @/issue)", &["issue", "true"]),
            ("cat @/data @/absent", &["cat"]),
            ("cat \"$X/@/issue\" '@/issue'", &["cat", "issue"]),
            ("$HOME/issue @/issue; no-such-program", &["issue"]),
            ("", &[]),
        ] {
            assert_eq!(names(command), expected, "{command}");
        }
    }

    #[test]
    fn a_program_that_others_can_replace_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("issue");
        fs::write(&program, "").unwrap();
        for (mode, is_good) in [(0o755, true), (0o777, false), (0o757, false)] {
            fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
            let command = format!("cat | {}", program.display());
            assert_eq!(check(&command).is_ok(), is_good, "{mode:o}");
        }
    }
}
