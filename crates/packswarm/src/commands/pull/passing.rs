//! A peer that lasts as long as one pull, where none runs: it joins the swarm, serves while it is there, and goes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use identity::ClusterKeys;
use peer::{LocalAccess, Peer};
use tokio::net::TcpListener;

use crate::commands::docker_config;
use crate::config::{PeerFile, RoleFile as _};
use crate::failure::Failure;
use crate::process;

/// A running peer with a store of its own below the directory that is pulled into.
#[derive(Debug)]
pub(super) struct Passing {
    peer: Peer,
    dir: PathBuf,
    mirror: SocketAddr,
}

impl Passing {
    /// Starts it. What an unfinished pull left in its store is used.
    pub(super) async fn start(
        output: &Path,
        cluster_key: &Path,
        schedulers: Vec<String>,
        insecure: Vec<String>,
    ) -> Result<Self, Failure> {
        let dir = output.join(".packswarm").join("peer");
        let cluster = Arc::new(ClusterKeys::load(cluster_key)?);
        let key = process::node_key(&dir)?;
        let mut config = PeerFile::defaults().settings()?.config;
        config.store.data_dir.clone_from(&dir);
        config.control.schedulers = schedulers;
        config.registry.insecure = insecure;
        config.registry.user_agent = process::user_agent("pull", &identity::peer_id(key.node_id()).to_string());
        // Only this process reaches the mirror, with the user's own credentials.
        config.registry.docker_config = docker_config::find();
        config.local_access = LocalAccess::Node;
        let (data, control) = process::data_and_control((Ipv6Addr::UNSPECIFIED, 0).into())?;
        config.control.listen = control;
        let listeners = peer::Listeners {
            data,
            mirror: Some(loopback().await?),
            admin: loopback().await?,
        };
        let peer = Peer::start(config, listeners, key, cluster).await?;
        let mirror = peer.addresses().mirror.ok_or("the passing peer has no mirror")?;
        Ok(Self { peer, dir, mirror })
    }

    /// Where its mirror is.
    pub(super) fn mirror(&self) -> String {
        format!("http://{}", self.mirror)
    }

    /// Stops it. Its store goes with it once everything is in place, and stays for the next attempt otherwise.
    pub(super) async fn stop(self, done: bool) -> Result<(), Failure> {
        self.peer.stop().await;
        if done {
            let gone = std::fs::remove_dir_all(&self.dir);
            gone.map_err(|error| format!("cannot remove the passing peer's store {}: {error}", self.dir.display()))?;
        }
        Ok(())
    }
}

async fn loopback() -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    bound.map_err(|error| format!("cannot listen on loopback: {error}").into())
}
