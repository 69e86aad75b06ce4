//! Where the server is and how a connection to it is made.

use std::{path::PathBuf, sync::Arc, time::Duration};

use mesh::tasks::Tasks;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio_postgres::{Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Connection, Ending},
    error::{Failure, chain},
};

/// How long a connection may take to be made, name look-up and log-in included.
const CONNECT: Duration = Duration::from_secs(2);
/// How often the statements of a connection that was given up are cancelled, and how far apart.
const CANCELLATIONS: usize = 100;
const BETWEEN: Duration = Duration::from_millis(50);

/// A server, a database on it and who we are there.
pub struct Target {
    config: Config,
    /// Set on every connection, so that casts to text do not depend on how the server or the role is set up.
    session: String,
    tls: MakeRustlsConnect,
    tasks: Tasks,
}

impl Target {
    /// What `url` says: `postgres://user:password@host:port/name?sslmode=verify-full`, with the parameters of libpq.
    ///
    /// `sslmode` is `disable`, `prefer` (the default), `require` (encrypted, whoever the server is, as in libpq),
    /// `verify-ca` or `verify-full` (both check certificate and name, against the PEM file in `sslrootcert`).
    ///
    /// Errors: what is wrong with it, without its password.
    pub fn parse(url: &str, schema: &str, tasks: &Tasks) -> Result<Self, String> {
        let (url, tls) = split_tls(url)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| chain(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("the url names no host".to_owned());
        }
        config.ssl_mode(tls.mode).connect_timeout(CONNECT).keepalives(true).keepalives_idle(Duration::from_secs(30));
        if config.get_application_name().is_none() {
            config.application_name("perigee");
        }
        let session = format!(
            "SET TIME ZONE 'UTC'; SET DateStyle TO 'ISO, MDY'; SET IntervalStyle TO postgres; \
             SET bytea_output TO hex; SET search_path TO {}, public",
            quoted(schema)
        );
        Ok(Self { config, session, tls: MakeRustlsConnect::new(tls.client()?), tasks: tasks.clone() })
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        match tokio::time::timeout(CONNECT, self.dial()).await {
            Ok(connection) => connection,
            Err(_) => Err(Failure::Connect(format!("no connection within {CONNECT:?}"))),
        }
    }

    /// Ends what still runs on a connection that was given up, in a task of its own that keeps `held` until then.
    ///
    /// A cancellation ends one statement; others may be queued behind it, so it is repeated until the connection closes.
    pub fn cancel(&self, ending: Ending, held: impl Send + 'static) {
        // Outside of the runtime, where nothing more is served, the end of the connection has to be enough.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let tls = self.tls.clone();
        self.tasks.spawn("postgres cancel", async move {
            for _ in 0..CANCELLATIONS {
                // One that fails finds the server gone, or is followed by the next.
                let _ = tokio::time::timeout(CONNECT, ending.cancel.cancel_query(tls.clone())).await;
                if tokio::time::timeout(BETWEEN, ending.ended.cancelled()).await.is_ok() {
                    break;
                }
            }
            drop(held);
        });
    }

    async fn dial(&self) -> Result<Connection, Failure> {
        let unreachable = |error: tokio_postgres::Error| Failure::Connect(chain(&error));
        let (client, driver) = self.config.connect(self.tls.clone()).await.map_err(unreachable)?;
        let stop = self.tasks.stop().clone();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        self.tasks.spawn("postgres connection", async move {
            let _end = end;
            if let Some(Err(error)) = stop.run_until_cancelled(driver).await {
                tracing::debug!(error = chain(&error), "connection to the database ended");
            }
        });
        client.batch_execute(&self.session).await.map_err(unreachable)?;
        Ok(Connection::new(client, ended))
    }
}

/// What a URL says of TLS.
struct Tls {
    mode: SslMode,
    verified: bool,
    roots: Option<PathBuf>,
}

/// Takes `sslmode` and `sslrootcert` out of the URL: the driver knows fewer modes than libpq.
fn split_tls(url: &str) -> Result<(String, Tls), String> {
    let mut tls = Tls { mode: SslMode::Prefer, verified: false, roots: None };
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), tls)) };
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", mode)) => {
                (tls.mode, tls.verified) = match mode {
                    "disable" => (SslMode::Disable, false),
                    "allow" | "prefer" => (SslMode::Prefer, false),
                    "require" => (SslMode::Require, false),
                    "verify-ca" | "verify-full" => (SslMode::Require, true),
                    _ => return Err(format!("sslmode {mode} is not known; did you mean verify-full?")),
                };
            }
            Some(("sslrootcert", path)) => tls.roots = Some(PathBuf::from(path)),
            _ => kept.push(parameter),
        }
    }
    if kept.is_empty() { Ok((address.to_owned(), tls)) } else { Ok((format!("{address}?{}", kept.join("&")), tls)) }
}

impl Tls {
    fn client(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        if !self.verified {
            let anyone = Arc::new(anyone::Anyone(provider));
            return Ok(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth());
        }
        let path = self.roots.as_ref().ok_or("sslmode verify-full needs sslrootcert=PATH, a PEM file")?;
        let unread = |error: &dyn std::fmt::Display| format!("sslrootcert {}: {error}", path.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unread(&error))? {
            let certificate = certificate.map_err(|error| unread(&error))?;
            roots.add(certificate).map_err(|error| unread(&error))?;
        }
        if roots.is_empty() {
            return Err(unread(&"no certificate in it"));
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

mod anyone {
    use std::sync::Arc;

    use rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    /// Believes every certificate: what `sslmode=require` means to libpq. Signatures are still checked.
    #[derive(Debug)]
    pub struct Anyone(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(url: &str) -> String {
        match Target::parse(url, "public", &Tasks::default()) {
            Ok(_) => panic!("{url} is refused"),
            Err(fault) => fault,
        }
    }

    #[test]
    fn faults_of_a_url_are_named_without_its_password() {
        for url in ["postgres://ann:hunter2@db:port/shop", "postgres://ann:hunter2@db/shop?what=1", "postgres:///shop"]
        {
            let fault = fault(url);
            assert!(!fault.contains("hunter2") && !fault.is_empty(), "{fault}");
        }
        assert!(fault("postgres://db/shop?sslmode=always").contains("sslmode always is not known"));
        assert!(fault("postgres://db/shop?sslmode=verify-full").contains("needs sslrootcert"));
        assert!(fault("postgres://db/shop?sslmode=verify-full&sslrootcert=/nowhere.pem").contains("/nowhere.pem"));
    }

    #[test]
    fn parameters_of_tls_are_taken_out_and_others_stay() {
        let (url, tls) = split_tls("postgres://db/shop?sslmode=require&application_name=x").unwrap();
        assert_eq!(url, "postgres://db/shop?application_name=x");
        assert_eq!((tls.mode, tls.verified), (SslMode::Require, false));
        let (url, tls) = split_tls("postgres://db/shop?sslmode=disable").unwrap();
        assert_eq!(url, "postgres://db/shop");
        assert_eq!(tls.mode, SslMode::Disable);
    }

    #[test]
    fn schemas_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
