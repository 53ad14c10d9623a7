//! A client's credential, on its way to the node that shows it to the registry.

use std::fmt;

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

/// The most bytes of a credential: the tokens of clouds that list every group of their owner fit.
pub const MAX_AUTHORIZATION: usize = 16 << 10;

/// The value of a client's `Authorization` header, Basic or Bearer, as it came. A secret: it shows itself to nobody but who
/// asks for [`Authorization::expose`], and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(Zeroizing<String>);

/// Why a header's value is no credential that could be shown to a registry. Never holds the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthorization {
    /// Longer than any that is passed on.
    #[error("the credential is longer than {MAX_AUTHORIZATION} bytes")]
    TooLong,
    /// No `Basic` or `Bearer` with visible characters after it.
    #[error("the credential is neither Basic nor Bearer with printable ASCII characters after it")]
    Form,
}

impl Authorization {
    /// The credential in a header's value; none where Basic has neither user nor password, as containers/image sends it for
    /// want of any.
    ///
    /// # Errors
    /// If the value is no credential of a kind that registries take.
    pub fn from_header(value: &str) -> Result<Option<Self>, InvalidAuthorization> {
        if value.len() > MAX_AUTHORIZATION {
            return Err(InvalidAuthorization::TooLong);
        }
        let (scheme, rest) = value.split_once(' ').ok_or(InvalidAuthorization::Form)?;
        let rest = rest.trim_matches(' ');
        let (basic, bearer) = (
            scheme.eq_ignore_ascii_case("basic"),
            scheme.eq_ignore_ascii_case("bearer"),
        );
        let fit = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if !fit || !(basic || bearer) {
            return Err(InvalidAuthorization::Form);
        }
        // ":" in base64.
        let nobody = basic && matches!(rest, "Og==" | "Og");
        Ok((!nobody).then(|| Self(Zeroizing::new(value.to_owned()))))
    }

    /// The header's value, to be shown to the registry and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The token, if it is a Bearer's.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.0.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(redacted)")
    }
}

impl<C> Encode<C> for Authorization {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Authorization {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match Self::from_header(d.str()?) {
            Ok(Some(authorization)) => Ok(authorization),
            Ok(None) | Err(_) => Err(minicbor::decode::Error::message("not a credential")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Authorization>, InvalidAuthorization> {
        Authorization::from_header(value)
    }

    #[test]
    fn basic_and_bearer_are_credentials_unless_nobody_is_named() {
        for value in ["Basic dTpw", "basic dTpw", "Bearer a.b.c", "BEARER x"] {
            assert_eq!(read(value).unwrap().unwrap().expose(), value);
        }
        for nobody in ["Basic Og==", "basic Og==", "Basic Og", "Basic  Og== "] {
            assert_eq!(read(nobody), Ok(None), "{nobody}");
        }
        assert_eq!(read("Bearer Og==").unwrap().unwrap().bearer(), Some("Og=="));
        assert_eq!(read("Basic dTpw").unwrap().unwrap().bearer(), None);
    }

    #[test]
    fn what_no_registry_takes_is_refused_without_being_repeated() {
        let long = format!("Bearer {}", "x".repeat(MAX_AUTHORIZATION));
        assert_eq!(read(&long), Err(InvalidAuthorization::TooLong));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Bearer a b",
            "Bearer \u{e9}",
            "Negotiate YII=",
            "hidden",
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error, InvalidAuthorization::Form, "{value}");
            assert!(!error.to_string().contains("hidden"));
        }
    }

    #[test]
    fn it_shows_itself_to_nobody_and_survives_the_wire() {
        let secret = read("Bearer hidden").unwrap().unwrap();
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("hidden"));
        let back: Authorization = crate::decode(&crate::encode(&secret)).unwrap();
        assert_eq!(back, secret);
        for wrong in ["Basic Og==", "hidden"] {
            let error = crate::decode::<Authorization>(&crate::encode(&wrong)).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}
