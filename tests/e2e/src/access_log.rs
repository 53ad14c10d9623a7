//! The registry's own access log, in Apache's combined format: who was sent how much of what.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The status code.
    pub status: u16,
    /// Bytes of the body that were written.
    pub bytes: u64,
    /// The `User-Agent`.
    pub agent: String,
}

impl Entry {
    /// Reads a line; nothing if it is no access line.
    ///
    /// `127.0.0.1 - - [23/Nov/2026:01:57:07 +0000] "GET /v2/m/blobs/sha256:2e HTTP/1.1" 206 100 "" "curl/7.88.1"`
    pub fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"');
        let (_, request, numbers) = (quoted.next()?, quoted.next()?, quoted.next()?);
        let (_, _, agent) = (quoted.next()?, quoted.next()?, quoted.next()?);
        let mut request = request.split(' ');
        let mut numbers = numbers.split_whitespace();
        Some(Self {
            method: request.next()?.to_owned(),
            path: request.next()?.to_owned(),
            status: numbers.next()?.parse().ok()?,
            bytes: numbers.next()?.parse().ok()?,
            agent: agent.to_owned(),
        })
    }

    /// Whether bytes of this blob were asked for.
    pub fn reads_blob(&self, digest: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        self.method == "GET" && path.ends_with(&format!("/blobs/{digest}"))
    }

    /// Whether a manifest or tag was asked for, by GET or HEAD.
    pub fn asks_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    /// The role that sent it, if one of ours did: `packswarm/VERSION (ROLE; PEERID)`.
    pub fn role(&self) -> Option<&str> {
        Some(self.comment()?.split(';').next()?.trim())
    }

    /// The peer id of the sender, if one of ours sent it.
    pub fn peer_id(&self) -> Option<&str> {
        Some(self.comment()?.split(';').nth(1)?.trim())
    }

    fn comment(&self) -> Option<&str> {
        self.agent
            .strip_prefix("packswarm/")?
            .split_once('(')?
            .1
            .strip_suffix(')')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_was_sent_what() {
        let line = "127.0.0.1 - - [23/Nov/2026:01:57:07 +0000] \"GET /v2/m/b/blobs/sha256:2e HTTP/1.1\" 206 100 \"\" \
                    \"packswarm/0.1.0 (seed; 12D3KooW)\"";
        let entry = Entry::parse(line).unwrap();
        assert_eq!((entry.method.as_str(), entry.status, entry.bytes), ("GET", 206, 100));
        assert!(entry.reads_blob("sha256:2e") && !entry.reads_blob("sha256:2") && !entry.asks_manifest());
        assert_eq!((entry.role(), entry.peer_id()), (Some("seed"), Some("12D3KooW")));
    }

    #[test]
    fn other_lines_and_agents_are_none_of_ours() {
        assert_eq!(
            Entry::parse("time=\"2026-11-23T01:57:06Z\" level=info msg=\"listening\""),
            None
        );
        let line = "127.0.0.1 - - [x] \"HEAD /v2/m/manifests/v1 HTTP/1.1\" 200 0 \"\" \"curl/7.88.1\"";
        let entry = Entry::parse(line).unwrap();
        assert_eq!(entry.role(), None);
        assert!(entry.asks_manifest());
    }
}
