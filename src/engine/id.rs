//! Names: of nodes, virtual environments and virtual machines.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A short immutable string that is cheap to clone and ordered by its bytes.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A physical node: the name of its Kubernetes `Node`, and of its `PhysicalNode`.
    NodeName
);
name!(
    /// A virtual environment's identity: its Kubernetes uid, which is never used twice.
    VeUid
);
name!(
    /// A member's name inside its virtual environment.
    MemberName
);

/// What people call a virtual environment. Two live ones never share it, but a deleted one's name may
/// come back under a new [`VeUid`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VeName {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Name inside the namespace.
    pub name: Arc<str>,
}

impl VeName {
    /// Both parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name people know one of its VMs by: `<ve>-<member>-<index>`.
    #[must_use]
    pub fn vm(&self, vm: &VmId) -> String {
        format!("{}-{}-{}", self.name, vm.member, vm.index)
    }

    /// The VM's name on its hypervisor, unique over namespaces: `<namespace>.<ve>-<member>-<index>`
    /// (a namespace holds no dot).
    #[must_use]
    pub fn domain(&self, vm: &VmId) -> String {
        format!("{}.{}", self.namespace, self.vm(vm))
    }
}

impl fmt::Display for VeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One virtual machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VmId {
    /// The environment it belongs to.
    pub ve: VeUid,
    /// The member it is a replica of.
    pub member: MemberName,
    /// Which replica, from 0.
    pub index: u32,
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}-{}", self.ve, self.member, self.index)
    }
}

impl fmt::Debug for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One scheduling procedure: who runs it, and which of that agent's it is. The number never repeats on
/// a node, also over restarts (it starts from the node's incarnation).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcedureId {
    /// The agent that runs it.
    pub initiator: NodeName,
    /// The initiator's incarnation.
    pub incarnation: u64,
    /// Counts up within an incarnation.
    pub number: u64,
}

impl fmt::Display for ProcedureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{}", self.initiator, self.incarnation, self.number)
    }
}
