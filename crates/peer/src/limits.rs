//! What holds a node's transfers back, as an operator sees and changes it while the node runs.

use std::sync::Arc;

use admin::ApiError;
use serde::{Deserialize, Serialize};

use crate::parts::Parts;

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Limits {
    upload: u64,
    download: u64,
    registry: u64,
    upload_slots: usize,
    requests_per_neighbour: usize,
}

/// What is to be changed.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Change {
    upload: Option<u64>,
    download: Option<u64>,
    registry: Option<u64>,
    upload_slots: Option<usize>,
    requests_per_neighbour: Option<usize>,
}

/// Changes what is named, and gives all of it.
pub(crate) async fn change(parts: Arc<Parts>, change: Change) -> Result<Limits, ApiError> {
    for (name, value) in [
        ("upload_slots", change.upload_slots),
        ("requests_per_neighbour", change.requests_per_neighbour),
    ] {
        if value == Some(0) {
            return Err(ApiError::Invalid(format!(
                "{name} is 0, which would stop all transfers"
            )));
        }
    }
    let adjusted = parts.engine.adjust(move |config| {
        config.upload_slots = change.upload_slots.unwrap_or(config.upload_slots);
        config.in_flight_per_neighbour = change.requests_per_neighbour.unwrap_or(config.in_flight_per_neighbour);
    });
    let Some(config) = adjusted.await else {
        return Err(ApiError::Unavailable("the node is stopping".to_owned()));
    };
    let mut rates = parts.pacing.rates();
    rates.upload = change.upload.unwrap_or(rates.upload);
    rates.download = change.download.unwrap_or(rates.download);
    rates.registry = change.registry.unwrap_or(rates.registry);
    parts.pacing.set(rates);
    Ok(Limits {
        upload: rates.upload,
        download: rates.download,
        registry: rates.registry,
        upload_slots: config.upload_slots,
        requests_per_neighbour: config.in_flight_per_neighbour,
    })
}
