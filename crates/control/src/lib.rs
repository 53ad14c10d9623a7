//! The control plane: the only driver of libp2p.
