//! Conditions: `find` of REST, `where` of GraphQL.

use super::name::{Name, wrong_type};
use crate::{
    Budget, Column, Comparison, Error, Filter, Object, Parser, Quantifier, Relation, Table, Type, Value, comparable,
};

/// Operators on conditions of a table; each may have a suffix, so that an object can hold several: `$or:1`.
const LOGIC: [&str; 3] = ["and", "or", "not"];
/// Operators on a column.
const OPERATORS: [&str; 10] = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "isNull", "not"];
/// Operators on a relation to many rows.
const QUANTIFIERS: [&str; 3] = ["some", "none", "every"];
/// The operator on a relation to one row.
const PRESENCE: [&str; 1] = ["isNull"];

impl Parser<'_> {
    /// A condition that may be absent.
    pub(super) fn condition(&self, table: &Table, find: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        if matches!(find, Value::Null) {
            return Ok(Filter::TRUE);
        }
        let Value::Object(object) = find else {
            return Err(wrong_type("condition", "object", find));
        };
        self.all_of(table, object.0.iter(), budget)
    }

    /// All members of a condition's object.
    fn all_of<'v>(
        &self,
        table: &Table,
        members: impl Iterator<Item = &'v (String, Value)>,
        budget: &mut Budget,
    ) -> Result<Filter, Error> {
        let mut filters = Vec::with_capacity(members.size_hint().0);
        for (key, value) in members {
            filters.push(self.member(table, key, value, budget)?);
        }
        Ok(all(filters))
    }

    fn member(&self, table: &Table, key: &str, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        let unsuffixed = key.split_once(':').map_or(key, |(operator, _)| operator);
        match self.operator(table, unsuffixed, &LOGIC) {
            Some("and") => return Ok(all(self.branches(table, key, value, budget)?)),
            Some("or") => return Ok(any(self.branches(table, key, value, budget)?)),
            Some(_) => return budget.nested(|budget| self.branch(table, key, value, budget)).map(negated),
            None => {}
        }
        match self.name(table, key) {
            Ok(Name::Column(column)) => self.column_condition(column, value, budget),
            Ok(Name::Relation(relation)) if relation.many => self.many(relation, value, budget),
            Ok(Name::Relation(relation)) => self.one(relation, value, budget),
            Err(_) if key.starts_with('$') => Err(self.unknown_operator(key, &LOGIC)),
            Err(error) => Err(error),
        }
    }

    /// The list of conditions that `and` and `or` take.
    fn branches(&self, table: &Table, key: &str, value: &Value, budget: &mut Budget) -> Result<Vec<Filter>, Error> {
        let Value::List(items) = value else {
            return Err(malformed(key, "array", value));
        };
        budget.nested(|budget| items.iter().map(|item| self.branch(table, key, item, budget)).collect())
    }

    /// A condition that must be given.
    fn branch(&self, table: &Table, key: &str, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        let Value::Object(object) = value else {
            return Err(malformed(key, "object", value));
        };
        self.all_of(table, object.0.iter(), budget)
    }

    /// A condition on a column: a value, or an object of operators.
    fn column_condition(&self, column: &Column, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        let Value::Object(Object(operators)) = value else {
            return equals(column, value, budget);
        };
        if operators.is_empty() {
            return Err(Error::Malformed(format!("empty condition on column {}", column.name)));
        }
        let filters: Result<_, _> =
            operators.iter().map(|(key, operand)| self.operation(column, key, operand, budget)).collect();
        Ok(all(filters?))
    }

    fn operation(&self, column: &Column, key: &str, operand: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        let bare = self.bare(key);
        if bare == Some("not") && matches!(operand, Value::Object(_)) {
            return budget.nested(|budget| self.column_condition(column, operand, budget)).map(negated);
        }
        budget.condition()?;
        match bare {
            Some("eq") => equal(column, operand, budget),
            Some("ne") => unequal(column, operand, budget),
            Some("gt") => ordered(column, Comparison::Gt, operand, budget),
            Some("gte") => ordered(column, Comparison::Gte, operand, budget),
            Some("lt") => ordered(column, Comparison::Lt, operand, budget),
            Some("lte") => ordered(column, Comparison::Lte, operand, budget),
            Some("in") => within(column, list(column, key, operand)?, budget),
            Some("nin") => within(column, list(column, key, operand)?, budget).map(negated),
            Some("isNull") if flag(&column.name, key, operand)? => Ok(is_null(column)),
            Some("isNull") => Ok(negated(is_null(column))),
            Some("not") => Err(malformed(key, "object", operand)),
            _ => Err(self.unknown_operator(key, &OPERATORS)),
        }
    }

    /// A condition on the row that a relation leads to; null where it leads to none.
    fn one(&self, relation: &Relation, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        if matches!(value, Value::Null) {
            budget.condition()?;
            return Ok(related(relation, Quantifier::None, Filter::TRUE));
        }
        let Value::Object(Object(members)) = value else {
            return Err(wrong_type(&relation.name, format!("condition on {} or null", relation.table), value));
        };
        let far = self.schema.target(relation)?;
        let is_presence = |key: &str| self.operator(far, key, &PRESENCE).is_some();
        let mut filters = Vec::new();
        for (key, value) in members.iter().filter(|(key, _)| is_presence(key)) {
            budget.condition()?;
            let quantifier = if flag(&relation.name, key, value)? { Quantifier::None } else { Quantifier::Some };
            filters.push(related(relation, quantifier, Filter::TRUE));
        }
        if filters.is_empty() || members.len() > filters.len() {
            let conditions = members.iter().filter(|(key, _)| !is_presence(key));
            let filter = budget.nested(|budget| self.all_of(far, conditions, budget));
            let filter = filter.map_err(|error| error.in_related(far))?;
            filters.push(related(relation, Quantifier::Some, filter));
        }
        Ok(all(filters))
    }

    /// A condition on the rows that a relation leads to.
    fn many(&self, relation: &Relation, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
        let Value::Object(Object(members)) = value else {
            let known = QUANTIFIERS.map(|quantifier| self.spelled(quantifier)).join(", ");
            return Err(wrong_type(&relation.name, format!("object of {known}"), value));
        };
        if members.is_empty() {
            return Err(Error::Malformed(format!("empty condition on relation {}", relation.name)));
        }
        let far = self.schema.target(relation)?;
        let mut filters = Vec::with_capacity(members.len());
        for (key, value) in members {
            let quantifier = self.quantifier(key)?;
            let filter = budget.nested(|budget| self.branch(far, key, value, budget));
            filters.push(related(relation, quantifier, filter.map_err(|error| error.in_related(far))?));
        }
        Ok(all(filters))
    }

    fn quantifier(&self, key: &str) -> Result<Quantifier, Error> {
        match self.bare(key) {
            Some("some") => Ok(Quantifier::Some),
            Some("none") => Ok(Quantifier::None),
            Some("every") => Ok(Quantifier::Every),
            _ => Err(match self.unknown_operator(key, &QUANTIFIERS) {
                Error::UnknownOperator { operator, nearest: None } => {
                    Error::UnknownOperator { operator, nearest: Some(self.spelled("some")) }
                }
                error => error,
            }),
        }
    }
}

/// Counts the condition and parses it.
pub fn equals(column: &Column, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
    budget.condition()?;
    equal(column, value, budget)
}

/// The value of the column is `value`, or one of several, or null.
fn equal(column: &Column, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
    match value {
        Value::Null => Ok(is_null(column)),
        Value::List(values) if !holds_lists(column) => within(column, values, budget),
        Value::List(_) | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) | Value::Object(_) => {
            counted(value, budget)?;
            compare(column, Comparison::Eq, value)
        }
    }
}

/// Counts the values of a list that is compared as a whole.
fn counted(value: &Value, budget: &mut Budget) -> Result<(), Error> {
    if matches!(value, Value::List(_)) { budget.value(value) } else { Ok(()) }
}

/// Whether a list is one value of the column; else it is several.
fn holds_lists(column: &Column) -> bool {
    matches!(column.r#type, Type::List(_))
}

/// Negation of [`equal`]. A boolean that is not true may be null, as in SQL's `IS NOT TRUE`.
fn unequal(column: &Column, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
    if matches!(value, Value::Null) || (matches!(value, Value::List(_)) && !holds_lists(column)) {
        return equal(column, value, budget).map(negated);
    }
    counted(value, budget)?;
    let differs = compare(column, Comparison::Ne, value)?;
    if column.r#type == Type::Bool {
        return Ok(Filter::Or(vec![differs, is_null(column)]));
    }
    Ok(differs)
}

/// Nothing is greater or less than null.
fn ordered(column: &Column, comparison: Comparison, value: &Value, budget: &mut Budget) -> Result<Filter, Error> {
    if matches!(value, Value::Null) {
        return Ok(Filter::FALSE);
    }
    column.check_order(value.kind())?;
    counted(value, budget)?;
    compare(column, comparison, value)
}

fn compare(column: &Column, comparison: Comparison, value: &Value) -> Result<Filter, Error> {
    let value = comparable(column, value)?;
    Ok(Filter::Compare { column: column.name.clone(), comparison, value })
}

/// The value of the column is one of `values`, of which null is one like another.
fn within(column: &Column, values: &[Value], budget: &mut Budget) -> Result<Filter, Error> {
    budget.list(|| format!("the list for {}", column.name), values.len())?;
    let mut candidates = Vec::with_capacity(values.len());
    for value in values {
        budget.value(value)?;
        if !matches!(value, Value::Null) {
            candidates.push(comparable(column, value)?);
        }
    }
    let has_null = candidates.len() < values.len();
    match (candidates.is_empty(), has_null) {
        (true, false) => Ok(Filter::FALSE),
        (true, true) => Ok(is_null(column)),
        (false, false) => Ok(Filter::In { column: column.name.clone(), values: candidates }),
        (false, true) => {
            Ok(Filter::Or(vec![Filter::In { column: column.name.clone(), values: candidates }, is_null(column)]))
        }
    }
}

/// What `in` and `nin` take: a list, or one value in place of a list of one.
fn list<'v>(column: &Column, key: &str, operand: &'v Value) -> Result<&'v [Value], Error> {
    match operand {
        Value::List(values) => Ok(values),
        Value::Null | Value::Object(_) => Err(malformed(&format!("{key} of {}", column.name), "array", operand)),
        Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => Ok(std::slice::from_ref(operand)),
    }
}

fn flag(name: &str, key: &str, value: &Value) -> Result<bool, Error> {
    let Value::Bool(flag) = value else {
        return Err(wrong_type(format!("{key} of {name}"), "boolean", value));
    };
    Ok(*flag)
}

fn is_null(column: &Column) -> Filter {
    Filter::IsNull { column: column.name.clone() }
}

fn related(relation: &Relation, quantifier: Quantifier, filter: Filter) -> Filter {
    let (name, long_name) = (relation.name.clone(), relation.long_name.clone());
    Filter::Related { relation: name, long_name, quantifier, filter: Box::new(filter) }
}

/// The conjunction, without members that are true anyway.
fn all(filters: Vec<Filter>) -> Filter {
    let mut filters: Vec<Filter> = filters.into_iter().filter(|filter| !filter.is_true()).collect();
    if filters.len() == 1 { filters.remove(0) } else { Filter::And(filters) }
}

/// The disjunction; true where one of its members is true anyway.
fn any(mut filters: Vec<Filter>) -> Filter {
    if filters.iter().any(Filter::is_true) {
        return Filter::TRUE;
    }
    if filters.len() == 1 { filters.remove(0) } else { Filter::Or(filters) }
}

/// Negation. Of a disjunction it is the conjunction of the negated members, which an index can serve: `$nin: [1, null]`.
fn negated(filter: Filter) -> Filter {
    if filter.is_true() {
        return Filter::FALSE;
    }
    match filter {
        Filter::Or(filters) => Filter::And(filters.into_iter().map(negated).collect()),
        filter => Filter::Not(Box::new(filter)),
    }
}

fn malformed(key: &str, expected: &str, value: &Value) -> Error {
    Error::Malformed(format!("invalid {}: expected {expected}, found {}", crate::error::truncated(key), value.kind()))
}
