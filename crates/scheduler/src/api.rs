//! The scheduler's admin endpoints: status, nodes, swarms, preheat.

use std::str::FromStr;

use admin::{Admin, ApiError, Readiness};
use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::routing::get;
use piece::Blob;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use wire::control::{Kind, MAX_ENTRIES, Repository, Response, Role, Source};

use crate::driver::{ExpelFailure, Question};
use crate::view::{Nodes, Swarms};

/// Entries of a page unless asked otherwise, and at most.
const PAGE: usize = 1000;

/// Which page of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// The `next` of the page before.
    after: Option<String>,
    /// Entries at most.
    limit: Option<usize>,
}

/// The body of a preheat.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preheat {
    #[serde(default)]
    to: Target,
    blobs: Vec<PreheatBlob>,
}

/// Who is to fetch.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    /// For each blob the seed that would read it.
    #[default]
    Seeds,
    /// All peers.
    Peers,
}

/// One blob to be fetched, and where it can be read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreheatBlob {
    digest: String,
    size: u64,
    registry: String,
    repository: String,
    #[serde(default)]
    kind: PreheatKind,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PreheatKind {
    #[default]
    Blob,
    Manifest,
}

/// The body of a ban.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    peer_id: String,
    #[serde(default)]
    reason: String,
}

/// The body of its end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unban {
    peer_id: String,
}

/// Whether it was not so before.
#[derive(Debug, Serialize)]
struct Changed {
    changed: bool,
}

/// What became of a preheat.
#[derive(Debug, Serialize)]
struct Accepted {
    accepted: usize,
}

/// The endpoints.
pub(crate) fn admin(questions: mpsc::Sender<Question>, registry: prometheus::Registry) -> Admin {
    let of_status = questions.clone();
    let of_ready = questions.clone();
    let [of_banned, of_ban, of_unban] = [(); 3].map(|()| questions.clone());
    let (of_nodes, of_swarms) = (questions.clone(), questions.clone());
    let status = move || {
        let questions = of_status.clone();
        async move {
            let status = ask(&questions, Question::Status).await;
            status.map_or_else(|error| error.to_string().into(), |status| serde_json::json!(status))
        }
    };
    let ready = move || {
        if of_ready.is_closed() {
            Readiness::NotReady("the scheduler is stopping".into())
        } else {
            Readiness::Ready
        }
    };
    let nodes = move |page: Result<Query<Page>, QueryRejection>| nodes(of_nodes.clone(), page);
    let swarms = move |page: Result<Query<Page>, QueryRejection>| swarms(of_swarms.clone(), page);
    Admin::new(registry, status, ready)
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/swarms", get(swarms))
        .get("/api/v1/nodes/banned", move || {
            let questions = of_banned.clone();
            async move { ask(&questions, Question::Banned).await }
        })
        .post("/api/v1/nodes/ban", move |ban: Ban| {
            let questions = of_ban.clone();
            async move { expel(&questions, &ban.peer_id, Some(ban.reason)).await }
        })
        .post("/api/v1/nodes/unban", move |unban: Unban| {
            let questions = of_unban.clone();
            async move { expel(&questions, &unban.peer_id, None).await }
        })
        .post("/api/v1/preheat", move |preheat| {
            run_preheat(questions.clone(), preheat)
        })
}

async fn nodes(
    questions: mpsc::Sender<Question>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Nodes>, ApiError> {
    let (after, most) = read_page(page)?;
    ask(&questions, |to| Question::Nodes(after, most, to)).await.map(Json)
}

async fn swarms(
    questions: mpsc::Sender<Question>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Swarms>, ApiError> {
    let (after, most) = read_page(page)?;
    ask(&questions, |to| Question::Swarms(after, most, to)).await.map(Json)
}

async fn expel(questions: &mpsc::Sender<Question>, peer_id: &str, reason: Option<String>) -> Result<Changed, ApiError> {
    let node = identity::parse_node(peer_id)
        .ok_or_else(|| ApiError::Invalid(format!("`{peer_id}` is no peer id of a node, such as 12D3KooW...")))?;
    let outcome = ask(questions, |to| Question::Expel(node, reason, to)).await?;
    outcome
        .map(|changed| Changed { changed })
        .map_err(|failure| match failure {
            ExpelFailure::Refused(error) => ApiError::Conflict(error.to_string()),
            ExpelFailure::Forgetful(_) => ApiError::Failed(failure.to_string()),
        })
}

async fn run_preheat(questions: mpsc::Sender<Question>, preheat: Preheat) -> Result<Accepted, ApiError> {
    if preheat.blobs.len() > MAX_ENTRIES {
        let message = format!("a preheat names at most {MAX_ENTRIES} blobs; send the others in further ones");
        return Err(ApiError::Invalid(message));
    }
    let blobs: Vec<(Blob, Source)> = preheat.blobs.into_iter().map(read_blob).collect::<Result<_, _>>()?;
    let accepted = blobs.len();
    let to = match preheat.to {
        Target::Seeds => Role::Seed,
        Target::Peers => Role::Peer,
    };
    match ask(&questions, |answer| Question::Preheat(blobs, to, answer)).await? {
        Response::Refused { reason } => Err(ApiError::Unavailable(reason)),
        Response::Taken
        | Response::Registered { .. }
        | Response::Joined { .. }
        | Response::Reported { .. }
        | Response::Upstream { .. }
        | Response::Found { .. } => Ok(Accepted { accepted }),
    }
}

/// Asks the driver.
async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, ApiError> {
    let stopping = || ApiError::Unavailable("the scheduler is stopping".into());
    let (to, answer) = oneshot::channel();
    questions.send(question(to)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

fn read_page<T: FromStr<Err: std::fmt::Display>>(
    page: Result<Query<Page>, QueryRejection>,
) -> Result<(Option<T>, usize), ApiError> {
    let Query(page) = page.map_err(|error| ApiError::Invalid(format!("{error}; `after` and `limit` can be given")))?;
    let after = page.after.map(|after| after.parse()).transpose();
    let after = after.map_err(|error: T::Err| ApiError::Invalid(format!("`after` is not a page's `next`: {error}")))?;
    Ok((after, page.limit.unwrap_or(PAGE).clamp(1, PAGE)))
}

fn read_blob(blob: PreheatBlob) -> Result<(Blob, Source), ApiError> {
    let PreheatBlob {
        digest,
        size,
        registry,
        repository,
        kind,
    } = blob;
    let digest = digest
        .parse()
        .map_err(|error| ApiError::Invalid(format!("`{digest}`: {error}")))?;
    let kind = match kind {
        PreheatKind::Blob => Kind::Blob,
        PreheatKind::Manifest => Kind::Manifest,
    };
    let repository = Repository {
        registry,
        name: repository,
    };
    Ok((Blob { digest, size }, Source { repository, kind }))
}
