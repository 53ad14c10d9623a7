//! The one secret that a cluster shares, and what is derived from it.
//!
//! The file holds one or two keys of 64 hex digits, each on a line of its own; `#` begins a comment. The first is
//! *current*: we listen with it. The second is the *other accepted* one. To rotate without a stop: (1) add the new key as
//! second line everywhere; (2) swap the lines everywhere; (3) remove the old one everywhere. Between any two
//! neighbouring steps every node shares a key with every other.

use std::fmt;
use std::path::Path;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use piece::NodeId;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};
use wire::exchange::Proof;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key_file::{self, KeyError, Readers};
use crate::node_key::random;

/// Separate one derived key from the other (RFC 5869, `info`).
const PNET: &[u8] = b"packswarm v1 pnet pre-shared key";
const MEMBERSHIP: &[u8] = b"packswarm v1 data plane membership";
/// Keys in a file, and proofs in a `Hello`, at most: the current one and one that is coming or going.
const MAX_KEYS: usize = 2;

/// The keys that this node's cluster goes by. The cluster key itself is forgotten once these are derived.
pub struct ClusterKeys(Vec<Derived>);

#[derive(Zeroize, ZeroizeOnDrop)]
struct Derived {
    pnet: [u8; 32],
    membership: [u8; 32],
}

/// Which end of a connection a proof speaks for: without it, a proof could be sent back to whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The end that opened the connection.
    Dialler,
    /// The end that accepted it.
    Listener,
}

/// Why a text holds no cluster keys. Says where, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseClusterKeysError {
    /// No key in it.
    #[error("it holds no key: make one with `packswarm keygen`")]
    Empty,
    /// A line that is neither a key nor a comment.
    #[error("line {line} is not a key of 64 hex digits")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// More than two keys.
    #[error("line {line} is a third key: a file holds the current key and at most one other")]
    TooMany {
        /// Counted from 1.
        line: usize,
    },
}

impl ClusterKeys {
    /// The text of a new key file: 64 hex digits and a newline.
    pub fn generate() -> String {
        key_file::write_hex(&random()).to_string()
    }

    /// The keys in the text of a key file.
    ///
    /// # Errors
    /// If it holds none, more than two, or something else.
    pub fn parse(text: &str) -> Result<Self, ParseClusterKeysError> {
        let mut keys = Vec::with_capacity(MAX_KEYS);
        for (number, line) in text.lines().enumerate() {
            let line_number = number + 1;
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let key = key_file::parse_hex(line).ok_or(ParseClusterKeysError::Line { line: line_number })?;
            if keys.len() == MAX_KEYS {
                return Err(ParseClusterKeysError::TooMany { line: line_number });
            }
            keys.push(Derived::from_cluster_key(&key));
        }
        if keys.is_empty() {
            Err(ParseClusterKeysError::Empty)
        } else {
            Ok(Self(keys))
        }
    }

    /// The keys in a file that nobody but its owner and its group can read.
    ///
    /// # Errors
    /// If it cannot be read, is open to others, or holds no keys.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = key_file::read(path, Readers::Group)?;
        Self::parse(&text).map_err(|source| KeyError::ClusterKey {
            path: path.to_owned(),
            source,
        })
    }

    /// The control plane's pre-shared keys, the current one first: listen with that one, dial with any.
    pub fn pnet_keys(&self) -> impl Iterator<Item = [u8; 32]> {
        self.0.iter().map(|key| key.pnet)
    }

    /// Proofs that the sender of `node`'s end knows these keys, one for each, valid on the connection of `exporter` only.
    pub fn prove(&self, direction: Direction, exporter: &[u8; 32], node: &NodeId) -> Vec<Proof> {
        self.0
            .iter()
            .map(|key| Proof(key.tag(direction, exporter, node)))
            .collect()
    }

    /// Whether one of `proofs` was made with one of our keys, for this end of this connection. Takes the same time
    /// whichever it is.
    pub fn accepts(&self, direction: Direction, exporter: &[u8; 32], node: &NodeId, proofs: &[Proof]) -> bool {
        if proofs.len() > MAX_KEYS {
            return false;
        }
        let mut accepted = Choice::from(0);
        for key in &self.0 {
            let tag = key.tag(direction, exporter, node);
            for proof in proofs {
                accepted |= tag.ct_eq(&proof.0);
            }
        }
        accepted.into()
    }
}

impl fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKeys({} keys)", self.0.len())
    }
}

impl Derived {
    fn from_cluster_key(key: &[u8; 32]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, key);
        let mut derived = Self {
            pnet: [0; 32],
            membership: [0; 32],
        };
        for (info, out) in [(PNET, &mut derived.pnet), (MEMBERSHIP, &mut derived.membership)] {
            hkdf.expand(info, out).expect("32 bytes are within HKDF-SHA256's reach");
        }
        derived
    }

    /// All parts have a fixed length, so no two inputs share an encoding.
    fn tag(&self, direction: Direction, exporter: &[u8; 32], node: &NodeId) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.membership).expect("HMAC takes keys of any length");
        mac.update(match direction {
            Direction::Dialler => b"D",
            Direction::Listener => b"L",
        });
        mac.update(exporter);
        mac.update(node.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const TWO: &str = "0202020202020202020202020202020202020202020202020202020202020202";
    const EXPORTER: [u8; 32] = [7; 32];

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn keys(text: &str) -> ClusterKeys {
        ClusterKeys::parse(text).unwrap()
    }

    fn hex(bytes: &[u8; 32]) -> String {
        key_file::write_hex(bytes).trim().to_owned()
    }

    #[test]
    fn what_is_derived_is_pinned() {
        // Computed apart from this code, with Python's hmac module and RFC 5869.
        let keys = keys(ONE);
        assert_eq!(
            hex(&keys.pnet_keys().next().unwrap()),
            "7105de132dcf3ea45d75d19d951c03595a6b3dfc2b16c9c8f54489e7a1123fcf"
        );
        let proofs = keys.prove(Direction::Dialler, &EXPORTER, &node(9));
        assert_eq!(
            hex(&proofs[0].0),
            "85561df0ab4c34c52734f3c8fce6a2d61da76aa7951e90f9abac45fd6a965fe1"
        );
        let proofs = keys.prove(Direction::Listener, &EXPORTER, &node(9));
        assert_eq!(
            hex(&proofs[0].0),
            "d05be6dfa2e6978410121ba895b60fe2a27d11a6666c404877184a4d5f7cc4b5"
        );
    }

    #[test]
    fn a_proof_holds_for_its_end_of_its_connection_only() {
        let keys = keys(ONE);
        let proofs = keys.prove(Direction::Dialler, &EXPORTER, &node(9));
        assert!(keys.accepts(Direction::Dialler, &EXPORTER, &node(9), &proofs));
        assert!(
            !keys.accepts(Direction::Listener, &EXPORTER, &node(9), &proofs),
            "reflected"
        );
        assert!(
            !keys.accepts(Direction::Dialler, &[8; 32], &node(9), &proofs),
            "another connection"
        );
        assert!(
            !keys.accepts(Direction::Dialler, &EXPORTER, &node(8), &proofs),
            "another node"
        );
        assert!(!keys.accepts(Direction::Dialler, &EXPORTER, &node(9), &[]), "no proof");
        let mut flipped = proofs[0];
        flipped.0[31] ^= 1;
        assert!(
            !keys.accepts(Direction::Dialler, &EXPORTER, &node(9), &[flipped]),
            "a flipped bit"
        );
    }

    #[test]
    fn keys_rotate_with_overlap() {
        let [old, new] = [ONE, TWO];
        let steps = [
            old.to_owned(),
            format!("{old}\n{new}"),
            format!("{new}\n{old}"),
            new.to_owned(),
        ];
        for (a, b) in steps.iter().zip(&steps[1..]) {
            for (from, to) in [(a, b), (b, a)] {
                let proofs = keys(from).prove(Direction::Dialler, &EXPORTER, &node(1));
                assert!(keys(to).accepts(Direction::Dialler, &EXPORTER, &node(1), &proofs));
                // The control plane listens with the current key and dials with either.
                assert!(
                    keys(from)
                        .pnet_keys()
                        .any(|key| Some(key) == keys(to).pnet_keys().next())
                );
            }
        }
        let proofs = keys(&steps[0]).prove(Direction::Dialler, &EXPORTER, &node(1));
        assert!(!keys(&steps[3]).accepts(Direction::Dialler, &EXPORTER, &node(1), &proofs));
    }

    #[test]
    fn more_proofs_than_keys_can_be_are_refused() {
        let keys = keys(ONE);
        let proof = keys.prove(Direction::Dialler, &EXPORTER, &node(1))[0];
        assert!(!keys.accepts(Direction::Dialler, &EXPORTER, &node(1), &[proof; 3]));
    }

    #[test]
    fn files_are_parsed_and_faults_named_by_line() {
        assert_eq!(
            keys(&format!("# ours\n\n  {ONE}  # since May\n{}\n", TWO.to_uppercase()))
                .pnet_keys()
                .count(),
            2
        );
        let error = |text: &str| ClusterKeys::parse(text).unwrap_err();
        assert_eq!(error("# nothing\n"), ParseClusterKeysError::Empty);
        assert_eq!(
            error(&format!("{ONE}\n{}", &TWO[1..])),
            ParseClusterKeysError::Line { line: 2 }
        );
        assert_eq!(
            error(&format!("{ONE}\n{TWO}\n\n{ONE}")),
            ParseClusterKeysError::TooMany { line: 4 }
        );
    }

    #[test]
    fn a_generated_key_is_its_own_key_file() {
        let text = ClusterKeys::generate();
        assert_eq!(text.len(), 65);
        assert_ne!(text, ClusterKeys::generate());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        fs::write(&path, &text).unwrap();
        let load = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            ClusterKeys::load(&path)
        };
        for open in [0o644, 0o604, 0o620, 0o601] {
            assert!(matches!(load(open), Err(KeyError::Mode { mode, .. }) if mode == open));
        }
        // As kept by hand, and as systemd and Kubernetes hand it to a service.
        for closed in [0o400, 0o600, 0o440, 0o640] {
            assert!(load(closed).unwrap().pnet_keys().eq(keys(&text).pnet_keys()));
        }
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let shown = format!("{:?}", keys(ONE));
        assert_eq!(shown, "ClusterKeys(1 keys)");
        let error = ClusterKeys::parse(&format!("{}x", &TWO[1..])).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("0202"));
    }
}
