//! What registries and credential files say.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};
use registry::answer::{self, ContentRange};
use registry::challenge::{self, Bearer, Challenge};
use registry::credentials::{Credential, DockerConfig, Found};
use registry::token::Token;

use crate::Decoder;

pub(crate) const CHALLENGE: Decoder = Decoder {
    name: "challenge",
    check: challenge,
    words: &[
        "Bearer ",
        "Basic ",
        "Negotiate ",
        "realm=",
        "service=",
        "scope=",
        "\"",
        "\\\"",
        ",",
        "\n",
        "https://auth.example/token",
    ],
    max_len: 8 << 10,
    memory: 1 << 20,
};

pub(crate) const CREDENTIALS: Decoder = Decoder {
    name: "credentials",
    check: credentials,
    words: &[
        "\"auths\":{",
        "\"auth\":\"",
        "dTpw",
        "dTpwXG4=",
        "\"username\":\"u\"",
        "\"password\":\"p\"",
        "\"identitytoken\":",
        "\"credHelpers\":{",
        "\"credsStore\":",
        "https://registry.example/v1/",
        "registry.example/org",
        "\\u0000",
        "null",
    ],
    max_len: 16 << 10,
    memory: 1 << 20,
};

pub(crate) const TOKEN: Decoder = Decoder {
    name: "token",
    check: token,
    words: &[
        "\"token\":\"",
        "\"access_token\":\"",
        "\"expires_in\":",
        "18446744073709551615",
        "-1",
        "1e300",
        "\\n",
        "\\u00e4",
        "null",
    ],
    max_len: 4 << 10,
    memory: 256 << 10,
};

pub(crate) const ANSWER: Decoder = Decoder {
    name: "answer",
    check: answer,
    words: &[
        "bytes ",
        "bytes 0-9/10",
        "*",
        "18446744073709551615",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "{\"errors\":[{\"code\":\"",
        "\"message\":\"",
        "\\u001b[2J",
        "\n",
    ],
    max_len: 16 << 10,
    memory: 1 << 20,
};

/// One header for each line.
fn challenge(bytes: &[u8]) {
    let headers: HeaderMap = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| Some((WWW_AUTHENTICATE, HeaderValue::from_bytes(line).ok()?)))
        .collect();
    let relayed = challenge::verbatim(&headers);
    assert!(relayed.is_none_or(|text| text.len() <= 1024));
    let Some(Challenge::Bearer(bearer)) = challenge::best(&headers) else {
        return;
    };
    let Bearer { realm, service, scope } = &bearer;
    let said: usize = headers.values().map(HeaderValue::len).sum();
    assert!(realm.len() + service.iter().chain(scope).map(String::len).sum::<usize>() <= said);
    // Written again, with all that needs a backslash behind one, it is read as the same.
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut written = format!("Basic, Bearer realm=\"{}\"", quoted(realm));
    for (name, value) in [("service", service), ("scope", scope)] {
        if let Some(value) = value {
            written += &format!(" , {name}=\"{}\"", quoted(value));
        }
    }
    let again = HeaderValue::from_str(&written).expect("it came out of a header");
    let again = challenge::best(&HeaderMap::from_iter([(WWW_AUTHENTICATE, again)]));
    assert_eq!(again, Some(Challenge::Bearer(bearer)));
}

fn credentials(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let wanted = [
        "registry.example/org/model".to_owned(),
        "index.docker.io/org/model".to_owned(),
    ];
    let found = DockerConfig::parse(text).and_then(|config| config.find(&wanted));
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            assert!(error.len() <= text.len() + 200);
            return;
        }
    };
    let Some(Found::Here(credential)) = found else { return };
    assert!(format!("{credential:?}").ends_with("(redacted)"));
    match &credential {
        Credential::Basic { user, password } => {
            assert!(
                !user.is_empty() && !user.contains(':'),
                "a user with a colon is another user"
            );
            let header = credential.basic().expect("it is Basic");
            assert!(HeaderValue::from_str(&header).is_ok());
            assert!(header.len() >= "Basic ".len() + (user.len() + password.len()) / 3 * 4);
        }
        Credential::Identity(token) => assert!(!token.is_empty() && credential.basic().is_none()),
    }
}

fn token(bytes: &[u8]) {
    let now = tokio::time::Instant::now();
    let Ok(token) = Token::read(bytes, now) else { return };
    let value = token.header.strip_prefix("Bearer ").expect("it is a bearer token");
    assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(HeaderValue::from_str(&token.header).is_ok());
    assert!(token.renew_at >= now && token.renew_at - now <= Duration::from_secs(30 * 86_400));
}

/// A header's value and, as it is, an error's body.
fn answer(bytes: &[u8]) {
    if let Some(detail) = answer::error_detail(bytes) {
        assert!(detail.chars().count() <= 256 && !detail.chars().any(char::is_control));
    }
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let with = |name: HeaderName| HeaderMap::from_iter([(name, value.clone())]);
    if let Ok(ContentRange { range, size }) = ContentRange::of(&with(CONTENT_RANGE)) {
        let range = range.inspect(|range| {
            assert!(range.start < range.end && size.is_none_or(|size| range.end <= size));
        });
        let shown = |number: Option<u64>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let range_text = range.as_ref().map(|range| format!("{}-{}", range.start, range.end - 1));
        let text = format!("bytes {}/{}", range_text.unwrap_or_else(|| "*".to_owned()), shown(size));
        let again = HeaderValue::try_from(text).expect("digits make a header");
        let again = ContentRange::of(&HeaderMap::from_iter([(CONTENT_RANGE, again)]));
        assert_eq!(again.ok(), Some(ContentRange { range, size }));
    }
    let epoch = answer::retry_after(&with(RETRY_AFTER), UNIX_EPOCH);
    let later = answer::retry_after(&with(RETRY_AFTER), UNIX_EPOCH + Duration::from_secs(1 << 32));
    assert!(later <= epoch, "a date comes nearer");
    if let Some(length) = answer::content_length(&with(http::header::CONTENT_LENGTH)) {
        assert_eq!(value.to_str().ok().and_then(|text| text.parse().ok()), Some(length));
    }
    if let Some(media_type) = answer::media_type(&with(http::header::CONTENT_TYPE)) {
        assert!(!media_type.is_empty() && !media_type.contains(';') && media_type.trim() == media_type);
    }
}
