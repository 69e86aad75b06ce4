//! Rules as an abstract syntax tree.
//!
//! Its types admit valid rules only: errors of a rule are found when it is loaded, not when it is evaluated.

use std::sync::Arc;

use proto::auth::RelationPath;
use query::{Columns, Comparison, resources::MatchMode};
use regex::Regex;

use crate::{
    column_path::ColumnPath,
    operand::{ListOperand, Operand},
    questions::AskedFunction,
};

pub mod columns;
mod condition;
mod dependency;
mod parse;

pub use condition::Condition;
pub use dependency::{asks, depends_on};
pub use parse::{Diagnostic, Parser};

/// The policy of one operation on one table, as of row-level security.
#[derive(Debug)]
pub struct Policy {
    /// A number that no other policy of this process has, nor had.
    pub id: u64,
    /// Whether its grants depend on the caller's claims and on nothing else of a request.
    pub depends_on_claims_only: bool,
    /// How its rule and its conditions reach other tables; `None` where they look at its own alone.
    pub relations: Option<Arc<[RelationPath]>>,
    /// Decides who may do it, and on which rows.
    pub rule: Rule,
    /// Evaluates the rule for callers without a valid token too, instead of refusing them.
    pub anonymous: bool,
    /// A further condition on rows that are read, changed or deleted (SQL's `USING`).
    pub row_filter: Option<Condition>,
    /// A condition on rows that are stored (SQL's `WITH CHECK`); absent, an update checks the filter of its rows again.
    pub with_check: Option<Condition>,
    /// Permits an update or a delete without a condition.
    pub allow_all: bool,
    /// Columns that may be seen, searched and written.
    pub columns: Arc<Columns>,
    /// File and line of its rule, for explanations; empty until the document it stands in is known.
    pub place: String,
}

/// A rule: a boolean expression over the request.
#[derive(Debug)]
pub struct Rule {
    /// The expression.
    pub kind: Kind,
    /// The error text for callers whom it refuses.
    pub error: Option<String>,
}

/// The kinds of rules.
#[derive(Debug)]
pub enum Kind {
    /// True. As the outermost rule it does not verify the token.
    Allow,
    /// True for callers with a valid token.
    Authenticated,
    /// False.
    Deny,
    /// A comparison.
    Match(Match),
    /// The conjunction.
    And(Vec<Rule>),
    /// The disjunction.
    Or(Vec<Rule>),
    /// A question to a function: true where it acknowledges. Undecided where it does not answer.
    Func(AskedFunction),
    /// The negation; an undecided rule stays undecided.
    Not(Box<Rule>),
}

/// A comparison.
#[derive(Debug)]
pub struct Match {
    /// The left side.
    pub subject: Subject,
    /// The type that both sides are compared as.
    pub r#type: Type,
    /// The operator and the right side.
    pub test: Test,
}

/// The left side of a comparison.
#[derive(Debug)]
pub enum Subject {
    /// A value that is known when the rule is evaluated.
    Value(Operand),
    /// A column of the rows that the client selects: the comparison becomes a filter.
    Column {
        /// The column.
        column: ColumnPath,
        /// The constraint that the client's own condition must put on it; `None`: the project's.
        mode: Option<MatchMode>,
    },
}

/// The operator of a comparison with its right side.
#[derive(Debug)]
pub enum Test {
    /// `==`, `!=`, `<`, `<=`, `>`, `>=`.
    Compare(Comparison, Operand),
    /// `in`.
    In(ListOperand),
    /// `notIn`.
    NotIn(ListOperand),
    /// `isNull`.
    IsNull,
    /// `startsWith`.
    StartsWith(Operand),
    /// `matches`.
    Matches(Regex),
}

impl Test {
    /// The operands of the right side.
    pub fn operands(&self) -> &[Operand] {
        match self {
            Test::Compare(_, operand) | Test::StartsWith(operand) => std::slice::from_ref(operand),
            Test::In(list) | Test::NotIn(list) => list.operands(),
            Test::IsNull | Test::Matches(_) => &[],
        }
    }
}

/// The type that a comparison is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Strings, compared byte by byte.
    String,
    /// Numbers, compared exactly.
    Number,
    /// Booleans.
    Bool,
    /// Dates, compared as instants.
    Date,
}

impl Type {
    /// Its name in rules.
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Number => "number",
            Type::Bool => "bool",
            Type::Date => "date",
        }
    }
}
