//! Secrets in files: readable by their owner only, and never half written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::ParseClusterKeysError;
use crate::node_key::random;

/// No key file is near this long; one that is was named by mistake.
const MAX_KEY_FILE: u64 = 16 << 10;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be created.
    #[error("cannot create the key file {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than its owner may use the file.
    #[error("the key file {} is open to others than its owner (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no node key.
    #[error("{} is not a node key, which is 64 hex digits: restore it, or remove it to give this node a new identity", path.display())]
    NodeKey {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no cluster key.
    #[error("{} is not a cluster key file: {source}", path.display())]
    ClusterKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParseClusterKeysError,
    },
}

/// The text of a secret file, which only its owner may be able to read or write.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Creates a secret file with this text, whole or not at all. False if there is one already, which is left alone.
pub(crate) fn create(path: &Path, text: &str) -> Result<bool, KeyError> {
    // A name of its own, so that whoever else is creating the same key, in this process or another, is not in the way.
    let unique = u64::from_ne_bytes(*random().first_chunk().expect("32 bytes hold 8"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{unique:016x}.new"));
    let draft = path.with_file_name(name);
    // A link, unlike a rename, never replaces the key that another process has put there meanwhile.
    let placed = write_draft(&draft, text).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    // Best effort: a draft that stays behind holds no key in use unless the link was made, and is private either way.
    let _ = fs::remove_file(&draft);
    placed.map_err(|source| KeyError::Create {
        path: path.to_owned(),
        source,
    })
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The 32 bytes that 64 hex digits of either case stand for.
pub(crate) fn parse_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16);
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(bytes)
}

/// 64 hex digits and a newline.
pub(crate) fn write_hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).expect("a nibble is below 16"));
        }
    }
    text.push('\n');
    text
}
