//! `*` for any run of characters, also none, and `?` for exactly one.

/// A pattern's element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// This character, even `*`.
    Char(char),
    One,
    Run,
}

/// Whether `text` as a whole is what `pattern` says, in which every `*` and `?` is a wildcard.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    tokens_match(&tokens(pattern), text)
}

pub(crate) fn tokens(pattern: &str) -> Vec<Token> {
    pattern
        .chars()
        .map(|c| match c {
            '*' => Token::Run,
            '?' => Token::One,
            c => Token::Char(c),
        })
        .collect()
}

/// Goes back to the latest `*` alone, which is enough: an earlier one could only give up what a later one can take.
/// So the time is at most pattern times text, for hostile patterns too.
pub(crate) fn tokens_match(pattern: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut latest_run: Option<(usize, usize)> = None;
    while let Some(c) = text.get(t) {
        match pattern.get(p) {
            Some(Token::Run) => {
                latest_run = Some((p, t));
                p += 1;
                continue;
            }
            Some(Token::One) => {
                p += 1;
                t += 1;
                continue;
            }
            Some(Token::Char(expected)) if expected == c => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        let Some((run, taken)) = latest_run else {
            return false;
        };
        latest_run = Some((run, taken + 1));
        p = run + 1;
        t = taken + 1;
    }
    pattern
        .iter()
        .skip(p)
        .all(|token| matches!(token, Token::Run))
}
