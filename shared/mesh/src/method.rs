//! The methods that services call of each other, as metrics and spans name them.

use std::{sync::OnceLock, time::Instant};

use crate::{
    config::Service,
    telemetry::{Metrics, RpcMeter},
};

/// A method of a service.
#[derive(Debug)]
pub(crate) struct Method {
    pub service: &'static str,
    pub name: &'static str,
    metrics: Metrics,
    /// Made by the first answer: a node counts only what it answers.
    meter: OnceLock<RpcMeter>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Methods {
    pub read: Method,
    pub write: Method,
    pub describe: Method,
    pub authorize: Method,
    pub reachable: Method,
    /// Unknown paths share one name, so that callers cannot make new ones.
    other: Method,
}

impl Method {
    fn new(metrics: &Metrics, service: &'static str, name: &'static str) -> Self {
        Self { service, name, metrics: metrics.clone(), meter: OnceLock::new() }
    }

    /// A call of it begins.
    pub fn begin(&self) -> Running<'_> {
        Running { method: self, started: Instant::now(), code: None }
    }
}

/// A call that is being answered. It is counted when it ends: as cancelled where nobody waited for the answer.
pub(crate) struct Running<'m> {
    method: &'m Method,
    started: Instant,
    code: Option<tonic::Code>,
}

impl Running<'_> {
    /// It is answered with `code`.
    pub fn answered(mut self, code: tonic::Code) {
        self.code = Some(code);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Method { service, name, metrics, meter } = self.method;
        let code = self.code.unwrap_or(tonic::Code::Cancelled);
        meter.get_or_init(|| metrics.rpc(service, name)).done(code, self.started.elapsed());
    }
}

impl Methods {
    pub fn new(metrics: &Metrics) -> Self {
        let (crud, auth_rules) = (Service::Crud.name(), Service::AuthRules.name());
        Self {
            read: Method::new(metrics, crud, "Read"),
            write: Method::new(metrics, crud, "Write"),
            describe: Method::new(metrics, crud, "Describe"),
            authorize: Method::new(metrics, auth_rules, "Authorize"),
            reachable: Method::new(metrics, auth_rules, "Reachable"),
            other: Method::new(metrics, "other", "other"),
        }
    }

    /// The one that is called at `path`.
    pub fn at(&self, path: &str) -> &Method {
        match path {
            "/perigee.crud.v1.Crud/Read" => &self.read,
            "/perigee.crud.v1.Crud/Write" => &self.write,
            "/perigee.crud.v1.Crud/Describe" => &self.describe,
            "/perigee.auth.v1.AuthRules/Authorize" => &self.authorize,
            "/perigee.auth.v1.AuthRules/Reachable" => &self.reachable,
            _ => &self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::{auth::v1::auth_rules_server, crud::v1::crud_server};

    use super::*;

    #[test]
    fn every_method_is_found_at_its_path() {
        let methods = Methods::new(&Metrics::default());
        let (crud, auth_rules) = (crud_server::SERVICE_NAME, auth_rules_server::SERVICE_NAME);
        for (package, method) in [
            (crud, &methods.read),
            (crud, &methods.write),
            (crud, &methods.describe),
            (auth_rules, &methods.authorize),
            (auth_rules, &methods.reachable),
        ] {
            let found = methods.at(&format!("/{package}/{}", method.name));
            assert!(std::ptr::eq(found, method), "{}", method.name);
        }
        assert_eq!(methods.at("/perigee.crud.v1.Crud/Drop").name, "other");
    }
}
