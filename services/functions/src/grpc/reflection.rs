//! The contract of a service as its server tells it. Source: gRPC Server Reflection Protocol, v1 and v1alpha, whose messages
//! are alike.

use std::collections::HashSet;

use futures::StreamExt;
use http::{Uri, uri::PathAndQuery};
use mesh::contract::{Contract, DESCRIPTOR_BYTES, FILES_MAX, well_known_file};
use prost::Message;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tonic::{Code, Request, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::connection::Connection;

/// Methods of both versions, the newer one first.
const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Why a server has told no contract.
#[derive(Debug, Clone)]
pub enum Untold {
    /// The call failed.
    Failed(Status),
    /// What it tells is none; for people.
    Invalid(String),
}

impl From<Status> for Untold {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// Asks the server at `origin` for the contract of `service`.
pub async fn contract(connection: &Connection, origin: &Uri, service: &str) -> Result<Contract, Untold> {
    let mut files = Err(Untold::Failed(Status::unimplemented("")));
    for method in METHODS {
        files = asked(connection, origin, (method, service)).await;
        if !matches!(&files, Err(Untold::Failed(status)) if status.code() == Code::Unimplemented) {
            break;
        }
    }
    let (files, service) = (files?, service.to_owned());
    // Large contracts take a while.
    let made = tokio::task::spawn_blocking(move || Contract::of(files, &service)).await;
    made.unwrap_or_else(|_| Err("the descriptors cannot be read".to_owned())).map_err(Untold::Invalid)
}

/// The files that declare `service`, with all that they import.
async fn asked(
    connection: &Connection,
    origin: &Uri,
    (method, service): (&'static str, &str),
) -> Result<Vec<FileDescriptorProto>, Untold> {
    let mut client = Grpc::with_origin(connection.clone(), origin.clone()).max_decoding_message_size(DESCRIPTOR_BYTES);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let (questions, asked) = mpsc::channel(1);
    let asked = futures::stream::unfold(asked, |mut asked| async { Some((asked.recv().await?, asked)) });
    let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let mut conversation = Conversation { questions, told: ToldFiles::default() };
    conversation.ask(MessageRequest::FileContainingSymbol(service.to_owned())).await;
    let answers = client.streaming(Request::new(asked), PathAndQuery::from_static(method), codec).await;
    let mut answers = answers?.into_inner();
    conversation.answered(&mut answers, service).await?;
    let mut asked = 0;
    while let Some(name) = conversation.told.missing() {
        asked += 1;
        if asked > FILES_MAX {
            return Err(Untold::Invalid(format!("the contract has more than {FILES_MAX} files")));
        }
        conversation.ask(MessageRequest::FileByFilename(name.clone())).await;
        match conversation.answered(&mut answers, &name).await {
            Ok(()) => {}
            Err(untold) => conversation.told.take(well_known_file(&name).ok_or(untold)?),
        }
    }
    Ok(conversation.told.files)
}

/// Questions to a server and what it has told.
struct Conversation {
    questions: mpsc::Sender<ServerReflectionRequest>,
    told: ToldFiles,
}

/// Files that a server has told.
#[derive(Default)]
struct ToldFiles {
    files: Vec<FileDescriptorProto>,
    /// Their names.
    names: HashSet<String>,
    /// Names that are imported, each once.
    imported: HashSet<String>,
    /// Those of them that were not looked for.
    wanted: Vec<String>,
    bytes: usize,
}

impl Conversation {
    async fn ask(&self, question: MessageRequest) {
        // Where the server has gone, its answers have ended too.
        let _ =
            self.questions.send(ServerReflectionRequest { host: String::new(), message_request: Some(question) }).await;
    }

    /// Takes the answer to a question.
    async fn answered(&mut self, answers: &mut Streaming<ServerReflectionResponse>, asked: &str) -> Result<(), Untold> {
        let answer = answers.next().await.ok_or_else(|| Untold::Invalid("the server tells nothing".to_owned()))??;
        let files = match answer.message_response {
            Some(MessageResponse::FileDescriptorResponse(files)) => files.file_descriptor_proto,
            Some(MessageResponse::ErrorResponse(error)) => {
                let text = error.error_message.chars().take(200).collect::<String>();
                return Err(Untold::Invalid(format!("the server does not know {asked}: {text}")));
            }
            _ => return Err(Untold::Invalid("the server tells something else".to_owned())),
        };
        files.iter().try_for_each(|file| self.told.decode(file)).map_err(Untold::Invalid)
    }
}

impl ToldFiles {
    fn decode(&mut self, file: &[u8]) -> Result<(), String> {
        self.bytes += file.len();
        if self.bytes > DESCRIPTOR_BYTES || self.files.len() >= FILES_MAX {
            return Err(format!("the contract is over the limit of {DESCRIPTOR_BYTES} bytes or {FILES_MAX} files"));
        }
        self.take(FileDescriptorProto::decode(file).map_err(|error| format!("invalid descriptors: {error}"))?);
        Ok(())
    }

    /// Takes a file, unless there is one of its name.
    fn take(&mut self, file: FileDescriptorProto) {
        if self.names.insert(file.name().to_owned()) {
            let new = file.dependency.iter().filter(|name| self.imported.insert((*name).clone()));
            self.wanted.extend(new.cloned());
            self.files.push(file);
        }
    }

    /// A file that is imported and not known; `None`: all are. Each is told once.
    fn missing(&mut self) -> Option<String> {
        while let Some(name) = self.wanted.pop() {
            if !self.names.contains(&name) {
                return Some(name);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, dependency: Vec<String>) -> FileDescriptorProto {
        FileDescriptorProto { name: Some(name.to_owned()), dependency, ..Default::default() }
    }

    #[test]
    fn what_is_imported_is_asked_for_once() {
        let mut told = ToldFiles::default();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        told.take(file("a", names(&["b", "a", "c", "b"])));
        told.take(file("c", names(&["b", "a"])));
        assert_eq!((told.missing().as_deref(), told.missing()), (Some("b"), None));
        told.take(file("c", names(&["d"])));
        assert_eq!((told.missing(), told.files.len()), (None, 2), "the first of a name counts");
        // Many names take no longer than there are of them.
        let begun = std::time::Instant::now();
        let mut told = ToldFiles::default();
        told.take(file("a", (0..300_000).map(|number| number.to_string()).collect()));
        assert_eq!((0..FILES_MAX).filter(|_| told.missing().is_some()).count(), FILES_MAX);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_a_server_tells_is_bounded() {
        let mut told = ToldFiles::default();
        for number in 0..FILES_MAX {
            told.decode(&file(&number.to_string(), Vec::new()).encode_to_vec()).unwrap();
        }
        assert!(told.decode(b"").unwrap_err().contains("or 500 files"));
        let mut told = ToldFiles::default();
        assert!(told.decode(&vec![0; DESCRIPTOR_BYTES + 1]).unwrap_err().contains("over the limit of 4194304 bytes"));
        assert!(told.decode(b"\xff").is_err());
    }
}
