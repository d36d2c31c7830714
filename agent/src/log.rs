//! What the agent tells its operator, on standard error: a line for each decision and each event.
//! Never a PIN, a signature or a credential. What a caller sent is escaped. docs/audit.md has the keys.

mod line;
mod refusals;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use line::{Event, Line, Style};
pub use line::{Fields, Format, Level};
pub use refusals::Refused;
use writer::Writer;

/// The log of this process. The one global: whatever a thread does, it may have something to say.
static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    style: Style,
    /// Once it has a thread of its own; before, lines go straight to standard error.
    writer: OnceLock<Writer>,
}

/// How long the end waits for a reader of the log that is slow.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Says everything in this format.
pub fn start(format: Format) {
    if LOG.set(Log::new(format)).is_ok() {
        std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
    }
}

/// From now on no line waits for whoever reads standard error: a thread of its own writes them.
pub fn write_in_thread() -> io::Result<()> {
    let log = LOG.get_or_init(|| Log::new(Format::Text));
    // A descriptor of its own: the lock of `io::stderr` would be held while the reader hangs.
    let sink = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let _ = log.writer.set(Writer::start(log.style, sink)?); // one is enough
    Ok(())
}

impl Log {
    fn new(format: Format) -> Log {
        Log {
            style: Style {
                format,
                journal: stderr_is_journal(),
            },
            writer: OnceLock::new(),
        }
    }
}

fn writer() -> Option<&'static Writer> {
    LOG.get()?.writer.get()
}

/// Says a line about something that is as it should be.
pub fn info(text: &str) {
    say(Level::Info, Event::Message(text), Fields::new(), false);
}

/// Says a line about something that an operator should look at.
pub fn warn(text: &str) {
    say(Level::Warn, Event::Message(text), Fields::new(), false);
}

/// Says a line about something that ends the agent, or a thread of it.
pub fn error(text: &str) {
    say(Level::Error, Event::Message(text), Fields::new(), false);
}

/// Says a line about something that has a name and fields.
pub fn event(level: Level, name: &str, fields: Fields) {
    say(level, Event::Named(name), fields, false);
}

/// Says a line about a decision. One that says what was `signed` is the last to be lost.
pub fn decision(level: Level, word: &'static str, fields: Fields, signed: bool) {
    say(level, Event::Decision(word), fields, signed);
}

/// Runs `say`, which says a line about a refused caller; counts it instead where that caller has had its lines.
/// The counts are said once a second.
pub fn refused(refused: Refused, say: impl FnOnce()) {
    if writer().is_none_or(|writer| writer.admits(refused)) {
        say();
    }
}

/// How many lines were lost, because standard error did not take them.
pub fn lost() -> u64 {
    writer().map_or(0, Writer::lost)
}

/// Waits until all lines are written, but not long.
pub fn flush() {
    if let Some(writer) = writer() {
        writer.flush(Instant::now() + FLUSH_LIMIT);
    }
}

fn say(level: Level, event: Event, fields: Fields, signed: bool) {
    let line = Line {
        level,
        event,
        fields,
    };
    let now = Timestamp::now();
    let log = LOG.get_or_init(|| Log::new(Format::Text));
    let text = log.style.render(&line, now);
    match log.writer.get() {
        Some(writer) => writer.push(text, signed),
        None => {
            let _ = io::stderr().write_all(text.as_bytes()); // nobody left to tell
        }
    }
}

/// Whether systemd's journal reads standard error: it says which device and inode are its own, since
/// the variable is also inherited by those whose standard error is elsewhere.
fn stderr_is_journal() -> bool {
    let stderr = io::stderr();
    let (Ok(stream), Ok(stat)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(&stderr))
    else {
        return false;
    };
    !stderr.is_terminal() && stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
