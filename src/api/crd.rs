//! The resource definitions as the API server wants them, and as YAML.
//!
//! Kube's derive writes a schema that is correct but wider than Kubernetes' habits: it allows `null`
//! wherever a field is optional, and names integer formats that the API server warns about. Both are
//! taken out here. A page of YAML needs no YAML library: the printer below knows maps, lists and scalars,
//! sorts keys (whatever order the JSON library keeps them in), and folds long lines.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{PhysicalNode, VirtualEnvironment};

/// Width at which long text is folded, characters.
const FOLD_AT: usize = 100;

/// Helm leaves what carries this alone when its release is uninstalled. A definition's deletion deletes
/// every resource of its kind: uninstalling a chart must not end guests.
const KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Every resource definition of this group.
///
/// # Panics
/// When a definition is no longer one after tidying: our own bug, met by any test that prints them.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [VirtualEnvironment::crd(), PhysicalNode::crd()]
        .into_iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd).expect("a derived definition is JSON");
            tidy(&mut value);
            value["metadata"]["annotations"] = json!({KEEP.0: KEEP.1});
            serde_json::from_value(value).expect("tidying takes optional keys out only")
        })
        .collect()
}

/// Every resource definition, as a stream of YAML documents.
#[must_use]
pub fn crds_yaml() -> String {
    crds().iter().map(|crd| format!("---\n{}", definition_yaml(crd))).collect()
}

/// One resource definition as YAML.
///
/// # Panics
/// When it is not JSON: our own bug.
#[must_use]
pub fn definition_yaml(crd: &CustomResourceDefinition) -> String {
    let mut text = String::new();
    let value = serde_json::to_value(crd).expect("a definition is JSON");
    write(&mut text, &value, 0);
    text
}

/// Takes out what Kubernetes has no use for.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            if let Some(Value::String(format)) = map.get("format")
                && !matches!(format.as_str(), "int32" | "int64" | "date-time")
            {
                map.remove("format");
            }
            // A title is a Rust type's name; a property called `title` would be an object.
            if matches!(map.get("title"), Some(Value::String(_))) {
                map.remove("title");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Writes a map or a list, one entry per line, each beginning at column `indent`.
fn write(text: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            for (key, value) in entries {
                text.push_str(&format!("{pad}{}:", scalar_text(key)));
                write_value(text, value, indent);
            }
        }
        Value::Array(items) => {
            for item in items {
                if is_collection(item) {
                    let mut entry = String::new();
                    write(&mut entry, item, indent + 2);
                    text.push_str(&format!("{pad}- {}", &entry[indent + 2..]));
                } else {
                    text.push_str(&format!("{pad}-"));
                    write_value(text, item, indent);
                }
            }
        }
        scalar => text.push_str(&format!("{pad}{}\n", scalar_yaml(scalar))),
    }
}

/// Writes what follows a `key:` or a `-`.
fn write_value(text: &mut String, value: &Value, indent: usize) {
    match value {
        value if is_collection(value) => {
            text.push('\n');
            write(text, value, indent + 2);
        }
        Value::String(long) if foldable(long) => {
            text.push_str(" >-\n");
            let pad = " ".repeat(indent + 2);
            for line in fold(long, FOLD_AT.saturating_sub(indent + 2).max(40)) {
                text.push_str(&format!("{pad}{line}\n"));
            }
        }
        scalar => text.push_str(&format!(" {}\n", scalar_yaml(scalar))),
    }
}

fn is_collection(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Long text of single-spaced words: what folding gives back unchanged.
fn foldable(text: &str) -> bool {
    text.len() > 70
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.contains("  ")
        && !text.contains(|c: char| c.is_control())
}

fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("it begins with one line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A scalar (or an empty collection) on one line. JSON is YAML.
fn scalar_yaml(value: &Value) -> String {
    match value {
        Value::String(text) => scalar_text(text),
        // Bounds are floating point numbers in the definition's type, and whole numbers here.
        Value::Number(number) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation)]
            Some(float) if number.is_f64() && float.fract() == 0.0 => (float as i64).to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Text, plain when no YAML reader could take it for something else, otherwise quoted as JSON does.
fn scalar_text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-./".contains(c))
        && !text.ends_with(|c: char| c.is_ascii_digit())
        && !["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    // (A number never begins with a letter, and `.5` ends in a digit.)
    let version = text.starts_with('v') && text.chars().all(|c| c.is_ascii_alphanumeric());
    if plain || version { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_definition_may_be_null() {
        for crd in crds() {
            let text = definition_yaml(&crd);
            assert!(!text.contains("nullable"), "{text}");
            assert!(!text.contains("uint"), "{text}");
        }
    }

    #[test]
    fn yaml_quotes_what_a_reader_could_take_for_something_else() {
        let mut text = String::new();
        write(&mut text, &json!({"a": [{"b": "no", "c": 1.0}, "x"], "d": [], "v1": "1e3"}), 0);
        assert_eq!(text, "a:\n  - b: \"no\"\n    c: 1\n  - x\nd: []\nv1: \"1e3\"\n");
    }

    #[test]
    fn folded_text_reads_as_it_was() {
        let text = "word ".repeat(60).trim_end().to_owned();
        assert!(foldable(&text));
        assert_eq!(fold(&text, 40).join(" "), text);
        assert!(fold(&text, 40).iter().all(|line| line.len() <= 40));
    }
}
