//! The blobs of a running node.

use piece::Digest;
use reqwest::Method;
use serde::Deserialize;

use super::Verified;
use crate::commands::status::Blob;
use crate::failure::Failure;
use crate::http::Admin;

/// A node's admin API, as far as blobs go.
pub(super) struct Remote(pub(super) Admin);

#[derive(Deserialize)]
struct VerifiedBlob {
    pieces: u32,
    damaged: Vec<u32>,
}

#[derive(Deserialize)]
struct Changed {
    changed: bool,
}

#[derive(Deserialize)]
struct Evicted {
    evicted: Vec<String>,
}

impl Remote {
    pub(super) async fn blobs(&self) -> Result<Vec<Blob>, Failure> {
        Ok(self.0.get_as("/api/v1/blobs").await?)
    }

    pub(super) async fn verify(&self, digest: &Digest) -> Result<Verified, Failure> {
        let path = format!("/api/v1/blobs/{digest}/verify");
        let VerifiedBlob { pieces, damaged } = self.0.act(Method::POST, &path, None::<&()>).await?;
        Ok(Verified { pieces, damaged })
    }

    pub(super) async fn pin(&self, digest: &Digest, pinned: bool) -> Result<(), Failure> {
        let path = format!("/api/v1/blobs/{digest}/{}", if pinned { "pin" } else { "unpin" });
        self.change(Method::POST, &path).await
    }

    pub(super) async fn remove(&self, digest: &Digest) -> Result<(), Failure> {
        self.change(Method::DELETE, &format!("/api/v1/blobs/{digest}")).await
    }

    pub(super) async fn gc(&self) -> Result<Vec<String>, Failure> {
        let Evicted { evicted } = self.0.act(Method::POST, "/api/v1/gc", None::<&()>).await?;
        Ok(evicted)
    }

    async fn change(&self, method: Method, path: &str) -> Result<(), Failure> {
        let Changed { changed } = self.0.act(method, path, None::<&()>).await?;
        if changed {
            Ok(())
        } else {
            Err("the blob went away meanwhile".into())
        }
    }
}
