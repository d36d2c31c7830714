//! The control file, and which of its cues act now.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

use crate::fault::{Action, Fault, Presence, When};

/// A line of the control file.
#[derive(Clone, Debug)]
pub(crate) struct Cue {
    pub(crate) number: u64,
    fault: Fault,
}

/// The control file as it is at one moment.
pub(crate) struct Control {
    path: PathBuf,
    cues: Vec<Cue>,
}

impl Control {
    /// Reads it; no file is no cue.
    pub(crate) fn read(path: &Path) -> Result<Control, String> {
        let failed = |error: &dyn ToString| format!("{}: {}", path.display(), error.to_string());
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&error)),
        };
        let cues = text.lines().map(cue).collect::<Result<_, _>>();
        Ok(Control {
            path: path.to_owned(),
            cues: cues.map_err(|error| failed(&error))?,
        })
    }

    /// What there is where no control file is named.
    pub(crate) fn none() -> Control {
        Control {
            path: PathBuf::new(),
            cues: Vec::new(),
        }
    }

    /// The numbers of all cues.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.cues.iter().map(|cue| cue.number).collect()
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.cues.iter().any(|cue| cue.number == number)
    }

    /// Where the tokens are, and the number of the cue that says so: 0 where none does.
    pub(crate) fn presence(&self) -> (u64, Presence) {
        let said = |cue: &Cue| match cue.fault {
            Fault::Token(presence) => Some((cue.number, presence)),
            Fault::Call { .. } => None,
        };
        let (shift, reinitialized) = (0, false);
        let where_the_target_has_them = Presence::Back {
            shift,
            reinitialized,
        };
        let last = self.cues.iter().rev().find_map(said);
        last.unwrap_or((0, where_the_target_has_them))
    }

    /// What this call of a function does, with the numbers of the cues. `known` are the cues that its
    /// session has seen when it was opened. To ask is to count the call.
    pub(crate) fn actions(&self, function: &str, known: &[u64]) -> io::Result<Vec<(u64, Action)>> {
        let mut actions = Vec::new();
        for Cue { number, fault } in &self.cues {
            let Fault::Call {
                function: of,
                action,
                when,
            } = fault
            else {
                continue;
            };
            let applies = of == function && (!when.reopened || known.contains(number));
            if applies && self.is_time(*number, *when)? {
                actions.push((*number, action.clone()));
            }
        }
        Ok(actions)
    }

    /// Whether it acts in this call: decided by a ticket, where it does not act in all.
    fn is_time(&self, number: u64, when: When) -> io::Result<bool> {
        if when.after == 0 && when.times.is_none() {
            return Ok(true);
        }
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // An appended byte's place is nobody else's, of whatever thread or process.
        file.write_all(b".")?;
        let ticket = file.stream_position()?;
        let last = when.times.map_or(u64::MAX, |times| when.after + times);
        Ok(ticket > when.after && ticket <= last)
    }
}

fn cue(line: &str) -> Result<Cue, String> {
    let (number, fault) = line.split_once(' ').unwrap_or((line, ""));
    let number = number
        .parse()
        .map_err(|_| format!("{line:?} does not begin with a number"))?;
    let fault = fault
        .parse()
        .map_err(|error: crate::NotAFault| error.to_string())?;
    Ok(Cue { number, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control file in a directory of its own.
    struct File(tempfile::TempDir);

    impl File {
        fn new(text: &str) -> File {
            let file = File(tempfile::tempdir().unwrap());
            fs::write(file.path(), text).unwrap();
            file
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("control")
        }

        fn read(&self) -> Result<Control, String> {
            Control::read(&self.path())
        }

        fn acts(&self, function: &str) -> Vec<u64> {
            let actions = self.read().unwrap().actions(function, &[3]).unwrap();
            actions.into_iter().map(|(number, _)| number).collect()
        }
    }

    #[test]
    fn cues_act_in_their_calls_alone() {
        let file = File::new(
            "1 C_Sign sleep 1\n2 C_Sign flip after 1 times 2\n3 C_Sign overlong reopened\n\
             4 C_Sign abort reopened\n5 C_Login abort\n6 C_SignInit sleep 1 after 2\n",
        );
        let signs: Vec<_> = (0..4).map(|_| file.acts("C_Sign")).collect();
        assert_eq!(
            signs,
            [vec![1, 3], vec![1, 2, 3], vec![1, 2, 3], vec![1, 3]]
        );
        let begins: Vec<_> = (0..4).map(|_| file.acts("C_SignInit").len()).collect();
        assert_eq!(begins, [0, 0, 1, 1]);
        assert_eq!(file.acts("C_Finalize"), []);
    }

    #[test]
    fn threads_share_the_count() {
        let file = File::new("7 C_Sign flip after 20 times 40\n");
        let acted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..20).map(|_| file.acts("C_Sign").len()).sum::<usize>()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(acted, 40);
    }

    #[test]
    fn the_last_word_about_the_tokens_holds() {
        let presence = |text: &str| File::new(text).read().unwrap().presence();
        let back = |shift| Presence::Back {
            shift,
            reinitialized: false,
        };
        assert_eq!(presence("1 C_Sign flip\n"), (0, back(0)));
        assert_eq!(
            presence("1 token absent 0x30\n2 token back shift 5\n3 C_Sign flip\n"),
            (2, back(5))
        );
    }

    #[test]
    fn nonsense_is_named_and_no_file_is_no_cue() {
        for text in ["C_Sign flip", "1", "1 C_Sign dance", "x C_Sign flip"] {
            let file = File::new(text);
            let error = file.read().err().unwrap();
            assert!(error.contains("control: "), "{error}");
        }
        let file = File::new("");
        fs::remove_file(file.path()).unwrap();
        assert_eq!(file.read().unwrap().numbers(), Vec::<u64>::new());
    }
}
