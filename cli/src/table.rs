//! A table for people: one line for each thing, and its remarks under it.

use std::fmt::Write as _;

/// Aligned columns; a line break in a cell becomes a blank, one in a remark is indented.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: &[([String; N], Vec<String>)],
) -> String {
    let one_line = |cell: &String| cell.replace('\n', " ");
    let mut lines = vec![(headings.map(str::to_owned), &[][..])];
    lines.extend(
        rows.iter()
            .map(|(cells, remarks)| (cells.each_ref().map(one_line), &remarks[..])),
    );
    let mut widths = [0; N];
    for (cells, _) in &lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (cells, remarks) in &lines {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  "); // a String takes any text
        }
        text += line.trim_end();
        text += "\n";
        for remark in *remarks {
            text += &format!("  {}\n", remark.replace('\n', "\n  "));
        }
    }
    text
}
