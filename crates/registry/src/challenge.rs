//! `WWW-Authenticate`: which schemes a registry offers (RFC 9110 section 11.6.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The most of a challenge that is relayed to clients.
const MAX_RELAYED: usize = 1024;

/// How a registry wants to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// With a token from another endpoint.
    Bearer(Bearer),
    /// With user and password.
    Basic,
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The token endpoint's URL.
    pub realm: String,
    /// For which service.
    pub service: Option<String>,
    /// For what, space-separated.
    pub scope: Option<String>,
}

/// The best scheme that the headers offer: Bearer, since it also works anonymously, before Basic.
pub fn best(headers: &HeaderMap) -> Option<Challenge> {
    let offers = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse);
    let mut basic = None;
    for (scheme, parameters) in offers {
        if scheme.eq_ignore_ascii_case("bearer") {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer(Bearer {
                    realm,
                    service: get("service"),
                    scope: get("scope"),
                }));
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// The challenge as it is relayed to a client: the first header that is text of a sane length.
pub fn verbatim(headers: &HeaderMap) -> Option<String> {
    let mut texts = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    texts.find(|text| text.len() <= MAX_RELAYED).map(str::to_owned)
}

type Offer = (String, Vec<(String, String)>);

/// The challenges of one header: `Scheme key=value, key="quoted value", Scheme2 ...`.
fn parse(mut text: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let (word, rest) = text.split_at(text.find([' ', '\t', ',', '=']).unwrap_or(text.len()));
        if word.is_empty() {
            // The end, or a stray `=`: what follows cannot be told apart any more.
            return offers;
        }
        match (rest.strip_prefix('='), offers.last_mut()) {
            (Some(rest), Some((_, parameters))) => {
                let (value, rest) = value(rest);
                parameters.push((word.to_owned(), value));
                text = rest;
            }
            (Some(_), None) => return offers,
            (None, _) => {
                offers.push((word.to_owned(), Vec::new()));
                text = rest;
            }
        }
    }
}

/// The parameter value at the start of `text`, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        return (word.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (WWW_AUTHENTICATE, HeaderValue::from_static(value)))
            .collect()
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer(Bearer {
            realm: realm.into(),
            service: own(service),
            scope: own(scope),
        }))
    }

    #[test]
    fn challenges_in_the_wild() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let read = best(&headers(&[hub]));
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push"),
        );
        assert_eq!(read, expected);
        assert_eq!(
            best(&headers(&["Basic realm=\"Registry, Realm\", bearer realm=https://t"])),
            bearer("https://t", None, None)
        );
        assert_eq!(
            best(&headers(&["Basic realm=\"r\"", "Bearer realm=\"a\\\"b\""])),
            bearer("a\"b", None, None)
        );
        assert_eq!(best(&headers(&["BASIC"])), Some(Challenge::Basic));
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for nonsense in [
            "",
            "=",
            "Bearer",
            "Bearer realm",
            ", ,",
            "Negotiate abc==",
            "Bearer =\"x\"",
            "\"\\",
        ] {
            assert_eq!(best(&headers(&[nonsense])), None, "{nonsense}");
        }
        assert_eq!(
            best(&headers(&["Bearer realm=\"unterminated"])),
            bearer("unterminated", None, None)
        );
    }
}
