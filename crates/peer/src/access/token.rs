//! When a client's token ends, if it says so itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::Authorization;
use zeroize::Zeroizing;

/// What is left of the life of a token that is a JSON Web Token with an end (`exp`, RFC 7519); none for passwords and for
/// tokens that only their issuer can read. The signature is the registry's to check: who forges an earlier end harms himself,
/// and a later one is of no use, because the registry accepts no forged token at all.
pub(super) fn life(authorization: &Authorization, now: SystemTime) -> Option<Duration> {
    let mut parts = authorization.bearer()?.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
    let Claims { exp } = serde_json::from_slice(&json).ok()?;
    let end = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(exp.max(0.0)).ok()?)?;
    Some(end.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasts(claims: &str) -> Option<u64> {
        let token = format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let token = Authorization::from_header(&token).unwrap().unwrap();
        life(&token, UNIX_EPOCH + Duration::from_secs(1000)).map(|life| life.as_secs())
    }

    #[test]
    fn a_json_web_token_says_when_it_ends() {
        assert_eq!(lasts(r#"{"exp":1060,"sub":"x"}"#), Some(60));
        assert_eq!(lasts(r#"{"exp":1060.5}"#), Some(60));
        assert_eq!(lasts(r#"{"exp":999}"#), Some(0), "it has ended");
        assert_eq!(lasts(r#"{"exp":-5}"#), Some(0));
        for none in ["{}", r#"{"exp":"soon"}"#, r#"{"exp":1e300}"#, "no json"] {
            assert_eq!(lasts(none), None, "{none}");
        }
    }

    #[test]
    fn other_credentials_say_nothing() {
        for value in [
            "Basic dTpw",
            "Bearer opaque",
            "Bearer a.b",
            "Bearer a.!.c",
            "Bearer a.e30.c.d",
        ] {
            let authorization = Authorization::from_header(value).unwrap().unwrap();
            assert_eq!(life(&authorization, UNIX_EPOCH), None, "{value}");
        }
    }
}
