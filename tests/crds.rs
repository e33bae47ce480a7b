//! The definitions in `crds/` and in the chart are the ones that the code prints.
//!
//! After a change of the types: `UPDATE_CRDS=1 cargo test --no-default-features --features api --test crds`.
#![cfg(feature = "api")]

use std::path::{Path, PathBuf};

use discovery::api::{crds, crds_yaml, definition_yaml};

fn places(plural: &str) -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["crds", "charts/discovery-crds/templates"]
        .map(|dir| root.join(dir).join(format!("{plural}.yaml")))
}

#[test]
fn the_committed_definitions_are_what_the_code_prints() {
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    for crd in crds() {
        let wanted = definition_yaml(&crd);
        for path in places(&crd.spec.names.plural) {
            if update {
                std::fs::write(&path, &wanted).expect("the definition is written");
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == wanted,
                "{} is not what the code prints; run: UPDATE_CRDS=1 cargo test \
                 --no-default-features --features api --test crds",
                path.display()
            );
        }
    }
}

#[test]
fn the_chart_takes_the_definitions_as_they_are() {
    // Helm reads what is in a chart's `templates` as a template.
    assert!(!crds_yaml().contains("{{"));
}

#[test]
fn every_field_is_explained() {
    for crd in crds() {
        let value = serde_json::to_value(&crd).expect("a definition is JSON");
        let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut silent = Vec::new();
        undescribed(schema, &mut crd.spec.names.kind.clone(), &mut silent);
        assert!(silent.is_empty(), "kubectl explain has nothing to say about {silent:?}");
    }
}

fn undescribed(schema: &serde_json::Value, path: &mut String, silent: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        if schema["items"].is_object() {
            undescribed(&schema["items"], path, silent);
        }
        return;
    };
    for (name, property) in properties {
        let length = path.len();
        path.push('.');
        path.push_str(name);
        if property["description"].as_str().is_none_or(|text| text.len() < 10) {
            silent.push(path.clone());
        }
        undescribed(property, path, silent);
        path.truncate(length);
    }
}

#[test]
fn the_printed_stream_holds_every_definition() {
    let stream = crds_yaml();
    assert_eq!(stream.matches("\n---\n").count() + 1, crds().len());
    for crd in crds() {
        assert!(stream.contains(&definition_yaml(&crd)));
    }
}
