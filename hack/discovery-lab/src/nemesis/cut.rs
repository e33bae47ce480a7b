//! Cuts: the bridge of the lab drops what a node sends or gets, and counts it.
//!
//! A table of its own for each cut, in the host's `bridge` family, by the name of the node's cable: so a cut outlives the
//! node's power, and nothing of it is inside the node.

use std::time::Duration;

use super::{Fault, Fired, Way};
use crate::{
    error::{LabError, Result},
    lab::Lab,
    layout::{Layout, node_index},
    process::{command, run, wait_for},
};

/// Among a cut's peers: the host, with the API server and the guests' images.
const API: &str = "api";
/// A cut that has dropped nothing by then cuts nothing: agents speak every second.
const DROPS_WITHIN: Duration = Duration::from_secs(20);

impl Lab {
    pub(super) fn fire_cut(&self, node: &str, way: Option<Way>, from: &[String]) -> Result<Fired> {
        let index = node_index(node)?;
        let table = self.layout.cut_table(index);
        if dropped(&table).is_some() {
            return Ok(Fired::already(format!("{node} is cut already")));
        }
        let rules = rules(&self.layout, index, way, from)?;
        run(&mut command("nft", [rules]))?;
        let Some(0..) = dropped(&table) else {
            return Err(LabError::NotFired {
                fault: format!("cut of {node}"),
                detail: format!("nft has no table {table}"),
            });
        };
        Ok(Fired::new("its cable is cut; what is dropped is counted until it is healed"))
    }

    /// Waits until a cut has dropped something; nothing else needs a proof that only comes with time.
    pub(super) fn prove(&self, fault: &Fault) -> Result<()> {
        let Fault::Cut { node, .. } = fault else { return Ok(()) };
        let table = self.layout.cut_table(node_index(node)?);
        let drops = || dropped(&table).is_some_and(|packets| packets > 0);
        wait_for("a packet to be dropped", DROPS_WITHIN, "", drops).map_err(|_| {
            LabError::NotFired { fault: fault.to_string(), detail: "it dropped no packet".into() }
        })
    }

    pub(super) fn undo_cut(&self, node: &str) -> Result<String> {
        let table = self.layout.cut_table(node_index(node)?);
        let Some(packets) = dropped(&table) else {
            return Ok(format!("{node} is not cut"));
        };
        run(&mut command("nft", ["delete", "table", "bridge", &table]))?;
        Ok(format!("{node} is connected again; {packets} packets were dropped"))
    }
}

/// Removes all cuts of a lab.
pub fn remove_all(layout: &Layout) -> Result<()> {
    for index in 1..=crate::layout::MAX_NODES {
        let table = layout.cut_table(index);
        if dropped(&table).is_some() {
            run(&mut command("nft", ["delete", "table", "bridge", &table]))?;
        }
    }
    Ok(())
}

fn rules(layout: &Layout, index: u8, way: Option<Way>, from: &[String]) -> Result<String> {
    let addresses =
        from.iter()
            .map(|peer| {
                if peer == API {
                    Ok(layout.host_ip())
                } else {
                    Ok(layout.node_ip(node_index(peer)?))
                }
            })
            .collect::<Result<Vec<String>>>()?;
    let cable = layout.cable(index);
    let with = |direction: &str| match addresses.as_slice() {
        [] => String::new(),
        some => format!("ip {direction} {{ {} }} ", some.join(", ")),
    };
    let sends = format!("iifname \"{cable}\" {}counter drop;", with("daddr"));
    let gets = format!("oifname \"{cable}\" {}counter drop;", with("saddr"));
    let mut chains = String::new();
    if way != Some(Way::In) {
        chains +=
            &format!("chain sends {{ type filter hook prerouting priority -300; {sends} }}\n");
    }
    if way != Some(Way::Out) {
        chains += &format!("chain gets {{ type filter hook postrouting priority 300; {gets} }}\n");
    }
    Ok(format!("table bridge {} {{\n{chains}}}", layout.cut_table(index)))
}

// None when there is no such table.
fn dropped(table: &str) -> Option<u64> {
    run(&mut command("nft", ["list", "table", "bridge", table])).ok().map(|text| packets(&text))
}

fn packets(listed: &str) -> u64 {
    let mut words = listed.split_whitespace();
    let mut sum = 0;
    while let Some(word) = words.next() {
        if word == "packets" {
            sum += words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { dir: "/lab".into(), cache: "/cache".into(), net: "10.76".into() }
    }

    #[test]
    fn a_full_cut_drops_everything_both_ways() {
        let text = rules(&layout(), 2, None, &[]).expect("n2 is a node");
        assert!(text.starts_with("table bridge dlab76-cut-n2 {"), "{text}");
        assert!(text.contains("iifname \"dlab76-n2\" counter drop"), "{text}");
        assert!(text.contains("oifname \"dlab76-n2\" counter drop"), "{text}");
    }

    #[test]
    fn one_way_is_one_chain() {
        let gets = rules(&layout(), 2, Some(Way::In), &[]).expect("n2 is a node");
        assert!(!gets.contains("chain sends") && gets.contains("chain gets"), "{gets}");
        let sends = rules(&layout(), 2, Some(Way::Out), &[]).expect("n2 is a node");
        assert!(sends.contains("chain sends") && !sends.contains("chain gets"), "{sends}");
    }

    #[test]
    fn some_peers_are_told_by_their_addresses() {
        let from = ["n3".to_owned(), API.to_owned()];
        let text = rules(&layout(), 2, None, &from).expect("both are known");
        assert!(text.contains("ip daddr { 10.76.0.13, 10.76.0.1 } counter drop"), "{text}");
        assert!(text.contains("ip saddr { 10.76.0.13, 10.76.0.1 } counter drop"), "{text}");
        assert!(rules(&layout(), 2, None, &["elsewhere".to_owned()]).is_err());
    }

    #[test]
    fn dropped_packets_are_summed() {
        let listed = "iifname \"a\" counter packets 12 bytes 900 drop\n oifname \"a\" counter packets 30 bytes 1 drop";
        assert_eq!(packets(listed), 42);
    }
}
