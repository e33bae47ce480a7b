//! How long messages take between nodes, and which are lost.
//!
//! Half a round trip each way, by the sites of the two ends. Migrations do not use this: what they carry goes
//! over `links.rs`.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::super::workload::Sites;
use super::scheduler::Actor;

/// The network between a workload's nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    sites: Sites,
    loss: f64,
}

impl Network {
    /// A network over these sites that loses each message with this probability.
    #[must_use]
    pub fn new(sites: Sites, loss: f64) -> Self {
        Self { sites, loss }
    }

    /// The site of an actor. Services live in the first.
    #[must_use]
    pub fn site(&self, actor: Actor) -> u8 {
        match actor {
            Actor::Node(node) => self.sites.of_node[node as usize],
            Actor::Service(_) => self.sites.of_node[0],
        }
    }

    /// How long a message takes, or nothing if it is lost.
    pub fn carry(&self, from: Actor, to: Actor, rng: &mut ChaCha8Rng) -> Option<Duration> {
        if self.loss > 0.0 && rng.random_bool(self.loss) {
            return None;
        }
        let (from, to) = (usize::from(self.site(from)), usize::from(self.site(to)));
        let (shortest, longest) = self.sites.local_rtt_us;
        let rtt_us = rng.random_range(shortest..=longest).max(self.sites.remote_rtt_us[from][to]);
        Some(Duration::from_micros(rtt_us / 2))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_site_is_near_another_is_far_and_loss_has_an_effect() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let remote_rtt_us = vec![vec![0, 16_550], vec![16_550, 0]];
        let sites = Sites { of_node: vec![0, 0, 1], local_rtt_us: (90, 270), remote_rtt_us };
        let network = Network::new(sites.clone(), 0.0);
        let [first, near, far] = [0, 1, 2].map(Actor::Node);
        let took = network.carry(first, near, &mut rng).expect("nothing is lost");
        assert!((45..=135).contains(&took.as_micros()), "{took:?}");
        assert_eq!(network.carry(first, far, &mut rng), Some(Duration::from_micros(8_275)));
        let lossy = Network::new(sites, 0.5);
        let lost = (0..100).filter(|_| lossy.carry(first, near, &mut rng).is_none()).count();
        assert!((30..70).contains(&lost), "{lost}");
    }
}
