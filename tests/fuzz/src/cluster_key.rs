//! Cluster key files.

use identity::{ClusterKeys, Direction, ParseClusterKeysError};
use piece::NodeId;

use crate::Decoder;

pub(crate) const DECODER: Decoder = Decoder {
    name: "cluster_key",
    check,
    words: &[
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "\n",
        "\r\n",
        "# ",
        "\u{a0}",
        "\u{2028}",
    ],
    max_len: 16 << 10,
    // The text again with comments, most of all on empty lines.
    memory: 1 << 20,
};

/// One or two keys, each of which makes the proof that the same file accepts; or an error that names a line that is there.
fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let keys = match ClusterKeys::parse(text) {
        Ok(keys) => keys,
        Err(ParseClusterKeysError::Empty) => return,
        Err(ParseClusterKeysError::Line { line } | ParseClusterKeysError::TooMany { line }) => {
            assert!((1..=text.lines().count()).contains(&line));
            return;
        }
    };
    let pnet: Vec<_> = keys.pnet_keys().collect();
    assert!((1..=2).contains(&pnet.len()));
    let (exporter, node) = ([1; 32], NodeId::from_bytes([2; 32]));
    let proofs = keys.prove(Direction::Dialler, &exporter, &node);
    assert_eq!(proofs.len(), pnet.len());
    assert!(
        proofs
            .iter()
            .all(|proof| keys.accepts(Direction::Dialler, &exporter, &node, &[*proof]))
    );
    assert!(!keys.accepts(Direction::Listener, &exporter, &node, &proofs));
    let with_comments = text
        .lines()
        .map(|line| format!(" {line} # a key\n"))
        .collect::<String>();
    let same = ClusterKeys::parse(&with_comments).expect("comments change nothing");
    assert_eq!(same.pnet_keys().collect::<Vec<_>>(), pnet);
}
