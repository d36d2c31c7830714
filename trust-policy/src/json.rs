//! JSON with every key that the text has: a map type would keep one of two equal keys, and IAM refuses both.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::PolicyError;

/// A JSON value; a number is kept as its text, since policies quote and unquote numbers freely.
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The text of a value; "Quotation marks are optional for numeric and Boolean values" (grammar page).
    pub(crate) fn scalar(&self) -> Option<String> {
        match self {
            Node::Bool(flag) => Some(flag.to_string()),
            Node::Number(text) | Node::Text(text) => Some(text.clone()),
            Node::Null | Node::List(_) | Node::Map(_) => None,
        }
    }

    /// One string, or a list of them with at least one.
    pub(crate) fn strings(&self, path: &str) -> Result<Vec<String>, PolicyError> {
        self.list_of(path, "a string or a list of strings", |node| match node {
            Node::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// One value, or a list of them with at least one.
    pub(crate) fn scalars(&self, path: &str) -> Result<Vec<String>, PolicyError> {
        self.list_of(path, "a value or a list of values", Node::scalar)
    }

    fn list_of(
        &self,
        path: &str,
        what: &str,
        read: impl Fn(&Node) -> Option<String>,
    ) -> Result<Vec<String>, PolicyError> {
        let items = match self {
            // Access Analyzer says of an empty list that it "returns true" and that it "never matches".
            Node::List(items) if items.is_empty() => {
                return Err(PolicyError::not_evaluated(path, "an empty list"));
            }
            Node::List(items) => items.iter().map(read).collect(),
            single => read(single).map(|item| vec![item]),
        };
        items.ok_or_else(|| {
            PolicyError::malformed(path, format!("Syntax errors in policy: not {what}"))
        })
    }

    /// The elements of an object, none of them twice.
    pub(crate) fn object(&self, path: &str) -> Result<&[(String, Node)], PolicyError> {
        let Node::Map(entries) = self else {
            return Err(PolicyError::malformed(
                path,
                "Syntax errors in policy: not an object in braces",
            ));
        };
        for (at, (name, _)) in entries.iter().enumerate() {
            if entries.iter().take(at).any(|(earlier, _)| earlier == name) {
                let problem = format!("Syntax errors in policy: {name} is there twice");
                return Err(PolicyError::malformed(path, problem));
            }
        }
        Ok(entries)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
