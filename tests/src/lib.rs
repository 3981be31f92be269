//! Black-box tests of the built `mos` binary against real peers.
