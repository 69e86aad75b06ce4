//! Messages of the service for rows in databases.

use std::{collections::HashMap, sync::Arc};

use query::{Mutation, Read, Schema};
use tonic::Status;

use crate::{
    carried::Carried,
    convert::{all, each, invalid},
    grant::Grant,
    wire::crud::v1 as wire,
};

pub use wire::{
    Answer, Change, ChangesRequest, ChangesResponse, LogRequest, LogResponse, Operation, ReadResponse, Resync,
    ResyncReason, Seen, Snapshot, Started, Transaction, WriteResponse, Written, log_response::Event,
};

/// Reads of one database, all in one snapshot.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// The project's id.
    pub project: Arc<str>,
    /// The database's id.
    pub database: Arc<str>,
    /// The reads.
    pub reads: Vec<Read>,
    /// A grant to read each table that the reads touch, in the order of [`query::read_accesses`].
    pub grants: Vec<Grant>,
    /// Bytes of JSON that all answers may have together; 0 means 64 MiB.
    pub answer_bytes: u64,
    /// Whether the snapshot of the reads is answered too, and the position of the log after it.
    pub snapshot: bool,
}

/// Mutations of one database in their order, in one transaction.
#[derive(Debug, Clone, Default)]
pub struct WriteRequest {
    /// The project's id.
    pub project: Arc<str>,
    /// The database's id.
    pub database: Arc<str>,
    /// The mutations.
    pub mutations: Vec<Mutation>,
    /// A grant for each table that the mutations touch, in the order of [`query::mutation_accesses`].
    pub grants: Vec<Grant>,
    /// Bytes of JSON that all answers of the client's request may have together; 0 means 64 MiB.
    pub answer_bytes: u64,
    /// Bytes of those that other databases have used.
    pub answer_bytes_used: u64,
}

/// Which databases are described, and how freshly.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeRequest {
    /// The project's id.
    pub project: String,
    /// Look at the databases again, at most once a second each.
    pub refresh: bool,
    /// Versions of the schemas that the caller has, by database.
    pub known: HashMap<String, u64>,
}

/// The databases of a project and what they hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeResponse {
    /// Databases, ordered by id.
    pub databases: Vec<Database>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Database {
    /// Its id.
    pub id: String,
    /// `sqlite` or `postgres`.
    pub engine: String,
    /// Changes whenever the schema does; 0 while the database has not been reached.
    pub version: u64,
    /// Its schema; `None` where the caller has this version, and while it has not been reached.
    pub schema: Option<Arc<Schema>>,
    /// Error of the last attempt to reach it; empty while there was none.
    pub error: String,
}

impl Database {
    /// Whether the first attempt to reach it is still under way.
    pub fn is_opening(&self) -> bool {
        self.version == 0 && self.schema.is_none() && self.error.is_empty()
    }
}

impl Snapshot {
    /// Whether it sees what the transaction of this id did.
    pub fn sees(&self, transaction: u64) -> bool {
        transaction < self.start || (transaction < self.end && self.running.binary_search(&transaction).is_err())
    }
}

/// A schema as it crosses a wire: the same bytes for the same schema.
pub fn encoded(schema: &Schema) -> Vec<u8> {
    prost::Message::encode_to_vec(&crate::wire::query::v1::Schema::from(schema))
}

/// Records of changes, as they cross the bus.
pub mod record {
    use bytes::Bytes;
    use prost::Message;

    pub use super::wire::{
        Capture, CaptureFailure, CaptureNotice, Captures, LogRecord, RecordedLoss, RecordedPart, log_record::Record,
    };

    /// The encoding of a message.
    pub fn encoded(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    /// The message that `bytes` encode; `None` where they do not.
    pub fn decoded<M: Message + Default>(bytes: Bytes) -> Option<M> {
        M::decode(bytes).ok()
    }
}

impl Carried for ReadRequest {
    type Wire = wire::ReadRequest;

    fn into_wire(self) -> wire::ReadRequest {
        wire::ReadRequest {
            project: self.project.as_ref().to_owned(),
            database: self.database.as_ref().to_owned(),
            reads: each(self.reads),
            grants: each(self.grants),
            answer_bytes: self.answer_bytes,
            snapshot: self.snapshot,
        }
    }

    fn from_wire(wire: wire::ReadRequest) -> Result<Self, Status> {
        let reads = all(wire.reads).map_err(invalid)?;
        Ok(Self {
            project: wire.project.into(),
            database: wire.database.into(),
            reads,
            grants: each(wire.grants),
            answer_bytes: wire.answer_bytes,
            snapshot: wire.snapshot,
        })
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Carried for WriteRequest {
    type Wire = wire::WriteRequest;

    fn into_wire(self) -> wire::WriteRequest {
        wire::WriteRequest {
            project: self.project.as_ref().to_owned(),
            database: self.database.as_ref().to_owned(),
            mutations: each(self.mutations),
            grants: each(self.grants),
            answer_bytes: self.answer_bytes,
            answer_bytes_used: self.answer_bytes_used,
        }
    }

    fn from_wire(wire: wire::WriteRequest) -> Result<Self, Status> {
        let mutations = all(wire.mutations).map_err(invalid)?;
        Ok(Self {
            project: wire.project.into(),
            database: wire.database.into(),
            mutations,
            grants: each(wire.grants),
            answer_bytes: wire.answer_bytes,
            answer_bytes_used: wire.answer_bytes_used,
        })
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Carried for DescribeRequest {
    type Wire = wire::DescribeRequest;

    fn into_wire(self) -> wire::DescribeRequest {
        wire::DescribeRequest { project: self.project, refresh: self.refresh, known: self.known }
    }

    fn from_wire(wire: wire::DescribeRequest) -> Result<Self, Status> {
        Ok(Self { project: wire.project, refresh: wire.refresh, known: wire.known })
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Carried for DescribeResponse {
    type Wire = wire::DescribeResponse;

    fn into_wire(self) -> wire::DescribeResponse {
        let database = |database: Database| wire::Database {
            id: database.id,
            r#type: database.engine,
            version: database.version,
            schema: database.schema.map(|schema| (&*schema).into()),
            error: database.error,
        };
        wire::DescribeResponse { databases: self.databases.into_iter().map(database).collect() }
    }

    fn from_wire(wire: wire::DescribeResponse) -> Result<Self, Status> {
        let database = |database: wire::Database| {
            let schema = database.schema.map(Schema::try_from).transpose().map_err(invalid)?;
            Ok(Database {
                id: database.id,
                engine: database.r#type,
                version: database.version,
                schema: schema.map(Arc::new),
                error: database.error,
            })
        };
        Ok(Self { databases: wire.databases.into_iter().map(database).collect::<Result<_, Status>>()? })
    }

    fn bytes(&self) -> usize {
        0
    }
}
