//! Bucket bounds, in seconds or bytes, chosen for what they must be able to answer.

/// HTTP and gRPC requests: from half a millisecond to a long poll of 30 s.
pub const REQUEST_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Runs of tools: from a millisecond to twenty minutes.
pub const RUN_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0];

/// End to end, with the objective's own bounds (600 s and 1200 s) among them.
pub const END_TO_END_SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 450.0, 600.0, 900.0, 1200.0];

/// Internal steps such as a commit or a publish: from 0.1 ms to 10 s.
pub const STEP_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Payloads: from 256 bytes to 64 MiB in steps of four.
pub const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];

/// Counts of things taken at once, such as rows in a commit.
pub const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
