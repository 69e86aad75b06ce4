//! TLS of connections, and the certificates they trust.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{
    Socket,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::SYSTEM_ROOTS;

/// TLS parameters of a URL.
pub struct Tls {
    /// Absent where the URL does not say.
    pub mode: Option<SslMode>,
    verified: bool,
    roots: Option<PathBuf>,
}

impl Tls {
    /// Takes `sslmode` and `sslrootcert` out of the URL: the driver knows fewer modes than libpq.
    ///
    /// Errors: what is wrong with them.
    pub fn split(url: &str) -> Result<(String, Self), String> {
        let mut tls = Tls { mode: None, verified: false, roots: None };
        let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), tls)) };
        let mut kept = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => {
                    let (mode, verified) = match mode {
                        "disable" => (SslMode::Disable, false),
                        "allow" | "prefer" => (SslMode::Prefer, false),
                        "require" => (SslMode::Require, false),
                        "verify-ca" | "verify-full" => (SslMode::Require, true),
                        _ => return Err(format!("sslmode {mode} is not known; did you mean verify-full?")),
                    };
                    tls.mode = Some(mode);
                    tls.verified = verified;
                }
                Some(("sslrootcert", "system")) => tls.roots = None,
                Some(("sslrootcert", path)) => tls.roots = Some(PathBuf::from(path)),
                _ => kept.push(parameter),
            }
        }
        if kept.is_empty() { Ok((address.to_owned(), tls)) } else { Ok((format!("{address}?{}", kept.join("&")), tls)) }
    }

    /// The connector of these parameters.
    ///
    /// Errors: what is wrong with the certificates to trust.
    pub fn connector(&self) -> Result<TlsConnector, String> {
        Ok(TlsConnector(MakeRustlsConnect::new(self.client()?)))
    }

    fn client(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        if !self.verified {
            let anyone = Arc::new(Anyone(provider));
            return Ok(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth());
        }
        let system = || SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
        let path = self.roots.as_deref().or_else(system).ok_or("sslmode verify-full needs sslrootcert, a PEM file")?;
        let unread = |error: &dyn std::fmt::Display| format!("sslrootcert {}: {error}", path.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unread(&error))? {
            let certificate = certificate.map_err(|error| unread(&error))?;
            // One that is too old to be understood vouches for nobody; the others do.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(unread(&"no usable certificate in it"));
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// TLS connector of the driver, by rustls.
#[derive(Clone)]
pub struct TlsConnector(MakeRustlsConnect);

impl TlsConnector {
    /// A stream to `host` with TLS over `stream`.
    pub async fn encrypt<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Sync + Unpin + use<S>, String>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        let mut connector = self.0.clone();
        let connect = MakeTlsConnect::<S>::make_tls_connect(&mut connector, named(host));
        let connect = connect.map_err(|error| error.to_string())?;
        connect.connect(stream).await.map_err(|error| error.to_string())
    }
}

/// The name that a host without one is given, which no certificate has.
fn named(host: &str) -> &str {
    if host.is_empty() { "unnamed.invalid" } else { host }
}

impl MakeTlsConnect<Socket> for TlsConnector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    /// The driver asks for sockets too, which have no name and no TLS, and for bare addresses, which are encrypted but
    /// cannot be verified: they get a name that no certificate has.
    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, named(host))
    }
}

/// Believes every certificate: what `sslmode=require` means to libpq. Signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_tls_are_taken_out_and_others_stay() {
        let (url, tls) = Tls::split("postgres://db/shop?sslmode=require&application_name=x").unwrap();
        assert_eq!(url, "postgres://db/shop?application_name=x");
        assert_eq!((tls.mode, tls.verified), (Some(SslMode::Require), false));
        let (url, tls) = Tls::split("postgres://db/shop?sslmode=disable").unwrap();
        assert_eq!(url, "postgres://db/shop");
        assert_eq!(tls.mode, Some(SslMode::Disable));
        let (_, tls) = Tls::split("postgres://db/shop?sslmode=verify-full").unwrap();
        assert_eq!((tls.mode, tls.verified), (Some(SslMode::Require), true));
    }
}
