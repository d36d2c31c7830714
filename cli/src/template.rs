//! Fills a template: a text with the names of values between `@`.

/// The values of each name: none for an option that is absent, several for a list.
pub(crate) type Values<'a> = [(&'a str, Vec<String>)];

/// Replaces `@NAME@` by the first value, and repeats `@each NAME@…@end@` for each value of NAME, in which every
/// list has its value of the same turn. A value is pasted as it is, and not searched for names: quote it first.
pub(crate) fn fill(template: &str, values: &Values) -> String {
    let (head, blocks) = template.split_once("@each ").unwrap_or((template, ""));
    let mut text = paste(head, values, 0);
    for block in blocks.split("@each ").filter(|block| !block.is_empty()) {
        let (name, rest) = block.split_once('@').unwrap_or((block, ""));
        let (body, after) = rest.split_once("@end@").unwrap_or((rest, ""));
        for turn in 0..list(values, name).len() {
            text += &paste(body, values, turn);
        }
        text += &paste(after, values, 0);
    }
    text
}

fn paste(text: &str, values: &Values, turn: usize) -> String {
    let piece = |(at, piece)| match at % 2 {
        0 => piece,
        _ => value(values, piece, turn),
    };
    text.split('@').enumerate().map(piece).collect()
}

fn value<'a>(values: &'a Values, name: &str, turn: usize) -> &'a str {
    let list = list(values, name);
    list.get(turn).or(list.first()).map_or("", String::as_str)
}

fn list<'a>(values: &'a Values, name: &str) -> &'a [String] {
    let known = values.iter().find(|(known, _)| *known == name);
    debug_assert!(known.is_some(), "a template names {name:?}");
    known.map_or(&[], |(_, list)| list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_of(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_are_pasted_once_and_lists_are_repeated() {
        let values = [
            ("name", list_of(&["@other@ @each name@ @end@"])),
            ("other", list_of(&["x"])),
            ("none", list_of(&[])),
            ("key", list_of(&["a", "b"])),
            ("value", list_of(&["1", "2"])),
        ];
        for (template, filled) in [
            ("", ""),
            ("a\n", "a\n"),
            ("<@name@>", "<@other@ @each name@ @end@>"),
            ("a @each none@<@none@> @end@b", "a b"),
            ("@each key@@key@=@value@@other@;@end@.", "a=1x;b=2x;."),
            (
                "@each key@-@end@@each other@@name@@end@",
                "--@other@ @each name@ @end@",
            ),
        ] {
            assert_eq!(fill(template, &values), filled, "{template}");
        }
    }
}
