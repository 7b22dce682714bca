//! Functions that read the scope, the owner of a key, from a request.
//!
//! Each is an argument for [`IdempotencyLayer::scope`](super::IdempotencyLayer::scope). A request
//! with a key and without a scope is refused; there is no scope for anonymous clients.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;

use crate::Scope;
use crate::http::only;

/// The credentials that a function reads scopes from, as the refusal of a request without them
/// names them. `Display` is a noun, such as `a bearer token`.
///
/// ```
/// use refrain::server::scope::Credentials;
///
/// assert_eq!(Credentials::Bearer.challenges(), ["Bearer"]);
/// assert_eq!(Credentials::Bearer.to_string(), "a bearer token");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// `Authorization: Bearer <token>`, or `Authorization: Basic` with the token as the user.
    BearerOrBasic,
    /// A header with an API key.
    Header(HeaderName),
    /// Any others, which a refusal does not name.
    Unnamed,
}

impl Credentials {
    /// Returns the values of `WWW-Authenticate` that ask for these credentials; none if they are of
    /// no scheme that HTTP knows.
    pub fn challenges(&self) -> &'static [&'static str] {
        match self {
            Self::Bearer => &["Bearer"],
            Self::BearerOrBasic => &["Bearer", "Basic realm=\"API\""],
            Self::Header(_) | Self::Unnamed => &[],
        }
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("a bearer token"),
            Self::BearerOrBasic => {
                f.write_str("an API key as a bearer token or as the user of HTTP Basic")
            }
            Self::Header(name) => write!(f, "an API key in the header {name}"),
            Self::Unnamed => f.write_str("credentials"),
        }
    }
}

/// The result of a function that reads scopes: a `Result` whose error names the missing
/// credentials, or an `Option`, which names none.
pub trait ScopeResult {
    /// Returns the scope.
    ///
    /// # Errors
    ///
    /// The credentials that the request lacks.
    fn into_result(self) -> Result<Scope, Credentials>;
}

impl ScopeResult for Result<Scope, Credentials> {
    fn into_result(self) -> Self {
        self
    }
}

impl ScopeResult for Option<Scope> {
    fn into_result(self) -> Result<Scope, Credentials> {
        self.ok_or(Credentials::Unnamed)
    }
}

/// Returns the scope of the bearer token, which is the default of the layer.
///
/// ```
/// use refrain::Scope;
/// use refrain::server::scope::bearer_token;
///
/// # fn main() -> http::Result<()> {
/// let request = http::Request::post("/").header("authorization", "Bearer sk_live_51").body(())?;
/// let scope = bearer_token(&request.into_parts().0);
/// assert_eq!(scope, Ok(Scope::from_api_key("sk_live_51")));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Credentials::Bearer`], unless the request has one `Authorization` header, with `Bearer` in any
/// case, spaces, and the bytes of the token.
pub fn bearer_token(request: &Parts) -> Result<Scope, Credentials> {
    let token = credentials(request, "Bearer").ok_or(Credentials::Bearer)?;
    Ok(Scope::from_api_key(token))
}

/// Returns the scope of an API key that is the bearer token or the user of HTTP Basic, as clients
/// of Stripe's API send it: `curl -u sk_live_51:`. The same key has the same scope either way, which
/// is that of [`bearer_token`].
///
/// ```
/// use refrain::Scope;
/// use refrain::server::scope::bearer_or_basic;
///
/// # fn main() -> http::Result<()> {
/// let basic = "Basic c2tfbGl2ZV81MTo=";
/// let request = http::Request::post("/").header("authorization", basic).body(())?;
/// let scope = bearer_or_basic(&request.into_parts().0);
/// assert_eq!(scope, Ok(Scope::from_api_key("sk_live_51")));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Credentials::BearerOrBasic`], unless the request has one `Authorization` header: a bearer
/// token, or Basic with a user and an empty password (RFC 7617).
pub fn bearer_or_basic(request: &Parts) -> Result<Scope, Credentials> {
    bearer_token(request).or_else(|_| {
        let user = basic_user(request).ok_or(Credentials::BearerOrBasic)?;
        Ok(Scope::from_api_key(user))
    })
}

/// Returns the user of HTTP Basic. One with a password is refused: whoever knows the name alone
/// would have the same scope.
fn basic_user(request: &Parts) -> Option<Vec<u8>> {
    let mut user = BASE64.decode(credentials(request, "Basic")?).ok()?;
    let is_alone = user.iter().position(|byte| *byte == b':') == user.len().checked_sub(1);
    user.pop();
    (is_alone && !user.is_empty()).then_some(user)
}

/// Returns a function that reads an API key from a header. The header must be sent once, and must
/// not be empty.
///
/// The function's error is [`Credentials::Header`].
pub fn header(
    name: HeaderName,
) -> impl Fn(&Parts) -> Result<Scope, Credentials> + Clone + Send + Sync + 'static {
    move |request| {
        let value = bytes(request, &name).filter(|value| !value.is_empty());
        value.map(Scope::from_api_key).ok_or_else(|| Credentials::Header(name.clone()))
    }
}

/// Returns the [`Scope`] that an outer layer, the one for authentication, put into the request's
/// extensions.
///
/// If the scope is that of an account and not of a token, keys stay valid when the token is
/// refreshed.
pub fn extension(request: &Parts) -> Option<Scope> {
    request.extensions.get().copied()
}

/// Returns what follows a scheme and spaces in the only `Authorization` header; it is not empty.
fn credentials<'a>(request: &'a Parts, scheme: &str) -> Option<&'a [u8]> {
    let (given, rest) = bytes(request, &AUTHORIZATION)?.split_at_checked(scheme.len())?;
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let credentials = &rest[spaces..];
    (given.eq_ignore_ascii_case(scheme.as_bytes()) && spaces > 0 && !credentials.is_empty())
        .then_some(credentials)
}

/// Returns the bytes of a header that must not be repeated.
fn bytes<'a>(request: &'a Parts, name: &HeaderName) -> Option<&'a [u8]> {
    only(&request.headers, name).ok().flatten().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(name: &HeaderName, values: &[&str]) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        for value in values {
            parts.headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        parts
    }

    #[test]
    fn a_bearer_token_is_given_once_and_its_bytes_are_as_they_are() {
        let scope_of = |values: &[&str]| bearer_token(&request(&AUTHORIZATION, values));
        let expected = Ok(Scope::from_api_key("sk_live"));
        for value in ["Bearer sk_live", "bearer sk_live", "BEARER   sk_live"] {
            assert_eq!(scope_of(&[value]), expected, "{value}");
        }
        for value in ["", "Bearer", "Bearer ", "Bearersk_live", "Basic sk_live", "sk_live"] {
            assert_eq!(scope_of(&[value]), Err(Credentials::Bearer), "{value}");
        }
        assert_eq!(scope_of(&[]), Err(Credentials::Bearer));
        assert_ne!(scope_of(&["Bearer \tsk_live"]), expected, "only spaces are skipped");
        let twice = scope_of(&["Bearer sk_live", "Bearer sk_live"]);
        assert_eq!(twice, Err(Credentials::Bearer));
    }

    #[test]
    fn an_api_key_has_one_scope_as_a_bearer_token_and_as_the_user_of_basic() {
        let scope_of = |values: &[&str]| bearer_or_basic(&request(&AUTHORIZATION, values));
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair));
        let expected = Ok(Scope::from_api_key("sk_live"));
        for value in ["Bearer sk_live", "Basic c2tfbGl2ZTo=", "bASIC  c2tfbGl2ZTo="] {
            assert_eq!(scope_of(&[value]), expected, "{value}");
        }
        let refused = Err(Credentials::BearerOrBasic);
        for pair in ["", ":", "sk_live", "sk_live:password", ":sk_live", "sk_live::", ":sk_live:"] {
            assert_eq!(scope_of(&[&basic(pair)]), refused, "{pair}");
        }
        for value in ["Basic", "Basic ", "Basic c2tfbGl2ZTo", "Basic sk_live:", "Digest sk_live:"] {
            assert_eq!(scope_of(&[value]), refused, "{value}");
        }
        assert_eq!(scope_of(&[]), refused);
        assert_eq!(scope_of(&["Basic c2tfbGl2ZTo=", "Bearer sk_live"]), refused);
    }

    #[test]
    fn a_header_is_given_once_and_not_empty() {
        let name = HeaderName::from_static("x-api-key");
        let scope_of = |values: &[&str]| header(name.clone())(&request(&name, values));
        assert_eq!(scope_of(&["sk_live"]), Ok(Scope::from_api_key("sk_live")));
        for values in [&[][..], &[""], &["sk_live", "sk_live"]] {
            assert_eq!(scope_of(values), Err(Credentials::Header(name.clone())), "{values:?}");
        }
    }
}
