//! Generates from contracts what the mesh runs on: messages, server traits, and a link to each service.
//!
//! Shared by the build scripts of this crate and of tests that bring contracts of their own.

use std::{error::Error, fmt::Write, fs, path::Path};

use prost_build::{Method, Service, ServiceGenerator};
use prost_types::{FileDescriptorSet, method_options::IdempotencyLevel};

/// Contracts of services that call each other.
pub struct Contracts<'a> {
    /// The contracts, compiled.
    pub descriptors: FileDescriptorSet,
    /// The package that all packages are under, with the dots: `.perigee`.
    pub root: &'a str,
    /// Messages that services use as types of the operation model: `.perigee.crud.v1.ReadRequest` and the Rust type
    /// that carries it.
    pub carried: &'a [(&'a str, &'a str)],
    /// Fields that hold shared bytes.
    pub bytes: &'a [&'a str],
    /// Fields that few messages have, kept in boxes.
    pub boxed: &'a [&'a str],
}

/// Writes `messages.rs` (the messages as they are encoded, to be included as module `wire` of the crate's root) and
/// `services.rs` (for each package a module with the server traits and links, and [`Links`] to all) into `out`.
pub fn generate(contracts: Contracts<'_>, out: &Path) -> Result<(), Box<dyn Error>> {
    let Contracts { descriptors, root, carried, bytes, boxed } = contracts;
    let mut messages = tonic_prost_build::configure().build_client(false).build_server(false).out_dir(out);
    for field in bytes {
        messages = messages.bytes(field);
    }
    for field in boxed {
        messages = messages.boxed(field);
    }
    messages.include_file("messages.rs").compile_fds(descriptors.clone())?;

    let found = services(&descriptors);
    let dir = out.join("services");
    fs::create_dir_all(&dir)?;
    let tonic = tonic_prost_build::configure().build_client(false).codec_path("::proto::carried::Codec");
    let mut config = prost_build::Config::new();
    config.out_dir(&dir).extern_path(root, "crate::wire");
    for (message, carrier) in carried {
        config.extern_path(*message, *carrier);
    }
    config.service_generator(Box::new(Links { tonic: tonic.service_generator(), carried: Vec::new() }));
    config.compile_fds(descriptors)?;
    fs::write(out.join("services.rs"), modules(&found))?;
    Ok(())
}

/// A service's package and its name in the contract.
struct Found {
    package: String,
    service: String,
    comment: String,
}

fn services(descriptors: &FileDescriptorSet) -> Vec<Found> {
    let mut found = Vec::new();
    for file in &descriptors.file {
        for (index, service) in file.service.iter().enumerate() {
            let is_its = |path: &[i32]| path == [6, i32::try_from(index).expect("a file has few services")];
            let locations = file.source_code_info.iter().flat_map(|info| &info.location);
            let comment = locations
                .filter(|location| is_its(&location.path))
                .filter_map(|location| location.leading_comments.clone())
                .next();
            found.push(Found {
                package: file.package().to_owned(),
                service: service.name().to_owned(),
                comment: comment.unwrap_or_default().trim().to_owned(),
            });
        }
    }
    found
}

/// The modules of all packages, and the trait that leads to their links.
fn modules(found: &[Found]) -> String {
    let mut out = String::new();
    let mut links = String::new();
    for Found { package, service, comment } in found {
        let module = module(package);
        let _ = write!(
            out,
            "/// Contract `{package}`.\npub mod {module} {{\n    \
             include!(concat!(env!(\"OUT_DIR\"), \"/services/{package}.rs\"));\n}}\n\n"
        );
        let method = snake(service);
        let _ = write!(
            links,
            "    /// {comment}\n    fn {method}(&self) -> {module}::{service}Link<'_, Self> {{\n        \
             {module}::{service}Link::new(self)\n    }}\n"
        );
    }
    let all: Vec<String> =
        found.iter().map(|found| format!("&{}::{}", module(&found.package), constant(&found.service))).collect();
    let _ = write!(
        out,
        "/// All services of these contracts.\npub static ALL: [&::proto::link::Service; {}] = [{}];\n\n\
         /// Links to all services of these contracts, near or far.\n\
         pub trait Links: ::proto::link::Transport {{\n{links}}}\n\n\
         impl<T: ::proto::link::Transport> Links for T {{}}\n",
        found.len(),
        all.join(", "),
    );
    out
}

/// `perigee.auth.v1` → `auth`.
fn module(package: &str) -> String {
    package.split('.').rev().nth(1).unwrap_or(package).to_owned()
}

/// `AuthRules` in parts: `auth`, `rules`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            Some(word) if !letter.is_ascii_uppercase() => word.push(letter),
            _ => words.push(letter.to_ascii_lowercase().to_string()),
        }
    }
    words
}

fn snake(name: &str) -> String {
    words(name).join("_")
}

fn constant(name: &str) -> String {
    snake(name).to_ascii_uppercase()
}

/// The names of services in configuration, metrics and logs.
fn kebab(name: &str) -> String {
    words(name).join("-")
}

/// Generates for each service what tonic does, and its link.
struct Links {
    tonic: Box<dyn ServiceGenerator>,
    /// Messages that carry themselves, and are said to.
    carried: Vec<String>,
}

impl ServiceGenerator for Links {
    fn generate(&mut self, service: Service, out: &mut String) {
        self.tonic.generate(service.clone(), out);
        description(&service, out);
        near(&service, out);
        caught(&service, out);
        link(&service, out);
        host(&service, out);
        for method in &service.methods {
            for message in [&method.input_type, &method.output_type] {
                let is_own = message.starts_with("crate::wire::");
                if is_own && !self.carried.contains(message) {
                    self.carried.push(message.clone());
                    let _ = writeln!(out, "::proto::carried::carries_itself!({message});");
                }
            }
        }
    }

    fn finalize(&mut self, out: &mut String) {
        self.tonic.finalize(out);
    }
}

/// The service and its methods as data.
fn description(service: &Service, out: &mut String) {
    let Service { proto_name, package, .. } = service;
    let mut methods = String::new();
    for method in &service.methods {
        let retry = match method.options.idempotency_level() {
            IdempotencyLevel::IdempotencyUnknown => "Never",
            IdempotencyLevel::NoSideEffects | IdempotencyLevel::Idempotent => "Once",
        };
        let name = &method.proto_name;
        let _ = writeln!(
            methods,
            "        ::proto::link::Method {{ name: \"{name}\", path: \"/{package}.{proto_name}/{name}\", \
             retry: ::proto::link::Retry::{retry} }},"
        );
    }
    let _ = write!(
        out,
        "/// `{package}.{proto_name}`.\npub static {}: ::proto::link::Service = ::proto::link::Service {{\n    \
         name: \"{}\",\n    path: \"{package}.{proto_name}\",\n    methods: &[\n{methods}    ],\n}};\n\n",
        constant(&service.name),
        kebab(&service.name),
    );
}

/// The server trait as one that makes objects: streams are boxed.
fn near(service: &Service, out: &mut String) {
    let (name, module) = (&service.name, format!("{}_server", snake(&service.name)));
    let (mut methods, mut forwards) = (String::new(), String::new());
    for method in &service.methods {
        let signature = format!(
            "fn {}<'a>(&'a self, request: tonic::Request<{}>) -> ::proto::link::Answer<'a, {}>",
            method.name,
            if method.client_streaming {
                format!("tonic::Streaming<{}>", method.input_type)
            } else {
                method.input_type.clone()
            },
            if method.server_streaming {
                format!("::proto::link::Messages<{}>", method.output_type)
            } else {
                method.output_type.clone()
            },
        );
        let _ = writeln!(methods, "    /// `{}`.\n    {signature};", method.proto_name);
        let call = format!("{module}::{name}::{}(self, request)", method.name);
        let body = match method.server_streaming {
            true => format!("::proto::link::boxed({call})"),
            false => call,
        };
        let _ = writeln!(forwards, "    {signature} {{\n        {body}\n    }}");
    }
    let _ = write!(
        out,
        "/// A server of `{name}` in this process.\npub trait Near{name}: Send + Sync + 'static {{\n{methods}}}\n\n\
         impl<T: {module}::{name}> Near{name} for T {{\n{forwards}}}\n\n"
    );
}

/// The server trait once more, for calls from other processes: a panic between messages must not take those before it
/// along, which tonic has gathered for the same write.
fn caught(service: &Service, out: &mut String) {
    if !has_streams(service) {
        return;
    }
    let (name, module) = (&service.name, format!("{}_server", snake(&service.name)));
    let mut methods = String::new();
    for method in &service.methods {
        let rpc = &method.name;
        let request = match method.client_streaming {
            true => format!("tonic::Streaming<{}>", method.input_type),
            false => method.input_type.clone(),
        };
        let call = format!("{module}::{name}::{rpc}(&*self.0, request)");
        let (answer, call) = match method.server_streaming {
            true => (
                format!("::proto::link::Messages<{}>", method.output_type),
                format!("::proto::link::caught({}.name, {call})", constant(name)),
            ),
            false => (method.output_type.clone(), call),
        };
        if method.server_streaming {
            let _ = writeln!(methods, "    type {}Stream = {answer};", method.proto_name);
        }
        let _ = writeln!(
            methods,
            "    async fn {rpc}(&self, request: tonic::Request<{request}>) \
             -> Result<tonic::Response<{answer}>, tonic::Status> {{\n        {call}.await\n    }}"
        );
    }
    let _ = write!(
        out,
        "struct Caught{name}<S>(std::sync::Arc<S>);\n\n#[tonic::async_trait]\n\
         impl<S: {module}::{name}> {module}::{name} for Caught{name}<S> {{\n{methods}}}\n\n"
    );
}

fn has_streams(service: &Service) -> bool {
    service.methods.iter().any(|method| method.server_streaming)
}

/// The link: a method for each RPC.
fn link(service: &Service, out: &mut String) {
    let name = &service.name;
    let mut methods = String::new();
    for (index, method) in service.methods.iter().enumerate() {
        comments(method, &mut methods);
        let (ways, message, argument) = match (method.client_streaming, method.server_streaming) {
            (false, false) => ("unary", method.input_type.clone(), "message"),
            (false, true) => ("server_streaming", method.input_type.clone(), "message"),
            (true, false) => ("client_streaming", messages(&method.input_type), "messages"),
            (true, true) => ("streaming", messages(&method.input_type), "messages"),
        };
        let answer = match method.server_streaming {
            true => format!("::proto::link::Messages<{}>", method.output_type),
            false => method.output_type.clone(),
        };
        let _ = write!(
            methods,
            "    pub fn {rpc}(self, call: &'m T::Call, {argument}: {message}) \
             -> impl Future<Output = Result<{answer}, tonic::Status>> + Send + 'm {{\n        \
             self.0.{ways}(&{constant}, {index}, call, {argument}, |near: &'m dyn Near{name}, request| near.{rpc}(request))\n    }}\n",
            rpc = method.name,
            constant = constant(name),
        );
    }
    let _ = write!(
        out,
        "/// Calls to `{name}`, near or far.\n#[derive(Debug)]\npub struct {name}Link<'m, T>(&'m T);\n\n\
         impl<T> Clone for {name}Link<'_, T> {{\n    fn clone(&self) -> Self {{\n        *self\n    }}\n}}\n\n\
         impl<T> Copy for {name}Link<'_, T> {{}}\n\n\
         impl<'m, T: ::proto::link::Transport> {name}Link<'m, T> {{\n    \
         /// Calls over `transport`.\n    pub fn new(transport: &'m T) -> Self {{\n        Self(transport)\n    }}\n\n{methods}}}\n\n"
    );
}

fn messages(message: &str) -> String {
    format!("std::pin::Pin<Box<dyn ::proto::link::Stream<Item = {message}> + Send>>")
}

fn comments(method: &Method, out: &mut String) {
    if method.comments.leading.is_empty() {
        let _ = writeln!(out, "    /// `{}`.", method.proto_name);
    }
    for line in &method.comments.leading {
        let _ = writeln!(out, "    ///{line}");
    }
}

/// The function that registers a service with a node.
fn host(service: &Service, out: &mut String) {
    let (name, module) = (&service.name, format!("{}_server", snake(&service.name)));
    let far = match has_streams(service) {
        true => format!("std::sync::Arc::new(Caught{name}(service))"),
        false => "service".to_owned(),
    };
    let _ = write!(
        out,
        "/// `service` as a node registers it.\npub fn host<S: {module}::{name}>(service: S) -> ::proto::link::Host {{\n    \
         let service = std::sync::Arc::new(service);\n    let near: std::sync::Arc<dyn Near{name}> = service.clone();\n    \
         let far = {module}::{name}Server::from_arc({far})\n        \
         .max_decoding_message_size(::proto::carried::MESSAGE_BYTES)\n        \
         .max_encoding_message_size(::proto::carried::MESSAGE_BYTES);\n    \
         ::proto::link::Host::new(&{}, near, tonic::service::Routes::new(far))\n}}\n\n",
        constant(name),
    );
}
