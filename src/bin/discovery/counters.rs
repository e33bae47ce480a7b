//! The rims' numbers under the names that `/metrics` exports them by.

use std::collections::BTreeMap;
use std::sync::Arc;

use discovery::agent::snapshot::CounterSource;
use discovery::guard::client::GuardClient;
use discovery::k8s;
use discovery::libvirt::Libvirt;

/// The Kubernetes rim's.
pub struct Kubernetes(pub Arc<k8s::Counters>);

impl CounterSource for Kubernetes {
    fn counters(&self) -> BTreeMap<String, u64> {
        let all = self.0.all().into_iter();
        // A gauge is no counter: OpenMetrics would call its fall a restart.
        let counters = all.filter(|(_, _, gauge)| !gauge);
        counters.map(|(name, value, _)| (format!("kubernetes_{name}"), value)).collect()
    }
}

/// The hypervisor's.
pub struct Hypervisor(pub Arc<Libvirt>);

impl CounterSource for Hypervisor {
    fn counters(&self) -> BTreeMap<String, u64> {
        let counters = self.0.counters();
        BTreeMap::from([
            ("libvirt_connections".to_owned(), counters.connections),
            ("libvirt_calls_timed_out".to_owned(), counters.calls_timed_out),
        ])
    }
}

/// The guard's, as far as this agent has heard.
pub struct Guard(pub Arc<GuardClient>);

impl CounterSource for Guard {
    fn counters(&self) -> BTreeMap<String, u64> {
        let counters = self.0.counters();
        BTreeMap::from([
            ("guard_connections".to_owned(), counters.connections),
            ("guard_lapses".to_owned(), counters.lapses),
            ("guard_vms_ended".to_owned(), counters.ended),
        ])
    }
}
