//! The resource kind `project`, and whether the projects of a folder make sense.

use std::collections::HashSet;

use mesh::{
    config::MAX_REQUEST_TIME,
    resources::{self, Kind, ResourceFault, Snapshot},
};
use query::resources::{Project, ProjectMeta, ProjectResource};

/// The kind `project`.
pub const PROJECT: Kind = Kind {
    name: "project",
    parse: resources::parse_typed::<ProjectMeta, Project>,
    check,
    schema: resources::schema_typed::<ProjectMeta, Project>,
};

/// Faults of the `project` documents of a folder; their keys are checked by the rule engine.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    let mut faults = Vec::new();
    let mut ids = HashSet::new();
    for (ProjectResource { meta, spec }, document) in snapshot.of() {
        if !is_project_id(&meta.id) {
            let message = format!(
                "invalid project id {:?}: expected letters a to z, digits, _ and -, beginning with a letter or digit",
                meta.id
            );
            faults.push(document.fault("meta.id", message));
        }
        faults.extend(spec.cors.origins.iter().enumerate().filter(|(_, origin)| !is_origin(origin)).map(
            |(at, origin)| {
                let message = format!("invalid origin {origin:?}: expected scheme://host or scheme://host:port, or *");
                document.fault(&format!("spec.cors.origins.{at}"), message)
            },
        ));
        if let Some(message) = spec.limits.time_seconds.and_then(wrong_time) {
            faults.push(document.fault("spec.limits.timeSeconds", message));
        }
        faults.extend(
            limits(spec)
                .into_iter()
                .filter(|(_, limit)| *limit == Some(0))
                .map(|(path, _)| document.fault(&format!("spec.{path}"), "must be at least 1")),
        );
        if !ids.insert(&meta.id) {
            faults.push(document.fault("meta.id", format!("duplicate project id {}", meta.id)));
        }
    }
    faults
}

/// The fault of a time limit of so many seconds, if it has one.
fn wrong_time(seconds: f64) -> Option<String> {
    let most = MAX_REQUEST_TIME.as_secs_f64();
    match seconds {
        _ if seconds.is_nan() || seconds <= 0.0 => Some("must be positive".to_owned()),
        _ if seconds > most => Some(format!("must be at most {most}, found {seconds}")),
        _ => None,
    }
}

/// Limits of requests and where they stand.
fn limits(spec: &Project) -> [(&'static str, Option<usize>); 9] {
    let limits = &spec.limits;
    [
        ("graphql.depth", spec.graphql.depth),
        ("graphql.nodes", spec.graphql.nodes),
        ("limits.answerBytes", limits.answer_bytes),
        ("limits.depth", limits.depth),
        ("limits.filterDepth", limits.filter_depth),
        ("limits.nodes", limits.nodes),
        ("limits.statements", limits.statements),
        ("limits.listItems", limits.list_items),
        ("limits.values", limits.values),
    ]
}

/// Whether a project can be called `id`: letters a to z, digits, `_` and `-`, the first a letter or a digit.
pub fn is_project_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    id.bytes().next().is_some_and(is_plain) && id.bytes().all(|byte| is_plain(byte) || byte == b'_' || byte == b'-')
}

/// Whether a browser can send it as `Origin`: a scheme, a host and maybe a port, nothing after.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return origin == "*" };
    let is_scheme =
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.0123456789".contains(&byte));
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*".contains(&byte));
    is_scheme && is_host && !host.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        let faults = Snapshot::parse(yaml, &[PROJECT]).err().unwrap_or_default();
        faults.iter().map(|fault| format!("{}:{} {}", fault.line, fault.path, fault.message)).collect()
    }

    #[test]
    fn a_sound_project_has_no_faults() {
        let yaml =
            "kind: project\nmeta: { id: shop }\nspec: { cors: { origins: ['*'] }, limits: { timeSeconds: 0.5 } }\n";
        assert_eq!(faults(yaml), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_project_is_told_with_its_place() {
        let yaml = "kind: project\nmeta: { id: Shop }\nspec:\n  cors:\n    origins: [https://a.test/]\n  limits: { timeSeconds: 0 }\n";
        let told = faults(yaml);
        assert!(told[0].starts_with("2:meta.id invalid project id \"Shop\""), "{told:?}");
        assert!(told[1].starts_with("5:spec.cors.origins.0 invalid origin \"https://a.test/\""), "{told:?}");
        assert!(told[2].starts_with("6:spec.limits.timeSeconds"), "{told:?}");
    }

    #[test]
    fn a_limit_that_lets_nothing_pass_is_refused() {
        for limit in ["answerBytes", "depth", "filterDepth", "nodes", "statements", "listItems", "values"] {
            let project =
                |value| format!("kind: project\nmeta: {{ id: shop }}\nspec: {{ limits: {{ {limit}: {value} }} }}\n");
            assert_eq!(faults(&project(0)), [format!("3:spec.limits.{limit} must be at least 1")]);
            assert_eq!(faults(&project(1)), Vec::<String>::new());
        }
    }

    #[test]
    fn an_id_stands_for_one_project() {
        let project = "kind: project\nmeta: { id: shop }\nspec: {}\n";
        assert_eq!(faults(&format!("{project}---\n{project}")).len(), 1);
    }

    #[test]
    fn an_unknown_setting_is_told_with_the_nearest_known_one() {
        let told = faults("kind: project\nmeta: { id: shop }\nspec: { corss: {} }\n");
        assert!(told[0].contains("cors"), "{told:?}");
    }

    #[test]
    fn ids_are_lower_case_and_begin_with_a_letter_or_digit() {
        for id in ["shop", "a-b_c", "0", "9-"] {
            assert!(is_project_id(id), "{id}");
        }
        for id in ["", "-a", "_a", "Shop", "a b", "ä", "a.b", "a/b"] {
            assert!(!is_project_id(id), "{id}");
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for origin in ["*", "http://localhost:3000", "https://shop.example", "http://[::1]:80", "app+x://a"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in ["", "localhost", "https://a.example/", "https://*.a.example", "https://A.example", "http://"] {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn a_time_limit_is_positive_and_shorter_than_a_grant() {
        assert_eq!(wrong_time(0.0).as_deref(), Some("must be positive"));
        assert_eq!(wrong_time(-1.0).as_deref(), Some("must be positive"));
        assert_eq!(wrong_time(f64::NAN).as_deref(), Some("must be positive"));
        assert_eq!(wrong_time(50.5).as_deref(), Some("must be at most 50, found 50.5"));
        assert_eq!(wrong_time(f64::INFINITY).as_deref(), Some("must be at most 50, found inf"));
        assert_eq!(wrong_time(50.0), None);
        assert_eq!(wrong_time(0.001), None);
    }
}
