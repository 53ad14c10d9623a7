//! Secrets in files: closed to whoever has no business with them, and never half written.

use std::fmt;
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
    /// Others than may use the file can.
    #[error("the key file {} is open to others than {may} (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Who may read it.
        may: Readers,
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

/// Who may be able to read a secret file. Nobody but its owner may be able to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: what this program has made for itself.
    Owner,
    /// Its group too: what is handed to a service by systemd (`LoadCredential=`) or Kubernetes (`fsGroup`) comes so.
    Group,
}

impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "its owner",
            Self::Group => "its owner and the readers of its group",
        })
    }
}

/// The text of a secret file that nobody else than `may` can read.
pub(crate) fn read(path: &Path, may: Readers) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    let closed = match may {
        Readers::Owner => 0o077,
        Readers::Group => 0o037,
    };
    if mode & closed != 0 {
        return Err(KeyError::Mode {
            path: path.to_owned(),
            mode,
            may,
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
    let placed = write_draft(&draft, text, Draft::New).and_then(|()| match fs::hard_link(&draft, path) {
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

/// What becomes of a file that has a draft's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draft {
    /// There is none: drafts have names of their own.
    New,
    /// It was left behind, and nobody else writes it.
    Replaced,
}

/// Writes a file that is closed to others, and has it on the disk.
pub(crate) fn write_draft(draft: &Path, text: &str, found: Draft) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match found {
        Draft::New => options.create_new(true),
        Draft::Replaced => options.create(true).truncate(true),
    };
    let mut file = options.open(draft)?;
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
