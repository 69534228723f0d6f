//! Simulation: servers, clients, peers and a bad network under virtual time, from one seed.

mod regressions;
mod rig;
mod stun;
