//! `trigger` resources: what is wrong with one, and between them and others.

use std::{collections::HashSet, sync::Arc};

use mesh::resources::{self, Document, Kind, Parsed, ResourceFault, Snapshot};
use query::trigger::{Trigger, TriggerMeta, TriggerResource, TriggerSource};

use super::{template, timetable::Timetable};

/// The resource kind `trigger`.
pub const TRIGGER: Kind =
    Kind { name: "trigger", parse, check, schema: resources::schema_typed::<TriggerMeta, Trigger> };

/// Most bytes of the id of a trigger.
const ID_BYTES: usize = 63;

fn parse(document: &Document) -> Result<Parsed, Vec<ResourceFault>> {
    let resource: TriggerResource = document.read().map_err(|fault| vec![fault])?;
    let id = &resource.meta.id;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_id = id.starts_with(|first: char| first.is_ascii_alphabetic()) && id.bytes().all(is_plain);
    let wrong_id = (!is_id || id.len() > ID_BYTES).then(|| {
        let expected = format!("up to {ID_BYTES} letters, digits, _ and -, beginning with a letter");
        document.fault("meta.id", format!("invalid trigger id {id:?}: expected {expected}"))
    });
    let faults = resource.spec.faults().into_iter().map(|(path, text)| document.fault(&format!("spec.{path}"), text));
    let wrong_time = match &resource.spec.on {
        TriggerSource::Schedule(schedule) => Timetable::of(schedule).err(),
        TriggerSource::Rows(_) | TriggerSource::Event(_) => None,
    };
    let wrong_template = resource.spec.template.as_deref().and_then(|template| template::check(template).err());
    let wrong_template = wrong_template.map(|why| document.fault("spec.template", format!("invalid template: {why}")));
    let wrong_time = wrong_time.map(|(key, text)| document.fault(&format!("spec.on.{key}"), text));
    let faults: Vec<ResourceFault> =
        wrong_id.into_iter().chain(faults).chain(wrong_time).chain(wrong_template).collect();
    if faults.is_empty() { Ok(Arc::new(resource)) } else { Err(faults) }
}

/// Names that lead nowhere, and documents that are there twice.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    let projects: HashSet<&str> = snapshot.of_kind("project").filter_map(|project| project.name("id")).collect();
    let databases: HashSet<(&str, &str)> = snapshot
        .of_kind("database")
        .filter_map(|database| Some((database.name("project")?, database.name("id")?)))
        .collect();
    let (mut seen, mut faults) = (HashSet::new(), Vec::new());
    for document in snapshot.of_kind(TRIGGER.name) {
        let (Some(project), Some(id)) = (document.name("project"), document.name("id")) else { continue };
        if !projects.contains(project) {
            faults.push(document.fault("meta.project", unknown("project", project, projects.iter().copied())));
            continue;
        }
        if !seen.insert((project, id)) {
            faults.push(document.fault("meta.id", format!("duplicate document of trigger {id}")));
        }
        let database = document.spec.pointer("/on/database").and_then(|database| database.as_str());
        if let Some(database) = database.filter(|database| !databases.contains(&(project, *database))) {
            let known = databases.iter().filter(|(of, _)| *of == project).map(|(_, id)| *id);
            faults.push(document.fault("spec.on.database", unknown("database", database, known)));
        }
    }
    faults
}

fn unknown<'k>(kind: &str, name: &str, known: impl Iterator<Item = &'k str>) -> String {
    let hint = query::nearest(name, known).map(|near| format!(", did you mean {near}?"));
    format!("unknown {kind} {name}{}", hint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use mesh::resources::parse_typed;
    use query::resources::{Database, DatabaseMeta, Project, ProjectMeta};
    use serde_json::{Value, json};

    use super::*;

    fn faults(documents: &[Value]) -> Vec<String> {
        let none = |_: &Snapshot| Vec::new();
        let kinds = [
            Kind {
                name: "project",
                parse: parse_typed::<ProjectMeta, Project>,
                check: none,
                schema: resources::schema_typed::<ProjectMeta, Project>,
            },
            Kind {
                name: "database",
                parse: parse_typed::<DatabaseMeta, Database>,
                check: none,
                schema: resources::schema_typed::<DatabaseMeta, Database>,
            },
            TRIGGER,
        ];
        let mut yaml = json!({"kind": "project", "meta": {"id": "shop"}}).to_string();
        let database =
            json!({"kind": "database", "meta": {"project": "shop", "id": "music"}, "spec": {"url": "sqlite:a.db"}});
        for document in std::iter::once(&database).chain(documents) {
            yaml.push_str(&format!("\n---\n{document}"));
        }
        match Snapshot::parse(&yaml, &kinds) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect(),
        }
    }

    fn trigger(project: &str, id: &str, database: &str) -> Value {
        json!({"kind": "trigger", "meta": {"project": project, "id": id}, "spec": {
            "on": {"database": database, "table": "invoice"}, "to": {"url": "http://mail/"},
        }})
    }

    #[test]
    fn names_that_lead_nowhere_are_faults() {
        assert_eq!(faults(&[trigger("shop", "receipt", "music")]), Vec::<String>::new());
        assert_eq!(
            faults(&[trigger("shap", "a", "music")]),
            ["meta.project: unknown project shap, did you mean shop?"]
        );
        assert_eq!(
            faults(&[trigger("shop", "a", "musik")]),
            ["spec.on.database: unknown database musik, did you mean music?"]
        );
        let twice = [trigger("shop", "a", "music"), trigger("shop", "a", "music")];
        assert_eq!(faults(&twice), ["meta.id: duplicate document of trigger a"]);
        for id in ["", "1a", "a b", "a/b", &"a".repeat(64)] {
            assert!(faults(&[trigger("shop", id, "music")])[0].starts_with("meta.id: invalid trigger id"), "{id}");
        }
    }

    #[test]
    fn what_a_trigger_cannot_mean_is_a_fault_at_its_place() {
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["on"]["operations"] = json!([]);
        assert_eq!(faults(&[wrong])[0], "spec.on.operations: expected at least one of insert, update and delete");
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["to"] = json!({"url": "mail"});
        assert!(faults(&[wrong])[0].starts_with("spec.to.url: invalid URL"));
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["on"] = json!({"schedule": "0 25 * * *"});
        assert!(faults(&[wrong])[0].starts_with("spec.on.schedule: invalid schedule \"0 25 * * *\""));
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["on"] = json!({"at": "2026-01-01T00:00:00", "timeZone": "Europe/Berlni"});
        assert!(faults(&[wrong])[0].starts_with("spec.on.timeZone: unknown time zone Europe/Berlni"));
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["template"] = json!("{{ event.");
        assert!(faults(&[wrong])[0].starts_with("spec.template: invalid template: "));
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["to"] = json!({"topic": "news"});
        assert!(faults(&[wrong])[0].contains("topic"));
        let mut wrong = trigger("shop", "a", "music");
        wrong["spec"]["topic"] = json!("x");
        assert!(faults(&[wrong])[0].contains("topic"));
    }
}
