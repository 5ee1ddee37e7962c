//! Whom an encrypted connection trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresUrl, Security};
use crate::store::StoreError;

/// What makes connections encrypted, where `sslmode` has them encrypted.
pub(super) fn connector(url: &PostgresUrl) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |error: Error| StoreError::Unavailable(format!("TLS cannot be used: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if url.security() == Security::VerifyFull {
        builder.with_root_certificates(authorities(url.root_certificates())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    Ok(MakeRustlsConnect::new(builder.with_no_client_auth()))
}

/// The authorities of a file, or those of the system.
fn authorities(file: Option<&Path>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    let (found, place) = if let Some(path) = file {
        let unreadable = |error| StoreError::Unavailable(format!("sslrootcert {}: {error}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
        let certificates: Result<Vec<_>, _> = certificates.collect();
        (certificates.map_err(unreadable)?, path.display().to_string())
    } else {
        (rustls_native_certs::load_native_certs().certs, "the system".to_owned())
    };
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        let none = format!("{place} has no certificate of an authority, which sslmode=verify-full needs");
        return Err(StoreError::Unavailable(none));
    }
    Ok(roots)
}

/// Takes the certificate of anybody, as `sslmode=require` says: what is sent cannot be read on its way, but nobody knows
/// by whom it is received.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
