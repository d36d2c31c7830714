//! The text of `agent.toml`: an identity is added, and every byte that was there stays.

use std::path::PathBuf;

use thiserror::Error;
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, RawString, Table, TomlError, Value,
};

/// Why no identity can be added to a text.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum EditError {
    /// It is not TOML.
    #[error("{}{message}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Syntax {
        /// From 1; `None` where the parser names none.
        line: Option<usize>,
        /// The parser's. It repeats no line, which may hold a PIN.
        message: String,
    },
    /// `identity` has another type.
    #[error("identity is not an array of tables: write [[identity]]")]
    NotAnArray,
    /// The editor would write other lines in another form.
    #[error("the identity cannot be added without a change to other lines: add it by hand")]
    OtherLines,
}

/// The key of the array of tables.
const IDENTITY: &str = "identity";

/// As some editors begin a UTF-8 file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Adds the identity: at the end as `[[identity]]`, or as the last value where `identity` is written as one array.
pub(super) fn add(old: &str, identity: Table) -> Result<String, EditError> {
    let lines = old.replace("\r\n", "\n"); // the editor writes no other line breaks
    let mut document = parse(&lines)?;
    match document.get_mut(IDENTITY) {
        None | Some(Item::ArrayOfTables(_)) => append(&mut document, identity),
        Some(Item::Value(Value::Array(array))) => push(array, identity.into_inline_table()),
        Some(_) => return Err(EditError::NotAnArray),
    }
    let text = lines.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&lines);
    let new = document.to_string();
    let (behind, inserted) = insertion(text, &new).ok_or(EditError::OtherLines)?;
    Ok(insert(old, behind.len(), inserted))
}

/// The text of one identity alone.
pub(super) fn render(identity: &Table) -> String {
    let mut document = DocumentMut::new();
    append(&mut document, identity.clone());
    document.to_string()
}

/// The PKCS#11 module for all identities, where the text names one.
pub(super) fn default_module(text: &str) -> Option<PathBuf> {
    let document = parse(text).ok()?; // a fault in it is reported later
    Some(PathBuf::from(document.get("pkcs11-module")?.as_str()?))
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error: TomlError| EditError::Syntax {
        line: error.span().map(|span| line_of(text, span.start)),
        message: error.message().to_owned(),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    1 + before.filter(|byte| *byte == b'\n').count()
}

/// Behind everything, comments included.
fn append(document: &mut DocumentMut, mut identity: Table) {
    let comments = document.trailing().as_str().unwrap_or_default().to_owned();
    let gap = match &*comments {
        "" if document.is_empty() => "",
        "\n" => "",
        text if text.ends_with("\n\n") => "",
        text if text.is_empty() || text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    identity.decor_mut().set_prefix(comments + gap);
    identity.set_position(Some(isize::MAX));
    document.set_trailing("");
    let identities = document
        .entry(IDENTITY)
        .or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    if let Item::ArrayOfTables(identities) = identities {
        identities.push(identity);
    }
}

/// In a line of its own where the value before it has one.
fn push(array: &mut Array, identity: InlineTable) {
    let mut value = Value::from(identity);
    let prefix = if array.is_empty() { "" } else { " " };
    value.decor_mut().set_prefix(prefix);
    if let Some(last) = array.len().checked_sub(1).and_then(|at| array.get_mut(at)) {
        let text = |raw: Option<&RawString>| {
            raw.and_then(RawString::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (before, behind) = (text(last.decor().prefix()), text(last.decor().suffix()));
        if !behind.contains('#') {
            last.decor_mut().set_suffix("");
            let end = behind + array.trailing().as_str().unwrap_or_default();
            let (comments, end) = end.split_at(end.rfind('\n').unwrap_or_default());
            let indent = before.rfind('\n').and_then(|at| before.get(at..));
            value
                .decor_mut()
                .set_prefix(format!("{comments}{}", indent.unwrap_or(prefix)));
            array.set_trailing(end);
        }
    }
    array.push_formatted(value);
}

/// What stands in `old` before the insertion, and the insertion, where `new` differs by nothing else.
fn insertion<'t>(old: &'t str, new: &'t str) -> Option<(&'t str, &'t str)> {
    let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b);
    let (before, rest) = old.split_at(same.map(|(a, _)| a.len_utf8()).sum());
    let inserted = new.strip_prefix(before)?.strip_suffix(rest)?;
    Some((before, inserted))
}

/// Inserts behind so many bytes of `old`, which are counted without byte order mark and CRs; with its line breaks.
fn insert(old: &str, behind: usize, inserted: &str) -> String {
    let text = old.strip_prefix(BYTE_ORDER_MARK).unwrap_or(old);
    let breaks = text.match_indices("\r\n").enumerate();
    let is_before = |(count, (at, _)): &(usize, (usize, &str))| at - count < behind;
    let behind = old.len() - text.len() + behind + breaks.take_while(is_before).count();
    let (before, after) = old.split_at(behind);
    match old.contains("\r\n") {
        true => [before, &inserted.replace('\n', "\r\n"), after].concat(),
        false => [before, inserted, after].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Table {
        let mut allow = Table::new();
        allow.insert("users", toml_edit::value(Array::from_iter(["www"])));
        let mut identity = Table::new();
        identity.insert("name", toml_edit::value("web"));
        identity.insert(
            "allow",
            Item::ArrayOfTables(ArrayOfTables::from_iter([allow])),
        );
        identity
    }

    const WEB: &str = "[[identity]]\nname = \"web\"\n\n[[identity.allow]]\nusers = [\"www\"]\n";
    const INLINE: &str = "{ name = \"web\", allow = [{ users = [\"www\"] }] }";

    /// The names of the identities, as any parser reads them.
    fn names(text: &str) -> Vec<String> {
        let document: DocumentMut = text.parse().unwrap();
        let name = |table: &dyn toml_edit::TableLike| {
            table.get("name").unwrap().as_str().unwrap().to_owned()
        };
        match &document["identity"] {
            Item::ArrayOfTables(tables) => tables.iter().map(|table| name(table)).collect(),
            Item::Value(Value::Array(array)) => array
                .iter()
                .map(|value| name(value.as_inline_table().unwrap()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Each with what is between it and the new identity.
    const TEXTS: [(&str, &str); 13] = [
        ("", ""),
        ("# mine\n", "\n"),
        ("# mine", "\n\n"),
        ("# mine\n\n", ""),
        ("socket='/s'", "\n\n"),
        (
            "socket   =   '/s' # here\n\n\t# ä: a remark at the end\n",
            "\n",
        ),
        ("hardening.seccomp=true\n\"tpm\" . tcti = 'x'\n", "\n"),
        ("limits = { connections = 7,rate=2 }\n", "\n"),
        ("[ hardening ]\nx = [\n  1, # one\n  2\n]\n[limits]\n", "\n"),
        ("x = \"\"\"\n[[identity]]\n\"\"\"\n", "\n"),
        ("[[identity]]\nname = \"batch\"", "\n\n"),
        (
            "[[identity]]\nname='batch'\n[[identity.allow]]\n[identity.tpm]\n[hardening]\n",
            "\n",
        ),
        (
            "[limits]\nrate=1\n\n[[identity]]\nname='batch'\ntpm.tcti='x'\n[metrics]\n# [[identity]]\n",
            "\n",
        ),
    ];

    #[test]
    fn the_identity_is_behind_everything_that_is_there() {
        for (old, gap) in TEXTS {
            let new = format!("{old}{gap}{WEB}");
            assert_eq!(add(old, web()).as_ref(), Ok(&new));
            let before = usize::from(old.contains("batch"));
            assert_eq!(names(&new).get(before).unwrap(), "web");
            for mark in ["", "\u{feff}"] {
                let windows = format!("{mark}{}", old.replace('\n', "\r\n"));
                let edited = add(&windows, web()).unwrap();
                assert!(edited.starts_with(&windows), "{windows:?}");
                let unix = edited.replace("\r\n", "\n");
                assert_eq!(unix.strip_prefix(mark).unwrap(), new);
                assert!(unix == edited || !edited.replace("\r\n", "").contains('\n'));
            }
        }
    }

    #[test]
    fn one_identity_is_a_text() {
        assert_eq!(add("", web()).unwrap(), WEB);
        assert_eq!(render(&web()), WEB);
    }

    #[test]
    fn an_array_gets_one_value_more() {
        let [b, rest] = ["{name='batch'}", "\n[limits]\n# end"];
        for (old, expected) in [
            ("[]".to_owned(), format!("[{INLINE}]")),
            (format!("[{b}]"), format!("[{b}, {INLINE}]")),
            (format!("[ {b} ]"), format!("[ {b}, {INLINE} ]")),
            (format!("[\n  {b}\n]"), format!("[\n  {b},\n  {INLINE}\n]")),
            (
                format!("[\n  {b},\n ]"),
                format!("[\n  {b},\n  {INLINE},\n ]"),
            ),
            (
                format!("[\n  {b}, # b\n  # end\n]"),
                format!("[\n  {b}, # b\n  # end\n  {INLINE},\n]"),
            ),
            (
                format!("[\n  {b} # b\n]"),
                format!("[\n  {b} # b\n, {INLINE}]"),
            ),
        ] {
            let [old, expected] =
                [old, expected].map(|array| format!("# x\nidentity = {array}{rest}"));
            assert_eq!(add(&old, web()).unwrap(), expected);
            let windows = add(&old.replace('\n', "\r\n"), web()).unwrap();
            assert_eq!(windows, expected.replace('\n', "\r\n"));
            assert_eq!(names(&expected).last().unwrap(), "web");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "identity = 1",
            "[identity]",
            "identity.name = 'x'",
            "identity = {}",
        ] {
            assert_eq!(add(text, web()), Err(EditError::NotAnArray), "{text}");
        }
        let secret = "a = 1\r\nkey = 'pkcs11:?pin-value=1234\r\n";
        let Err(EditError::Syntax { line, message }) = add(secret, web()) else {
            panic!()
        };
        assert_eq!(line, Some(2));
        assert!(!message.contains("1234"), "{message}");
    }

    #[test]
    fn the_default_module_is_read_from_any_form() {
        for text in ["pkcs11-module = '/m.so'", "'pkcs11-module'='/m.so'\r\n[x"] {
            let expected = (!text.contains("[x")).then(|| PathBuf::from("/m.so"));
            assert_eq!(default_module(text), expected);
        }
    }
}
