//! At least so much must be moved off a node: the cheapest of its VMs that free what is wanted.

use crate::engine::spec::Resources;

/// More VMs than these are judged by a bound that is quick.
const EXACT: usize = 12;
/// And so is a choice that takes more tries than these.
const TRIES: u32 = 400;

/// A VM that may leave.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// What it frees.
    pub size: Resources,
    /// What its migration costs.
    pub cost: u64,
}

/// The least cost of items that free `wanted` together, or less where that is hard to tell; `None` if all together do not.
pub fn cover(items: &mut Vec<Item>, wanted: Resources) -> Option<u64> {
    if wanted == Resources::default() {
        return Some(0);
    }
    let all = items.iter().fold(Resources::default(), |sum, item| sum.plus(&item.size));
    if !all.holds(&wanted) {
        return None;
    }
    let quick = quick(items, wanted);
    if items.len() > EXACT {
        return Some(quick);
    }
    items.sort_unstable_by_key(|item| item.cost);
    let mut search = Search { items, best: u64::MAX, tries: 0 };
    search.go(0, 0, wanted, all);
    Some(if search.tries > TRIES { quick } else { search.best })
}

struct Search<'a> {
    items: &'a [Item],
    best: u64,
    tries: u32,
}

impl Search<'_> {
    /// `left` is what the items from `index` on free together.
    fn go(&mut self, index: usize, cost: u64, wanted: Resources, left: Resources) {
        self.tries += 1;
        if cost >= self.best || self.tries > TRIES {
            return;
        }
        if wanted == Resources::default() {
            self.best = cost;
            return;
        }
        if !left.holds(&wanted) {
            return;
        }
        let Some(item) = self.items.get(index) else { return };
        let left = left.minus(&item.size);
        self.go(index + 1, cost + item.cost, wanted.minus(&item.size), left);
        self.go(index + 1, cost, wanted, left);
    }
}

/// As if VMs could be moved in part, for memory and processors each; and at least one must go.
fn quick(items: &[Item], wanted: Resources) -> u64 {
    let one = items.iter().map(|item| item.cost).min().unwrap_or(0);
    let by = |part: fn(&Resources) -> u64| {
        let mut sorted: Vec<(u64, u64)> =
            items.iter().map(|item| (item.cost, part(&item.size))).collect();
        sorted.retain(|(_, size)| *size > 0);
        let ratio = |cost: u64, size: u64| u128::from(cost) * u128::from(size);
        sorted.sort_unstable_by(|a, b| ratio(a.0, b.1).cmp(&ratio(b.0, a.1)));
        let (mut wanted, mut sum) = (part(&wanted), 0);
        for (cost, size) in sorted {
            if wanted <= size {
                // At most the whole cost: it fits into 64 bits again.
                let share = u128::from(cost) * u128::from(wanted) / u128::from(size);
                return sum + share as u64;
            }
            (wanted, sum) = (wanted - size, sum + cost);
        }
        sum
    };
    one.max(by(|size| size.memory)).max(by(|size| size.cpu_milli))
}
