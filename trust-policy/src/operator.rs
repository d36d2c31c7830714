//! Condition operators by name: a set qualifier, a test, perhaps negated, perhaps `IfExists`.

use crate::error::PolicyError;

/// `ForAllValues:StringNotLikeIfExists`, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) name: String,
    pub(crate) qualifier: Qualifier,
    pub(crate) test: Test,
    pub(crate) negated: bool,
    pub(crate) if_exists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qualifier {
    None,
    ForAllValues,
    ForAnyValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Null,
    Bool,
    Numeric(Comparison),
    Date(Comparison),
    IpAddress,
}

/// How the request's value stands to the policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Every operator of "IAM JSON policy elements: Condition operators" but BinaryEquals. The ARN operators with and without
/// `Like` "behave identically".
const OPERATORS: [(&str, Test, bool); 26] = [
    ("StringEquals", Test::Equals, false),
    ("StringNotEquals", Test::Equals, true),
    ("StringEqualsIgnoreCase", Test::EqualsIgnoreCase, false),
    ("StringNotEqualsIgnoreCase", Test::EqualsIgnoreCase, true),
    ("StringLike", Test::Like, false),
    ("StringNotLike", Test::Like, true),
    ("ArnEquals", Test::Arn, false),
    ("ArnLike", Test::Arn, false),
    ("ArnNotEquals", Test::Arn, true),
    ("ArnNotLike", Test::Arn, true),
    ("Null", Test::Null, false),
    ("Bool", Test::Bool, false),
    ("NumericEquals", Test::Numeric(Comparison::Equal), false),
    ("NumericNotEquals", Test::Numeric(Comparison::Equal), true),
    ("NumericLessThan", Test::Numeric(Comparison::Less), false),
    (
        "NumericLessThanEquals",
        Test::Numeric(Comparison::LessOrEqual),
        false,
    ),
    (
        "NumericGreaterThan",
        Test::Numeric(Comparison::Greater),
        false,
    ),
    (
        "NumericGreaterThanEquals",
        Test::Numeric(Comparison::GreaterOrEqual),
        false,
    ),
    ("DateEquals", Test::Date(Comparison::Equal), false),
    ("DateNotEquals", Test::Date(Comparison::Equal), true),
    ("DateLessThan", Test::Date(Comparison::Less), false),
    (
        "DateLessThanEquals",
        Test::Date(Comparison::LessOrEqual),
        false,
    ),
    ("DateGreaterThan", Test::Date(Comparison::Greater), false),
    (
        "DateGreaterThanEquals",
        Test::Date(Comparison::GreaterOrEqual),
        false,
    ),
    ("IpAddress", Test::IpAddress, false),
    ("NotIpAddress", Test::IpAddress, true),
];

impl Operator {
    pub(crate) fn parse(name: &str, path: &str) -> Result<Operator, PolicyError> {
        let (qualifier, rest) = qualifier(name);
        let (base, if_exists) = match rest.strip_suffix("IfExists") {
            Some(base) => (base, true),
            None => (rest, false),
        };
        if base == "BinaryEquals" {
            return Err(PolicyError::not_evaluated(
                path,
                "the operator BinaryEquals",
            ));
        }
        let Some((_, test, negated)) = OPERATORS.iter().find(|(known, ..)| *known == base) else {
            return Err(PolicyError::malformed(path, unknown(name, base)));
        };
        if *test == Test::Null && if_exists {
            let problem = "Null cannot have IfExists: it asks itself whether the key exists";
            return Err(PolicyError::malformed(path, problem));
        }
        Ok(Operator {
            name: name.to_owned(),
            qualifier,
            test: *test,
            negated: *negated,
            if_exists,
        })
    }
}

fn qualifier(name: &str) -> (Qualifier, &str) {
    if let Some(rest) = name.strip_prefix("ForAllValues:") {
        return (Qualifier::ForAllValues, rest);
    }
    if let Some(rest) = name.strip_prefix("ForAnyValue:") {
        return (Qualifier::ForAnyValue, rest);
    }
    (Qualifier::None, name)
}

fn unknown(name: &str, base: &str) -> String {
    let meant = OPERATORS
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(base));
    match meant {
        Some((known, ..)) => format!("Invalid condition operator {name}: write {known}"),
        None => format!("Invalid condition operator {name}"),
    }
}

impl Comparison {
    pub(crate) fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        }
    }
}
