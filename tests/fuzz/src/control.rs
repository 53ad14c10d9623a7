//! What nodes and schedulers say on the control plane.

use http::HeaderValue;
use wire::Authorization;
use wire::control::{Holding, Request, Response, Swarm};

use crate::Decoder;
use crate::exchange::{geometry, round_trip};

pub(crate) const DECODER: Decoder = Decoder {
    name: "control",
    check,
    words: &["registry.example:5000", "sha256:", "\u{18}c", "org/model"],
    // A message may have a MiB; no more is learnt from long ones, and they take their time.
    max_len: 64 << 10,
    memory: 8 << 20,
};

fn check(bytes: &[u8]) {
    match round_trip::<Request>(bytes) {
        Some(Request::Register { holdings, .. } | Request::Report { holdings, .. }) => {
            holdings.iter().for_each(holding)
        }
        Some(Request::Preheat { blobs, .. }) => blobs.iter().for_each(|(blob, _)| {
            geometry(blob);
        }),
        Some(Request::Update { swarm, .. }) => told(&swarm),
        Some(Request::Lend { authorization, .. }) => shown(&authorization),
        Some(Request::Authorised { authorization, .. }) => authorization.iter().for_each(shown),
        Some(Request::Join { .. } | Request::Upstream { .. } | Request::Lookup { .. } | Request::Expelled { .. })
        | None => {}
    }
    match round_trip::<Response>(bytes) {
        Some(Response::Joined { swarm }) => told(&swarm),
        Some(Response::Reported { swarms, .. }) => swarms.iter().for_each(|(_, swarm)| told(swarm)),
        Some(Response::Found { holding: Some(of), .. }) => holding(&of),
        Some(
            Response::Registered { .. }
            | Response::Upstream { .. }
            | Response::Found { .. }
            | Response::Taken
            | Response::Refused { .. },
        )
        | None => {}
    }
}

/// A credential is fit for a header, and names somebody.
fn shown(authorization: &Authorization) {
    let text = authorization.expose();
    assert!(HeaderValue::from_str(text).is_ok() && text.len() <= wire::MAX_AUTHORIZATION);
    assert_eq!(Authorization::from_header(text), Ok(Some(authorization.clone())));
}

fn holding(holding: &Holding) {
    geometry(&holding.blob);
}

fn told(swarm: &Swarm) {
    if let Some(size) = swarm.size {
        let digest = piece::Digest::EMPTY;
        geometry(&piece::Blob { digest, size });
    }
}
