//! What people and hardware do behind the agent's back, on each kind of hypervisor.

use std::sync::Arc;

use discovery::agent::fake_hypervisor::FakeHypervisor;
use discovery::engine::host::StopCause;
use discovery::engine::id::VmId;
use discovery::engine::spec::VmDefinition;
use discovery::libvirt::uuid_of;
use virt::connect::Connect;
use virt::domain::Domain;

pub trait Hands {
    /// Ends the guest from outside.
    fn destroy(&self, vm: &VmDefinition);
    /// Pauses the guest.
    fn pause(&self, vm: &VmDefinition);
    /// Takes the definition away.
    fn undefine(&self, vm: &VmDefinition);
    /// Halves the memory in the definition.
    fn halve_memory(&self, vm: &VmDefinition);
    /// Something that differs between two starts of the guest.
    fn instance(&self, vm: &VmDefinition) -> String;
    /// Makes a running domain that is not ours; tells its name. `None`: there can be none.
    fn make_foreign(&self) -> Option<String>;
    /// Whether the foreign domain runs; then removes it.
    fn foreign_runs(&self, name: &str) -> bool;
    /// Takes the hypervisor's daemon away, or lets it come back.
    fn set_available(&self, available: bool);
}

pub struct FakeHands(pub Arc<FakeHypervisor>);

impl Hands for FakeHands {
    fn destroy(&self, vm: &VmDefinition) {
        self.0.stop(&vm.id, StopCause::Destroyed);
    }
    fn pause(&self, vm: &VmDefinition) {
        self.0.pause(&vm.id);
    }
    fn undefine(&self, vm: &VmDefinition) {
        self.0.undefine(&vm.id);
    }
    fn halve_memory(&self, vm: &VmDefinition) {
        self.0.edit(&vm.id, "memory is 32 MiB, declared 64 MiB");
    }
    fn instance(&self, vm: &VmDefinition) -> String {
        format!("{:?}", self.0.starts(&vm.id))
    }
    fn make_foreign(&self) -> Option<String> {
        None
    }
    fn foreign_runs(&self, _: &str) -> bool {
        false
    }
    fn set_available(&self, available: bool) {
        self.0.set_available(available);
    }
}

/// A second connection, as virsh would have it.
pub struct LibvirtHands {
    uri: String,
}

impl LibvirtHands {
    pub fn new(uri: &str) -> Self {
        Self { uri: uri.to_owned() }
    }

    pub fn connect(&self) -> Connect {
        Connect::open(Some(&self.uri)).expect("libvirt answers the test too")
    }

    fn with<T>(&self, id: &VmId, act: impl FnOnce(&Connect, &Domain) -> T) -> T {
        let mut connect = self.connect();
        let domain = Domain::lookup_by_uuid(&connect, uuid_of(id)).expect("the domain exists");
        let done = act(&connect, &domain);
        drop(domain);
        connect.close().expect("closes");
        done
    }
}

impl Hands for LibvirtHands {
    fn destroy(&self, vm: &VmDefinition) {
        self.with(&vm.id, |_, domain| domain.destroy().expect("destroyed behind its back"));
    }

    fn pause(&self, vm: &VmDefinition) {
        self.with(&vm.id, |_, domain| domain.suspend().expect("paused behind its back"));
    }

    fn undefine(&self, vm: &VmDefinition) {
        self.with(&vm.id, |_, domain| domain.undefine().expect("undefined behind its back"));
    }

    fn halve_memory(&self, vm: &VmDefinition) {
        self.with(&vm.id, |connect, domain| {
            let xml = domain.get_xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE).expect("readable");
            let (is, half) = (vm.memory >> 10, vm.memory >> 11);
            let edited = xml.replace(&format!("'KiB'>{is}<"), &format!("'KiB'>{half}<"));
            assert_ne!(xml, edited, "the edit is one: {xml}");
            Domain::define_xml(connect, &edited).expect("edited behind its back");
        });
    }

    fn instance(&self, vm: &VmDefinition) -> String {
        self.with(&vm.id, |_, domain| format!("{:?}", domain.get_id()))
    }

    fn make_foreign(&self) -> Option<String> {
        let mut connect = self.connect();
        let kind = if self.uri.starts_with("test:") { "test" } else { "qemu" };
        let name = "not-ours";
        let xml = format!(
            "<domain type='{kind}'><name>{name}</name><memory unit='MiB'>32</memory>\
             <vcpu>1</vcpu><os><type>hvm</type></os></domain>"
        );
        let domain = Domain::define_xml(&connect, &xml).expect("defined");
        domain.create().expect("started");
        drop(domain);
        connect.close().expect("closes");
        Some(name.to_owned())
    }

    fn foreign_runs(&self, name: &str) -> bool {
        let mut connect = self.connect();
        let domain = Domain::lookup_by_name(&connect, name).expect("still defined");
        let runs = domain.is_active().expect("told");
        domain.destroy().expect("destroyed");
        domain.undefine().expect("undefined");
        drop(domain);
        connect.close().expect("closes");
        runs
    }

    fn set_available(&self, available: bool) {
        let file = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by hack/libvirt-test"))
        };
        let hold = file("DISCOVERY_TEST_LIBVIRTD_HOLD_FILE");
        if available {
            std::fs::remove_file(hold).expect("was held");
            return;
        }
        std::fs::write(hold, "").expect("held");
        let pid = std::fs::read_to_string(file("DISCOVERY_TEST_LIBVIRTD_PID_FILE"));
        kill(pid.expect("a libvirtd runs").trim(), "KILL");
    }
}

/// Signals one process.
pub fn kill(pid: &str, signal: &str) {
    let status = std::process::Command::new("kill").args(["-s", signal, pid]).status();
    assert!(status.expect("kill runs").success(), "signal {signal} to {pid}");
}
