//! The credentials file as AWS's tools read it. botocore uses Python's configparser, the SDKs parsers of
//! their own: what they would read differently, or what botocore refuses as a whole, is a fault here.

use std::ops::Range;

use thiserror::Error;

/// A file that every AWS tool reads in the same way.
#[derive(Debug)]
pub(super) struct Ini<'t> {
    pub(super) sections: Vec<Section<'t>>,
    /// The line break of its first line.
    pub(super) newline: &'static str,
}

/// `[name]` and what follows.
#[derive(Debug)]
pub(super) struct Section<'t> {
    pub(super) name: &'t str,
    pub(super) line: usize,
    /// Where the line after the header begins.
    pub(super) body: usize,
    pub(super) entries: Vec<Entry<'t>>,
}

/// `key = value`. `Debug` would show a secret.
pub(super) struct Entry<'t> {
    /// In lower case, as case does not count.
    pub(super) key: String,
    /// With the lines that continue it.
    pub(super) value: String,
    pub(super) line: usize,
    /// Its first line, with the line break.
    pub(super) span: Range<usize>,
    pub(super) indent: &'t str,
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.key).finish()
    }
}

/// What is wrong with a line. It never shows the line, which may hold a secret.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line} {what}")]
pub(crate) struct IniFault {
    pub(super) line: usize,
    pub(super) what: &'static str,
}

impl<'t> Ini<'t> {
    pub(super) fn read(text: &'t str) -> Result<Ini<'t>, IniFault> {
        let mut reader = Reader::default();
        let mut offset = 0;
        for (index, raw) in text.split_inclusive('\n').enumerate() {
            let line = Line {
                number: index + 1,
                text: raw.trim_end_matches(['\r', '\n']),
                span: offset..offset + raw.len(),
            };
            reader.take(&line).map_err(|what| line.fault(what))?;
            offset += raw.len();
        }
        for entry in reader.sections.iter_mut().flat_map(|s| &mut s.entries) {
            entry.value.truncate(entry.value.trim_end().len());
        }
        let first = text.split_inclusive('\n').next().unwrap_or_default();
        Ok(Ini {
            sections: reader.sections,
            newline: match first.ends_with("\r\n") {
                true => "\r\n",
                false => "\n",
            },
        })
    }

    /// The section of exactly that name. One that only some tools would take for it is a fault.
    pub(super) fn section(&self, name: &str) -> Result<Option<&Section<'t>>, IniFault> {
        let Some(section) = self.sections.iter().find(|s| s.name.trim() == name) else {
            return Ok(None);
        };
        if section.name == name {
            return Ok(Some(section));
        }
        Err(IniFault {
            line: section.line,
            what: "has spaces within the brackets, which only some AWS tools ignore: remove them",
        })
    }
}

struct Line<'t> {
    number: usize,
    /// Without the line break.
    text: &'t str,
    span: Range<usize>,
}

impl Line<'_> {
    fn fault(&self, what: &'static str) -> IniFault {
        IniFault {
            line: self.number,
            what,
        }
    }
}

/// configparser's state between two lines.
#[derive(Default)]
struct Reader<'t> {
    sections: Vec<Section<'t>>,
    /// The indentation of the last header or key: what is deeper continues the key's value.
    indent: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, line: &Line<'t>) -> Result<(), &'static str> {
        if line.text.chars().any(|c| c.is_control() && c != '\t') {
            return Err("has a control character");
        }
        let content = line.text.trim();
        let indent = line.text.len() - line.text.trim_start().len();
        let last = self
            .sections
            .last_mut()
            .and_then(|section| section.entries.last_mut());
        match (content.chars().next(), last) {
            (Some('#' | ';'), _) => {}
            (None, Some(entry)) => entry.value.push('\n'), // dropped where no other line follows
            (None, None) => {}
            (Some('['), _) if indent > 0 => {
                return Err("is an indented section header, which AWS tools read differently");
            }
            (Some(_), Some(entry)) if indent > self.indent => {
                entry.value.push('\n');
                entry.value.push_str(content);
            }
            (Some('['), _) => self.open(line, content)?,
            (Some(_), _) => self.add(line, content, indent)?,
        }
        Ok(())
    }

    fn open(&mut self, line: &Line<'t>, content: &'t str) -> Result<(), &'static str> {
        let after_bracket = content.strip_prefix('[').unwrap_or_default();
        let (name, rest) = after_bracket
            .split_once(']')
            .ok_or("has a section header without a closing bracket")?;
        if name.trim().is_empty() || name.contains('[') || rest.contains([']', '[']) {
            return Err("has a section header that AWS tools read differently");
        }
        if !rest.is_empty() && !rest.trim_start().starts_with(['#', ';']) {
            return Err("has more than a comment after the section's header");
        }
        if self.sections.iter().any(|s| s.name.trim() == name.trim()) {
            return Err(
                "begins a section that is there already: AWS tools refuse that, or read it differently",
            );
        }
        self.indent = 0;
        self.sections.push(Section {
            name,
            line: line.number,
            body: line.span.end,
            entries: Vec::new(),
        });
        Ok(())
    }

    fn add(
        &mut self,
        line: &Line<'t>,
        content: &'t str,
        indent: usize,
    ) -> Result<(), &'static str> {
        let section = self
            .sections
            .last_mut()
            .ok_or("comes before the first section")?;
        let (key, value) = content
            .split_once(['=', ':'])
            .ok_or("is neither a section, nor a comment, nor \"key = value\"")?;
        let key = key.trim_end().to_lowercase();
        if key.is_empty() {
            return Err("has a value without a key");
        }
        if section.entries.iter().any(|entry| entry.key == key) {
            return Err(
                "has a key that its section has already: AWS tools refuse that, or read it differently",
            );
        }
        self.indent = indent;
        section.entries.push(Entry {
            key,
            value: value.trim().to_owned(),
            line: line.number,
            span: line.span.clone(),
            indent: line.text.get(..indent).unwrap_or_default(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let ini = Ini::read(text).unwrap();
        let entries = |section: &Section| {
            let pairs = section.entries.iter();
            pairs.map(|e| (e.key.clone(), e.value.clone())).collect()
        };
        let sections = ini.sections.iter();
        sections.map(|s| (s.name.to_owned(), entries(s))).collect()
    }

    #[test]
    fn it_is_read_as_configparser_does() {
        let text = "# first\r\n\r\n[default] ; mine\nAWS_Access_Key_Id=A\n\n  ; deep comment\n\
                    s3 =\n    a = 1\n\n    b: 2\nregion: eu # no comment\n\n[my profile]\n   x = 1\n   y = 2\n z=";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [
            (
                "default",
                vec![
                    pair("aws_access_key_id", "A"),
                    pair("s3", "\na = 1\n\nb: 2"),
                    pair("region", "eu # no comment"),
                ],
            ),
            (
                "my profile",
                vec![pair("x", "1"), pair("y", "2"), pair("z", "")],
            ),
        ];
        let expected = expected.map(|(name, entries)| (name.to_owned(), entries));
        assert_eq!(show(text), expected);
        assert_eq!(Ini::read(text).unwrap().newline, "\r\n");
        assert_eq!(show(""), []);
        assert_eq!(show("\n;\n"), []);
    }

    #[test]
    fn what_a_tool_would_refuse_or_read_otherwise_is_a_fault() {
        let cases = [
            ("a = 1\n", 1, "before the first section"),
            ("\u{feff}[a]\n", 1, "before the first section"), // a byte order mark
            ("[a\n", 1, "closing bracket"),
            ("[]\n", 1, "differently"),
            ("[a] # [b]\n", 1, "differently"),
            ("[a]]\n", 1, "differently"),
            ("[a] b\n", 1, "more than a comment"),
            ("[a]\n[b]\n\n[a]\n", 4, "there already"),
            ("[a]\n[ a ]\n", 2, "there already"),
            ("[a]\nx=1\nX = 2\n", 3, "already"),
            ("[a]\nx\n", 2, "neither"),
            ("[a]\n= x\n", 2, "without a key"),
            ("[a]\nx = 1\n  [b]\n", 3, "indented"),
            ("[a]\nx = \0\n", 2, "control"),
            ("[a]\nx = 1\ry = 2\n", 2, "control"), // a line break to Python alone
        ];
        for (text, line, what) in cases {
            let fault = Ini::read(text).unwrap_err();
            assert_eq!(fault.line, line, "{text:?}");
            assert!(fault.what.contains(what), "{text:?}: {fault}");
        }
    }
}
