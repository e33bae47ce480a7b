//! DNT, the Discovery Network Tracker: who the peers are, which are alive, how far away they are.

pub mod vivaldi;

use serde::{Deserialize, Serialize};

use vivaldi::Coordinate;

/// What an agent tells its peers about itself with every ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerState {
    /// Where it is.
    pub coordinate: Coordinate,
    /// It reaches the API server.
    pub api_reachable: bool,
    /// Its failure domain, empty if it has none.
    pub zone: String,
}

impl PeerState {
    /// Whether its numbers are numbers.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.coordinate.is_finite()
    }
}
