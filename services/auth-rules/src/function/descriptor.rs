//! Contracts of gRPC servers in files: whether they have the service that a document names.

use mesh::{contract::Contract, resources::Document};
use query::function::GrpcServer;

use crate::rule::Parser;

/// Refuses a server whose contracts come from nowhere or from two places, and a file without its service.
pub fn check(server: &GrpcServer, document: &Document, parser: &mut Parser) {
    match (server.reflection, &server.descriptor) {
        (true, None) => {}
        (false, Some(path)) => {
            let content = document.file(path);
            let contract = content.and_then(|content| Contract::of_set(&content, &server.service.0));
            if let Err(message) = contract {
                parser.error("spec.grpc.descriptor", format!("the file {path} cannot be used: {message}"));
            }
        }
        (true, Some(_)) | (false, None) => {
            parser.error("spec.grpc", "expected either reflection: true or descriptor");
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::resources::{Snapshot, load};
    use prost::Message;
    use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

    use crate::SERVICE;

    /// What is said of a service whose descriptor file has this content.
    fn told(content: &[u8]) -> Result<Snapshot, String> {
        let folder = tempfile::tempdir().unwrap();
        let document = "kind: service\nmeta: { project: shop, id: mail }\n\
                        spec: { grpc: { url: \"http://m\", service: mail.v1.Mail, descriptor: mail.bin } }\n";
        std::fs::write(folder.path().join("mail.yaml"), document).unwrap();
        std::fs::write(folder.path().join("mail.bin"), content).unwrap();
        load(folder.path(), &[SERVICE]).map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect())
    }

    fn set(service: &str, dependency: &[&str]) -> Vec<u8> {
        let service = ServiceDescriptorProto { name: Some(service.to_owned()), ..Default::default() };
        let file = FileDescriptorProto {
            name: Some("mail.proto".to_owned()),
            package: Some("mail.v1".to_owned()),
            service: vec![service],
            dependency: dependency.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        FileDescriptorSet { file: vec![file] }.encode_to_vec()
    }

    #[test]
    fn a_file_has_the_service_and_all_that_it_imports() {
        let faults = |content: &[u8]| told(content).err().unwrap_or_default();
        // The project is another document.
        for sound in [set("Mail", &[]), set("Mail", &["google/protobuf/timestamp.proto"])] {
            assert!(!faults(&sound).contains("descriptor"), "{}", faults(&sound));
        }
        let other = faults(&set("Mails", &[]));
        let near = "the file mail.bin cannot be used: there is no service mail.v1.Mail, did you mean mail.v1.Mails?";
        assert!(other.contains(near), "{other}");
        for content in [b"\xff\xff".to_vec(), set("Mail", &["other.proto"])] {
            assert!(faults(&content).contains("the file mail.bin cannot be used: invalid descriptors: "));
        }
        assert!(faults(b"").contains("there is no service mail.v1.Mail"));
        assert!(faults(&vec![0; 5 << 20]).contains("over the limit of 4194304 bytes"));
    }
}
