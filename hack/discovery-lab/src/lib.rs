//! A real Kubernetes of several nodes on one host, each node with its own libvirt.
//!
//! ```text
//!   main ──> lab ──┬─> control_plane   etcd, API server, controller manager, scheduler: on the host
//!                  ├─> node            a node from outside: power, commands inside
//!                  │     └─> node_init a node from inside: mounts, addresses, daemons   (a process)
//!                  ├─> files           the guests' images by HTTP                      (a process)
//!                  ├─> view, audit     status and consoles; what the API server was asked
//!                  ├─> product         the charts and the agent's image
//!                  ├─> burst           many applies, measured from outside
//!                  ├─> watchdog        resets nodes that do not feed theirs                 (a process)
//!                  ├─> record          who runs when: every QEMU's start and end   (a process)
//!                  ├─> nemesis         faults on purpose, one by one or hundreds of them
//!                  ├─> measure         how long a VM is away when its node is lost
//!                  └─> network, pki, kubeconfig, image, cgroup, process
//!   layout: names, addresses, paths, used by all
//! ```
//!
//! The lab keeps no list of what it has started: its processes carry a mark, a node is a pid namespace, and
//! the rest follows from names. So `down` works after a crash at any moment.

mod audit;
mod burst;
mod cgroup;
mod control_plane;
mod error;
pub mod files;
mod image;
mod kubeconfig;
mod lab;
mod layout;
mod measure;
pub mod nemesis;
mod network;
mod node;
mod node_config;
pub mod node_init;
mod pki;
mod process;
mod product;
pub mod record;
mod switch;
mod view;
mod watchdog;

pub use audit::Request;
pub use burst::{Agent, Burst, Measured};
pub use error::{LabError, Result};
pub use image::{PAUSE_IMAGE, digest};
pub use lab::Lab;
pub use layout::{GUESTS_IN_NODE, Layout, MAX_NODES, node_index};
pub use measure::{
    Death, Fate, Loss, Measurement, Moment, Sample, Steps, Untouched, Victim, table,
};
pub use node::Node;
pub use process::wait_for;
pub use view::{NodeStatus, Status};
