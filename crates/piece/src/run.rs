//! Runs of midstates, signed by whoever vouches for them.
//!
//! Until a chain has closed, a forged midstate could make honest pieces look bad. So midstates travel in runs under an
//! Ed25519 signature (RFC 8032), and are accepted only from a reader that the scheduler named or from a node that says its
//! own chain has closed; when a chain fails to close, the signature shows who lied.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::{Blob, Midstate, NodeId};

/// The most midstates in one run: 2 KiB, a thousandth of the pieces they prove.
pub const MAX_RUN: usize = 64;

/// Separates these signatures from any other that the node key makes.
const DOMAIN: &[u8] = b"packswarm midstate run v1\0";

/// On what ground a signer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
pub enum Standing {
    /// It reads the blob from the registry, under the lease with this epoch.
    #[n(0)]
    Reader {
        /// The lease's fencing epoch.
        #[n(0)]
        epoch: u64,
    },
    /// Its own chain has closed: it has seen the digest proven.
    #[n(1)]
    Closed,
}

/// The midstates at consecutive piece boundaries. Boundary *i* lies before piece *i*; boundary 0 is the IV and is never sent.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct MidstateRun {
    /// The blob they belong to.
    #[n(0)]
    pub blob: Blob,
    /// The number of the first boundary, at least 1.
    #[n(1)]
    pub first: u32,
    /// The midstates at `first`, `first + 1`, and so on; 1 to [`MAX_RUN`] of them.
    #[n(2)]
    pub midstates: Vec<Midstate>,
    /// On what ground the signer vouches.
    #[n(3)]
    pub standing: Standing,
}

/// A run with its signature, as it travels and as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct SignedRun {
    /// What is vouched for.
    #[n(0)]
    run: MidstateRun,
    /// Who vouches.
    #[n(1)]
    signer: NodeId,
    /// Ed25519 over the domain-separated run.
    #[cbor(n(2), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// Why a run is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Not 1 to [`MAX_RUN`] boundaries strictly inside the blob.
    #[error("a run must hold 1 to {MAX_RUN} boundaries strictly inside its blob")]
    Bounds,
    /// The signature does not hold.
    #[error("the run's signature does not hold")]
    Signature,
}

impl SignedRun {
    /// Signs a run.
    ///
    /// # Errors
    /// If its boundaries are not inside the blob.
    pub fn sign(run: MidstateRun, key: &SigningKey) -> Result<Self, RunError> {
        check_bounds(&run)?;
        let signature = key.sign(&message(&run)).to_bytes();
        Ok(Self {
            run,
            signer: NodeId::from_bytes(key.verifying_key().to_bytes()),
            signature,
        })
    }

    /// Checks bounds and signature, and gives the run only then.
    ///
    /// # Errors
    /// If the boundaries are not inside the blob or the signature does not hold.
    pub fn check(&self) -> Result<&MidstateRun, RunError> {
        check_bounds(&self.run)?;
        let key = VerifyingKey::from_bytes(self.signer.as_bytes()).map_err(|_| RunError::Signature)?;
        key.verify_strict(&message(&self.run), &Signature::from_bytes(&self.signature))
            .map_err(|_| RunError::Signature)?;
        Ok(&self.run)
    }

    /// Checks the bounds alone.
    pub(crate) fn check_bounds(&self) -> Result<(), RunError> {
        check_bounds(&self.run)
    }

    /// The run, unchecked: for one that was signed or checked here before.
    pub const fn run(&self) -> &MidstateRun {
        &self.run
    }

    /// Who signed.
    pub const fn signer(&self) -> NodeId {
        self.signer
    }
}

fn check_bounds(run: &MidstateRun) -> Result<(), RunError> {
    let count = run.midstates.len();
    let inside = u64::from(run.first) + count as u64 <= u64::from(run.blob.geometry().count());
    if run.first >= 1 && (1..=MAX_RUN).contains(&count) && inside {
        Ok(())
    } else {
        Err(RunError::Bounds)
    }
}

fn message(run: &MidstateRun) -> Vec<u8> {
    let mut message = Vec::with_capacity(DOMAIN.len() + 32 + 8 + 4 + 9 + run.midstates.len() * 32);
    message.extend_from_slice(DOMAIN);
    message.extend_from_slice(run.blob.digest.as_bytes());
    message.extend_from_slice(&run.blob.size.to_be_bytes());
    message.extend_from_slice(&run.first.to_be_bytes());
    match run.standing {
        Standing::Reader { epoch } => {
            message.push(0);
            message.extend_from_slice(&epoch.to_be_bytes());
        }
        Standing::Closed => message.push(1),
    }
    run.midstates
        .iter()
        .for_each(|midstate| message.extend_from_slice(&midstate.to_bytes()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn run() -> MidstateRun {
        let blob = Blob {
            digest: Digest::of(b"x"),
            size: 10 << 20,
        };
        MidstateRun {
            blob,
            first: 1,
            midstates: vec![Midstate::START; 3],
            standing: Standing::Reader { epoch: 7 },
        }
    }

    #[test]
    fn every_changed_field_breaks_the_signature() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signed = SignedRun::sign(run(), &key).unwrap();
        assert!(signed.check().is_ok());
        let change = |f: &dyn Fn(&mut SignedRun)| {
            let mut other = signed.clone();
            f(&mut other);
            other.check().map(|_| ())
        };
        let refused = Err(RunError::Signature);
        assert_eq!(change(&|s| s.run.first = 2), refused);
        assert_eq!(change(&|s| s.run.blob.size += 1), refused);
        assert_eq!(change(&|s| s.run.blob.digest = Digest::EMPTY), refused);
        assert_eq!(change(&|s| s.run.standing = Standing::Closed), refused);
        assert_eq!(change(&|s| s.run.midstates[1].0[0] ^= 1), refused);
        assert_eq!(change(&|s| s.signature[0] ^= 1), refused);
        assert_eq!(change(&|s| s.signer = NodeId::from_bytes([0; 32])), refused);
    }

    #[test]
    fn boundaries_must_lie_inside_the_blob() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let with = |first, count| {
            SignedRun::sign(
                MidstateRun {
                    first,
                    midstates: vec![Midstate::START; count],
                    ..run()
                },
                &key,
            )
        };
        assert!(with(0, 1).is_err(), "the IV is never sent");
        assert!(with(1, 0).is_err());
        assert!(with(1, 39).is_ok());
        assert!(with(1, 40).is_err(), "the last boundary is the digest");
        assert!(with(u32::MAX, 1).is_err());
    }
}
