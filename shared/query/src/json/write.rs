//! Documents of inserts and changes of updates.

use super::name::wrong_type;
use crate::{
    Budget, Change, Column, Document, Error, Object, Operation, Parser, Spelling, Table, Type, Typed, Value, typed,
};

/// Operators of an update.
const OPERATORS: [&str; 2] = ["set", "inc"];

impl Parser<'_> {
    pub(super) fn changes_of(&self, table: &Table, update: &Value, budget: &mut Budget) -> Result<Vec<Change>, Error> {
        table.check_operation(Operation::Update)?;
        if matches!(update, Value::Null) {
            return Err(Error::Required("update".to_owned()));
        }
        let Value::Object(Object(operators)) = update else {
            return Err(wrong_type("update", "object of operators", update));
        };
        let mut changes: Vec<Change> = Vec::new();
        for (key, operand) in operators {
            let bare = match self.spelling {
                Spelling::Dollar => self.bare(key),
                Spelling::Underscore => self.bare(key).or(Some(key)),
            };
            let operator = OPERATORS.iter().find(|known| bare == Some(known));
            let operator = operator.ok_or_else(|| self.unknown_operator(key, &OPERATORS))?;
            if matches!(operand, Value::Null) && self.spelling == Spelling::Underscore {
                // GraphQL: an argument that is null is one that is not given.
                continue;
            }
            let Value::Object(Object(members)) = operand else {
                return Err(wrong_type(key, "object of columns", operand));
            };
            for (name, value) in members {
                let column = self.column(table, name)?;
                if changes.iter().any(|change| change.column() == column.name) {
                    return Err(Error::Malformed(format!("column {} is changed twice", column.name)));
                }
                budget.value(value)?;
                changes.push(if *operator == "set" { set(table, column, value)? } else { inc(table, column, value)? });
            }
        }
        Ok(changes)
    }

    pub(super) fn docs_of(&self, table: &Table, docs: &Value, budget: &mut Budget) -> Result<Vec<Document>, Error> {
        table.check_operation(Operation::Create)?;
        let docs = match docs {
            Value::Object(doc) => return Ok(vec![self.doc(table, doc, budget)?]),
            Value::List(docs) => docs,
            Value::Null => return Err(Error::Required("doc".to_owned())),
            Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => {
                return Err(Error::Malformed(format!(
                    "incorrect insert object provided: expected object, found {}",
                    docs.kind()
                )));
            }
        };
        budget.list(|| "the list of rows".to_owned(), docs.len())?;
        let mut parsed = Vec::with_capacity(docs.len());
        for (position, doc) in docs.iter().enumerate() {
            let Value::Object(doc) = doc else {
                let kind = doc.kind();
                return Err(Error::Malformed(format!(
                    "incorrect insert object provided: expected object as document {position}, found {kind}"
                )));
            };
            parsed.push(self.doc(table, doc, budget)?);
        }
        Ok(parsed)
    }

    fn doc(&self, table: &Table, doc: &Object, budget: &mut Budget) -> Result<Document, Error> {
        budget.row()?;
        let mut members: Vec<(String, Typed)> = Vec::with_capacity(doc.0.len());
        for (key, value) in &doc.0 {
            let column = self.column(table, key)?;
            budget.value(value)?;
            let value = writable(table, column, value, Operation::Create)?;
            if members.iter().any(|(known, _)| *known == column.name) {
                return Err(Error::Malformed(format!("column {} is given twice", column.name)));
            }
            members.push((column.name.clone(), value));
        }
        let given = |column: &Column| members.iter().any(|(name, _)| *name == column.name);
        match table.columns.iter().find(|column| table.requires(column) && !given(column)) {
            Some(column) => Err(Error::Required(column.name.clone())),
            None => Ok(Document(members)),
        }
    }
}

fn set(table: &Table, column: &Column, value: &Value) -> Result<Change, Error> {
    let value = writable(table, column, value, Operation::Update)?;
    Ok(Change::Set { column: column.name.clone(), value })
}

fn inc(table: &Table, column: &Column, by: &Value) -> Result<Change, Error> {
    if !column.r#type.is_number() {
        return Err(Error::WrongType {
            name: column.name.clone(),
            expected: "numeric column to increment".to_owned(),
            found: format!("column of type {}", column.native),
        });
    }
    let accepted = match by {
        Value::Int(_) | Value::Number(_) => true,
        // What a double cannot hold may be a text.
        Value::Text(_) => matches!(column.r#type, Type::Int64 | Type::Decimal),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => false,
    };
    if !accepted {
        return Err(wrong_type(&column.name, "number to add", by));
    }
    let by = writable(table, column, by, Operation::Update)?;
    Ok(Change::Inc { column: column.name.clone(), by })
}

/// `value` as `column` can become it by `operation`.
fn writable(table: &Table, column: &Column, value: &Value, operation: Operation) -> Result<Typed, Error> {
    if column.generated {
        return Err(wrong_type(&column.name, "no value, because the database computes it", value));
    }
    if matches!(value, Value::Null) && !table.may_set_null(column, operation) {
        return Err(Error::Required(column.name.clone()));
    }
    typed(column, value)
}
