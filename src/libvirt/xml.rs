//! A small tree of an XML document, for reading what libvirt says.
//!
//! Writing is done by quick-xml's writer, which escapes; reading by this tree, which is easier to ask
//! than a stream. Documents come from libvirt, but parts of them were written by whoever may edit a
//! domain: size and depth are bounded.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Domain XML is some 10 KiB; more than this is not one of ours.
const MAX_BYTES: usize = 4 << 20;
/// libvirt's own documents are at most some ten deep.
const MAX_DEPTH: usize = 64;

/// One element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, without a namespace prefix.
    pub name: String,
    /// The namespace bound to its prefix on this element itself, if any.
    pub namespace: Option<String>,
    /// Attributes, entities resolved.
    pub attributes: BTreeMap<String, String>,
    /// All text directly in it, entities resolved.
    pub text: String,
    /// Elements directly in it, in order.
    pub children: Vec<Element>,
}

/// A document that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("unreadable XML: {0}")]
pub struct XmlError(String);

impl Element {
    /// The first child of this name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element that a path of first children leads to.
    #[cfg(test)]
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// All children of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// An attribute's value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// Reads a document into its root element.
///
/// # Errors
/// When it is not well-formed, or larger or deeper than anything libvirt writes.
pub fn parse(document: &str) -> Result<Element, XmlError> {
    if document.len() > MAX_BYTES {
        return Err(XmlError(format!("{} bytes", document.len())));
    }
    let mut reader = Reader::from_str(document);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|error| XmlError(error.to_string()))?;
        let done = match event {
            Event::Start(start) => {
                if open.len() >= MAX_DEPTH {
                    return Err(XmlError("too deep".into()));
                }
                open.push(element(&start)?);
                None
            }
            Event::Empty(start) => close(&mut open, element(&start)?),
            Event::End(_) => match open.pop() {
                Some(element) => close(&mut open, element),
                None => return Err(XmlError("an end without a start".into())),
            },
            Event::Eof => return Err(XmlError("it ends too early".into())),
            other => {
                if let Some(element) = open.last_mut() {
                    text(&mut element.text, other)?;
                }
                None
            }
        };
        if let Some(root) = done {
            return Ok(root);
        }
    }
}

/// Puts a finished element into its parent, or hands it back when it is the root.
fn close(open: &mut [Element], element: Element) -> Option<Element> {
    match open.last_mut() {
        Some(parent) => {
            parent.children.push(element);
            None
        }
        None => Some(element),
    }
}

fn text(into: &mut String, event: Event<'_>) -> Result<(), XmlError> {
    match event {
        Event::Text(text) => {
            into.push_str(&text.xml_content().map_err(|error| XmlError(error.to_string()))?);
        }
        Event::CData(data) => {
            into.push_str(&data.decode().map_err(|error| XmlError(error.to_string()))?);
        }
        Event::GeneralRef(reference) => {
            let char = reference.resolve_char_ref().map_err(|e| XmlError(e.to_string()))?;
            match char {
                Some(char) => into.push(char),
                None => into.push_str(match &*reference {
                    b"lt" => "<",
                    b"gt" => ">",
                    b"amp" => "&",
                    b"quot" => "\"",
                    b"apos" => "'",
                    _ => return Err(XmlError("an unknown entity".into())),
                }),
            }
        }
        _ => {}
    }
    Ok(())
}

fn element(start: &BytesStart<'_>) -> Result<Element, XmlError> {
    let full = String::from_utf8_lossy(start.name().as_ref()).into_owned();
    let (prefix, name) = full.split_once(':').unwrap_or(("", &full));
    let mut element = Element { name: name.to_owned(), ..Element::default() };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| XmlError(error.to_string()))?;
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        let value = attribute.unescape_value().map_err(|error| XmlError(error.to_string()))?;
        element.attributes.insert(key, value.into_owned());
    }
    let binding = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
    element.namespace = element.attributes.get(&binding).cloned();
    Ok(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_attributes_and_entities_are_read() {
        let root =
            parse("<?xml version='1.0'?><a x='1 &lt; 2'>p &amp; q &#65;<b/><!-- c --><b/></a>")
                .expect("well-formed");
        assert_eq!(root.attribute("x"), Some("1 < 2"));
        assert_eq!(root.text, "p & q A");
        assert_eq!(root.all("b").count(), 2);
    }

    #[test]
    fn broken_and_bottomless_documents_are_refused() {
        for bad in ["", "<a>", "<a></b>", "text", "<a>&evil;</a>"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&"<a>".repeat(MAX_DEPTH + 1)).is_err());
    }
}
