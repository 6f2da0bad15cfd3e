//! Proof of possession: whether the sender of a token that is bound to a key has that key.
//!
//! A token says by its claim `cnf` which key it is bound to
//! ([`Identity::confirmation`](crate::Identity::confirmation)). A [`ProofVerifier`] judges the proof that comes
//! with each request.
//!
//! How it fits together: [manual::request](crate::manual::request).

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Uri};

use crate::clock::{CHECK_PATIENCE, within};
use crate::error::{AuthError, InvalidToken};
use crate::identity::Confirmation;

/// A request with a bound token, whose sender must prove that it has the key. `Debug` prints neither the
/// token nor headers.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ProofRequest<'r> {
    /// The key that the token is bound to.
    pub confirmation: &'r Confirmation,
    /// The token, which is verified.
    pub token: &'r str,
    /// The method.
    pub method: &'r Method,
    /// The target, as the layer sees it: a router outside of the layer may have cut a prefix off. axum
    /// leaves the whole in the extensions (`OriginalUri`).
    pub uri: &'r Uri,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The extensions, where a server leaves what it knows of the connection, such as the client's
    /// certificate.
    pub extensions: &'r Extensions,
    /// Now, by the layer's clock.
    pub now: SystemTime,
}

impl<'r> ProofRequest<'r> {
    /// Makes what a verifier is asked about `token`, which came with `request` and is bound to `confirmation`:
    /// to test a verifier.
    pub fn of<B>(
        request: &'r Request<B>,
        confirmation: &'r Confirmation,
        token: &'r str,
        now: SystemTime,
    ) -> Self {
        let (method, uri) = (request.method(), request.uri());
        let (headers, extensions) = (request.headers(), request.extensions());
        Self { confirmation, token, method, uri, headers, extensions, now }
    }
}

impl fmt::Debug for ProofRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofRequest")
            .field("confirmation", &self.confirmation)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// That a proof was accepted. It carries nothing yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proven {}

impl Proven {
    /// The sender has the key.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Judges proofs of possession for tokens that are bound to a key (`cnf`, RFC 7800 §3.1).
///
/// Given to [`AuthBuilder::proof_verifier`](crate::AuthBuilder::proof_verifier). Without one, bound tokens are refused. It is asked for each request
/// with a bound token that [`accepts`](Self::accepts) takes, also when the token itself was verified
/// before; for a token that is bound to nothing it is not asked. A token that comes without an HTTP request
/// ([`Auth::authenticate`](crate::Auth::authenticate), introspection, a sign-in) has no proof and stays
/// refused.
///
/// The token is verified before; tenant, [admission](crate::admission) and guards come after. A proof
/// that may be used once is used up even if one of those refuses the request: the client makes a new proof
/// for the next.
///
/// Harmless mistake: to refuse good proofs. Attacks: to compare the proof with something other than
/// [`ProofRequest::confirmation`]; to accept a proof that was made for another request, another token or
/// another time; to accept it twice; to believe a header, such as one with a certificate, that the client
/// itself may have sent.
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::AuthError;
/// use scaikey_auth::error::InvalidToken;
/// use scaikey_auth::identity::Confirmation;
/// use scaikey_auth::proof::{ProofRequest, ProofVerifier, Proven};
///
/// /// SHA-256 of the client's certificate, which the TLS server leaves in the extensions.
/// #[derive(Clone)]
/// struct ClientCertificate([u8; 32]);
///
/// /// RFC 8705 §3.
/// #[derive(Debug)]
/// struct MutualTls;
///
/// #[async_trait]
/// impl ProofVerifier for MutualTls {
///     fn accepts(&self, confirmation: &Confirmation) -> bool {
///         matches!(confirmation, Confirmation::CertificateThumbprint(_))
///     }
///
///     fn try_verify(&self, request: &ProofRequest<'_>) -> Option<Result<Proven, AuthError>> {
///         let shown = request.extensions.get::<ClientCertificate>();
///         let shown = shown.map(|it| Confirmation::CertificateThumbprint(it.0));
///         let is_proven = shown.is_some_and(|shown| shown == *request.confirmation);
///         Some(is_proven.then(Proven::new).ok_or(InvalidToken::Unproven.into()))
///     }
///
///     async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
///         self.try_verify(request).unwrap_or(Err(InvalidToken::Unproven.into()))
///     }
/// }
/// ```
#[async_trait]
pub trait ProofVerifier: fmt::Debug + Send + Sync + 'static {
    /// Whether this verifier judges proofs for such a key. The first one that does is asked, and its verdict
    /// is final.
    fn accepts(&self, confirmation: &Confirmation) -> bool;

    /// Returns the verdict, if it can be given without waiting. May be asked twice for one request, so nothing
    /// may be used up where it gives none. The default gives none.
    fn try_verify(&self, request: &ProofRequest<'_>) -> Option<Result<Proven, AuthError>> {
        let _ = request;
        None
    }

    /// Returns the verdict; asked only where [`try_verify`](Self::try_verify) gave none. May wait, for a
    /// [log](crate::replay::ReplayLog) of proofs used, say, which belongs last: no proof is used up by a request
    /// that is refused for something else. Beforehand the head of the request is copied. May take 2 s of real
    /// time: then it is dropped, and the request is answered with 503.
    ///
    /// A refusal may carry a [challenge](AuthError::with_challenge) and [headers](AuthError::with_header) of its
    /// own, such as the nonce that the next proof must contain.
    ///
    /// # Errors
    /// [`InvalidToken::Unproven`] when there is no proof or it does not hold; [`AuthError::Unavailable`] when
    /// that cannot be told right now.
    async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError>;
}

#[async_trait]
impl<V: ProofVerifier + ?Sized> ProofVerifier for Arc<V> {
    fn accepts(&self, confirmation: &Confirmation) -> bool {
        (**self).accepts(confirmation)
    }

    fn try_verify(&self, request: &ProofRequest<'_>) -> Option<Result<Proven, AuthError>> {
        (**self).try_verify(request)
    }

    async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        (**self).verify(request).await
    }
}

/// The part of a request that proofs are judged by.
#[derive(Clone, Copy)]
pub(crate) struct ProofHead<'r> {
    pub(crate) method: &'r Method,
    pub(crate) uri: &'r Uri,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) extensions: &'r Extensions,
}

impl<'r> ProofHead<'r> {
    pub(crate) fn of_parts(parts: &'r Parts) -> Self {
        let Parts { method, uri, headers, extensions, .. } = parts;
        Self { method, uri, headers, extensions }
    }

    /// Returns a copy for a judgement that waits while the request is elsewhere.
    pub(crate) fn to_parts(self) -> Box<Parts> {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = self.uri.clone();
        parts.headers = self.headers.clone();
        parts.extensions = self.extensions.clone();
        Box::new(parts)
    }

    pub(crate) fn request(
        self,
        confirmation: &'r Confirmation,
        token: &'r str,
        now: SystemTime,
    ) -> ProofRequest<'r> {
        let Self { method, uri, headers, extensions } = self;
        ProofRequest { confirmation, token, method, uri, headers, extensions, now }
    }
}

/// The verifiers of one [`Auth`](crate::Auth).
#[derive(Debug)]
pub(crate) struct ProofVerifiers(pub(super) Vec<Arc<dyn ProofVerifier>>);

impl ProofVerifiers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges as far as it can without waiting.
    pub(crate) fn try_verify(
        &self,
        request: &ProofRequest<'_>,
    ) -> Result<Option<Proven>, AuthError> {
        self.find(request)?.try_verify(request).transpose()
    }

    pub(crate) async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        let verifier = self.find(request)?;
        match verifier.try_verify(request) {
            Some(verdict) => verdict,
            None => within(CHECK_PATIENCE, verifier.verify(request)).await.unwrap_or_else(|| {
                Err(AuthError::unavailable("proof verifier", None, "no answer in time"))
            }),
        }
    }

    fn find(&self, request: &ProofRequest<'_>) -> Result<&dyn ProofVerifier, AuthError> {
        let found = self.0.iter().find(|verifier| verifier.accepts(request.confirmation));
        found.map(|verifier| &**verifier).ok_or(InvalidToken::Unproven.into())
    }
}
