//! The import table of the design, checked by parsing: which room may name which other room and which
//! crates; that unsafe code is in two files; that `lib.rs` holds no logic. The checker is tried on
//! deliberate violations, so that it cannot come to pass everything.

#[path = "architecture/checker.rs"]
mod checker;

use std::fs;
use std::path::{Path, PathBuf};

use checker::{Room, Rule, check, unsafe_code};

/// The files that may hold unsafe code: libvirt's event callbacks are C, and so are a few calls that have no wrapper.
const UNSAFE: [&str; 2] = ["src/libvirt/events.rs", "src/libvirt/raw.rs"];

/// The import table. Rims may also name their own metrics' trait, which is in the agent's `snapshot`.
const TABLE: &[Rule] = &[
    Rule { room: "engine", rooms: &[], crates: &["serde", "rand", "foca"] },
    Rule {
        room: "sim",
        rooms: &["engine"],
        crates: &["serde", "serde_json", "rand", "clap", "postcard"],
    },
    Rule {
        room: "api",
        rooms: &[],
        crates: &["serde", "serde_json", "schemars", "kube", "k8s_openapi", "thiserror"],
    },
    Rule {
        room: "agent",
        rooms: &["engine"],
        crates: &["serde", "tokio", "tracing", "thiserror", "nix", "uuid"],
    },
    // It keeps the agent's clock, and ends what the hypervisor's rim starts. No runtime: it shall be small.
    Rule {
        room: "guard",
        rooms: &["engine", "agent::ports", "agent::clock", "agent::ours"],
        crates: &["serde", "tracing", "thiserror", "nix", "rustix", "postcard"],
    },
    Rule {
        room: "k8s",
        rooms: &["engine", "agent::ports", "agent::snapshot", "api"],
        crates: &[
            "serde",
            "serde_json",
            "rand",
            "tokio",
            "tracing",
            "thiserror",
            "futures",
            "kube",
            "k8s_openapi",
        ],
    },
    Rule {
        room: "libvirt",
        rooms: &["engine", "agent::ports", "agent::ours", "agent::snapshot"],
        crates: &[
            "serde_json",
            "tracing",
            "thiserror",
            "virt",
            "virt_sys",
            "ureq",
            "sha2",
            "uuid",
            "quick_xml",
            "nix",
        ],
    },
    Rule {
        room: "net",
        rooms: &["engine", "agent::ports", "agent::snapshot"],
        crates: &[
            "serde",
            "rand",
            "tokio",
            "tracing",
            "thiserror",
            "quinn",
            "ring",
            "rustls",
            "rcgen",
            "postcard",
        ],
    },
    Rule {
        room: "store",
        rooms: &["engine", "agent::ports", "agent::snapshot"],
        crates: &["serde", "thiserror", "redb", "postcard", "blake3"],
    },
    Rule {
        room: "admin",
        rooms: &["agent::snapshot"],
        crates: &["serde", "tokio", "axum", "prometheus_client"],
    },
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the crate, by its path from the root.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the sources are here") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("readable");
        (path.strip_prefix(root()).expect("it is below").to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// The crates that the package depends on, as code names them, from its manifest.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(" = ") {
            names.push(name.trim_matches('"').replace('-', "_"));
        }
    }
    names
}

/// The room that a file is in, and its modules' names below it.
fn room_of(path: &Path) -> Option<Room> {
    let mut parts: Vec<String> =
        path.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let outside = ["lib", "bin"].contains(&parts[0].as_str());
    (!outside).then_some(Room { path: parts })
}

/// A violation, as a line.
fn violations(path: &str, source: &str) -> Vec<String> {
    let room = room_of(Path::new(path)).expect("in a room");
    check(&room, source, TABLE, &dependencies())
}

#[test]
fn every_room_imports_only_what_it_may() {
    let dependencies = dependencies();
    assert!(dependencies.iter().any(|name| name == "k8s_openapi"), "{dependencies:?}");
    let sources = sources();
    assert!(sources.len() > 50, "the sources were not found");
    let mut found = Vec::new();
    for (path, text) in &sources {
        let Some(room) = room_of(path) else { continue };
        let broken = check(&room, text, TABLE, &dependencies);
        found.extend(broken.into_iter().map(|line| format!("{}: {line}", path.display())));
    }
    assert!(found.is_empty(), "the import table is broken:\n{}", found.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    for entry in fs::read_dir(root().join("src")).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().expect("named").to_string_lossy().into_owned();
        let known = TABLE.iter().any(|rule| rule.room == name);
        assert!(known || name == "bin" || name == "lib", "{name} is a room without a rule");
    }
}

#[test]
fn a_deliberate_violation_is_found() {
    let broken = [
        ("src/engine/id.rs", "use tokio::sync::mpsc;", "tokio"),
        ("src/engine/id.rs", "use crate::agent::ports;", "agent"),
        ("src/engine/vet/veh.rs", "use super::super::super::k8s::Kubernetes;", "k8s"),
        ("src/engine/id.rs", "fn f() { ::tokio::spawn(async {}); }", "tokio"),
        ("src/engine/id.rs", "fn f() { println!(\"{}\", tracing::enabled!(1)); }", "tracing"),
        ("src/engine/id.rs", "mod tests { use super::super::super::net::Overlay; }", "net"),
        ("src/sim/world.rs", "use crate::{engine::Engine, agent::clock};", "agent"),
        ("src/sim/world.rs", "type T = tokio::task::JoinHandle<()>;", "tokio"),
        ("src/api/mod.rs", "pub use crate::engine::spec::VeSpec;", "engine"),
        ("src/agent/driver.rs", "use crate::store::codec;", "store"),
        ("src/agent/driver.rs", "pub use kube::Client;", "kube"),
        ("src/net/mod.rs", "use crate::agent::driver::Driver;", "agent::driver"),
        ("src/net/mod.rs", "use crate::agent::*;", "agent"),
        ("src/net/mod.rs", "use crate::agent;", "agent"),
        ("src/store/mod.rs", "use crate::api::VirtualEnvironment;", "api"),
        ("src/admin/mod.rs", "use crate::engine::Engine;", "engine"),
        ("src/libvirt/mod.rs", "#[derive(serde::Serialize)] struct S;", "serde"),
        ("src/net/mod.rs", "use crate as everything;", "crate"),
        ("src/net/mod.rs", "use crate::*;", "crate"),
    ];
    for (path, source, named) in broken {
        let found = violations(path, source);
        assert!(found.iter().any(|line| line.contains(named)), "{path}: {source}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let fine = [
        ("src/engine/vet/veh.rs", "use super::super::id::NodeName; use std::fmt;"),
        ("src/engine/mod.rs", "use rand::rngs::ChaCha8Rng; use crate::engine::id;"),
        (
            "src/engine/mod.rs",
            "/// Not [`crate::agent`].\nfn f() { let tokio = 1; let _ = tokio; }",
        ),
        ("src/net/mod.rs", "use crate::agent::ports::{Peers, InputSender}; use quinn::Endpoint;"),
        ("src/k8s/doctor.rs", "use crate::api::PhysicalNode; use super::connect;"),
        ("src/libvirt/xml.rs", "mod tests { use super::*; use proptest::prelude::*; }"),
    ];
    for (path, source) in fine {
        assert_eq!(violations(path, source), [] as [String; 0], "{path}: {source}");
    }
}

#[test]
fn unsafe_code_is_in_two_files_and_denied_elsewhere() {
    let with_unsafe = sources().into_iter().filter(|(_, text)| unsafe_code(text));
    let with_unsafe: Vec<PathBuf> = with_unsafe.map(|(path, _)| path).collect();
    assert_eq!(with_unsafe, UNSAFE.map(Path::new));
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("readable");
    assert!(lib.contains("#![deny(unsafe_code)]"), "the compiler must deny it too");
    assert!(unsafe_code("fn f() { unsafe { g() } }"));
    assert!(unsafe_code("unsafe fn f() {}"));
    assert!(unsafe_code("unsafe impl Send for T {}"));
    assert!(!unsafe_code("/// unsafe\nfn f() {}"));
}

#[test]
fn the_map_holds_no_logic() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("readable");
    let file = syn::parse_file(&lib).expect("it compiles");
    let modules = file.items.iter().filter(|item| matches!(item, syn::Item::Mod(_))).count();
    assert_eq!(modules, file.items.len(), "src/lib.rs declares rooms and nothing else");
}
