//! The OCI distribution API that clients on this node pull from.
