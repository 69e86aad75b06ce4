//! Rules as a tree of closed types: what is wrong in a rule is found when it is loaded, not when it is asked.

use std::sync::Arc;

use query::{Columns, Comparison, resources::MatchMode};
use regex::Regex;

use crate::{condition::Condition, operand::Operand};

mod parse;

pub use parse::{Context, Fault, Parser};

/// What one operation on a table needs.
#[derive(Debug)]
pub struct Guard {
    /// Who may, and for which rows.
    pub rule: Rule,
    /// A caller without a token is asked for by the rule, instead of being sent away.
    pub anonymous: bool,
    /// What rows must pass besides, to be read, changed or deleted.
    pub row_filter: Option<Condition>,
    /// What a row must pass to be stored; on an update it stands in for what the row passed before.
    pub with_check: Option<Condition>,
    /// All rows may be changed or deleted at once.
    pub allow_all: bool,
    /// Columns that may be seen, searched and written.
    pub columns: Arc<Columns>,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What it asks.
    pub kind: Kind,
    /// What a caller is told where it fails.
    pub error: Option<String>,
}

/// What a rule asks.
#[derive(Debug)]
pub enum Kind {
    /// Nothing. As the outermost rule it does not even look at the token.
    Allow,
    /// A valid token.
    Authenticated,
    /// What cannot be.
    Deny,
    /// A comparison.
    Match(Match),
    /// All of them.
    And(Vec<Rule>),
    /// One of them.
    Or(Vec<Rule>),
    /// The opposite; what cannot be decided stays so.
    Not(Box<Rule>),
}

/// A comparison.
#[derive(Debug)]
pub struct Match {
    /// What is compared.
    pub subject: Subject,
    /// As what.
    pub r#type: Type,
    /// With what.
    pub test: Test,
}

/// The left side of a comparison.
#[derive(Debug)]
pub enum Subject {
    /// A value that is known when the rule is asked.
    Value(Operand),
    /// A column of the rows that the client asks for: the comparison becomes a filter.
    Column(Column),
}

/// A column of the table, or of one that relations lead to.
#[derive(Debug)]
pub struct Column {
    /// Names of relations, from the table on.
    pub relations: Vec<String>,
    /// The column's name.
    pub name: String,
    /// What the client's own condition must say of it.
    pub mode: MatchMode,
}

/// What is compared with a subject.
#[derive(Debug)]
pub enum Test {
    /// One value.
    Compare(Comparison, Operand),
    /// One of these.
    In(List),
    /// None of these.
    NotIn(List),
    /// Null.
    IsNull,
    /// A beginning.
    StartsWith(Operand),
    /// A regular expression.
    Matches(Regex),
}

/// Values of `in` and `notIn`.
#[derive(Debug)]
pub enum List {
    /// As they stand in the rule.
    Items(Vec<Operand>),
    /// All that a request has at some place.
    Of(Operand),
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Texts, byte by byte.
    String,
    /// Numbers, exactly.
    Number,
    /// Booleans.
    Bool,
    /// Instants.
    Date,
}

impl Type {
    /// `string`, `number`, `bool`, `date`.
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Number => "number",
            Type::Bool => "bool",
            Type::Date => "date",
        }
    }
}
