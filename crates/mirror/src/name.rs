//! The grammars of the distribution spec ("Pulling manifests"), and of registries' names.

use std::net::Ipv6Addr;

/// Bytes of a repository's name; registries and the Docker reference grammar stop here.
const MAX_REPOSITORY: usize = 255;
/// Bytes of a tag.
const MAX_TAG: usize = 128;
/// Bytes of a DNS name.
const MAX_HOST: usize = 253;

/// Whether this is a repository's name: components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by slashes.
pub fn is_repository(name: &str) -> bool {
    name.len() <= MAX_REPOSITORY && name.split('/').all(is_component)
}

/// Whether this is one component of a repository's name.
pub(crate) fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = text;
    loop {
        let word = rest.trim_start_matches(alphanumeric);
        if word.len() == rest.len() {
            return false;
        }
        let next = word.trim_start_matches(|c| !alphanumeric(c));
        let separator = &word[..word.len() - next.len()];
        match separator {
            "" => return true,
            "." | "_" | "__" => {}
            dashes if dashes.bytes().all(|byte| byte == b'-') => {}
            _ => return false,
        }
        rest = next;
    }
}

/// Whether this is a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// A text is no `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a registry's `HOST` or `HOST:PORT`")]
pub struct InvalidHost(pub String);

/// A registry's `HOST[:PORT]` (a DNS name, an IPv4 address, or an IPv6 address in brackets), in lower case and under the
/// one name that packswarm uses for it: Docker Hub is `docker.io`.
///
/// # Errors
/// If it is none.
pub fn parse_host(text: &str) -> Result<String, InvalidHost> {
    let invalid = || InvalidHost(text.chars().take(MAX_HOST).collect());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(parse_port(port).ok_or_else(invalid)?)),
        _ => (text, None),
    };
    let host = host.to_ascii_lowercase();
    let is_ipv6 = || {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
    };
    if !is_domain(&host) && !is_ipv6() {
        return Err(invalid());
    }
    Ok(match (host.as_str(), port) {
        ("index.docker.io", None) => "docker.io".to_owned(),
        (_, None) => host,
        (_, Some(port)) => format!("{host}:{port}"),
    })
}

fn is_domain(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= MAX_HOST && host.split('.').all(label)
}

/// A port in plain decimal, as a URL has it.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|port| *port > 0)?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        let long = "a/".repeat(127) + "a";
        for name in [
            "a",
            "org/model",
            "a.b/c_d/e__f/g-h/i---j",
            "0/1",
            "library/alpine",
            "my__5000/x",
            &long,
        ] {
            assert!(is_repository(name), "{name}");
        }
        let too_long = "a/".repeat(127) + "ab";
        let bad = [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "_a", "a_", "-a", "a-", "a b", "ä", "a:b",
        ];
        for name in bad.into_iter().chain([too_long.as_str()]) {
            assert!(!is_repository(name), "{name}");
        }
    }

    #[test]
    fn tags() {
        for tag in ["latest", "_", "V1.0-rc_1", "0", &"t".repeat(128)] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in ["", ".a", "-a", "a:b", "a/b", "a b", "ä", &"t".repeat(129)] {
            assert!(!is_tag(tag), "{tag}");
        }
    }

    #[test]
    fn hosts() {
        for (text, host) in [
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("Quay.IO", "quay.io"),
            ("localhost", "localhost"),
            ("localhost:5000", "localhost:5000"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[FE80::1]:5000", "[fe80::1]:5000"),
            ("a-b.example.com:65535", "a-b.example.com:65535"),
        ] {
            assert_eq!(parse_host(text).as_deref(), Ok(host));
        }
        let too_long = "a.".repeat(126) + "ab";
        for text in [
            "", ":", ":80", "a:", "a:0", "a:+1", "a:65536", "a:b", "a b", "-a", "a-", "a..b", "a_b", "::1", "[::1",
            "[x]", "a/b", "a@b", "http://a", "[::1]x:5", &too_long,
        ] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsed_hosts_are_stable(text in "[a-zA-Z0-9.:\\[\\]-]{0,20}") {
            if let Ok(host) = parse_host(&text) {
                proptest::prop_assert_eq!(parse_host(&host), Ok(host));
            }
        }

        #[test]
        fn components_are_as_in_the_grammar(text in "[a-b0_.-]{0,8}") {
            proptest::prop_assert_eq!(is_component(&text), component_by_grammar(&text));
        }
    }

    /// The grammar, spelled out: words between separators, each separator one of the allowed.
    fn component_by_grammar(text: &str) -> bool {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
        let runs: Vec<&[u8]> = text.as_bytes().chunk_by(|a, b| is_word(a) == is_word(b)).collect();
        runs.len() % 2 == 1
            && runs.iter().enumerate().all(|(number, run)| {
                if number % 2 == 0 {
                    is_word(&run[0])
                } else {
                    matches!(*run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-')
                }
            })
    }
}
