//! What a node is doing, as `packswarm status`, the admin API and the demo show it. The JSON is part of the contract:
//! `docs/api.md` describes it, and a test pins it.

use std::sync::Arc;

use admin::metrics::ReceivedFrom;
use serde::Serialize;

use crate::parts::Parts;

/// A node at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// `seed` or `peer`.
    pub role: &'static str,
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// The release.
    pub version: &'static str,
    /// The first of the schedulers, in the order of configuration.
    pub scheduler: Option<String>,
    /// All schedulers over which blobs are divided.
    pub schedulers: Vec<String>,
    /// Whether the operator has expelled the node.
    pub expelled: bool,
    /// Bytes that the store may hold.
    pub store_capacity: u64,
    /// Bytes that count against it.
    pub store_used: u64,
    /// Open connections of the data plane.
    pub connections: usize,
    /// Tasks that the node's runtime has not finished: what a node that serves nobody gains over days is a leak.
    pub tasks: usize,
    /// Bytes of blobs received since the start, by source.
    pub received: Received,
    /// Bytes of blobs sent to other nodes since the start.
    pub sent: u64,
    /// Settings that the system did not grant in full, with what to do about it.
    pub settings: Vec<Setting>,
    /// Every blob held or being fetched.
    pub blobs: Vec<BlobStatus>,
}

/// Bytes by where they came from.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Received {
    /// Other peers.
    pub peer: u64,
    /// Seeds.
    pub seed: u64,
    /// The registry.
    pub registry: u64,
}

/// A setting that was asked of the system.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// What was asked.
    pub wanted: String,
    /// What was granted.
    pub got: String,
    /// What an operator can do.
    pub advice: Option<String>,
}

/// One blob at one node.
#[derive(Debug, Clone, Serialize)]
pub struct BlobStatus {
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its number of pieces.
    pub pieces: u32,
    /// How many of them are here and proven.
    pub held: u32,
    /// Whether all are.
    pub complete: bool,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Media type, if known.
    pub media_type: Option<String>,
    /// When it was last used, in seconds since 1970.
    pub last_used: u64,
}

pub(crate) fn status(parts: &Arc<Parts>) -> Status {
    let usage = parts.store.usage();
    let transport = parts.transport.status();
    let alive = parts.control.schedulers().borrow().clone();
    let named = alive
        .settled
        .into_iter()
        .map(|node| identity::peer_id(node).to_string());
    let schedulers: Vec<String> = named.collect();
    let settings = transport.settings.into_iter().map(|report| Setting {
        name: report.name.to_string(),
        wanted: report.wanted.to_string(),
        got: report.got.to_string(),
        advice: report.advice.map(|advice| advice.to_string()),
    });
    Status {
        role: parts.role.name(),
        peer_id: identity::peer_id(parts.key.node_id()).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        scheduler: schedulers.first().cloned(),
        schedulers,
        expelled: parts.is_expelled.load(std::sync::atomic::Ordering::Relaxed),
        store_capacity: usage.capacity,
        store_used: usage.used,
        connections: transport.connections,
        tasks: parts.runtime.metrics().num_alive_tasks(),
        received: Received {
            peer: parts.metrics.received_from(ReceivedFrom::Peer),
            seed: parts.metrics.received_from(ReceivedFrom::Seed),
            registry: parts.metrics.received_from(ReceivedFrom::Registry),
        },
        sent: parts.metrics.sent_so_far(),
        settings: settings.collect(),
        blobs: blobs(parts),
    }
}

/// Every blob that the store holds, whole or in part.
pub(crate) fn blobs(parts: &Parts) -> Vec<BlobStatus> {
    let mut blobs: Vec<BlobStatus> = parts
        .store
        .held()
        .into_iter()
        .map(|held| BlobStatus {
            digest: held.blob.digest.to_string(),
            size: held.blob.size,
            pieces: held.blob.geometry().count(),
            held: held.pieces,
            complete: held.complete,
            pinned: held.pinned,
            media_type: held.media_type,
            last_used: held.last_used,
        })
        .collect();
    blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
    blobs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status is part of the contract: a change here is a change for whoever reads it, and for `docs/api.md`.
    #[test]
    fn the_json_is_as_documented() {
        let status = Status {
            role: "peer",
            peer_id: "12D3KooW".to_owned(),
            version: "0.1.0",
            scheduler: Some("12D3KooX".to_owned()),
            schedulers: vec!["12D3KooX".to_owned()],
            expelled: false,
            store_capacity: 10,
            store_used: 3,
            connections: 2,
            tasks: 5,
            received: Received {
                peer: 1,
                seed: 2,
                registry: 0,
            },
            sent: 4,
            settings: vec![Setting {
                name: "socket buffer".to_owned(),
                wanted: "4 MiB".to_owned(),
                got: "208 KiB".to_owned(),
                advice: Some("sysctl net.core.rmem_max".to_owned()),
            }],
            blobs: vec![BlobStatus {
                digest: "sha256:00".to_owned(),
                size: 3,
                pieces: 1,
                held: 1,
                complete: true,
                pinned: false,
                media_type: None,
                last_used: 1,
            }],
        };
        let json = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({
            "role": "peer", "peer_id": "12D3KooW", "version": "0.1.0", "scheduler": "12D3KooX",
            "schedulers": ["12D3KooX"], "expelled": false,
            "store_capacity": 10, "store_used": 3, "connections": 2, "tasks": 5,
            "received": { "peer": 1, "seed": 2, "registry": 0 }, "sent": 4,
            "settings": [{
                "name": "socket buffer", "wanted": "4 MiB", "got": "208 KiB", "advice": "sysctl net.core.rmem_max"
            }],
            "blobs": [{
                "digest": "sha256:00", "size": 3, "pieces": 1, "held": 1, "complete": true, "pinned": false,
                "media_type": null, "last_used": 1
            }]
        });
        assert_eq!(json, expected);
        let docs = include_str!("../../../docs/api.md");
        let objects = [&json, &json["received"], &json["settings"][0], &json["blobs"][0]];
        for key in objects
            .iter()
            .filter_map(|object| object.as_object())
            .flat_map(|object| object.keys())
        {
            assert!(
                docs.contains(&format!("`{key}`")),
                "docs/api.md does not describe `{key}`"
            );
        }
    }
}
