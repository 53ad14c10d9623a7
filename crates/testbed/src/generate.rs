//! Models made of nothing but a seed: safetensors with real headers, and the small files around them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::artifact::{Artifact, File, in_parallel, media_type};
use crate::content::Content;

/// Weight files unless told otherwise.
const SHARDS: u32 = 4;
/// Transformer blocks in each weight file.
const BLOCKS: u64 = 4;
/// The matrices of a block; together with the last tensors, a dozen names per file.
const MATRICES: [&str; 3] = ["self_attn.q_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"];
/// Columns of every matrix, and bytes of a bfloat16.
const COLUMNS: u64 = 1024;
const BF16: u64 = 2;
/// A header is padded to a multiple of this, which leaves room for offsets of any length.
const HEADER_STEP: u64 = 512;
/// Weight files are at least this large: their header, and some tensors.
const MIN_SHARD: u64 = 64 << 10;
/// 2026-01-01, so that the same seed gives the same digests on any day.
const MTIME: u64 = 1_767_225_600;

impl Artifact {
    /// A model of `size` bytes in four weight files and a dozen small ones, in sub-directories too: always the same for
    /// the same `seed`. Computes all of it once, for the digests (one to three seconds per GiB on a core), and holds only the
    /// small files. Sizes below half a MiB are rounded up.
    pub fn generate(seed: u64, size: u64) -> Self {
        Self::generate_sharded(seed, size, SHARDS)
    }

    /// [`Artifact::generate`] with this many weight files.
    pub fn generate_sharded(seed: u64, size: u64, shards: u32) -> Self {
        let shards = u64::from(shards.max(1));
        let small: Vec<_> = small_files(seed, shards).into_iter().map(small_file).collect();
        let weights = size.saturating_sub(small.iter().map(|file| file.content.size()).sum());
        let planned: Vec<_> = (0..shards)
            .map(|shard| {
                let remainder = if shard + 1 == shards { weights % shards } else { 0 };
                (shard, (weights / shards + remainder).max(MIN_SHARD))
            })
            .collect();
        let mut files = in_parallel(&planned, |&(shard, size)| weight_file(seed, shard, shards, size));
        files.extend(small);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self::from_files(&format!("generated-{seed}"), files)
    }
}

fn shard_name(shard: u64, shards: u64) -> String {
    format!("model-{:05}-of-{shards:05}.safetensors", shard + 1)
}

fn weight_file(seed: u64, shard: u64, shards: u64, size: u64) -> File {
    let path = shard_name(shard, shards);
    let content = Content::generated(safetensors_head(shard, size), size, seed, shard);
    File {
        media_type: media_type(&path).to_owned(),
        path,
        mode: 0o644,
        mtime: MTIME,
        content,
    }
}

/// A safetensors header for a file of `size` bytes: its length as a little-endian u64, then JSON padded with spaces.
fn safetensors_head(shard: u64, size: u64) -> Vec<u8> {
    let mut length = HEADER_STEP;
    loop {
        let text = tensors(shard, size - 8 - length).to_string();
        if let Some(padding) = usize::try_from(length)
            .expect("a header is small")
            .checked_sub(text.len())
        {
            let mut head = length.to_le_bytes().to_vec();
            head.extend_from_slice(text.as_bytes());
            head.resize(head.len() + padding, b' ');
            return head;
        }
        length += HEADER_STEP;
    }
}

/// The tensors that fill `data` bytes without a hole, as the format demands.
fn tensors(shard: u64, data: u64) -> Value {
    let names = tensor_names(shard);
    let matrices = names.len() as u64 - 2;
    let rows = data / (matrices * COLUMNS * BF16);
    let rest = data - rows * matrices * COLUMNS * BF16;
    let mut tensors = Map::new();
    tensors.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut at = 0;
    for (i, name) in names.into_iter().enumerate() {
        let (dtype, shape, bytes) = match i as u64 {
            i if i < matrices => ("BF16", json!([rows, COLUMNS]), rows * COLUMNS * BF16),
            i if i == matrices => ("BF16", json!([rest / BF16]), rest / BF16 * BF16),
            _ => ("U8", json!([rest % BF16]), rest % BF16),
        };
        tensors.insert(
            name,
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes] }),
        );
        at += bytes;
    }
    Value::Object(tensors)
}

fn tensor_names(shard: u64) -> Vec<String> {
    let blocks = (0..BLOCKS).map(|block| shard * BLOCKS + block);
    let matrices = blocks.flat_map(|block| MATRICES.map(|matrix| format!("model.layers.{block}.{matrix}")));
    matrices
        .chain([format!("model.norm.{shard}.weight"), format!("model.mask.{shard}")])
        .collect()
}

fn small_file((path, text): (&str, String)) -> File {
    let executable = path.ends_with(".py") && !text.is_empty();
    File {
        path: path.to_owned(),
        media_type: media_type(path).to_owned(),
        mode: if executable { 0o755 } else { 0o644 },
        mtime: MTIME,
        content: Content::bytes(text),
    }
}

fn small_files(seed: u64, shards: u64) -> Vec<(&'static str, String)> {
    let config = json!({
        "architectures": ["PackswarmForCausalLM"],
        "model_type": "packswarm",
        "hidden_size": COLUMNS,
        "num_hidden_layers": BLOCKS * shards,
        "torch_dtype": "bfloat16",
        "seed": seed
    });
    let weight_map: Map<_, _> = (0..shards)
        .flat_map(|shard| {
            tensor_names(shard)
                .into_iter()
                .map(move |name| (name, shard_name(shard, shards).into()))
        })
        .collect();
    let vocabulary: Map<_, _> = (0..4096).map(|token| (format!("token{token}"), token.into())).collect();
    let prompts = (0..64).fold(String::new(), |mut text, i| {
        writeln!(
            text,
            "{}",
            json!({ "prompt": format!("Question {i} of model {seed}?") })
        )
        .expect("writing to a String");
        text
    });
    let pretty = |value: Value| format!("{value:#}\n");
    vec![
        (
            "README.md",
            format!("# A generated model\n\nSeed {seed}. Its weights are random, its answers would be too.\n"),
        ),
        ("LICENSE", "Apache-2.0\n".to_owned()),
        ("config.json", pretty(config)),
        (
            "generation_config.json",
            pretty(json!({ "temperature": 0.6, "top_p": 0.95 })),
        ),
        (
            "model.safetensors.index.json",
            pretty(json!({ "metadata": {}, "weight_map": weight_map })),
        ),
        (
            "tokenizer/tokenizer.json",
            pretty(json!({ "model": { "type": "BPE", "vocab": vocabulary } })),
        ),
        (
            "tokenizer/tokenizer_config.json",
            pretty(json!({ "model_max_length": 32_768 })),
        ),
        ("inference/__init__.py", String::new()),
        (
            "inference/generate.py",
            "#!/usr/bin/env python3\nprint('tokens')\n".to_owned(),
        ),
        ("inference/configs/default.yaml", format!("seed: {seed}\nbatch: 8\n")),
        ("samples/prompts.jsonl", prompts),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_size_is_as_asked_and_the_seed_decides_all() {
        let size = 5_000_001;
        let artifact = Artifact::generate(1, size);
        assert_eq!(artifact.size(), size);
        assert_eq!(artifact.digest(), Artifact::generate(1, size).digest());
        let other = Artifact::generate(2, size);
        assert_ne!(artifact.digest(), other.digest());
        let types: BTreeSet<_> = artifact.files().iter().map(|file| file.media_type.as_str()).collect();
        assert_eq!(types.len(), 5, "every kind of layer");
        assert!(artifact.files().iter().any(|file| file.path.contains('/')));
        assert_eq!(
            Artifact::generate_sharded(1, size, 1).files().len() + 3,
            artifact.files().len()
        );
        assert!(Artifact::generate(1, 0).size() < 1 << 19);
    }

    #[test]
    fn weights_are_safetensors() {
        for size in [MIN_SHARD, 1_000_003, 6 << 30] {
            let head = safetensors_head(3, size);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap());
            assert_eq!((head.len() as u64, length % 8), (8 + length, 0));
            let tensors: Map<String, Value> = serde_json::from_slice(&head[8..]).unwrap();
            let mut spans: Vec<_> = tensors
                .iter()
                .filter(|(name, _)| *name != "__metadata__")
                .map(|(_, tensor)| {
                    let elements: u64 = tensor["shape"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|n| n.as_u64().unwrap())
                        .product();
                    let width = if tensor["dtype"] == "BF16" { 2 } else { 1 };
                    let [from, to] = [0, 1].map(|i| tensor["data_offsets"][i].as_u64().unwrap());
                    assert_eq!(to - from, elements * width);
                    (from, to)
                })
                .collect();
            spans.sort_unstable();
            assert!(spans.windows(2).all(|pair| pair[0].1 == pair[1].0), "no holes");
            assert_eq!((spans[0].0, spans.last().unwrap().1), (0, size - 8 - length));
        }
    }
}
