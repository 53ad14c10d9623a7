//! ModelPack artifacts: manifests, layer media types, and unpacking into a directory.
