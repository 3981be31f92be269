//! A look at the tags of a document before it is read.
//!
//! `roxmltree` compares every attribute of an element with those before it, and gives every element that declares a namespace all of
//! those around it, each compared with those given before: some hundred kilobytes would keep it, and the thread that all cameras
//! share, for minutes or hours. Promises that no element of what passes has more than [`MOST`] attributes, nor more than [`MOST`]
//! namespaces declared at it and around it. Judges nothing else: what is no XML is for the reader to tell, who goes no further than
//! where it says so.

/// Most attributes of an element, and most declarations of namespaces around it. Envelopes declare up to a hundred.
const MOST: usize = 256;

/// Looks at all tags; the words of what is wrong.
pub(super) fn check(text: &str) -> Result<(), String> {
    // Declarations at and around each open element.
    let mut open: Vec<usize> = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        rest = &rest[at + 1..];
        let behind = if let Some(comment) = rest.strip_prefix(b"!--") {
            behind(comment, b"-->")
        } else if let Some(text) = rest.strip_prefix(b"![CDATA[") {
            behind(text, b"]]>")
        } else if let Some(instruction) = rest.strip_prefix(b"?") {
            behind(instruction, b"?>")
        } else if rest.starts_with(b"!") {
            // A DTD, which the reader refuses.
            None
        } else if rest.starts_with(b"/") {
            open.pop();
            Some(rest)
        } else {
            let around = open.last().copied().unwrap_or_default();
            tag(rest, around, &mut open)?
        };
        let Some(behind) = behind else { break };
        rest = behind;
    }
    Ok(())
}

fn behind<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    text.windows(end.len()).position(|here| here == end).map(|at| &text[at + end.len()..])
}

/// What is behind a tag that begins an element; `None` if it has no end.
fn tag<'a>(mut rest: &'a [u8], around: usize, open: &mut Vec<usize>) -> Result<Option<&'a [u8]>, String> {
    let (mut attributes, mut declared) = (0, around);
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'>' | b'"' | b'\'')) {
        let (before, mark) = (&rest[..at], &rest[at..=at]);
        rest = &rest[at + 1..];
        if mark == b">" {
            if !before.ends_with(b"/") {
                open.push(declared);
            }
            return Ok(Some(rest));
        }
        attributes += 1;
        declared += usize::from(before.split(u8::is_ascii_whitespace).any(|word| word.starts_with(b"xmlns")));
        if attributes > MOST {
            return Err(format!("an element with more than {MOST} attributes"));
        }
        if declared > MOST {
            return Err(format!("more than {MOST} namespaces around one element"));
        }
        let Some(value) = behind(rest, mark) else { return Ok(None) };
        rest = value;
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fmt::Write as _;

    use super::super::soap::read;
    use super::*;

    /// An element with attributes of these names.
    fn element(names: impl Iterator<Item = String>) -> String {
        let mut text = "<a".to_owned();
        names.for_each(|name| write!(text, " {name} = '>'").unwrap());
        text + "/>"
    }

    fn refused(text: &str) -> Option<String> {
        read("Get", text).err().map(|e| e.to_string())
    }

    #[test]
    fn what_keeps_the_reader_for_long_is_refused_before() {
        let attributes = |count: usize| element((0..count).map(|n| format!("a{n}")));
        assert_eq!(refused(&attributes(MOST)), None);
        let told = refused(&attributes(MOST + 1)).unwrap();
        assert!(told.contains("an element with more than 256 attributes"), "{told}");
        let declarations = |count: usize| element((0..count).map(|n| format!("xmlns:a{n}")));
        assert_eq!(refused(&declarations(MOST)), None);
        let nested = |depth: usize| {
            let mut text = String::new();
            (0..depth).for_each(|n| write!(text, "<!--<--><b\n\txmlns:a{n}=\"'u>\"><c xmlns:x='y'/>").unwrap());
            text + "<![CDATA[<z>]]>" + &"</b>".repeat(depth)
        };
        assert_eq!(refused(&nested(MOST - 1)), None);
        let told = refused(&nested(MOST)).unwrap();
        assert!(told.contains("more than 256 namespaces around one element"), "{told}");
    }

    #[test]
    fn what_ends_is_no_longer_around() {
        let text = format!(
            "<?xml version='1.0'?><a>{}</a>",
            "<b xmlns:a='u' b='\"'><c xmlns='v' d=\"'/>\"/></b>".repeat(1000)
        );
        assert_eq!(refused(&text), None);
        assert_eq!(check(&text), Ok(()));
        for torn in ["<", "<a", "<a b", "<a b='", "<!--", "<![CDATA[", "<?", "</", "</a></a>", "<!DOCTYPE a>", ""] {
            assert_eq!(check(torn), Ok(()), "{torn}");
        }
    }
}
