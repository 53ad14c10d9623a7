//! A registry in memory: serves generated ModelPack artifacts and keeps an access log; for the demo and for tests.
