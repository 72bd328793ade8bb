//! Tests of the host as a whole.
