//! Rendezvous hashing (Thaler, Ravishankar: "A Name-Based Mapping Scheme for Rendezvous", 1996): every
//! agent that knows the same members makes the same choice, with nothing said, and a member's going
//! moves only what it had.

use super::super::id::NodeName;

/// FNV-1a, 64 bit, then a finalizer that spreads the last bytes: stable over versions and machines,
/// which the standard library's hashers do not promise.
fn score(key: &str, node: &NodeName) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = key.bytes().chain([0]).chain(node.as_str().bytes());
    let mut hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The nodes in the order in which they are responsible for `key`.
#[must_use]
pub fn ranked<'a>(key: &str, nodes: impl Iterator<Item = &'a NodeName>) -> Vec<NodeName> {
    let mut scored: Vec<(u64, &NodeName)> = nodes.map(|node| (score(key, node), node)).collect();
    scored.sort_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, node)| node.clone()).collect()
}

/// The first `count` of the ranking, in different zones as far as there are zones.
#[must_use]
pub fn spread<'a>(
    key: &str,
    nodes: impl Iterator<Item = (&'a NodeName, &'a str)>,
    count: usize,
) -> Vec<NodeName> {
    let zones: std::collections::BTreeMap<&NodeName, &str> = nodes.collect();
    let order = ranked(key, zones.keys().copied());
    let mut chosen: Vec<NodeName> = Vec::new();
    let mut used = std::collections::BTreeSet::new();
    for node in &order {
        let zone = zones.get(node).copied().unwrap_or_default();
        if chosen.len() < count && (zone.is_empty() || used.insert(zone)) {
            chosen.push(node.clone());
        }
    }
    for node in order {
        if chosen.len() < count && !chosen.contains(&node) {
            chosen.push(node);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeName> {
        (0..count).map(|i| NodeName::from(format!("n{i}"))).collect()
    }

    #[test]
    fn losing_a_node_moves_only_what_it_had() {
        let all = nodes(9);
        let fewer: Vec<_> = all.iter().filter(|n| n.as_str() != "n4").cloned().collect();
        let mut moved = 0;
        for key in (0..900).map(|i| format!("ve-{i}")) {
            let before = ranked(&key, all.iter());
            let after = ranked(&key, fewer.iter());
            if before[0].as_str() == "n4" {
                moved += 1;
                assert_eq!(after[0], before[1]);
            } else {
                assert_eq!(after[0], before[0]);
            }
        }
        assert!((60..=140).contains(&moved), "{moved} of 900 keys were on one node of nine");
    }

    #[test]
    fn a_replica_set_spans_zones_while_there_are_zones() {
        let names = nodes(6);
        let zoned = names.iter().zip(["a", "a", "a", "a", "b", "c"]);
        let set = spread("ve", zoned, 3);
        let in_a = set.iter().filter(|n| ["n0", "n1", "n2", "n3"].contains(&n.as_str())).count();
        assert_eq!((set.len(), in_a), (3, 1), "{set:?}");
        let same_zone = names.iter().take(4).map(|name| (name, "a"));
        assert_eq!(spread("ve", same_zone, 3).len(), 3);
    }
}
