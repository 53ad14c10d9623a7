//! Nothing here: the tests in `tests/` read the workspace itself.
