//! One test file per kind of fault. What they share with the other tests of real processes is in `e2e`.
