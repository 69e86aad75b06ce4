//! The operation model: what every protocol is translated to and every engine works on.
//!
//! Pure: no clock, no I/O, no async. A [`Filter`] means the same to the SQL compiler, to a live query and to a rule; a
//! protocol that cannot say something in these types does not get to do it.

#[cfg(test)]
extern crate self as query;

mod access;
mod concern;
pub mod datetime;
mod equality;
mod error;
pub mod event;
pub mod file;
mod filter;
mod filter_index;
#[cfg(test)]
mod fixtures;
pub mod function;
mod grant;
mod heap;
pub mod hook;
pub mod image;
mod json;
/// The reader of JSON texts stands above this crate; its tests write values as texts.
#[cfg(test)]
#[path = "../../../proto/src/json.rs"]
mod json_text;
mod limits;
mod link;
pub mod media_type;
mod neighbours;
pub mod number;
mod operation;
mod relation;
pub mod resources;
mod row;
mod schema;
pub mod trigger;
mod typed;
pub mod uuid;
mod value;

pub use access::{TableAccess, mutation_accesses, read_accesses, visit_mutation_accesses, visit_read_accesses};
pub use concern::{Concern, read_concerns};
pub use equality::{Equality, EqualityClass};
pub use error::{Error, RelatedTable, nearest};
pub use filter::{Comparison, Filter, Quantifier, RuleFilter};
pub use filter_index::{FilterHandle, FilterIndex};
pub use grant::{Columns, GrantTerms};
pub use json::{Options, Parser, Spelling};
pub use limits::{Budget, Guard, Limits, SelectionCost};
pub use operation::{
    Change, Document, Field, FieldKind, Mutation, MutationKind, Node, Operation, Read, Shape, Sort, Write,
};
pub use row::{Related, Row};
pub use schema::{
    Abilities, Column, Comparisons, Digits, ForeignKey, Matching, Relation, Schema, Table, TableKind, Type, Writes,
};
pub use typed::{Typed, comparable, list_shape, typed};
pub use value::{Object, Value};
