//! What our running domains use, sampled once a second.
//!
//! Processor time used and waited for: on a crowded host what a guest has got says nothing of what it wants. The kernel
//! tells for each thread of a virtual processor how long it was ready and not running (`vcpu.N.delay`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::error::LibvirtError;
use super::raw::{self, Numbers};
use crate::engine::host::VmLoad;
use crate::engine::input::HypervisorInput;

/// Running sums of one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Nanoseconds of processor time.
    used: u64,
    /// Nanoseconds that its virtual processors waited for one.
    waited: u64,
    /// Bytes of the host's memory.
    memory: u64,
}

/// Samples until the owner is gone.
pub fn run(core: &Arc<Core>) {
    let mut last: Option<(u64, Instant, BTreeMap<String, Sums>)> = None;
    while !core.inbox.ended_within(core.config.loads_every) {
        let Ok(session) = core.session() else { continue };
        let sampled = core.call(&session, "tell what its domains use", raw::running_stats);
        let now = Instant::now();
        let sums: BTreeMap<_, _> = match sampled {
            Ok(stats) => stats.into_iter().map(|(uuid, numbers)| (uuid, sums(&numbers))).collect(),
            Err(LibvirtError::Away) => continue,
            Err(error) => {
                tracing::debug!(%error, "no loads");
                continue;
            }
        };
        if let Some((generation, then, before)) = &last
            && *generation == session.generation
        {
            tell(core, now.duration_since(*then).as_nanos(), before, &sums);
        }
        last = Some((session.generation, now, sums));
    }
}

/// Reports those that ran all the while and are ours.
fn tell(core: &Core, took: u128, before: &BTreeMap<String, Sums>, now: &BTreeMap<String, Sums>) {
    let loads: Vec<VmLoad> = {
        let door = core.door();
        let ours = now.iter().filter_map(|(uuid, now)| {
            let id = door.known.get(uuid)?.clone();
            let cpu_milli = milli(before.get(uuid)?, now, took)?;
            Some(VmLoad { id, cpu_milli, memory: now.memory, dirty: None })
        });
        ours.collect()
    };
    if !loads.is_empty() {
        core.offer(HypervisorInput::Loads(loads));
    }
}

/// Thousandths of a processor between two samples; `None` when the domain was started anew between them.
fn milli(before: &Sums, now: &Sums, took: u128) -> Option<u64> {
    let used = now.used.checked_sub(before.used)?;
    // A virtual processor that was unplugged takes its waiting with it.
    let waited = now.waited.saturating_sub(before.waited);
    u64::try_from(u128::from(used + waited) * 1000 / took.max(1)).ok()
}

fn sums(numbers: &Numbers) -> Sums {
    let of_vcpus = |what: &str| -> u64 {
        let suffix = |name: &str| name.starts_with("vcpu.") && name.ends_with(what);
        numbers.iter().filter(|(name, _)| suffix(name)).map(|(_, value)| value).sum()
    };
    let memory = ["balloon.rss", "balloon.current"].into_iter().find_map(|name| numbers.get(name));
    Sums {
        used: numbers.get("cpu.time").copied().unwrap_or_else(|| of_vcpus(".time")),
        waited: of_vcpus(".delay"),
        memory: memory.copied().unwrap_or(0).saturating_mul(1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(all: &[(&str, u64)]) -> Numbers {
        all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn what_is_waited_for_counts_as_wanted() {
        let before =
            sums(&numbers(&[("cpu.time", 1_000), ("vcpu.0.delay", 50), ("vcpu.current", 2)]));
        let now = sums(&numbers(&[
            ("cpu.time", 501_000),
            ("vcpu.0.delay", 250_050),
            ("vcpu.1.delay", 250_000),
            ("balloon.rss", 2),
            ("balloon.current", 7),
        ]));
        assert_eq!(now, Sums { used: 501_000, waited: 500_050, memory: 2048 });
        assert_eq!(milli(&before, &now, 1_000_000), Some(1000));
        assert_eq!(milli(&now, &before, 1_000_000), None, "started anew");
    }

    #[test]
    fn a_driver_that_knows_no_total_is_asked_for_its_virtual_processors() {
        let used = numbers(&[("vcpu.0.time", 3), ("vcpu.1.time", 4), ("balloon.current", 1)]);
        assert_eq!(sums(&used), Sums { used: 7, waited: 0, memory: 1024 });
    }
}
