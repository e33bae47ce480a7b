//! Puts our metadata of another placement into a domain's document, and leaves the rest as it is, byte by byte: the guest
//! that arrives must be the one that left.

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::identity::XMLNS;

/// `document` with its element of ours replaced by `metadata`; `None` if there is none.
#[must_use]
pub fn retitle(document: &str, metadata: &str) -> Option<String> {
    let found = ours(document)?;
    Some([&document[..found.start], metadata, &document[found.end..]].concat())
}

/// Where our element is.
fn ours(document: &str) -> Option<Range<usize>> {
    let mut reader = Reader::from_str(document);
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut begun = None;
    loop {
        let before = usize::try_from(reader.buffer_position()).ok()?;
        let event = reader.read_event().ok()?;
        let after = usize::try_from(reader.buffer_position()).ok()?;
        let in_metadata = path.len() == 2 && path[0] == b"domain" && path[1] == b"metadata";
        match event {
            Event::Start(start) => {
                if in_metadata && is_ours(&start) {
                    begun = Some(before);
                }
                path.push(start.name().as_ref().to_vec());
            }
            Event::Empty(start) if in_metadata && is_ours(&start) => return Some(before..after),
            Event::End(_) => {
                path.pop()?;
                if let Some(begun) = begun
                    && path.len() == 2
                {
                    return Some(begun..after);
                }
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn is_ours(start: &BytesStart<'_>) -> bool {
    start.local_name().as_ref() == b"vm"
        && start.attributes().flatten().any(|attribute| {
            attribute.key.as_ref().starts_with(b"xmlns") && *attribute.value == *XMLNS.as_bytes()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_metadata_is_replaced() {
        let other = "<o:vm xmlns:o='urn:other'><x/></o:vm>";
        for ours in [
            format!("<d:vm xmlns:d='{XMLNS}' epoch='1'><d:declared a='&lt;'/></d:vm>"),
            format!("<d:vm xmlns:d=\"{XMLNS}\"/>"),
        ] {
            let document = |ours: &str| {
                format!(
                    "<domain type='qemu'>\n<metadata>{other}{ours}</metadata><vm/> &amp; </domain>\n"
                )
            };
            assert_eq!(retitle(&document(&ours), "<new/>"), Some(document("<new/>")));
        }
        assert_eq!(retitle(&format!("<domain><metadata>{other}</metadata></domain>"), ""), None);
        assert_eq!(retitle("<domain><metadata>", ""), None);
    }
}
