//! Proof of possession: the sender of a key-bound token proves that it has the key.
//!
//! The claim `cnf` identifies the key that a token is bound to
//! ([`Identity::confirmation`](crate::Identity::confirmation)). A [`ProofVerifier`] verifies the proof that
//! comes with each request.
//!
//! See also: [manual::request](crate::manual::request).

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use http::request::Parts;
use http::{Extensions, Request};

use crate::clock::{CHECK_TIMEOUT, with_timeout};
use crate::error::{AuthError, InvalidToken};
use crate::identity::Confirmation;
use crate::support::request_head::RequestHead;

/// The input of a [`ProofVerifier`]: a request with a key-bound token. `Debug` prints neither the token nor
/// the headers.
///
/// ```
/// use std::time::SystemTime;
///
/// use http::Request;
/// use scaikey_auth::identity::Confirmation;
/// use scaikey_auth::proof::{ProofRequest, ProofVerifier};
///
/// /// Tests that a verifier refuses a request without a proof.
/// async fn refuses_missing_proofs(verifier: &dyn ProofVerifier, bound_to: &Confirmation) -> bool {
///     let request = Request::get("https://wave.example/notes").body(()).unwrap();
///     let request = ProofRequest::new(&request, bound_to, "the token", SystemTime::now());
///     verifier.verify(&request).await.is_err()
/// }
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ProofRequest<'r> {
    /// The key that the token is bound to.
    pub confirmation: &'r Confirmation,
    /// The token, already verified.
    pub token: &'r str,
    /// The method, the URI and the headers. A router outside the layer may have removed a prefix from the path;
    /// axum keeps the full URI in the extensions (`OriginalUri`).
    pub head: RequestHead<'r>,
    /// The extensions. A server may put data about the connection here, such as the client's certificate.
    pub extensions: &'r Extensions,
    /// The current time, by the layer's clock.
    pub now: SystemTime,
}

impl<'r> ProofRequest<'r> {
    /// Creates the input of a verifier, for tests. `token` is the token of `request`; it is bound to
    /// `confirmation`.
    pub fn new<B>(
        request: &'r Request<B>,
        confirmation: &'r Confirmation,
        token: &'r str,
        now: SystemTime,
    ) -> Self {
        let (head, extensions) = (RequestHead::of(request), request.extensions());
        Self { confirmation, token, head, extensions, now }
    }
}

impl fmt::Debug for ProofRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofRequest")
            .field("confirmation", &self.confirmation)
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// The result of a successful verification. It has no fields yet; later versions may add some.
///
/// ```
/// use scaikey_auth::AuthError;
/// use scaikey_auth::error::InvalidToken;
/// use scaikey_auth::proof::Proven;
///
/// fn result(is_proven: bool) -> Result<Proven, AuthError> {
///     if is_proven { Ok(Proven::new()) } else { Err(InvalidToken::Unproven.into()) }
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proven {}

impl Proven {
    /// Creates the result of a successful verification.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A verifier of proofs of possession, for tokens that are bound to a key (`cnf`, RFC 7800 §3.1).
///
/// Pass it to [`AuthBuilder::proof_verifier`](crate::AuthBuilder::proof_verifier). Without one, bound tokens
/// are refused. A verifier runs for each request with a bound token whose confirmation it
/// [accepts](Self::accepts), even if the token is in the cache of verified tokens. It does not run for
/// unbound tokens. A bound token that does not come with an HTTP request
/// ([`Auth::authenticate`](crate::Auth::authenticate), introspection, a sign-in) has no proof and is refused.
///
/// The token is verified first. The [admission](crate::admission) checks, the tenant lookup and the guards
/// follow. If one of them refuses the request, a single-use proof still counts as used, and the client must
/// send a new one.
///
/// Harmless mistake: refusing good proofs. Security holes: comparing the proof with something other than
/// [`ProofRequest::confirmation`]; accepting a proof for another request, another token or another time;
/// accepting a proof twice; trusting a header that the client may have sent itself, such as one with a
/// certificate.
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::AuthError;
/// use scaikey_auth::error::InvalidToken;
/// use scaikey_auth::identity::Confirmation;
/// use scaikey_auth::proof::{ProofRequest, ProofVerifier, Proven};
///
/// /// SHA-256 of the client's certificate. The TLS server puts it into the extensions.
/// #[derive(Clone)]
/// struct ClientCertificate([u8; 32]);
///
/// /// Certificate-bound tokens (RFC 8705 §3).
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
///         let presented = request.extensions.get::<ClientCertificate>();
///         let presented = presented.map(|it| Confirmation::CertificateThumbprint(it.0));
///         let is_proven = presented.is_some_and(|presented| presented == *request.confirmation);
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
    /// Returns whether this verifier supports this kind of confirmation. Only the first verifier that returns
    /// `true` verifies the proof.
    fn accepts(&self, confirmation: &Confirmation) -> bool;

    /// Verifies the proof if that is possible without waiting, else returns `None`. It may be called twice for
    /// one request, so it must not record a proof as used when it returns `None`. The default returns `None`.
    fn try_verify(&self, request: &ProofRequest<'_>) -> Option<Result<Proven, AuthError>> {
        let _ = request;
        None
    }

    /// Verifies the proof. It is called only after [`try_verify`](Self::try_verify) returned `None`, and may
    /// wait, for example for a [log](crate::replay::ReplayLog) of used proofs. Query the log last, so that a
    /// proof that is wrong for another reason is not recorded as used. Calling this method copies the head of
    /// the request. After 2 s of real time the call is dropped, and the request gets 503.
    ///
    /// An error may have its own [challenge](AuthError::with_challenge) and
    /// [headers](AuthError::with_header), such as a nonce for the next proof.
    ///
    /// # Errors
    /// [`InvalidToken::Unproven`] if the proof is missing or wrong; [`AuthError::Unavailable`] if it cannot be
    /// verified now.
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

/// The part of a request that a proof covers.
#[derive(Clone, Copy)]
pub(crate) struct ProofHead<'r> {
    pub(crate) head: RequestHead<'r>,
    pub(crate) extensions: &'r Extensions,
}

impl<'r> ProofHead<'r> {
    pub(crate) fn of_parts(parts: &'r Parts) -> Self {
        Self { head: RequestHead::of_parts(parts), extensions: &parts.extensions }
    }

    /// Returns an owned copy, for a verification that outlives the borrow of the request.
    pub(crate) fn to_parts(self) -> Box<Parts> {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.head.method.clone();
        parts.uri = self.head.uri.clone();
        parts.headers = self.head.headers.clone();
        parts.extensions = self.extensions.clone();
        Box::new(parts)
    }

    pub(crate) fn request(
        self,
        confirmation: &'r Confirmation,
        token: &'r str,
        now: SystemTime,
    ) -> ProofRequest<'r> {
        let Self { head, extensions } = self;
        ProofRequest { confirmation, token, head, extensions, now }
    }
}

/// The verifiers of one [`Auth`](crate::Auth).
#[derive(Debug)]
pub(crate) struct ProofVerifiers(pub(super) Vec<Arc<dyn ProofVerifier>>);

impl ProofVerifiers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies the proof as far as that is possible without waiting.
    pub(crate) fn try_verify(
        &self,
        request: &ProofRequest<'_>,
    ) -> Result<Option<Proven>, AuthError> {
        self.find(request)?.try_verify(request).transpose()
    }

    pub(crate) async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        let verifier = self.find(request)?;
        match verifier.try_verify(request) {
            Some(result) => result,
            None => {
                with_timeout(CHECK_TIMEOUT, verifier.verify(request)).await.unwrap_or_else(|| {
                    Err(AuthError::unavailable(
                        "proof verifier",
                        None,
                        "the proof verifier did not finish within 2 s",
                    ))
                })
            }
        }
    }

    fn find(&self, request: &ProofRequest<'_>) -> Result<&dyn ProofVerifier, AuthError> {
        let found = self.0.iter().find(|verifier| verifier.accepts(request.confirmation));
        found.map(|verifier| &**verifier).ok_or(InvalidToken::Unproven.into())
    }
}
