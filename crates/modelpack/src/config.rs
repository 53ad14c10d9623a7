//! The config blob of a ModelPack artifact, as far as unpacking needs it: the diffIds.

use piece::{Digest, ParseDigestError};
use serde::Deserialize;

/// What unpacking needs from the config. The rest (family, precision, licences) is for other readers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// One digest per layer, of its content before compression; empty when the config names none.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    /// Reads the JSON of a config blob, of either generation of media types.
    ///
    /// # Errors
    /// The bytes are no JSON object of that shape, or a diffId is no SHA-256 digest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let document: Document = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        let parsed = document.modelfs.diff_ids.iter().enumerate().map(|(index, text)| {
            text.parse().map_err(|reason| ConfigError::DiffId {
                index,
                text: text.chars().take(100).collect(),
                reason,
            })
        });
        Ok(Self {
            diff_ids: parsed.collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    modelfs: ModelFs,
}

#[derive(Deserialize, Default)]
struct ModelFs {
    #[serde(default, rename = "diffIds", alias = "diff_ids")]
    diff_ids: Vec<String>,
}

/// Why a config blob cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON it should be.
    #[error("the model config is not valid JSON of its media type")]
    Json(#[source] serde_json::Error),
    /// A diffId that cannot be verified.
    #[error("diffId {index} of the model config, `{text}`, cannot be verified")]
    DiffId {
        /// Which layer's.
        index: usize,
        /// Its first 100 characters.
        text: String,
        /// What is wrong with it.
        #[source]
        reason: ParseDigestError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_diff_ids_and_nothing_else() {
        let digest = Digest::of(b"layer");
        let json = format!(
            r#"{{"descriptor":{{"name":"m"}},"config":{{}},"modelfs":{{"type":"layers","diffIds":["{digest}"]}}}}"#
        );
        assert_eq!(Config::parse(json.as_bytes()).unwrap().diff_ids, [digest]);
        assert_eq!(Config::parse(b"{}").unwrap(), Config::default());
        assert!(matches!(Config::parse(b"[1"), Err(ConfigError::Json(_))));
        let bad = br#"{"modelfs":{"diffIds":["sha512:00"]}}"#;
        assert!(matches!(Config::parse(bad), Err(ConfigError::DiffId { index: 0, .. })));
    }
}
