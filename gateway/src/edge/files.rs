//! Authorization of files.

use mesh::Fault;
use proto::{
    Links,
    auth::{AuthorizeFilesRequest, FileAccess, FileSignature, FileVerdict, SignFileRequest},
};

use super::{Caller, Edge};
use crate::catalogue::Project;

/// What a caller of files shows.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// The token of the request, or none.
    Token,
    /// The signature of an address, which stands for a token.
    Signature(FileSignature),
    /// The id of an access key of the project, which has signed the request.
    AccessKey(String),
}

impl Credential {
    /// The signature of an address, where there is one.
    pub(crate) fn of_signature(signature: Option<FileSignature>) -> Self {
        signature.map_or(Credential::Token, Credential::Signature)
    }
}

impl Edge {
    /// Verdicts on accesses to files, in their order: of the rules, or of the signature of an address. Unless denials are
    /// wanted one by one, as `each` says, the first denies the request.
    pub(crate) async fn file_verdicts(
        &self,
        caller: &Caller,
        project: &Project,
        (accesses, each): (Vec<FileAccess>, bool),
        credential: &Credential,
    ) -> Result<Vec<FileVerdict>, Fault> {
        let wanted = accesses.len();
        let (project, token) = (project.id.to_string(), caller.token.to_string());
        let (signature, access_key) = match credential.clone() {
            Credential::Token => (None, String::new()),
            Credential::Signature(signature) => (Some(signature), String::new()),
            Credential::AccessKey(id) => (None, id),
        };
        let request = AuthorizeFilesRequest { project, token, accesses, each, signature, access_key };
        let verdicts = self.mesh.auth_rules().authorize_files(&caller.call, request).await?.verdicts;
        if verdicts.len() != wanted {
            let cause = format!("{} verdicts on {wanted} accesses", verdicts.len());
            return Err(Fault::internal("the request could not be authorised", cause));
        }
        Ok(verdicts)
    }

    /// The signature of an address that lets whoever has it do what `access` is, for so many seconds.
    pub(crate) async fn sign_file(
        &self,
        caller: &Caller,
        project: &Project,
        access: FileAccess,
        seconds: u32,
    ) -> Result<Option<FileSignature>, Fault> {
        let (project, token) = (project.id.to_string(), caller.token.to_string());
        let request = SignFileRequest { project, token, access: Some(access), seconds };
        Ok(self.mesh.auth_rules().sign_file(&caller.call, request).await?.signature)
    }
}
