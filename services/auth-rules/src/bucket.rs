//! `bucket` resources: the policies of files, by prefix; the rest of them is checked here, and used by the gateway and
//! storage.

use std::{collections::HashSet, sync::Arc};

use mesh::resources::{Document, Kind, Parsed, ResourceFault, Snapshot};
use query::{
    file::FileOperation,
    resources::{BucketBackend, BucketMeta, BucketResource as Spec, FileRate},
};
use serde_json::Value as Json;

use crate::{
    file_policy::{FilePolicies, Prefix, PrefixPolicies},
    json_schema, names,
    path::Scope,
    rule::{Diagnostic, Parser, Policy},
};

/// The resource kind `bucket`.
pub const BUCKET: Kind = Kind { name: "bucket", parse: BucketResource::parse, check, schema: json_schema::bucket };

/// A parsed `bucket` resource.
#[derive(Debug)]
pub struct BucketResource {
    /// Its key.
    pub meta: BucketMeta,
    /// Its policies.
    pub policies: FilePolicies,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

impl BucketResource {
    /// Parses a document; all errors in it if it has any.
    pub fn parse(document: &Document) -> Result<Parsed, Vec<ResourceFault>> {
        let Spec { meta, spec } = document.read().map_err(|fault| vec![fault])?;
        let mut parser = Parser::default();
        check_spec(&meta, &spec, &mut parser);
        let mut of_prefixes: Vec<PrefixPolicies> = Vec::new();
        for (index, rule) in spec.rules.iter().enumerate() {
            let at = format!("spec.rules.{index}");
            let prefix = match Prefix::parse(&rule.prefix) {
                Ok(prefix) => prefix,
                Err(message) => {
                    parser.error(&format!("{at}.prefix"), message);
                    continue;
                }
            };
            if let Some(same) = of_prefixes.iter().find(|other| other.prefix.is_same(&prefix)) {
                let message = format!("ambiguous prefix {prefix}: it matches the same paths as {}", same.prefix);
                parser.error(&format!("{at}.prefix"), message);
            }
            let mut policy = |operation: FileOperation, rule: &Option<Json>| {
                let path = format!("{at}.{}", operation.name());
                let ResourceFault { file, line, .. } = document.fault(&path, "");
                let policy = parser.policy_in(Scope::Files, rule.as_ref()?, &path)?;
                Some(Arc::new(Policy { place: format!("{file}:{line}: {path}"), ..policy }))
            };
            let create = policy(FileOperation::Create, &rule.create);
            let read = policy(FileOperation::Read, &rule.read);
            let delete = policy(FileOperation::Delete, &rule.delete);
            let list = policy(FileOperation::List, &rule.list).or_else(|| read.clone());
            of_prefixes.push(PrefixPolicies { prefix, create, read, delete, list });
        }
        if !parser.errors.is_empty() {
            return Err(parser.errors.into_iter().map(|error| document.fault(&error.path, error.message)).collect());
        }
        let policies = FilePolicies::new(of_prefixes);
        Ok(Arc::new(BucketResource { meta, policies, warnings: parser.warnings }))
    }
}

/// What is wrong with a bucket besides its rules.
fn check_spec(meta: &BucketMeta, spec: &query::resources::Bucket, parser: &mut Parser) {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_id = meta.id.bytes().next().is_some_and(is_plain)
        && meta.id.bytes().all(|byte| is_plain(byte) || byte == b'_' || byte == b'-');
    if !is_id || meta.id.len() > 63 {
        let message = format!(
            "invalid bucket id {:?}: expected up to 63 letters a to z, digits, _ and -, beginning with a letter or digit",
            meta.id
        );
        parser.error("meta.id", message);
    }
    for (index, glob) in spec.limits.types.iter().enumerate() {
        let is_part =
            |part: &str| part == "*" || part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
        let is_glob = glob.split_once('/').is_some_and(|(kind, sub)| {
            !kind.is_empty() && !sub.is_empty() && is_part(kind) && sub.split('*').all(is_part)
        });
        if !is_glob {
            parser.error(
                &format!("spec.limits.types.{index}"),
                format!("invalid type {glob:?}: expected one such as image/*"),
            );
        }
    }
    if spec
        .cache_control
        .as_ref()
        .is_some_and(|text| text.is_empty() || !text.bytes().all(|b| (0x20..0x7f).contains(&b)))
    {
        parser.error("spec.cacheControl", "invalid header value: expected printable ASCII");
    }
    spec.limits.rate.iter().for_each(|rate| check_rate(rate, parser));
    match &spec.backend {
        BucketBackend::Local { path: Some(path) } if path.trim().is_empty() => {
            parser.error("spec.backend.path", "must not be empty");
        }
        BucketBackend::S3 { access_key, secret_key, .. } if access_key.is_some() != secret_key.is_some() => {
            parser.error("spec.backend", "accessKey and secretKey must be given together, or neither");
        }
        BucketBackend::Local { .. }
        | BucketBackend::Memory { .. }
        | BucketBackend::S3 { .. }
        | BucketBackend::Gcs { .. }
        | BucketBackend::Azure { .. } => {}
    }
    if let BucketBackend::S3 { prefix: Some(prefix), .. }
    | BucketBackend::Gcs { prefix: Some(prefix), .. }
    | BucketBackend::Azure { prefix: Some(prefix), .. } = &spec.backend
    {
        let trimmed = prefix.trim_matches('/');
        if trimmed.is_empty() || trimmed.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            parser.error(
                "spec.backend.prefix",
                format!("invalid prefix {prefix:?}: expected segments with slashes between"),
            );
        }
    }
}

fn check_rate(rate: &FileRate, parser: &mut Parser) {
    let (least, most) = (FileRate::PER_SECOND_MIN, FileRate::MAX);
    if !(least..=most).contains(&rate.per_second) {
        parser.error("spec.limits.rate.perSecond", format!("must be {least} to {most}"));
    }
    if rate.burst.is_some_and(|burst| burst == 0 || f64::from(burst) > most) {
        parser.error("spec.limits.rate.burst", format!("must be 1 to {most}"));
    }
}

/// Errors between buckets, and in the names that they refer to.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    let mut defaults = HashSet::new();
    names::faults(snapshot, BUCKET.name, |document, project| {
        let is_default = document.spec.get("default").and_then(Json::as_bool) == Some(true);
        let is_another = is_default && !defaults.insert(project);
        is_another.then(|| document.fault("spec.default", format!("project {project} has another default bucket")))
    })
}

#[cfg(test)]
mod tests {
    use mesh::resources::Snapshot;
    use serde_json::json;

    use crate::cases::parsed;

    fn faults(id: &str, spec: serde_json::Value) -> Vec<String> {
        let project = json!({"kind": "project", "meta": {"id": "shop"}});
        let bucket = json!({"kind": "bucket", "meta": {"project": "shop", "id": id}, "spec": spec});
        let told = parsed(&[project, bucket]).map(|_: Snapshot| Vec::new());
        told.unwrap_or_else(|faults| faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect())
    }

    #[test]
    fn a_sound_bucket_has_no_faults() {
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.user", "f2": "args.auth.id"});
        let spec = json!({
            "backend": {"kind": "s3", "bucket": "b", "accessKey": "a", "secretKey": "s", "pathStyle": true, "prefix": "a/b"},
            "default": true,
            "rules": [{"prefix": "/", "read": {"rule": "allow"}}, {"prefix": "/u/:user", "create": rule, "quota": {"files": 3}}],
            "limits": {
                "size": "10MB",
                "types": ["image/*", "*/*", "application/pdf", "image/svg+*"],
                "quota": {"bytes": "10GB", "files": 1000},
                "rate": {"perSecond": 2.5, "burst": 10},
            },
            "cacheControl": "no-cache",
            "inline": true,
            "images": ["jpeg", "png", "webp"],
        });
        assert_eq!(faults("files", spec), Vec::<String>::new());
        for backend in [json!({"kind": "memory"}), json!({"kind": "local"}), json!({"kind": "local", "path": "files"})]
        {
            assert_eq!(faults("files", json!({"backend": backend})), Vec::<String>::new(), "{backend}");
        }
    }

    #[test]
    fn faults_name_their_place_and_the_nearest() {
        let rule = |rule: serde_json::Value| json!({"rules": [rule]});
        for (spec, told) in [
            (json!({"lmits": {}}), "spec.lmits: "),
            (json!({"backend": {"kind": "ftp"}}), "ftp"),
            (json!({"limits": {"size": "ten"}}), "spec.limits.size"),
            (json!({"limits": {"types": ["image"]}}), "spec.limits.types.0: invalid type"),
            (json!({"backend": {"kind": "s3", "bucket": "b", "accessKey": "a"}}), "spec.backend: accessKey"),
            (json!({"backend": {"kind": "gcs", "bucket": "b", "prefix": "../x"}}), "spec.backend.prefix"),
            (json!({"limits": {"types": ["image/png", "/png"]}}), "spec.limits.types.1: invalid type"),
            (json!({"limits": {"types": ["image/"]}}), "spec.limits.types.0: invalid type"),
            (json!({"limits": {"types": ["im age/png"]}}), "spec.limits.types.0: invalid type"),
            (json!({"limits": {"types": ["image/p ng"]}}), "spec.limits.types.0: invalid type"),
            (json!({"limits": {"types": ["i*/png"]}}), "spec.limits.types.0: invalid type"),
            (json!({"backend": {"kind": "local", "path": " "}}), "spec.backend.path: must not be empty"),
            (json!({"cacheControl": ""}), "spec.cacheControl"),
            (json!({"cacheControl": "a\nb"}), "spec.cacheControl"),
            (json!({"images": ["jpeg", "gif"]}), "spec.images.1"),
            (json!({"limits": {"quota": {"byts": 1}}}), "spec.limits.quota.byts"),
            (json!({"limits": {"quota": {"files": -1}}}), "spec.limits.quota.files"),
            (json!({"limits": {"rate": {"burst": 1}}}), "spec.limits.rate"),
            (json!({"limits": {"rate": {"perSecond": 0}}}), "spec.limits.rate.perSecond: must be 0.0001 to 1000000"),
            (json!({"limits": {"rate": {"perSecond": 1e-300}}}), "spec.limits.rate.perSecond: must be 0.0001"),
            (json!({"limits": {"rate": {"perSecond": 1e7}}}), "spec.limits.rate.perSecond: must be 0.0001"),
            (json!({"limits": {"rate": {"perSecond": 1, "burst": 0}}}), "spec.limits.rate.burst: must be 1 to 1000000"),
            (json!({"limits": {"rate": {"perSecond": 1, "burst": 1_000_001}}}), "spec.limits.rate.burst: must be 1"),
            (rule(json!({"prefix": "img"})), "spec.rules.0.prefix: "),
            (rule(json!({"prefix": "/:a/:a"})), "spec.rules.0.prefix: "),
            (rule(json!({"prefix": "/", "reed": {"rule": "allow"}})), "did you mean read?"),
            (rule(json!({"prefix": "/", "read": {"rule": "alow"}})), "spec.rules.0.read.rule: unknown rule kind"),
            (
                rule(json!({"prefix": "/", "read": {"rule": "func", "service": "mail", "func": "ask"}})),
                "spec.rules.0.read.rule: rule kind func does not apply to rules of files",
            ),
            (
                rule(json!({"prefix": "/", "read": {"rule": "allow", "rowFilter": {}}})),
                "does not apply to rules of files",
            ),
            (
                rule(
                    json!({"prefix": "/", "read": {"rule": "match", "type": "string", "eval": "==", "f1": "args.find.a", "f2": "x"}}),
                ),
                "args.find is not available in rules of files",
            ),
            (
                json!({"rules": [{"prefix": "/a/:b"}, {"prefix": "/a/:c/"}]}),
                "spec.rules.1.prefix: ambiguous prefix /a/:c: it matches the same paths as /a/:b",
            ),
        ] {
            let found = faults("files", spec.clone());
            assert!(found.iter().any(|fault| fault.contains(told)), "{spec}: {found:?}");
        }
        let long = "f".repeat(63);
        for id in ["f", "9", "a-b_c", &long] {
            assert_eq!(faults(id, json!({})), Vec::<String>::new(), "{id}");
        }
        for id in ["Files", "-files", "_files", "a.b", "fä", &format!("{long}f")] {
            assert!(faults(id, json!({}))[0].contains("invalid bucket id"), "{id}");
        }
    }

    #[test]
    fn a_project_has_one_default_bucket() {
        let project = json!({"kind": "project", "meta": {"id": "shop"}});
        let bucket = |project: &str, id: &str| json!({"kind": "bucket", "meta": {"project": project, "id": id}, "spec": {"default": true}});
        let faults = |documents: &[serde_json::Value]| parsed(documents).err().unwrap_or_default().len();
        assert_eq!(faults(&[project.clone(), bucket("shop", "a")]), 0);
        assert_eq!(faults(&[project.clone(), bucket("shop", "a"), bucket("shop", "b")]), 1);
        assert_eq!(faults(&[project.clone(), bucket("shop", "a"), bucket("shop", "a")]), 2);
        assert_eq!(faults(&[project, bucket("shap", "a")]), 1);
    }
}
