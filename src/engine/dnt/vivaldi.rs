//! Network coordinates: Vivaldi with height (Dabek, Cox, Kaashoek, Morris: "Vivaldi: A Decentralized
//! Network Coordinate System", SIGCOMM 2004). The distance between two coordinates predicts the round
//! trip between their nodes, so that "nearest" needs no measurement.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How fast the error estimate follows (the paper's c_e).
const ERROR_GAIN: f64 = 0.25;
/// How far one sample may move a coordinate (the paper's c_c).
const MOVE_GAIN: f64 = 0.25;
/// Round trips above this are a stall, not a distance; milliseconds.
const MAX_ROUND_TRIP_MS: f64 = 10_000.0;
/// A coordinate further away than this is nonsense; milliseconds.
const MAX_DISTANCE_MS: f64 = 1_000_000.0;
/// Heights stay positive so that a sample always has a direction; milliseconds.
const MIN_HEIGHT_MS: f64 = 0.01;

/// A place in the coordinate space; milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coordinate {
    /// Euclidean part.
    pub position: [f64; 3],
    /// What every path to this node has in common (its access link).
    pub height: f64,
    /// Relative error of predictions, 0 (sure) to 1 (knows nothing).
    pub error: f64,
}

impl Default for Coordinate {
    fn default() -> Self {
        Self { position: [0.0; 3], height: MIN_HEIGHT_MS, error: 1.0 }
    }
}

impl Coordinate {
    /// Whether every number is one: what a peer sends may be anything.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.position.iter().chain([&self.height, &self.error]).all(|part| part.is_finite())
    }

    /// Predicted round trip, milliseconds.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        norm(difference(&self.position, &other.position)) + self.height + other.height
    }

    /// Moves this coordinate by one measured round trip to a peer that says it is at `peer`.
    ///
    /// `direction` (unit interval each) breaks the tie of two nodes at one place.
    pub fn observe(&mut self, peer: &Self, round_trip: Duration, direction: [f64; 3]) {
        let measured = (round_trip.as_secs_f64() * 1000.0).clamp(0.001, MAX_ROUND_TRIP_MS);
        let predicted = self.distance(peer);
        if !predicted.is_finite() || predicted > MAX_DISTANCE_MS {
            // No network is that wide: the peer's coordinate is nonsense.
            return;
        }
        let weight = if self.error + peer.error > 0.0 {
            self.error / (self.error + peer.error)
        } else {
            0.5
        };
        let sample_error = (predicted - measured).abs() / measured;
        let gain = ERROR_GAIN * weight;
        self.error = (sample_error * gain + self.error * (1.0 - gain)).clamp(0.0, 1.0);

        let force = MOVE_GAIN * weight * (measured - predicted);
        let mut away = difference(&self.position, &peer.position);
        let mut length = norm(away);
        if length < 1e-6 {
            away = direction.map(|part| part - 0.5);
            length = norm(away).max(1e-6);
        }
        for (part, toward) in self.position.iter_mut().zip(away) {
            *part += toward / length * force;
        }
        let heights = self.height + peer.height;
        self.height = (self.height + force * self.height / heights.max(MIN_HEIGHT_MS))
            .clamp(MIN_HEIGHT_MS, MAX_ROUND_TRIP_MS);
    }
}

fn difference(a: &[f64; 3], b: &[f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn norm(v: [f64; 3]) -> f64 {
    v.iter().map(|part| part * part).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_find_their_distances() {
        // a and b are 2 ms apart, c is 30 ms from both.
        let trips = [[0.0, 2.0, 30.0], [2.0, 0.0, 30.0], [30.0, 30.0, 0.0]];
        let mut nodes = [Coordinate::default(); 3];
        for round in 0..600_usize {
            let (a, b) = (round % 3, (round / 3 + round + 1) % 3);
            if a != b {
                let peer = nodes[b];
                let direction = [0.1 * (a as f64 + 1.0), 0.9, 0.3];
                nodes[a].observe(&peer, Duration::from_secs_f64(trips[a][b] / 1000.0), direction);
            }
        }
        assert!((nodes[0].distance(&nodes[1]) - 2.0).abs() < 1.0, "{nodes:?}");
        assert!((nodes[0].distance(&nodes[2]) - 30.0).abs() < 4.0, "{nodes:?}");
        assert!(nodes.iter().all(|node| node.error < 0.3), "{nodes:?}");
    }

    #[test]
    fn no_sample_makes_a_coordinate_infinite() {
        let mut node = Coordinate::default();
        let far = Coordinate { position: [1e300; 3], height: 1e300, error: 0.0 };
        for _ in 0..100 {
            node.observe(&far, Duration::from_secs(3600), [0.5; 3]);
        }
        assert!(node.height.is_finite());
    }
}
