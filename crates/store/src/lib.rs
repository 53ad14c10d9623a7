//! Content-addressed blobs on disk: sparse files, bitmaps and midstates beside them, pins and quota.
