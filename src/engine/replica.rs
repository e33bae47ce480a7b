//! Which disks keep a thing: a node may come back with another disk, and is then another replica.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::NodeName;

/// What tells a node's disk from the one it had before: drawn when an agent starts on an empty journal.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DiskId(pub u32);

/// One keeper: a node with the disk that it has now.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// The node.
    pub node: NodeName,
    /// Its disk.
    pub disk: DiskId,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:08x}", self.node, self.disk.0)
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Replica {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not a node, a '#', and eight hexadecimal digits");
        let (node, disk) = text.rsplit_once('#').ok_or_else(wrong)?;
        if node.is_empty() || disk.len() != 8 || !disk.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let disk = u32::from_str_radix(disk, 16).map_err(|_| wrong())?;
        Ok(Self { node: NodeName::from(node), disk: DiskId(disk) })
    }
}

/// Whether these are more than half of `of`.
#[must_use]
pub fn is_majority(of: &[Replica], mut has: impl FnMut(&Replica) -> bool) -> bool {
    of.iter().filter(|replica| has(replica)).count() > of.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_read_as_it_is_written() {
        let replica = Replica { node: "n1.example".into(), disk: DiskId(0xab) };
        assert_eq!(replica.to_string(), "n1.example#000000ab");
        assert_eq!(replica.to_string().parse(), Ok(replica));
        for wrong in ["", "n1", "#000000ab", "n1#ab", "n1#0000000x", "n1#+00000ab"] {
            let read: Result<Replica, String> = wrong.parse();
            assert!(read.is_err(), "{wrong}");
        }
    }

    #[test]
    fn half_is_no_majority() {
        let all: Vec<Replica> =
            (0..4).map(|i| Replica { node: format!("n{i}").into(), disk: DiskId(i) }).collect();
        assert!(!is_majority(&all, |replica| replica.disk.0 < 2));
        assert!(is_majority(&all, |replica| replica.disk.0 < 3));
        assert!(!is_majority(&[], |_| true));
    }
}
