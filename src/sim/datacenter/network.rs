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
    /// The nodes of each site, in their order.
    members: Vec<Vec<u32>>,
    loss: f64,
}

impl Network {
    /// A network over these sites that loses each message with this probability.
    #[must_use]
    pub fn new(sites: Sites, loss: f64) -> Self {
        Self { members: sites.members(), sites, loss }
    }

    /// Where the nodes are.
    #[must_use]
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// The node that comes after this one on the spiral around another: from there on by index through its site and back
    /// to it, then site by site, the nearer first. After the last it is the centre again.
    #[must_use]
    pub fn after_on_spiral(&self, centre: u32, node: u32) -> u32 {
        let [home, site] = [centre, node].map(|node| self.sites.of_node[node as usize]);
        let entrance = |site: u8| {
            let members = &self.members[usize::from(site)];
            members.partition_point(|member| *member < centre) % members.len()
        };
        let members = &self.members[usize::from(site)];
        let next = (members.partition_point(|member| *member < node) + 1) % members.len();
        if next != entrance(site) {
            return members[next];
        }
        let rtt_us = &self.sites.remote_rtt_us[usize::from(home)];
        let distance = |site: u8| (rtt_us[usize::from(site)], site);
        let inhabited = (0..self.members.len() as u8)
            .filter(|site| !self.members[usize::from(*site)].is_empty());
        let farther = inhabited.filter(|other| distance(*other) > distance(site));
        match farther.min_by_key(|other| distance(*other)) {
            Some(next) => self.members[usize::from(next)][entrance(next)],
            None => centre,
        }
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

    use super::super::super::workload::locality;
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

    #[test]
    fn a_spiral_goes_through_all_nodes_the_nearest_sites_first() {
        let sites = locality::workload(12, 1).sites;
        let network = Network::new(sites, 0.0);
        let around = |centre| {
            let mut spiral = vec![centre];
            loop {
                let next = network.after_on_spiral(centre, spiral[spiral.len() - 1]);
                if next == centre {
                    return spiral;
                }
                spiral.push(next);
            }
        };
        // Luxembourg, then Nancy, Rennes, Grenoble.
        assert_eq!(around(4), [4, 5, 3, 6, 7, 8, 9, 10, 11, 0, 1, 2]);
        // Rennes, then Nancy, Luxembourg, Grenoble.
        assert_eq!(around(11), [11, 9, 10, 6, 7, 8, 3, 4, 5, 0, 1, 2]);
    }
}
