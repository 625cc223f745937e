//! `bench/peers/run`: its own tests pass, with a run of the peer that is the cheapest to install.

use crate::english::passes;

#[test]
fn the_comparison_with_peers_measures_one_and_cleans_up_after_itself() {
    passes(&["-m", "unittest", "discover", "-s", "scripts/tests", "-p", "test_bench_peers.py"]);
}
