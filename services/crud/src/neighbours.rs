//! Search of the databases of a project for neighbours.

use std::collections::HashSet;

use foldhash::{HashMap, HashMapExt};
use mesh::resources::Snapshot;
use query::resources::{DatabaseResource, Engine};

use crate::{links::TableLinks, neighbour::Neighbour, store::postgres};

/// The neighbours of the databases of a snapshot, by project and database.
///
/// Those with the same server, database and role in their URLs are neighbours: the rows that one of them reads are those
/// that the other would. Of several with the same schema the first alone has neighbours.
pub fn of(
    snapshot: &Snapshot,
    links: &HashMap<(String, String), TableLinks>,
) -> HashMap<(String, String), Vec<Neighbour>> {
    let mut groups: HashMap<(&str, String), Vec<&DatabaseResource>> = HashMap::new();
    let mut databases: Vec<&DatabaseResource> = snapshot.of().map(|(database, _)| database).collect();
    databases.sort_by(|one, other| one.meta.id.cmp(&other.meta.id));
    for database in databases {
        let target = match database.spec.engine() {
            Some(Engine::Postgres) => postgres::target(&database.spec.url),
            Some(Engine::Sqlite | Engine::Mysql) | None => None,
        };
        let Some(target) = target else { continue };
        let group = groups.entry((&database.meta.project, target)).or_default();
        if group.iter().all(|known| known.spec.schema != database.spec.schema) {
            group.push(database);
        }
    }
    let linked = linked(links);
    let mut neighbours = HashMap::new();
    for ((project, _), group) in &groups {
        for own in group {
            let others = group.iter().filter(|other| other.meta.id != own.meta.id);
            let neighbour = |other: &&DatabaseResource| Neighbour {
                database: other.meta.id.clone(),
                schema: other.spec.schema.clone(),
                is_linked: linked.contains(&(*project, other.meta.id.as_str())),
            };
            neighbours.insert(((*project).to_owned(), own.meta.id.clone()), others.map(neighbour).collect());
        }
    }
    neighbours
}

/// Databases between which links lead.
fn linked(links: &HashMap<(String, String), TableLinks>) -> HashSet<(&str, &str)> {
    let mut linked = HashSet::new();
    for ((project, database), tables) in links {
        let targets = tables.values().flat_map(|links| links.values()).filter_map(|link| link.database.as_deref());
        for target in targets.filter(|target| target != database) {
            linked.extend([(project.as_str(), database.as_str()), (project.as_str(), target)]);
        }
    }
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbours(databases: &[(&str, &str, &str)]) -> Vec<(String, Vec<String>)> {
        let mut yaml = "kind: project\nmeta: {id: shop}\n".to_owned();
        for (id, url, schema) in databases {
            yaml += &format!(
                "---\nkind: database\nmeta: {{project: shop, id: {id}}}\nspec: {{url: \"{url}\", schema: {schema}}}\n"
            );
        }
        let snapshot = Snapshot::parse(&yaml, &crate::tests::KINDS).unwrap();
        let found = of(&snapshot, &HashMap::new()).into_iter();
        let ids = |neighbours: Vec<Neighbour>| neighbours.into_iter().map(|one| one.database).collect();
        let mut found: Vec<_> = found.map(|((_, id), neighbours)| (id, ids(neighbours))).collect();
        found.sort();
        found
    }

    #[test]
    fn schemas_of_one_database_are_neighbours() {
        let url = "postgres://ann:one@db:5432/shop";
        let found = neighbours(&[("a", url, "sales"), ("b", url, "crm"), ("c", url, "crm"), ("d", "sqlite:d.db", "x")]);
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(found, [("a".to_owned(), owned(&["b"])), ("b".to_owned(), owned(&["a"]))]);
    }

    #[test]
    fn another_server_database_or_role_is_no_neighbour() {
        let url = "postgres://ann:one@db:5432/shop";
        for other in [
            "postgres://ann:one@db2/shop",
            "postgres://ann:one@db/shop2",
            "postgres://bob:one@db/shop",
            "postgres://ann:one@db:6432/shop",
            "postgres://ann:one@db/shop?options=-c%20role%3Dbob",
            "postgres://ann:one@db/shop?target_session_attrs=read-write",
        ] {
            let found = neighbours(&[("a", url, "sales"), ("b", other, "crm")]);
            assert!(found.iter().all(|(_, neighbours)| neighbours.is_empty()), "{other}: {found:?}");
        }
        for same in ["postgres://ann:two@db/shop?sslmode=disable", "postgresql://%61nn@db/shop"] {
            let found = neighbours(&[("a", url, "sales"), ("b", same, "crm")]);
            assert_eq!(found[0].1, ["b"], "{same}");
        }
    }
}
