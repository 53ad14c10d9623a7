//! `packswarm node`: who is kept out of the cluster, asked of its scheduler.

use clap::Subcommand;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{block_on, print};
use crate::config::time;
use crate::failure::Failure;
use crate::http::{ADMIN, Admin};

/// `packswarm node`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The admin address of the scheduler: a URL or HOST:PORT. Where there are several schedulers, each is told for itself.
    #[arg(long, global = true, value_name = "URL", env = "PACKSWARM_ADMIN", default_value = ADMIN)]
    admin: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Expel a node: all others close their connections to it and refuse new ones, until it is unbanned.
    Ban {
        /// Its peer id, 12D3KooW...
        peer_id: String,
        /// Why, for whoever reads the list, and the node itself.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let a node back in.
    Unban {
        /// Its peer id, 12D3KooW...
        peer_id: String,
    },
    /// List who is out, by the operator or for what other nodes complained of, and why.
    List {
        /// Print the JSON of the admin API instead (docs/api.md has its schema).
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Ban<'a> {
    peer_id: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Unban<'a> {
    peer_id: &'a str,
}

#[derive(Deserialize)]
struct Changed {
    changed: bool,
}

#[derive(Deserialize)]
struct Banned {
    banned: Vec<BannedNode>,
}

#[derive(Deserialize)]
struct BannedNode {
    peer_id: String,
    by: String,
    reason: String,
    seconds_left: Option<u64>,
}

/// Does what was asked.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    block_on(async {
        let admin = Admin::new(&args.admin)?;
        let text = match &args.command {
            Command::Ban { peer_id, reason } => {
                let body = Ban { peer_id, reason };
                let Changed { changed } = admin.act(Method::POST, "/api/v1/nodes/ban", Some(&body)).await?;
                said(
                    peer_id,
                    changed,
                    "is expelled",
                    "was expelled already; its reason is the new one",
                )
            }
            Command::Unban { peer_id } => {
                let body = Unban { peer_id };
                let Changed { changed } = admin.act(Method::POST, "/api/v1/nodes/unban", Some(&body)).await?;
                said(peer_id, changed, "may come back", "was not expelled")
            }
            Command::List { json: true } => {
                let body = admin.get("/api/v1/nodes/banned").await?;
                format!("{}\n", String::from_utf8_lossy(&body).trim_end())
            }
            Command::List { json: false } => {
                let Banned { banned } = admin.get_as("/api/v1/nodes/banned").await?;
                listing(banned)
            }
        };
        print(&text)
    })
}

fn said(peer_id: &str, changed: bool, new: &str, old: &str) -> String {
    format!("{peer_id} {}\n", if changed { new } else { old })
}

fn listing(banned: Vec<BannedNode>) -> String {
    if banned.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut table = Table::new(["NODE", "BY", "FOR", "REASON"]);
    for BannedNode {
        peer_id,
        by,
        reason,
        seconds_left,
    } in banned
    {
        let left = seconds_left.map_or_else(
            || "good".to_owned(),
            |seconds| time::text(std::time::Duration::from_secs(seconds)),
        );
        // It comes over the network, and goes to a terminal.
        table.row([peer_id, by, left, reason].map(|cell| cell.replace(char::is_control, "?")));
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_who_and_why() {
        assert_eq!(listing(Vec::new()), "nobody is banned\n");
        let node = |by: &str, reason: &str, seconds_left| BannedNode {
            peer_id: "12D3KooW".to_owned(),
            by: by.to_owned(),
            reason: reason.to_owned(),
            seconds_left,
        };
        let text = listing(vec![
            node("operator", "stolen\u{1b}[2J", None),
            node("complaints", "it lied", Some(60)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("good") && lines[1].ends_with("stolen?[2J"), "{text}");
        assert!(lines[2].contains("1m") && lines[2].ends_with("it lied"), "{text}");
    }
}
