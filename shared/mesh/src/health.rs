//! Health of the components of this node, for `/ready`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use crate::config::ServiceName;

/// A part of this node, or something that it depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// A service that this node runs.
    Service(ServiceName),
    /// Another node that runs `service`.
    Peer {
        /// The service that it is called for.
        service: ServiceName,
        /// Its URL, as the configuration has it.
        url: Arc<str>,
    },
    /// A database of a project.
    Database {
        /// The project's id.
        project: String,
        /// The database's id.
        database: String,
    },
    /// The resource folder.
    Resources,
    /// The bus to other nodes.
    Bus,
}

/// State of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentState {
    /// The component works.
    Ready,
    /// The component works without some of its parts: why, by name.
    Partial(BTreeMap<String, String>),
    /// The component does not work; why, for people.
    Failing(String),
}

/// State of all components of a node. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<Component, ComponentState>>>,
}

impl Health {
    /// Sets the state of `component`.
    pub fn set(&self, component: Component, state: ComponentState) {
        self.components.lock().expect("no code panics while it holds this lock").insert(component, state);
    }

    /// Forgets `component`.
    pub fn remove(&self, component: &Component) {
        self.components.lock().expect("no code panics while it holds this lock").remove(component);
    }

    /// The state of `component`; `None` where nobody has set it.
    pub fn get(&self, component: &Component) -> Option<ComponentState> {
        self.components.lock().expect("no code panics while it holds this lock").get(component).cloned()
    }

    /// Every component with its state.
    pub fn components(&self) -> BTreeMap<Component, ComponentState> {
        self.components.lock().expect("no code panics while it holds this lock").clone()
    }
}

impl fmt::Display for Component {
    /// `service crud`, `peer crud http://…`, `database shop/music`, `resources`, `bus`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Service(service) => write!(f, "service {service}"),
            Component::Peer { service, url } => write!(f, "peer {service} {url}"),
            Component::Database { project, database } => write!(f, "database {project}/{database}"),
            Component::Resources => f.write_str("resources"),
            Component::Bus => f.write_str("bus"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_named_by_kind() {
        let peer = Component::Peer { service: ServiceName::GATEWAY, url: "http://node-0:4130".into() };
        let database = Component::Database { project: "shop".to_owned(), database: "music".to_owned() };
        let names = [Component::Service(ServiceName::GATEWAY), peer, database, Component::Resources];
        assert_eq!(
            names.map(|component| component.to_string()),
            ["service gateway", "peer gateway http://node-0:4130", "database shop/music", "resources"]
        );
    }
}
