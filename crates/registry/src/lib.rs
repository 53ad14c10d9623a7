//! Reads from upstream registries: authentication, redirects, ranges and retries.
