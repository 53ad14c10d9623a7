//! `packswarm cache`: the blobs that a node holds, asked of the running node or read from its directory.

mod direct;
mod remote;

use std::path::PathBuf;

use clap::Subcommand;
use piece::Digest;
use serde::Serialize;

use super::status::{Blob, table};
use super::table::short;
use super::{block_on, print};
use crate::config::size;
use crate::failure::Failure;
use crate::http::{ADMIN, Admin};
use direct::Direct;
use remote::Remote;

/// `packswarm cache`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

/// Whose blobs.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Place {
    /// The data directory of a node that does not run.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The admin address of a running node: a URL or HOST:PORT.
    #[arg(long, global = true, value_name = "URL", env = "PACKSWARM_ADMIN")]
    admin: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every blob.
    Ls {
        /// Print JSON instead (docs/cli.md has its schema).
        #[arg(long)]
        json: bool,
    },
    /// Read blobs again and check every piece. A running node fetches damaged pieces anew; a stopped one does when they are
    /// next wanted.
    Verify {
        /// Digests, or unique beginnings of them; else all complete blobs.
        digests: Vec<String>,
    },
    /// Keep blobs from eviction.
    Pin {
        /// Digests, or unique beginnings of them.
        #[arg(required = true)]
        digests: Vec<String>,
    },
    /// Let blobs be evicted again.
    Unpin {
        /// Digests, or unique beginnings of them.
        #[arg(required = true)]
        digests: Vec<String>,
    },
    /// Remove blobs, pinned or not.
    Rm {
        /// Digests, or unique beginnings of them.
        #[arg(required = true)]
        digests: Vec<String>,
    },
    /// Evict the least recently used blobs, if the store is above its high water mark, down to the low one.
    Gc {
        /// With --data-dir: the store's capacity; else 90 % of the filesystem.
        #[arg(long, value_parser = size::parse)]
        capacity: Option<u64>,
    },
}

/// Does what was asked.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    block_on(async {
        let capacity = match args.command {
            Command::Gc { capacity } => capacity,
            Command::Ls { .. }
            | Command::Verify { .. }
            | Command::Pin { .. }
            | Command::Unpin { .. }
            | Command::Rm { .. } => None,
        };
        let cache = match &args.place.data_dir {
            Some(dir) => Cache::Direct(Direct::open(dir, capacity.unwrap_or(0))?),
            None => Cache::Remote(Remote(Admin::new(args.place.admin.as_deref().unwrap_or(ADMIN))?)),
        };
        let done = cache.run(&args.command).await;
        cache.close()?;
        print(&done?)
    })
}

/// A node's blobs.
enum Cache {
    Direct(Direct),
    Remote(Remote),
}

/// What checking a blob found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verified {
    pieces: u32,
    damaged: Vec<u32>,
}

/// `cache ls --json`.
#[derive(Serialize)]
struct Listed<'b> {
    digest: &'b str,
    size: u64,
    pieces: u32,
    held: u32,
    complete: bool,
    pinned: bool,
    media_type: Option<&'b str>,
}

impl Cache {
    async fn run(&self, command: &Command) -> Result<String, Failure> {
        let blobs = self.blobs().await?;
        match command {
            Command::Ls { json: false } => Ok(listing(&blobs)),
            Command::Ls { json: true } => Ok(json(&blobs)),
            Command::Verify { digests } if digests.is_empty() => {
                let whole = blobs
                    .iter()
                    .filter(|blob| blob.complete)
                    .map(|blob| parse(&blob.digest));
                self.verify(whole.collect::<Result<_, _>>()?).await
            }
            Command::Verify { digests } => self.verify(chosen(digests, &blobs)?).await,
            Command::Pin { digests } => self.pin(&chosen(digests, &blobs)?, true).await,
            Command::Unpin { digests } => self.pin(&chosen(digests, &blobs)?, false).await,
            Command::Rm { digests } => self.remove(&chosen(digests, &blobs)?).await,
            Command::Gc { .. } => {
                let evicted = match self {
                    Self::Direct(direct) => direct.gc(),
                    Self::Remote(remote) => remote.gc().await?,
                };
                let lines = evicted.iter().map(|digest| format!("evicted {digest}\n"));
                Ok(lines.chain([format!("{} blobs evicted\n", evicted.len())]).collect())
            }
        }
    }

    async fn blobs(&self) -> Result<Vec<Blob>, Failure> {
        match self {
            Self::Direct(direct) => Ok(direct.blobs()),
            Self::Remote(remote) => remote.blobs().await,
        }
    }

    /// Checks them all, and fails if one of them is damaged and stays so.
    async fn verify(&self, digests: Vec<Digest>) -> Result<String, Failure> {
        let mut text = String::new();
        let mut damaged = 0;
        for digest in &digests {
            let Verified { pieces, damaged: bad } = match self {
                Self::Direct(direct) => direct.verify(digest)?,
                Self::Remote(remote) => remote.verify(digest).await?,
            };
            let now = if matches!(self, Self::Remote(_)) {
                "fetched again"
            } else {
                "dropped; to be fetched again"
            };
            text.push_str(&match bad.len() {
                0 => format!("{digest}: {pieces} pieces are as they should be\n"),
                count => format!(
                    "{digest}: {count} of {pieces} pieces were damaged and are {now}: {}\n",
                    list(&bad)
                ),
            });
            damaged += usize::from(!bad.is_empty());
        }
        text.push_str(&match damaged {
            0 => format!("{} blobs checked, all as they should be\n", digests.len()),
            damaged => format!("{} blobs checked, {damaged} of them damaged\n", digests.len()),
        });
        if damaged > 0 && matches!(self, Self::Direct(_)) {
            print(&text)?;
            return Err(
                "the store has damaged blobs: their pieces are fetched again when the node runs and they are wanted"
                    .into(),
            );
        }
        Ok(text)
    }

    async fn pin(&self, digests: &[Digest], pinned: bool) -> Result<String, Failure> {
        let mut text = String::new();
        for digest in digests {
            match self {
                Self::Direct(direct) => direct.pin(digest, pinned)?,
                Self::Remote(remote) => remote.pin(digest, pinned).await?,
            }
            text.push_str(&format!("{} {digest}\n", if pinned { "pinned" } else { "unpinned" }));
        }
        Ok(text)
    }

    async fn remove(&self, digests: &[Digest]) -> Result<String, Failure> {
        let mut text = String::new();
        for digest in digests {
            match self {
                Self::Direct(direct) => direct.remove(digest)?,
                Self::Remote(remote) => remote.remove(digest).await?,
            }
            text.push_str(&format!("removed {digest}\n"));
        }
        Ok(text)
    }

    fn close(self) -> Result<(), Failure> {
        match self {
            Self::Direct(direct) => direct.close(),
            Self::Remote(_) => Ok(()),
        }
    }
}

fn listing(blobs: &[Blob]) -> String {
    let total: u64 = blobs.iter().map(|blob| blob.size).sum();
    format!("{}{} blobs, {}\n", table(blobs), blobs.len(), size::about(total))
}

fn json(blobs: &[Blob]) -> String {
    let listed = blobs.iter().map(|blob| Listed {
        digest: &blob.digest,
        size: blob.size,
        pieces: blob.pieces,
        held: blob.held,
        complete: blob.complete,
        pinned: blob.pinned,
        media_type: blob.media_type.as_deref(),
    });
    serde_json::to_string(&listed.collect::<Vec<_>>()).expect("names and numbers are JSON") + "\n"
}

/// Piece numbers, not more than can be read.
fn list(pieces: &[u32]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = pieces.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if pieces.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// The blobs whose digests begin as given.
fn chosen(beginnings: &[String], blobs: &[Blob]) -> Result<Vec<Digest>, Failure> {
    beginnings.iter().map(|beginning| choose(beginning, blobs)).collect()
}

fn choose(beginning: &str, blobs: &[Blob]) -> Result<Digest, Failure> {
    let fits = |blob: &&Blob| {
        let hex = blob.digest.strip_prefix("sha256:").unwrap_or_default();
        blob.digest.starts_with(beginning) || hex.starts_with(beginning)
    };
    let found: Vec<&Blob> = blobs.iter().filter(fits).collect();
    match found[..] {
        [one] => parse(&one.digest),
        [] => Err(
            format!("no blob here has a digest that begins with {beginning}; `packswarm cache ls` lists them").into(),
        ),
        [first, second, ..] => {
            let (first, second) = (short(&first.digest), short(&second.digest));
            Err(
                format!("{beginning} is the beginning of several digests ({first}, {second}, ...); give more of it")
                    .into(),
            )
        }
    }
}

fn parse(digest: &str) -> Result<Digest, Failure> {
    digest
        .parse()
        .map_err(|error| format!("the node lists `{digest}`, which is no digest: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(content: &str) -> Blob {
        let digest = Digest::of(content.as_bytes()).to_string();
        Blob {
            digest,
            size: 1,
            pieces: 1,
            held: 1,
            complete: true,
            pinned: false,
            media_type: None,
        }
    }

    #[test]
    fn a_unique_beginning_is_enough() {
        let blobs = [blob("a"), blob("b")];
        let hex = blobs[0].digest.strip_prefix("sha256:").unwrap();
        assert_eq!(choose(&hex[..6], &blobs).unwrap(), Digest::of(b"a"));
        assert_eq!(choose(&blobs[1].digest, &blobs).unwrap(), Digest::of(b"b"));
        assert!(choose("sha256:", &blobs).unwrap_err().to_string().contains("several"));
        assert!(choose("zz", &blobs).unwrap_err().to_string().contains("no blob"));
    }
}
