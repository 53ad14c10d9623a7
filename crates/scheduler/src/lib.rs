//! The role that knows who has what and who reads the registry.
