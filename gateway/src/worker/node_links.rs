//! Registrations of one worker: one at each node that runs functions, as the nodes come and go.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered, SelectAll},
};
use mesh::{Call, Code, Fault, Mesh, link::Nodes};
use proto::{
    Links,
    functions::{Register, WorkRequest, WorkResponse, work_request, work_response},
    link::Messages,
    services::functions::FUNCTIONS,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::Registration;
use crate::Service;

/// The pause before a node whose registration ended is asked again, if it is up.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The address of a node; `None`: this process.
type Address = Option<SocketAddr>;

/// The registrations of a worker. Dropped, they end.
pub struct NodeLinks {
    service: Service,
    registration: Arc<Registration>,
    nodes: Nodes,
    /// Nodes where it is registered or being registered, or was until a moment ago.
    known: BTreeSet<Address>,
    opening: FuturesUnordered<BoxFuture<'static, (Address, Result<OpenLink, Fault>)>>,
    pauses: FuturesUnordered<BoxFuture<'static, Address>>,
    links: HashMap<u64, NodeLink>,
    /// Messages of all, by the numbers of the links; `None` at the end of one.
    messages: SelectAll<BoxStream<'static, (u64, Option<WorkResponse>)>>,
    count: u64,
    is_draining: bool,
}

struct NodeLink {
    address: Address,
    /// Its answers are to calls that it sent, which are bounded: there is room for them.
    to_node: mpsc::Sender<WorkRequest>,
}

struct OpenLink {
    to_node: mpsc::Sender<WorkRequest>,
    messages: Messages<WorkResponse>,
}

/// What happened to the registrations.
#[derive(Debug)]
pub enum LinkEvent {
    /// A node sent a message.
    Message(u64, work_response::Message),
    /// A node knows the worker.
    Opened,
    /// A node does not know it any more.
    Ended(u64),
    /// A node could not be told of it; it will be, if it is up.
    Failed(Fault),
}

impl NodeLinks {
    /// None yet.
    pub fn new(service: Service, registration: Arc<Registration>) -> Self {
        let nodes = service.mesh().nodes(&FUNCTIONS);
        Self {
            service,
            registration,
            nodes,
            known: BTreeSet::new(),
            opening: FuturesUnordered::new(),
            pauses: FuturesUnordered::new(),
            links: HashMap::new(),
            messages: SelectAll::new(),
            count: 0,
            is_draining: false,
        }
    }

    /// Waits until one node knows the worker. Errors: all that are up refuse it.
    pub async fn first(&mut self) -> Result<(), Fault> {
        loop {
            match self.next().await {
                LinkEvent::Opened => return Ok(()),
                LinkEvent::Failed(fault) if fault.code.is_denial() || self.opening.is_empty() => return Err(fault),
                LinkEvent::Failed(_) | LinkEvent::Ended(_) | LinkEvent::Message(..) => {}
            }
        }
    }

    /// Waits for what happens next. Cancel safe.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            self.open_missing();
            tokio::select! {
                Some((link, message)) = self.messages.next() => match message {
                    Some(WorkResponse { message: Some(message) }) => return LinkEvent::Message(link, message),
                    // Of a node that is newer than this one.
                    Some(WorkResponse { message: None }) => {}
                    None => {
                        self.close(link);
                        return LinkEvent::Ended(link);
                    }
                },
                Some((address, opened)) = self.opening.next() => return match opened {
                    Ok(link) => {
                        self.add(address, link);
                        LinkEvent::Opened
                    }
                    Err(fault) => {
                        self.pause(address);
                        LinkEvent::Failed(fault)
                    }
                },
                Some(address) = self.pauses.next() => {
                    self.known.remove(&address);
                }
                () = self.nodes.changed() => {}
            }
        }
    }

    /// Sends a node a message; one that takes none is left.
    pub fn send(&mut self, link: u64, message: WorkRequest) {
        let sent = self.links.get(&link).map(|link| link.to_node.try_send(message));
        if let Some(Err(_)) = sent {
            self.close(link);
        }
    }

    /// Sends `message` to all nodes, and registers at no others.
    pub fn drain(&mut self, message: &WorkRequest) {
        self.is_draining = true;
        self.opening.clear();
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            self.send(link, message.clone());
        }
    }

    /// Whether it drains and no node knows it any more.
    pub fn is_closed(&self) -> bool {
        self.is_draining && self.links.is_empty()
    }

    fn open_missing(&mut self) {
        if self.is_draining {
            return;
        }
        let up = self.nodes.up();
        // The calls of all nodes together are bounded where they are handed over.
        let nodes = u32::try_from(up.len()).unwrap_or(u32::MAX).max(1);
        let capacity = self.registration.capacity.div_ceil(nodes);
        for (address, node) in up {
            if self.known.insert(address) {
                let opened = open(self.service.clone(), node, self.registration.clone(), capacity);
                self.opening.push(opened.map(move |opened| (address, opened)).boxed());
            }
        }
    }

    fn add(&mut self, address: Address, OpenLink { to_node, messages }: OpenLink) {
        self.count += 1;
        let number = self.count;
        self.links.insert(number, NodeLink { address, to_node });
        let messages = messages.map(Result::ok).take_while(|message| std::future::ready(message.is_some()));
        let messages = messages.chain(stream::iter([None]));
        self.messages.push(messages.map(move |message| (number, message)).boxed());
    }

    fn close(&mut self, link: u64) {
        if let Some(NodeLink { address, .. }) = self.links.remove(&link) {
            self.pause(address);
        }
    }

    fn pause(&mut self, address: Address) {
        self.pauses.push(tokio::time::sleep(RETRY_INTERVAL).map(move |()| address).boxed());
    }
}

/// Registers a worker at a node, for so many calls at once.
async fn open(service: Service, node: Mesh, registration: Arc<Registration>, capacity: u32) -> Result<OpenLink, Fault> {
    let Registration { project, service: name, functions, request_id, .. } = &*registration;
    let grant = service.edge().worker_grant(&registration.caller(&service), project, name).await?;
    // One for each call, and few others.
    let (to_node, queue) = mpsc::channel(capacity as usize + 4);
    let register = work_request::Message::Register(Register { grant, functions: functions.clone(), capacity });
    let queue = stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
    let sent = stream::iter([WorkRequest { message: Some(register) }]).chain(queue).boxed();
    let call = Call::begin(Some(request_id), None, None);
    let mut messages: Messages<WorkResponse> = Box::pin(node.functions().work(&call, sent)).await?;
    let first: Option<Result<WorkResponse, Status>> = messages.next().await;
    match first.transpose()? {
        Some(WorkResponse { message: Some(work_response::Message::Registered(_)) }) => {
            Ok(OpenLink { to_node, messages })
        }
        _ => Err(Fault::new(Code::Unavailable, "service functions does not take workers now")),
    }
}
