//! What a client shows of itself.

use axum::http::{HeaderMap, header};
use wire::{Authorization, InvalidAuthorization};

use crate::refusal::Refusal;

/// The credential in a request's headers. Of a kind that no registry takes, it is as good as none: the client is then told
/// which kind the registry wants.
pub(crate) fn shown(headers: &HeaderMap) -> Result<Option<Authorization>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::credentials("there is more than one `Authorization`; send one"));
    }
    let Ok(text) = value.to_str() else { return Ok(None) };
    match Authorization::from_header(text) {
        Ok(credential) => Ok(credential),
        Err(InvalidAuthorization::Form) => Ok(None),
        Err(error @ InvalidAuthorization::TooLong) => Err(Refusal::credentials(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, Refusal> {
        let headers = values
            .iter()
            .map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()))
            .collect();
        shown(&headers).map(|shown| shown.map(|credential| credential.expose().to_owned()))
    }

    #[test]
    fn one_credential_or_none() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Basic dTpw"]), Ok(Some("Basic dTpw".to_owned())));
        for none in ["Basic Og==", "Negotiate YII=", "hidden", ""] {
            assert_eq!(read(&[none]), Ok(None), "{none}");
        }
        assert!(read(&["Basic dTpw", "Bearer x"]).is_err());
        let long = format!("Bearer {}", "hidden".repeat(10_000));
        assert!(!format!("{:?}", read(&[&long]).unwrap_err()).contains("hidden"));
    }
}
