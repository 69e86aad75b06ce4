//! Policy set: the keys and policies of all projects that are in force.

use std::{path::Path, sync::Arc};

use foldhash::{HashMap, HashMapExt};
use mesh::resources::Snapshot;
use query::{
    Object, Value,
    resources::{AccessKey, MatchMode, ProjectResource, TableMeta, TokenKey},
};
use tracing::{error, warn};

use crate::{
    bucket::BucketResource,
    error::Error,
    event::{self, EventDocument, EventPolicy},
    file_policy::FilePolicies,
    function::{self, FunctionPolicies, ServiceResource},
    key,
    rule::Diagnostic,
    table::{self, TablePolicies, TableResource},
    token::{CLAIM_LIMITS, KeySet, VerifiedToken},
};

/// The policies of all projects.
///
/// It is immutable: a change of the resources makes a new one, which replaces it at once.
#[derive(Default)]
pub struct PolicySet {
    projects: HashMap<String, ProjectPolicies>,
}

/// The keys and policies of a project.
pub struct ProjectPolicies {
    /// Verifies its tokens.
    pub keys: Arc<KeySet>,
    /// Claims of its access keys of the S3 protocol, by their ids.
    pub access_keys: HashMap<String, Arc<VerifiedToken>>,
    /// The match mode of comparisons that have none of their own.
    pub mode: MatchMode,
    databases: HashMap<String, DatabasePolicies>,
    buckets: HashMap<String, FilePolicies>,
    services: HashMap<String, FunctionPolicies>,
    events: HashMap<String, EventPolicy>,
    /// Whether a rule of it asks a function.
    pub asks: bool,
}

/// The policies of a database.
#[derive(Debug, Default)]
struct DatabasePolicies {
    tables: HashMap<String, TablePolicies>,
    default: TablePolicies,
}

impl PolicySet {
    /// The policies of the project `id`. Errors: it is not known.
    pub fn project(&self, id: &str) -> Result<&ProjectPolicies, Error> {
        self.projects.get(id).ok_or_else(|| Error::UnknownProject(id.to_owned()))
    }

    /// The policies of `snapshot`. Keys that did not change since `before` keep their cache of verified tokens.
    pub fn new(snapshot: &Snapshot, dev_keys: Option<&Path>, before: &PolicySet) -> PolicySet {
        let mut projects = HashMap::new();
        for (ProjectResource { meta, spec }, _) in snapshot.of() {
            let keys = key_set(&meta.id, &spec.tokens, dev_keys, before);
            let mode = spec.security.match_mode;
            projects.insert(
                meta.id.clone(),
                ProjectPolicies {
                    keys,
                    access_keys: access_keys(&spec.s3.keys),
                    mode,
                    databases: HashMap::new(),
                    buckets: HashMap::new(),
                    services: HashMap::new(),
                    events: HashMap::new(),
                    asks: false,
                },
            );
        }
        let mut set = PolicySet { projects };
        snapshot.of().for_each(|(table, _)| set.add(table));
        snapshot.of().for_each(|(bucket, _)| set.add_bucket(bucket));
        snapshot.of().for_each(|(service, _)| set.add_service(service));
        snapshot.of().for_each(|(event, _)| set.add_event(event));
        set.projects.values_mut().for_each(ProjectPolicies::inherit_defaults);
        set
    }

    fn add(&mut self, table: &TableResource) {
        let TableResource { meta, policies, warnings } = table;
        let TableMeta { project, database, id } = meta;
        for Diagnostic { path, message } in warnings {
            warn!(project, database, table = id, path, warning = message, "rule has a warning");
        }
        let Some(policies_of) = self.projects.get_mut(project) else {
            error!(project, table = id, "table of an unknown project left out");
            return;
        };
        policies_of.asks |= policies.asks();
        let database = policies_of.databases.entry(database.clone()).or_default();
        if id == table::DEFAULT {
            database.default = policies.clone();
        } else {
            database.tables.insert(id.clone(), policies.clone());
        }
    }
}

impl PolicySet {
    fn add_bucket(&mut self, bucket: &BucketResource) {
        let BucketResource { meta, policies, warnings } = bucket;
        for Diagnostic { path, message } in warnings {
            warn!(project = meta.project, bucket = meta.id, path, warning = message, "rule has a warning");
        }
        match self.projects.get_mut(&meta.project) {
            Some(project) => drop(project.buckets.insert(meta.id.clone(), policies.clone())),
            None => error!(project = meta.project, bucket = meta.id, "bucket of an unknown project left out"),
        }
    }

    fn add_service(&mut self, service: &ServiceResource) {
        let ServiceResource { meta, policies, warnings } = service;
        for Diagnostic { path, message } in warnings {
            warn!(project = meta.project, service = meta.id, path, warning = message, "rule has a warning");
        }
        match self.projects.get_mut(&meta.project) {
            Some(project) => {
                project.asks |= policies.asks();
                project.services.insert(meta.id.clone(), policies.clone());
            }
            None => error!(project = meta.project, service = meta.id, "service of an unknown project left out"),
        }
    }
}

impl PolicySet {
    fn add_event(&mut self, event: &EventDocument) {
        let EventDocument { meta, policy, warnings } = event;
        for Diagnostic { path, message } in warnings {
            warn!(project = meta.project, event = meta.id, path, warning = message, "rule has a warning");
        }
        match self.projects.get_mut(&meta.project) {
            Some(project) => drop(project.events.insert(meta.id.clone(), policy.clone())),
            None => error!(project = meta.project, event = meta.id, "event of an unknown project left out"),
        }
    }
}

impl ProjectPolicies {
    /// The policy of a type of custom events: its own, else that of types without a document.
    pub fn event(&self, id: &str) -> Option<&EventPolicy> {
        self.events.get(id).or_else(|| self.events.get(event::DEFAULT))
    }

    /// The policies of a bucket; `None` where there is no such bucket.
    pub fn bucket(&self, id: &str) -> Option<&FilePolicies> {
        self.buckets.get(id)
    }

    /// The policies of a service: its own, else those of services without a document.
    pub fn service(&self, id: &str) -> Option<&FunctionPolicies> {
        self.services.get(id).or_else(|| self.services.get(function::DEFAULT))
    }

    /// The policies of a table; `None` where the database has none at all.
    pub fn table(&self, database: &str, table: &str) -> Option<&TablePolicies> {
        let database = self.databases.get(database)?;
        Some(database.tables.get(table).unwrap_or(&database.default))
    }

    /// All tables with policies of their own, and the default of each database, ordered by name.
    pub fn tables(&self) -> Vec<(&str, &str, &TablePolicies)> {
        let mut tables = Vec::new();
        for (id, database) in &self.databases {
            tables.extend(database.tables.iter().map(|(name, policies)| (id.as_str(), name.as_str(), policies)));
            tables.push((id.as_str(), table::DEFAULT, &database.default));
        }
        tables.sort_by_key(|(database, table, _)| (*database, *table));
        tables
    }

    fn inherit_defaults(&mut self) {
        for database in self.databases.values_mut() {
            for policies in database.tables.values_mut() {
                *policies = std::mem::take(policies).or(&database.default);
            }
        }
    }
}

fn access_keys(keys: &[AccessKey]) -> HashMap<String, Arc<VerifiedToken>> {
    let keys = keys.iter().filter_map(|key| {
        // Claims with a fault are not in force.
        Some((key.id.clone(), Arc::new(VerifiedToken::lasting(claims(key).ok()?))))
    });
    keys.collect()
}

/// The claims of an access key as rules see them. Errors: they have too many levels or values.
pub fn claims(key: &AccessKey) -> Result<Object, query::Error> {
    let text = serde_json::to_vec(&key.claims).expect("JSON can always be written");
    match proto::json::parse(&text, CLAIM_LIMITS)? {
        Value::Object(claims) => Ok(claims),
        other => Err(query::Error::Malformed(format!("expected object, found {}", other.kind()))),
    }
}

fn key_set(id: &str, tokens: &[TokenKey], dev_keys: Option<&Path>, before: &PolicySet) -> Arc<KeySet> {
    let mut specs = tokens.to_vec();
    if let Some(dir) = dev_keys.filter(|_| specs.is_empty()) {
        match key::dev_token_key(dir, id) {
            Ok(key) => specs.push(key),
            Err(error) => error!(project = id, %error, "no development key: no token of the project is valid"),
        }
    }
    match before.projects.get(id) {
        Some(project) if project.keys.specs() == specs => project.keys.clone(),
        Some(_) | None => Arc::new(KeySet::new(specs)),
    }
}
