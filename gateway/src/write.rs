//! Writes of REST and gRPC, and their mutations against a schema.

use query::{Budget, Error, MutationKind, Operation, Parser, Table, Value};

/// A write, its values parsed but its names not yet held against a schema.
#[derive(Debug)]
pub enum Write {
    /// INSERT.
    Create {
        /// An object or a list of objects.
        docs: Value,
    },
    /// UPDATE.
    Update {
        /// Which rows.
        find: Value,
        /// `{"$set": {…}}`.
        update: Value,
        /// At most one row.
        one: bool,
    },
    /// DELETE.
    Delete {
        /// Which rows.
        find: Value,
        /// At most one row.
        one: bool,
    },
}

impl Write {
    /// The operation to authorize.
    pub fn operation(&self) -> Operation {
        match self {
            Write::Create { .. } => Operation::Create,
            Write::Update { .. } => Operation::Update,
            Write::Delete { .. } => Operation::Delete,
        }
    }

    /// The kind of mutation that this is of `table`.
    pub fn mutation_kind(&self, parser: Parser<'_>, table: &Table, budget: &mut Budget) -> Result<MutationKind, Error> {
        match self {
            Write::Create { docs } => Ok(MutationKind::Insert { docs: parser.docs(table, docs, budget)?.into() }),
            Write::Update { find, update, one } => {
                let filter = parser.filter(table, find, budget)?;
                let changes = parser.changes(table, update, budget)?;
                if changes.is_empty() {
                    let message = "invalid update: it changes nothing, expected operators such as $set";
                    return Err(Error::Malformed(message.to_owned()));
                }
                Ok(MutationKind::Update { filter, changes, one: *one })
            }
            Write::Delete { find, one } => {
                Ok(MutationKind::Delete { filter: parser.filter(table, find, budget)?, one: *one })
            }
        }
    }
}
