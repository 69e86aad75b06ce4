//! Introspection: `__schema` and `__type`, answered from a schema of what the caller can reach.
//!
//! The schema is built when something is asked of it that is not cached, and dropped at once: it takes megabytes where a
//! compressed answer takes kilobytes. One is built at a time for each project, so that a stranger cannot make it costly.

mod cost;
mod reach;
mod schema;
mod type_names;

use std::{
    hash::{Hash, Hasher},
    io::Read,
    sync::Arc,
};

use async_graphql::{ServerError, Value as Answered, dynamic::Schema};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use mesh::{
    Code, Fault,
    cache::{self, WeightedCache, Weighter},
    fault::answer_too_large,
};
use proto::auth::ReachableResponse;

use self::{reach::Reach, schema::Sizes};
use super::{names::Names, plan::IntrospectionField};

pub use self::schema::NOTHING;

/// Approximate memory limit of the cache of answers.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Answers of the size that is usual that it holds.
const ANSWERS_EXPECTED: usize = 1000;

/// Cache of answers to fields of introspection.
pub struct IntrospectionCache {
    answers: WeightedCache<AnswerKey, Arc<CachedAnswer>, AnswerWeighter>,
}

impl Default for IntrospectionCache {
    fn default() -> Self {
        Self { answers: cache::weighted(CACHE_BYTES, ANSWERS_EXPECTED, AnswerWeighter) }
    }
}

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AnswerKey {
    /// [`Names::id`].
    names: u64,
    /// Digest of what the caller can reach.
    reach: [u8; 32],
    /// The field with its selection.
    field: String,
}

/// The answer to a field of introspection.
#[derive(Debug, Clone)]
enum CachedAnswer {
    /// Its JSON, compressed.
    Json(Vec<u8>),
    /// It is not valid.
    Invalid(String),
    /// It asks for more than a schema of this size is shown for.
    TooCostly {
        /// What it asks for, in values.
        seen: usize,
        /// What is allowed.
        limit: usize,
    },
}

#[derive(Clone)]
struct AnswerWeighter;

impl Weighter<AnswerKey, Arc<CachedAnswer>> for AnswerWeighter {
    fn weight(&self, key: &AnswerKey, answer: &Arc<CachedAnswer>) -> u64 {
        let bytes = match answer.as_ref() {
            CachedAnswer::Json(compressed) => compressed.len(),
            CachedAnswer::Invalid(text) => text.len(),
            CachedAnswer::TooCostly { .. } => 0,
        };
        (key.field.len() + bytes + 200) as u64
    }
}

impl IntrospectionCache {
    /// JSON of each of `fields`, for a caller of this reach. Errors have the index of their field as detail `field`.
    pub async fn answers(
        &self,
        names: &Arc<Names>,
        reach: ReachableResponse,
        fields: &[IntrospectionField],
        answer_bytes: u64,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let digest = digest(&reach);
        let key = |field: &IntrospectionField| {
            let mut text = String::new();
            field.write(&mut text);
            AnswerKey { names: names.id, reach: digest, field: text }
        };
        let keys: Vec<AnswerKey> = fields.iter().map(key).collect();
        let answers = match self.cached(&keys) {
            Some(answers) => answers,
            None => self.made(names, reach, fields, keys).await?,
        };
        let read = move || decompressed(&answers, answer_bytes);
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|panic| Fault::internal("the schema could not be read", panic))?
    }

    fn cached(&self, keys: &[AnswerKey]) -> Option<Vec<Arc<CachedAnswer>>> {
        keys.iter().map(|key| self.answers.get(key)).collect()
    }

    /// Builds the schema and answers the fields, unless somebody did meanwhile.
    async fn made(
        &self,
        names: &Arc<Names>,
        reach: ReachableResponse,
        fields: &[IntrospectionField],
        keys: Vec<AnswerKey>,
    ) -> Result<Vec<Arc<CachedAnswer>>, Fault> {
        let turn = names.introspection.next().await;
        let turn = turn.ok_or_else(|| Fault::new(Code::TooMany, "too many requests wait for the schema"))?;
        if let Some(answers) = self.cached(&keys) {
            return Ok(answers);
        }
        let (names, fields, texts) = (names.clone(), fields.to_vec(), keys.clone());
        let runtime = tokio::runtime::Handle::current();
        let make = move || {
            // The turn lasts as long as the work, even if the caller leaves.
            let _turn = turn;
            let built = schema::build(&names, &Reach::new(&names, &reach))?;
            let answer = |(field, key): (&IntrospectionField, &AnswerKey)| {
                Arc::new(runtime.block_on(answer(&built.schema, built.sizes, field, &key.field)))
            };
            Ok(fields.iter().zip(&texts).map(answer).collect())
        };
        let made = tokio::task::spawn_blocking(make).await;
        let made: Result<Vec<Arc<CachedAnswer>>, Fault> =
            made.map_err(|panic| Fault::internal("the schema could not be built", panic))?;
        let made = made?;
        for (key, answer) in keys.into_iter().zip(&made) {
            self.answers.insert(key, answer.clone());
        }
        Ok(made)
    }
}

async fn answer(schema: &Schema, sizes: Sizes, field: &IntrospectionField, text: &str) -> CachedAnswer {
    let (seen, limit) = (cost::of(field, sizes), cost::limit(sizes));
    if seen > limit {
        return CachedAnswer::TooCostly { seen, limit };
    }
    let mut response = schema.execute(format!("{{{text}}}")).await;
    if let Some(error) = response.errors.first() {
        return CachedAnswer::Invalid(ServerError::clone(error).message);
    }
    let value = match &mut response.data {
        Answered::Object(members) => members.swap_remove(field.name.as_str()),
        _ => None,
    };
    let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut compressed, &value).expect("texts can always be written to memory");
    CachedAnswer::Json(compressed.finish().expect("memory takes what is written"))
}

fn decompressed(answers: &[Arc<CachedAnswer>], answer_bytes: u64) -> Result<Vec<Vec<u8>>, Fault> {
    let mut left = answer_bytes;
    let mut read = Vec::with_capacity(answers.len());
    for (index, answer) in answers.iter().enumerate() {
        let at = |fault: Fault| fault.with("field", index.to_string());
        let compressed = match answer.as_ref() {
            CachedAnswer::Json(compressed) => compressed,
            CachedAnswer::Invalid(text) => return Err(at(Fault::new(Code::BadRequest, text.clone()))),
            CachedAnswer::TooCostly { seen, limit } => {
                let text = format!("introspection of {seen} values is over the limit of {limit} for this schema");
                return Err(at(Fault::new(Code::TooComplex, text)));
            }
        };
        let mut json = Vec::new();
        let mut decoder = GzDecoder::new(compressed.as_slice()).take(left.saturating_add(1));
        decoder.read_to_end(&mut json).map_err(|error| at(Fault::internal("the schema could not be read", error)))?;
        left = left
            .checked_sub(json.len() as u64)
            .ok_or_else(|| at(Fault::new(Code::TooLarge, answer_too_large(answer_bytes))))?;
        read.push(json);
    }
    Ok(read)
}

/// A digest of `reach`. It must not collide: answers are shared by it.
fn digest(reach: &ReachableResponse) -> [u8; 32] {
    let mut hasher = Blake(blake3::Hasher::new());
    for table in &reach.tables {
        (&table.database, &table.table, table.operations.len()).hash(&mut hasher);
        for (operation, columns) in &table.operations {
            (operation, &columns.read, &columns.filter, &columns.write, &columns.deny).hash(&mut hasher);
        }
    }
    *hasher.0.finalize().as_bytes()
}

/// BLAKE3 as a hasher of the standard library, whose `Hash` writes lengths and ends of what it is given.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }
}
