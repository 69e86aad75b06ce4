//! One watch: the messages of a caller, one after the other.

use std::{collections::VecDeque, sync::Arc};

use mesh::Call;
use proto::{
    Links,
    crud::ReadRequest,
    realtime::{Event, Ready, Row, WatchRequest, WatchResponse},
};
use query::FieldKind;
use tokio::time::Instant;

use crate::{
    Error,
    access::Granted,
    image::Image,
    plan::{Plan, Told},
    position::Fingerprint,
    schemas::Refresh,
    service::Shared,
};

/// A watch. Dropped, it ends.
pub struct Watch {
    shared: Arc<Shared>,
    plan: Plan,
    granted: Granted,
    told: Told,
    fingerprint: Fingerprint,
    /// Messages that were not taken yet.
    messages: VecDeque<WatchResponse>,
    /// Messages told so far that a watch does not go on after.
    anew: u64,
}

impl Watch {
    /// Begins a watch, once that is authorised.
    pub async fn begin(shared: Arc<Shared>, call: &Call, request: WatchRequest) -> Result<Self, Error> {
        let described = shared.schemas.of(call, &request.project, &request.read.database, Refresh::No).await?;
        let plan = Plan::of(request, described.schema)?;
        let WatchRequest { project, token, read, .. } = &plan.request;
        let granted = shared.authorizer.authorize(call, (project, token), &plan.schema, read).await?;
        let told = plan.told(granted.own()?)?;
        let fingerprint = Fingerprint::of(&[format!("{:?}", plan.request.read).as_bytes()]);
        let mut watch = Self { shared, plan, granted, told, fingerprint, messages: VecDeque::new(), anew: 0 };
        watch.read(call).await?;
        Ok(watch)
    }

    /// The next message; `None` after an end without an error.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        if let Some(message) = self.messages.pop_front() {
            return Some(Ok(message));
        }
        match self.granted.token_expires {
            Some(expires) => tokio::time::sleep_until(expires.max(Instant::now())).await,
            None => std::future::pending().await,
        }
        Some(Err(Error::TokenExpired))
    }

    /// Reads the rows that there are.
    async fn read(&mut self, call: &Call) -> Result<(), Error> {
        let request = ReadRequest {
            project: self.plan.request.project.clone(),
            database: self.plan.request.read.database.as_str().into(),
            reads: vec![self.plan.snapshot(&self.told)],
            grants: self.granted.grants.clone(),
            answer_bytes: 0,
        };
        let answers = self.shared.mesh.crud().read(call, request).await?.answers;
        let [answer] = answers.as_slice() else { return Err(Error::Unreadable("no answer".to_owned())) };
        for row in Image::rows(&answer.json)? {
            let image = Image::parse(row)?;
            let row = self.row(&image);
            let position = self.anew();
            self.messages.push_back(WatchResponse { position, event: Some(Event::Initial(row)) });
        }
        let position = self.anew();
        self.messages.push_back(WatchResponse { position, event: Some(Event::Ready(Ready {})) });
        Ok(())
    }

    fn row(&self, image: &Image) -> Row {
        let key = self.told.key.iter().filter(|field| matches!(field.kind, FieldKind::Column(_)));
        let key = image.object(&key.cloned().collect::<Vec<_>>(), |_| true);
        Row { row: image.object(&self.told.fields, |_| true), key, ..Row::default() }
    }

    /// The position of a message after which a watch begins anew.
    fn anew(&mut self) -> String {
        self.anew += 1;
        self.shared.signer.anew(self.fingerprint, self.anew)
    }
}
