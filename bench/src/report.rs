//! The tables, and the progress on the way to them.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::targets::Target;

/// Everything that is told in the end.
pub(crate) struct Report {
    began: Instant,
    interrupted: Arc<AtomicBool>,
    machine: Vec<(&'static str, String)>,
    pub(crate) targets: Vec<Target>,
    tables: Vec<Table>,
}

/// A table, with what has to be said of it.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) about: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Report {
    /// From now on Ctrl-C ends what is going on in good order, so that no process is left.
    pub(crate) fn new(machine: Vec<(&'static str, String)>) -> Result<Report> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Report {
            began: Instant::now(),
            interrupted,
            machine,
            targets: Vec::new(),
            tables: Vec::new(),
        })
    }

    /// Says on standard error what is being measured; an error once somebody has interrupted.
    pub(crate) fn step(&self, what: &str) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        eprintln!("{:4} s  {what}", self.began.elapsed().as_secs());
        Ok(())
    }

    pub(crate) fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Markdown that is readable as it is.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "# Benchmarks\n\nWritten by `make bench`, which measures all of it in one run: a loop around the \
             token alone\nand the same token through roleseal-agent take turns, and each figure is a median.\n",
        );
        let facts = self
            .machine
            .iter()
            .map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
        write_table(&mut text, &["machine", ""], &facts.collect::<Vec<_>>());
        text.push_str("\n## Targets\n");
        let targets = self.targets.iter().map(Target::row);
        write_table(
            &mut text,
            &["target", "measured", "met"],
            &targets.collect::<Vec<_>>(),
        );
        for table in &self.tables {
            let _ = write!(text, "\n## {}\n\n{}\n", table.title, table.about);
            write_table(&mut text, &table.head, &table.rows);
        }
        text
    }
}

fn write_table(text: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let width = |at: usize, name: &str| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let longest = cells.map(|cell| cell.chars().count()).max();
        longest.unwrap_or(0).max(name.chars().count()).max(3)
    };
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(at, name)| width(at, name))
        .collect();
    let rule = |(at, width): (usize, &usize)| match at {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width - 1)), // figures to the right, under each other
    };
    let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
    text.push('\n');
    text.push_str(&line(head.iter().copied(), &widths));
    text.push_str(&line(rules.iter().map(String::as_str), &widths));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str), &widths));
    }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let cell = |(at, (cell, width)): (usize, (&str, &usize))| match at {
        0 => format!("| {cell:width$} "),
        _ => format!("| {cell:>width$} "),
    };
    let cells: String = cells.zip(widths).enumerate().map(cell).collect();
    format!("{cells}|\n")
}

/// A time for a table.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A figure with thousands apart, as `12,345`.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", &*digits),
    };
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut text = String::new();
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bcd".to_owned(), "12,345".to_owned()],
        ];
        write_table(&mut text, &["key", "n"], &rows);
        assert_eq!(
            text,
            "\n| key |      n |\n| --- | -----: |\n| a   |      1 |\n| bcd | 12,345 |\n"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        for (value, text) in [
            (0.4, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (1234567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(whole(value), text);
        }
    }
}
