//! Domain XML: what goes in comes out again, whatever it holds.

use std::path::PathBuf;

use proptest::prelude::*;

use super::domain::{CpuModel, DomainPlan, DomainType, KernelFiles};
use super::identity::{Identity, XMLNS, uuid_of};
use super::projection::Projection;
use super::xml::{self, Element};
use crate::engine::host::FailureKind;
use crate::engine::id::{VeName, VmId};
use crate::engine::spec::{Boot, Recovery, RunStrategy, Terms, VmDefinition};

fn definition() -> VmDefinition {
    VmDefinition {
        id: VmId { ve: "0b1c-22".into(), member: "db".into(), index: 3 },
        ve: VeName::new("default", "shop"),
        epoch: 7,
        revision: -2,
        cpus: 2,
        memory: 256 << 20,
        boot: Boot::Disk,
        disks: Vec::new(),
        run_strategy: RunStrategy::Always,
        terms: Terms::default(),
        recovery: Recovery::default(),
        depends: false,
    }
}

fn plan(definition: &VmDefinition) -> DomainPlan<'_> {
    DomainPlan {
        definition,
        kind: DomainType::Qemu,
        kernel: None,
        disks: vec!["/s/root.qcow2".into(), "/s/data.qcow2".into()],
        console: "/s/console.log".into(),
    }
}

fn parsed(plan: &DomainPlan<'_>) -> Element {
    xml::parse(&plan.xml().expect("writable")).expect("well-formed")
}

fn text(root: &Element, path: &[&str]) -> String {
    root.at(path).unwrap_or_else(|| panic!("{path:?} is missing")).text.clone()
}

#[test]
fn a_domain_has_the_parts_that_the_product_relies_on() {
    let definition = definition();
    let root = parsed(&plan(&definition));
    assert_eq!(root.attribute("type"), Some("qemu"));
    assert_eq!(text(&root, &["name"]), "default.shop-db-3");
    assert_eq!(text(&root, &["uuid"]), uuid_of(&definition.id).to_string());
    assert_eq!(text(&root, &["memory"]), "262144");
    assert_eq!(text(&root, &["on_crash"]), "destroy");
    assert_eq!(text(&root, &["on_poweroff"]), "destroy");
    assert_eq!(text(&root, &["on_reboot"]), "restart");
    let devices = root.child("devices").expect("devices");
    let targets: Vec<_> = devices
        .all("disk")
        .map(|disk| {
            let driver = disk.child("driver").and_then(|driver| driver.attribute("type"));
            (disk.child("target").and_then(|target| target.attribute("dev")), driver)
        })
        .collect();
    assert_eq!(targets, [(Some("vda"), Some("qcow2")), (Some("vdb"), Some("qcow2"))]);
    let log = devices.at(&["serial", "log"]).expect("a console log");
    assert_eq!(log.attribute("file"), Some("/s/console.log"));
    assert_eq!(log.attribute("append"), Some("on"));
    assert!(devices.child("interface").is_none(), "no network yet");
    let ours = root.at(&["metadata", "vm"]).expect("our metadata");
    assert_eq!(ours.namespace.as_deref(), Some(XMLNS));
    for (name, value) in [("namespace", "default"), ("name", "shop"), ("uid", "0b1c-22")] {
        assert_eq!(ours.attribute(name), Some(value));
    }
    for (name, value) in [("member", "db"), ("index", "3"), ("epoch", "7"), ("revision", "-2")] {
        assert_eq!(ours.attribute(name), Some(value));
    }
}

#[test]
fn kvm_takes_the_model_that_was_proven() {
    let definition = definition();
    let kind = DomainType::Kvm(CpuModel::HostWithoutArchCapabilities);
    let root = parsed(&DomainPlan { kind, ..plan(&definition) });
    assert_eq!(root.attribute("type"), Some("kvm"));
    let feature = root.at(&["cpu", "feature"]).expect("a feature");
    assert_eq!(feature.attribute("name"), Some("arch-capabilities"));
}

#[test]
fn a_copy_under_another_uuid_is_not_ours() {
    let definition = definition();
    let xml = plan(&definition).xml().expect("writable");
    assert!(Identity::of_domain(&xml::parse(&xml).expect("well-formed")).is_some());
    let uuid = uuid_of(&definition.id).to_string();
    let copy = xml.replace(&uuid, "00000000-0000-4000-8000-000000000000");
    assert_eq!(Identity::of_domain(&xml::parse(&copy).expect("well-formed")), None);
}

#[test]
fn a_control_character_is_refused_and_not_written() {
    let definition = definition();
    for bad in ["a\0b", "a\u{1}b", "a\nb", "\u{7f}", "\u{fffe}"] {
        let cmdline = bad.to_owned();
        let kernel = Some(KernelFiles { kernel: "/k".into(), initrd: None, cmdline });
        let failure = DomainPlan { kernel, ..plan(&definition) }.xml().expect_err("refused");
        assert_eq!(failure.kind, FailureKind::Refused, "{bad:?}");
    }
}

#[test]
fn an_edit_of_each_held_part_is_noticed() {
    let definition = definition();
    let kernel = Some(KernelFiles {
        kernel: "/images/k".into(),
        initrd: Some("/images/i".into()),
        cmdline: "quiet".into(),
    });
    let plan = DomainPlan { kernel, ..plan(&definition) };
    let xml = plan.xml().expect("writable");
    let edits = [
        ("<vcpu>2<", "<vcpu>4<", "cpus is 4, declared 2"),
        (">262144<", ">131072<", "memory is 128 MiB, declared 256 MiB"),
        ("<kernel>/images/k<", "<kernel>/evil<", "kernel is \"/evil\""),
        ("<initrd>/images/i<", "<initrd>/evil<", "initrd is \"/evil\""),
        ("<cmdline>quiet<", "<cmdline>init=/bin/sh<", "cmdline is \"init=/bin/sh\""),
        ("file=\"/s/data.qcow2\"", "file=\"/dev/sda\"", "disk vdb is \"/dev/sda\""),
        ("memory-kib=\"262144\"", "memory-kib=\"1\"", "its metadata was changed"),
    ];
    for (from, to, said) in edits {
        let edited = xml.replace(from, to);
        assert_ne!(edited, xml, "{from} is there");
        let root = xml::parse(&edited).expect("well-formed");
        let identity = Identity::of_domain(&root).expect("ours");
        let told = identity.edited(Projection::of_domain(&root).as_ref()).unwrap_or_default();
        assert!(told.contains(said), "{told:?} says {said:?}");
    }
}

/// Text with all that XML and shells find special, without control characters.
fn nasty() -> impl Strategy<Value = String> {
    proptest::string::string_regex("([a-z<>&\"' \\]=;\\\\é漢]|]]>|&lt;|<!--){0,40}")
        .expect("a valid expression")
}

proptest! {
    #[test]
    fn any_definition_reads_back_as_it_was_written(
        uid in nasty(), member in nasty(), index: u32, namespace in nasty(), name in nasty(),
        epoch: u64, revision: i64, cpus in 1_u32..512, memory in 1_u64..(1 << 44),
        kernel in proptest::option::of((nasty(), proptest::option::of(nasty()), nasty())),
        disks in proptest::collection::vec(nasty(), 0..40),
    ) {
        let definition = VmDefinition {
            id: VmId { ve: uid.into(), member: member.into(), index },
            ve: VeName::new(&namespace, &name),
            epoch, revision, cpus, memory,
            ..definition()
        };
        let path = |name: &String| PathBuf::from(format!("/state/{name}"));
        let plan = DomainPlan {
            kernel: kernel.map(|(kernel, initrd, cmdline)| KernelFiles {
                kernel: path(&kernel), initrd: initrd.as_ref().map(path), cmdline,
            }),
            disks: disks.iter().map(path).collect(),
            ..plan(&definition)
        };
        let root = parsed(&plan);
        prop_assert_eq!(Projection::of_domain(&root), Some(plan.projection()));
        let identity = Identity::of_domain(&root).expect("ours");
        prop_assert_eq!(&identity, &Identity::of(&definition, plan.projection()));
        prop_assert_eq!(identity.edited(Some(&plan.projection())), None);
    }
}
