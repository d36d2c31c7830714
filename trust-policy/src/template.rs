//! A value of a condition with its policy variables ("IAM policy elements: Variables and tags").

use crate::context::Context;
use crate::error::PolicyError;
use crate::wildcard::Token;

/// `home/${aws:username}/*`, in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    source: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    /// `${*}`, `${?}` and `${$}`: the character itself.
    Literal(char),
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// What a template stands for in one request.
pub(crate) enum Resolved {
    /// Where wildcards count, `*` and `?` of the policy's own text are tokens of their own; what a variable brought in
    /// is never a wildcard.
    Tokens(Vec<Token>),
    /// A variable has no value: "There is no equal or like value" ("Policy variables with no value").
    NoValue,
    /// A variable names a key with several values: "You cannot use a multivalued condition key as a policy variable".
    Multivalued(String),
    /// A variable names a key of which it is not known whether the request has it.
    Unknown(String),
}

impl Template {
    /// Text without variables: of a policy of version 2008-10-17, which "are instead treated as literal strings".
    pub(crate) fn literal(source: &str) -> Template {
        Template {
            source: source.to_owned(),
            pieces: vec![Piece::Text(source.to_owned())],
        }
    }

    /// Reads a value's variables; the errors are those of Access Analyzer.
    pub(crate) fn parse(source: &str, path: &str) -> Result<Template, PolicyError> {
        let error = |problem: &str| PolicyError::malformed(path, format!("{problem}: {source}"));
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (piece, after) = variable(after).map_err(error)?;
            pieces.push(piece);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template {
            source: source.to_owned(),
            pieces,
        })
    }

    pub(crate) fn has_variables(&self) -> bool {
        self.pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Variable { .. }))
    }

    pub(crate) fn resolve(&self, context: &Context, wildcards: bool) -> Resolved {
        let mut tokens = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) if wildcards => tokens.extend(crate::wildcard::tokens(text)),
                Piece::Text(text) => tokens.extend(text.chars().map(Token::Char)),
                Piece::Literal(c) => tokens.push(Token::Char(*c)),
                Piece::Variable { key, default } => {
                    let text = match (context.values(key), default) {
                        ([value], _) => value,
                        ([], _) if !context.can_tell(key) => {
                            return Resolved::Unknown(key.clone());
                        }
                        ([], Some(default)) => default,
                        ([], None) => return Resolved::NoValue,
                        _ => return Resolved::Multivalued(key.clone()),
                    };
                    tokens.extend(text.chars().map(Token::Char));
                }
            }
        }
        Resolved::Tokens(tokens)
    }

    /// For people: the text of the policy, and what it stands for in this request where it has variables.
    pub(crate) fn describe(&self, context: &Context) -> String {
        if !self.has_variables() {
            return self.source.clone();
        }
        let meaning = match self.resolve(context, true) {
            Resolved::Tokens(tokens) => text_of(&tokens),
            Resolved::NoValue => "no value".to_owned(),
            Resolved::Multivalued(key) => format!("{key} has several values"),
            Resolved::Unknown(key) => format!("{key} is not known"),
        };
        format!("{} = {meaning}", self.source)
    }
}

/// The characters of tokens, wildcards as they are written.
pub(crate) fn text_of(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Char(c) => *c,
            Token::One => '?',
            Token::Run => '*',
        })
        .collect()
}

/// Reads what follows `${`; returns what follows the closing brace.
fn variable(text: &str) -> Result<(Piece, &str), &'static str> {
    for special in ['*', '?', '$'] {
        if let Some(rest) = text.strip_prefix(special) {
            let rest = rest.strip_prefix('}').ok_or("Missing brace in variable")?;
            return Ok((Piece::Literal(special), rest));
        }
    }
    let end = text.find([',', '}']).ok_or("Missing brace in variable")?;
    let (key, rest) = text.split_at(end);
    if key.is_empty() {
        return Err("Empty variable");
    }
    if key.contains(char::is_whitespace) {
        return Err("Unsupported space in variable");
    }
    let key = key.to_owned();
    if let Some(rest) = rest.strip_prefix('}') {
        let default = None;
        return Ok((Piece::Variable { key, default }, rest));
    }
    let quoted = rest
        .strip_prefix(", '")
        .ok_or("Missing quote in variable")?;
    let (default, rest) = quoted.split_once('\'').ok_or("Missing quote in variable")?;
    let rest = rest.strip_prefix('}').ok_or("Missing brace in variable")?;
    let default = Some(default.to_owned());
    Ok((Piece::Variable { key, default }, rest))
}
