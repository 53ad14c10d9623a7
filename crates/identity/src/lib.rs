//! Node keys, the cluster key, what is derived from them, and the node's certificate.
