//! Functions that read the scope, the owner of a key, from a request.
//!
//! Each is an argument for [`IdempotencyLayer::scope`](super::IdempotencyLayer::scope). A request
//! with a key and without a scope is refused; there is no scope for anonymous clients.

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;

use crate::Scope;
use crate::http::only;

/// Returns the scope of the bearer token, which is the default of the layer.
///
/// The request must have one `Authorization` header, with `Bearer` in any case, spaces, and the
/// bytes of the token. Otherwise it has no scope.
///
/// ```
/// use refrain::Scope;
/// use refrain::server::scope::bearer_token;
///
/// # fn main() -> http::Result<()> {
/// let request = http::Request::post("/").header("authorization", "Bearer sk_live_51").body(())?;
/// let scope = bearer_token(&request.into_parts().0);
/// assert_eq!(scope, Some(Scope::from_api_key("sk_live_51")));
/// # Ok(())
/// # }
/// ```
pub fn bearer_token(request: &Parts) -> Option<Scope> {
    let value = bytes(request, &AUTHORIZATION)?;
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let token = &rest[spaces..];
    (scheme.eq_ignore_ascii_case(b"Bearer") && spaces > 0 && !token.is_empty())
        .then(|| Scope::from_api_key(token))
}

/// Returns a function that reads an API key from a header. The header must be sent once, and must
/// not be empty.
pub fn header(
    name: HeaderName,
) -> impl Fn(&Parts) -> Option<Scope> + Clone + Send + Sync + 'static {
    move |request| bytes(request, &name).filter(|value| !value.is_empty()).map(Scope::from_api_key)
}

/// Returns the [`Scope`] that an outer layer, the one for authentication, put into the request's
/// extensions.
///
/// If the scope is that of an account and not of a token, keys stay valid when the token is
/// refreshed.
pub fn extension(request: &Parts) -> Option<Scope> {
    request.extensions.get().copied()
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
        let expected = Some(Scope::from_api_key("sk_live"));
        for value in ["Bearer sk_live", "bearer sk_live", "BEARER   sk_live"] {
            assert_eq!(scope_of(&[value]), expected, "{value}");
        }
        for value in ["", "Bearer", "Bearer ", "Bearersk_live", "Basic sk_live", "sk_live"] {
            assert_eq!(scope_of(&[value]), None, "{value}");
        }
        assert_eq!(scope_of(&[]), None);
        assert_ne!(scope_of(&["Bearer \tsk_live"]), expected, "only spaces are skipped");
        assert_eq!(scope_of(&["Bearer sk_live", "Bearer sk_live"]), None);
    }

    #[test]
    fn a_header_is_given_once_and_not_empty() {
        let name = HeaderName::from_static("x-api-key");
        let scope_of = |values: &[&str]| header(name.clone())(&request(&name, values));
        assert_eq!(scope_of(&["sk_live"]), Some(Scope::from_api_key("sk_live")));
        for values in [&[][..], &[""], &["sk_live", "sk_live"]] {
            assert_eq!(scope_of(values), None, "{values:?}");
        }
    }
}
