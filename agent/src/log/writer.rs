//! The way of a line to standard error: a bounded queue and a thread that writes. A reader that hangs or
//! goes away costs lines, which are counted, and nothing else.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::line::{Event, Level, Line, Style};
use super::refusals::{Refusals, Refused, Repeated};
use crate::panics::contain;
use crate::sync::{lock, wait_while};

/// Whose lines wait, and the thread that writes them.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Of all lines that wait or are being written.
    bytes: usize,
    /// Lines lost that the log has not been told of.
    untold: u64,
    /// All lines lost.
    lost: u64,
    writing: bool,
    /// The last line could not be written: nothing is written until there is another one.
    failed: bool,
    refusals: Refusals,
}

#[derive(Debug)]
enum Entry {
    Line(String),
    /// So many were lost here.
    Lost(u64),
}

/// What waits for a reader at most, in bytes: about 2,000 decisions.
const QUEUE_LIMIT: usize = 1024 * 1024;

/// Of that, what anything but a signature may fill: whoever has many requests refused must not push out
/// the lines that say what was signed.
const COMMON_LIMIT: usize = QUEUE_LIMIT / 2;

/// Before a write is tried again where somebody else made the descriptor non-blocking.
const RETRY: Duration = Duration::from_millis(50);

/// It holds a line and calls write(2).
const STACK: usize = 64 * 1024;

impl Writer {
    /// Starts the thread.
    pub(super) fn start(style: Style, sink: impl Write + Send + 'static) -> io::Result<Writer> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK)
            .spawn(move || thread.run(style, sink))?;
        Ok(Writer { shared })
    }

    /// Has the line written, if there is room for it; does not wait. `signed`: it says what was signed.
    pub(super) fn push(&self, line: String, signed: bool) {
        let mut queue = self.shared.lock();
        let limit = if signed { QUEUE_LIMIT } else { COMMON_LIMIT };
        if queue.bytes + line.len() > limit {
            queue.lost += 1;
            queue.untold += 1;
            return;
        }
        queue.failed = false;
        queue.tell();
        queue.bytes += line.len();
        queue.entries.push_back(Entry::Line(line));
        self.shared.changed.notify_all();
    }

    /// Says whether a line about this caller is to be written; counts it if not.
    pub(super) fn admits(&self, refused: Refused) -> bool {
        let mut queue = self.shared.lock();
        let due = queue.refusals.due();
        let admitted = queue.refusals.admit(refused, Instant::now());
        if due.is_none() && !admitted {
            self.shared.changed.notify_all(); // the thread waits for the end of its second
        }
        admitted
    }

    /// How many lines were lost.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Waits until everything is written, or `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut queue = self.shared.lock();
        queue.refusals.end();
        self.shared.changed.notify_all();
        drop(wait_while(
            &self.shared.changed,
            queue,
            Some(deadline),
            |queue| queue.writing || queue.has_work() || queue.refusals.due().is_some(),
        ));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn run(&self, style: Style, mut sink: impl Write) {
        loop {
            let entry = self.next(style);
            let told;
            let line = match &entry {
                Entry::Line(line) => line,
                Entry::Lost(lines) => {
                    told = lost_line(style, *lines);
                    &told
                }
            };
            let written = contain(|| write_whole(&mut sink, line.as_bytes()).is_ok());
            self.done(&entry, written.unwrap_or(false));
        }
    }

    fn next(&self, style: Style) -> Entry {
        let mut queue = self.lock();
        loop {
            // Made here, where a reader that hangs only lets the counts grow.
            if let Some(repeated) = queue.refusals.take_due(Instant::now()) {
                let line = repeated_line(style, &repeated);
                queue.bytes += line.len();
                queue.entries.push_back(Entry::Line(line));
            }
            if queue.entries.is_empty() && queue.has_work() {
                queue.tell();
            }
            if let Some(entry) = queue.entries.pop_front() {
                queue.writing = true;
                return entry;
            }
            let due = queue.refusals.due();
            queue = wait_while(&self.changed, queue, due, |queue| {
                !queue.has_work() && queue.refusals.due() == due
            });
        }
    }

    fn done(&self, entry: &Entry, written: bool) {
        let mut queue = self.lock();
        queue.writing = false;
        queue.failed = !written;
        match entry {
            Entry::Line(line) => {
                queue.bytes -= line.len();
                queue.lost += u64::from(!written);
                queue.untold += u64::from(!written);
            }
            Entry::Lost(_) if written => {}
            Entry::Lost(lines) => queue.untold += lines,
        }
        self.changed.notify_all();
    }
}

impl Queue {
    fn has_work(&self) -> bool {
        !self.entries.is_empty() || (self.untold > 0 && !self.failed)
    }

    /// Puts what was lost into its place among the lines.
    fn tell(&mut self) {
        if self.untold > 0 {
            self.entries.push_back(Entry::Lost(self.untold));
            self.untold = 0;
        }
    }
}

fn lost_line(style: Style, lines: u64) -> String {
    let line = Line {
        level: Level::Warn,
        event: Event::Named("lost"),
        fields: vec![
            ("lines", lines.into()),
            ("message", "the reader of this log was too slow".into()),
        ],
    };
    style.render(&line, Timestamp::now())
}

fn repeated_line(style: Style, repeated: &Repeated) -> String {
    let line = Line {
        level: Level::Warn,
        event: Event::Named("repeated"),
        fields: repeated.fields(),
    };
    style.render(&line, Timestamp::now())
}

/// In one write where the system takes it as one.
fn write_whole(sink: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::line::Format;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    const STYLE: Style = Style {
        format: Format::Text,
        journal: true,
    };

    /// For whatever should happen soon.
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn start() -> (Writer, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        (Writer::start(STYLE, ours).unwrap(), BufReader::new(theirs))
    }

    /// Its reader has not read for so long that nothing more fits between the two. The line that is being
    /// written ends with "first".
    fn start_hung() -> (Writer, BufReader<UnixStream>) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(b"x").is_ok() {}
        ours.set_nonblocking(false).unwrap();
        let writer = Writer::start(STYLE, ours).unwrap();
        writer.push("first\n".to_owned(), false);
        let deadline = soon();
        while !writer.shared.lock().writing {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        (writer, BufReader::new(theirs))
    }

    fn read_line(reader: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// How many lines a "lost" line tells of.
    fn told(line: &str) -> Option<u64> {
        let number = line.strip_prefix("<4>lost lines=")?.split(' ').next()?;
        number.parse().ok()
    }

    #[test]
    fn lines_arrive_in_their_order() {
        let (writer, mut reader) = start();
        for number in 0..100 {
            writer.push(format!("{number}\n"), false);
        }
        for number in 0..100 {
            assert_eq!(read_line(&mut reader), number.to_string());
        }
        writer.flush(soon());
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_is_told_how_many() {
        let (writer, mut reader) = start_hung();
        let padding = "x".repeat(1000);
        for number in 0..3000 {
            writer.push(format!("{number} {padding}\n"), false); // waits for nobody
        }
        let lost = writer.lost();
        assert!(lost > 0 && lost < 3000, "{lost}");
        assert!(read_line(&mut reader).ends_with("first"));
        for number in 0..3000 - lost {
            assert_eq!(read_line(&mut reader), format!("{number} {padding}"));
        }
        assert_eq!(told(&read_line(&mut reader)), Some(lost));
        writer.push("after\n".to_owned(), false);
        assert_eq!(read_line(&mut reader), "after");
    }

    #[test]
    fn what_was_signed_has_room_of_its_own_and_losses_are_told_where_they_are() {
        let (writer, mut reader) = start_hung();
        let common = "x".repeat(1000);
        let mut kept = 0;
        loop {
            writer.push(format!("{common}\n"), false);
            if writer.lost() > 0 {
                break;
            }
            kept += 1;
        }
        writer.push(format!("signed {common}\n"), true);
        writer.push(format!("{common}\n"), false);
        assert!(read_line(&mut reader).ends_with("first"));
        for _ in 0..kept {
            assert_eq!(read_line(&mut reader), common);
        }
        assert_eq!(told(&read_line(&mut reader)), Some(1));
        assert_eq!(read_line(&mut reader), format!("signed {common}"));
        assert_eq!(told(&read_line(&mut reader)), Some(1));
        assert_eq!(writer.lost(), 2);
    }

    #[test]
    fn refusals_that_were_counted_are_written_when_their_second_is_over_and_at_the_end() {
        let (writer, mut reader) = start();
        let refused = |uid| Refused {
            uid,
            named: true,
            reason: "Busy",
        };
        let in_full = |uid| (0..9).filter(|_| writer.admits(refused(uid))).count();
        assert_eq!(in_full(7), 8);
        let expected = |uid| format!("<4>repeated uid={uid} refused=1 reasons={{\"Busy\":1}}");
        assert_eq!(read_line(&mut reader), expected(7)); // nothing else comes
        assert_eq!(in_full(8), 8);
        let start = Instant::now();
        writer.flush(soon());
        assert!(start.elapsed() < Duration::from_millis(900));
        assert_eq!(read_line(&mut reader), expected(8));
    }

    #[test]
    fn a_reader_that_hangs_costs_no_refusal_that_was_counted() {
        let (writer, mut reader) = start_hung();
        let refused = Refused {
            uid: 7,
            named: false,
            reason: "NotPermitted",
        };
        let counted = (0..100_000).filter(|_| !writer.admits(refused)).count();
        writer.push("signed\n".to_owned(), true);
        writer.shared.lock().refusals.end(); // no second has to pass
        assert!(read_line(&mut reader).ends_with("first"));
        let lines = [read_line(&mut reader), read_line(&mut reader)];
        assert!(lines.contains(&"signed".to_owned()), "{lines:?}");
        let repeated = format!("repeated uid=7 refused={counted} ");
        assert!(
            lines.iter().any(|line| line.contains(&repeated)),
            "{lines:?}"
        );
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_no_more() {
        let (writer, reader) = start();
        drop(reader);
        for _ in 0..3 {
            writer.push("x\n".to_owned(), false);
            writer.flush(soon());
        }
        assert_eq!(writer.lost(), 3);
    }

    #[test]
    fn the_end_waits_for_a_reader_until_its_deadline() {
        let (writer, reader) = start_hung();
        let start = Instant::now();
        writer.flush(start + Duration::from_millis(50));
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(writer.lost(), 0);
        drop(reader);
        writer.flush(soon());
        assert_eq!(writer.lost(), 1);
    }

    /// Takes a few bytes at a time, and now and then none.
    struct Fitful {
        to: UnixStream,
        calls: u32,
    }

    impl Write for Fitful {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            match self.calls % 3 {
                0 => Err(ErrorKind::WouldBlock.into()),
                1 => Err(ErrorKind::Interrupted.into()),
                _ => self.to.write(&bytes[..bytes.len().min(3)]),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_whole_however_it_is_taken() {
        let (to, theirs) = UnixStream::pair().unwrap();
        let writer = Writer::start(STYLE, Fitful { to, calls: 0 }).unwrap();
        writer.push("0123456789\n".to_owned(), false);
        assert_eq!(read_line(&mut BufReader::new(theirs)), "0123456789");
        writer.flush(soon());
        assert_eq!(writer.lost(), 0);
    }
}
