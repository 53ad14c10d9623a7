//! The one key of a node.

use std::fmt;
use std::path::Path;

use ed25519_dalek::SigningKey;
use piece::NodeId;
use rand::TryRng as _;
use zeroize::Zeroizing;

use crate::key_file::{self, KeyError, Readers};

/// A node's Ed25519 key: its name in the cluster, on both planes and under the midstates it vouches for.
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// The key in the file at `path`, made now if there is no file. The file is 64 hex digits, mode 0600.
    ///
    /// # Errors
    /// If the file cannot be read or created, is open to others than its owner, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        if !path.exists() {
            let key = Self::generate();
            if key_file::create(path, &key_file::write_hex(key.0.as_bytes()))? {
                return Ok(key);
            }
        }
        let text = key_file::read(path, Readers::Owner)?;
        let seed = key_file::parse_hex(text.trim()).ok_or_else(|| KeyError::NodeKey { path: path.to_owned() })?;
        Ok(Self::from_seed(*seed))
    }

    /// The key that this seed (RFC 8032's private key) stands for.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&Zeroizing::new(seed)))
    }

    /// A new key from the system's random generator.
    pub fn generate() -> Self {
        Self::from_seed(*random())
    }

    /// Its public half.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// The key, to sign with.
    pub const fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    /// The key as libp2p wants it.
    pub fn keypair(&self) -> libp2p_identity::Keypair {
        let mut seed = Zeroizing::new(self.0.to_bytes());
        libp2p_identity::Keypair::ed25519_from_bytes(&mut *seed).expect("32 bytes are an Ed25519 seed")
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.node_id())
    }
}

/// 32 bytes that nobody can guess.
pub(crate) fn random() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rngs::SysRng
        .try_fill_bytes(&mut *bytes)
        .expect("the system's random generator works");
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn the_public_half_is_that_of_rfc_8032() {
        let key = NodeKey::from_seed(*key_file::parse_hex(SEED).unwrap());
        assert_eq!(key.node_id().to_string(), PUBLIC);
        assert_eq!(key.keypair().public().to_peer_id(), crate::peer_id(key.node_id()));
    }

    #[test]
    fn a_key_is_created_once_and_privately() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let made = NodeKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(NodeKey::load_or_create(&path).unwrap().node_id(), made.node_id());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft stayed behind");
    }

    #[test]
    fn whoever_creates_the_key_at_once_gets_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let ids: Vec<NodeId> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| NodeKey::load_or_create(&path).unwrap().node_id()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft stayed behind");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_in_clear_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        NodeKey::load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = NodeKey::load_or_create(&path).unwrap_err().to_string();
            assert!(
                error.contains("chmod 600") && error.contains(&format!("{mode:04o}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_damaged_key_is_never_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        NodeKey::load_or_create(&path).unwrap();
        fs::write(&path, &SEED[..63]).unwrap();
        let error = NodeKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::NodeKey { .. }), "{error}");
        assert!(!error.to_string().contains(&SEED[..8]));
        assert_eq!(fs::read_to_string(&path).unwrap(), SEED[..63]);
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let error = NodeKey::load_or_create(Path::new("/nonexistent/node.key"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/node.key"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", NodeKey::from_seed(*key_file::parse_hex(SEED).unwrap()));
        assert!(shown.contains(PUBLIC) && !shown.contains(&SEED[..8]), "{shown}");
    }
}
