//! The data plane: QUIC connections between members of one cluster, and pieces over them.
