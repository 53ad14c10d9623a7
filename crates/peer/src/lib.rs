//! The role every node has: fetch, verify, store, serve.
