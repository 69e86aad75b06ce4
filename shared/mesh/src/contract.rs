//! The contract of a gRPC service: its methods, from the descriptors of the files that declare them.

use std::collections::{HashMap, HashSet};

use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Most bytes of all descriptors of a service.
pub const DESCRIPTOR_BYTES: usize = 4 << 20;
/// Most files of them.
pub const FILES_MAX: usize = 500;

/// The methods of a service.
#[derive(Debug)]
pub struct Contract {
    /// By name.
    pub methods: HashMap<String, ServiceMethod>,
}

/// A method of a service.
#[derive(Debug, Clone)]
pub struct ServiceMethod {
    /// Path of its requests.
    pub path: PathAndQuery,
    /// What it takes.
    pub input: MessageDescriptor,
    /// What it answers.
    pub output: MessageDescriptor,
    /// Whether it answers with many messages.
    pub is_streaming: bool,
    /// Whether it takes many messages, which no call has.
    pub takes_stream: bool,
}

impl Contract {
    /// The contract of `service` in these files, which are in any order. Errors: for people.
    pub fn of(files: Vec<FileDescriptorProto>, service: &str) -> Result<Self, String> {
        let mut pool = DescriptorPool::new();
        let missing = well_known(&files);
        let files = files.into_iter().chain(missing);
        pool.add_file_descriptor_protos(files).map_err(|error| format!("invalid descriptors: {error}"))?;
        let found = pool.get_service_by_name(service).ok_or_else(|| none(&pool, service))?;
        let method = |method: MethodDescriptor| Some((method.name().to_owned(), ServiceMethod::of(service, &method)?));
        Ok(Self { methods: found.methods().filter_map(method).collect() })
    }

    /// The contract of `service` in a `FileDescriptorSet`. Errors: for people.
    pub fn of_set(content: &[u8], service: &str) -> Result<Self, String> {
        if content.len() > DESCRIPTOR_BYTES {
            return Err(format!("the descriptors are over the limit of {DESCRIPTOR_BYTES} bytes"));
        }
        let set = FileDescriptorSet::decode(content).map_err(|error| format!("invalid descriptors: {error}"))?;
        Self::of(set.file, service)
    }
}

impl ServiceMethod {
    fn of(service: &str, method: &MethodDescriptor) -> Option<Self> {
        // Names in descriptors may be anything: one that makes no path cannot be called.
        let path = PathAndQuery::try_from(format!("/{service}/{}", method.name())).ok()?;
        Some(Self {
            path,
            input: method.input(),
            output: method.output(),
            is_streaming: method.is_server_streaming(),
            takes_stream: method.is_client_streaming(),
        })
    }
}

/// There is no such service in the files.
fn none(pool: &DescriptorPool, service: &str) -> String {
    let names: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
    let near = query::nearest(service, names.iter().map(String::as_str));
    let hint = near.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    format!("there is no service {service}{hint}")
}

/// The file `name` of those that all implementations of protocol buffers have: servers often leave them out.
pub fn well_known_file(name: &str) -> Option<FileDescriptorProto> {
    let file = DescriptorPool::global().get_file_by_name(name)?;
    name.starts_with("google/protobuf/").then(|| file.file_descriptor_proto().clone())
}

/// The files that these import, as far as everybody has them.
fn well_known(files: &[FileDescriptorProto]) -> Vec<FileDescriptorProto> {
    let mut known: HashSet<String> = files.iter().map(|file| file.name().to_owned()).collect();
    let (mut found, mut wanted) =
        (Vec::new(), files.iter().flat_map(|file| file.dependency.clone()).collect::<Vec<_>>());
    while let Some(name) = wanted.pop() {
        if !known.insert(name.clone()) {
            continue;
        }
        if let Some(file) = well_known_file(&name) {
            wanted.extend(file.dependency.iter().cloned());
            found.push(file);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use prost_types::{DescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

    use super::*;

    fn file(method: &str, input: &str) -> FileDescriptorProto {
        let method = MethodDescriptorProto {
            name: Some(method.to_owned()),
            input_type: Some(input.to_owned()),
            output_type: Some(".mail.Letter".to_owned()),
            server_streaming: Some(true),
            ..Default::default()
        };
        FileDescriptorProto {
            name: Some("mail.proto".to_owned()),
            package: Some("mail".to_owned()),
            syntax: Some("proto3".to_owned()),
            dependency: vec!["google/protobuf/timestamp.proto".to_owned()],
            message_type: vec![DescriptorProto { name: Some("Letter".to_owned()), ..Default::default() }],
            service: vec![ServiceDescriptorProto {
                name: Some("Mail".to_owned()),
                method: vec![method],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_service_has_methods() {
        let contract = Contract::of(vec![file("Send", ".mail.Letter")], "mail.Mail").unwrap();
        let method = &contract.methods["Send"];
        assert_eq!((method.path.as_str(), method.is_streaming, method.takes_stream), ("/mail.Mail/Send", true, false));
        assert_eq!(method.input.full_name(), "mail.Letter");
        let none = Contract::of(vec![file("Send", ".mail.Letter")], "x").unwrap_err();
        assert_eq!(none, "there is no service x");
        let near = Contract::of(vec![file("Send", ".mail.Letter")], "mail.Mial").unwrap_err();
        assert_eq!(near, "there is no service mail.Mial, did you mean mail.Mail?");
    }

    #[test]
    fn descriptors_that_are_none_are_refused() {
        let told = Contract::of(vec![file("Send", ".mail.Parcel")], "mail.Mail").unwrap_err();
        assert!(told.starts_with("invalid descriptors: "), "{told}");
        let twice = vec![
            file("Send", ".mail.Letter"),
            FileDescriptorProto { name: Some("b".to_owned()), ..file("Send", ".mail.Letter") },
        ];
        assert!(Contract::of(twice, "mail.Mail").is_err());
        let importing =
            FileDescriptorProto { dependency: vec!["none.proto".to_owned()], ..file("Send", ".mail.Letter") };
        assert!(Contract::of(vec![importing], "mail.Mail").is_err());
        assert!(Contract::of_set(b"\xff", "mail.Mail").is_err());
        assert!(Contract::of_set(&vec![0; DESCRIPTOR_BYTES + 1], "mail.Mail").unwrap_err().contains("over the limit"));
        assert!(
            Contract::of(vec![file("a b", ".mail.Letter")], "mail.Mail")
                .is_ok_and(|contract| contract.methods.is_empty())
        );
    }
}
