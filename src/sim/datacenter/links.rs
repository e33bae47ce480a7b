//! How migrations share the network: each node has one link of 1 Gb/s, and a migration uses those of its
//! source and its target.
//!
//! Max-min fairness by progressive filling (D. Bertsekas, R. Gallager: *Data Networks*, 6.5.2): the link that
//! gives its flows the least is filled first, its flows get that, and so on with what is left. Only what a
//! change can reach, flow by flow, is computed anew: the cost does not grow with the number of nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::migration::LINK_MIB_S;

/// Every node's link, and the flows on it. A flow is named by its VM.
#[derive(Debug)]
pub struct Links {
    at_node: Vec<Vec<u32>>,
    ends: BTreeMap<u32, (u32, u32)>,
}

/// A flow and its rate from now on, MiB/s.
pub type Rate = (u32, f64);

impl Links {
    /// Links of this many nodes, all idle.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { at_node: vec![Vec::new(); nodes], ends: BTreeMap::new() }
    }

    /// A flow begins. Returns the rates of all that it may change, itself included.
    pub fn open(&mut self, vm: u32, from: u32, to: u32) -> Vec<Rate> {
        self.ends.insert(vm, (from, to));
        self.at_node[from as usize].push(vm);
        self.at_node[to as usize].push(vm);
        self.rates([from, to])
    }

    /// A flow ends. Returns the rates of all that it may change.
    pub fn close(&mut self, vm: u32) -> Vec<Rate> {
        let Some((from, to)) = self.ends.remove(&vm) else { return Vec::new() };
        for node in [from, to] {
            self.at_node[node as usize].retain(|flow| *flow != vm);
        }
        self.rates([from, to])
    }

    /// Rates of every flow that shares a link with these nodes, directly or through others.
    fn rates(&self, nodes: [u32; 2]) -> Vec<Rate> {
        let mut flows: BTreeSet<u32> = BTreeSet::new();
        let mut links: BTreeMap<u32, Filling> = BTreeMap::new();
        let mut reached: Vec<u32> = nodes.to_vec();
        while let Some(node) = reached.pop() {
            if links.contains_key(&node) {
                continue;
            }
            let here = &self.at_node[node as usize];
            links.insert(node, Filling { free: LINK_MIB_S, flows: here.len() });
            for flow in here {
                if flows.insert(*flow) {
                    let (from, to) = self.ends[flow];
                    reached.extend([from, to]);
                }
            }
        }
        self.fill(flows, links)
    }

    fn fill(&self, mut flows: BTreeSet<u32>, mut links: BTreeMap<u32, Filling>) -> Vec<Rate> {
        let mut rates = Vec::with_capacity(flows.len());
        while !flows.is_empty() {
            let busy = links.iter().filter(|(_, link)| link.flows > 0);
            let tightest = busy.min_by(|(_, a), (_, b)| a.share().total_cmp(&b.share()));
            let Some((&node, link)) = tightest else { break };
            let share = link.share();
            for flow in &self.at_node[node as usize] {
                if !flows.remove(flow) {
                    continue;
                }
                rates.push((*flow, share));
                let (from, to) = self.ends[flow];
                for end in [from, to] {
                    if let Some(link) = links.get_mut(&end) {
                        link.free -= share;
                        link.flows -= 1;
                    }
                }
            }
        }
        rates
    }
}

/// A link while rates are found: what is not yet given, and to how many flows it is still to be given.
#[derive(Debug)]
struct Filling {
    free: f64,
    flows: usize,
}

impl Filling {
    fn share(&self) -> f64 {
        // Rounding may leave a hair less than nothing; no flow may stand still for it.
        (self.free / self.flows as f64).max(LINK_MIB_S * 1e-6)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn sorted(mut rates: Vec<Rate>) -> Vec<Rate> {
        rates.sort_by_key(|(flow, _)| *flow);
        rates
    }

    #[test]
    fn a_flow_alone_has_the_whole_link_and_two_from_one_node_half_each() {
        let mut links = Links::new(4);
        assert_eq!(links.open(7, 0, 1), [(7, LINK_MIB_S)]);
        let half = LINK_MIB_S / 2.0;
        assert_eq!(sorted(links.open(8, 0, 2)), [(7, half), (8, half)]);
        assert_eq!(links.close(7), [(8, LINK_MIB_S)]);
        assert_eq!(links.close(8), []);
    }

    #[test]
    fn what_a_crowded_link_leaves_goes_to_those_on_the_other() {
        let mut links = Links::new(5);
        // Three flows out of node 0 have a third each; the one that shares a target with one of them
        // has the two thirds that this leaves.
        links.open(1, 0, 1);
        links.open(2, 0, 2);
        links.open(3, 0, 3);
        let rates = sorted(links.open(4, 4, 3));
        let third = LINK_MIB_S / 3.0;
        for (rate, wanted) in rates.iter().zip([third, third, third, 2.0 * third]) {
            assert!((rate.1 - wanted).abs() < 1e-9, "{rates:?}");
        }
    }

    #[test]
    fn what_shares_no_link_is_not_touched() {
        let mut links = Links::new(4);
        links.open(1, 0, 1);
        assert_eq!(links.open(2, 2, 3), [(2, LINK_MIB_S)]);
    }

    /// What max-min fairness is: no link carries too much, and each flow has a full link on which none has more. It is
    /// checked on rates that are kept from change to change, as the migrations keep them.
    #[test]
    fn after_any_change_rates_are_max_min_fair() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut links = Links::new(9);
        let mut kept: BTreeMap<u32, f64> = BTreeMap::new();
        for flow in 0..600 {
            let changed = if kept.len() > 12 || (!kept.is_empty() && random.random_bool(0.4)) {
                let which = random.random_range(0..kept.len());
                let (gone, _) = kept.iter().nth(which).map(|(f, r)| (*f, *r)).expect("one of them");
                kept.remove(&gone);
                links.close(gone)
            } else {
                let from = random.random_range(0..9);
                links.open(flow, from, (from + random.random_range(1..9)) % 9)
            };
            kept.extend(changed);
            assert_eq!(kept.len(), links.ends.len());
            let of = |node: u32| links.at_node[node as usize].iter().map(|flow| kept[flow]);
            let full = |node: &u32| of(*node).sum::<f64>() > LINK_MIB_S - 1e-6;
            assert!((0..9).all(|node| of(node).sum::<f64>() < LINK_MIB_S + 1e-6));
            for (flow, (from, to)) in &links.ends {
                let mut tight = [*from, *to].into_iter().filter(full);
                let most = |node| of(node).all(|rate| rate <= kept[flow] + 1e-6);
                assert!(tight.any(most), "{flow} could have more: {kept:?}");
            }
        }
    }
}
