//! A look at the tags of a document before it is read.
//!
//! `roxmltree` compares every attribute of an element with those before it, gives every element that declares a namespace all of
//! those around it, each compared with those given before, and looks for every prefix among them: some hundred kilobytes would keep
//! it, and the thread that all cameras share, for minutes or hours. Promises that what passes costs it at most [`MOST`] comparisons of
//! this kind, which is a fraction of a second. Judges nothing else: what is no XML is for the reader to tell, who goes no further than
//! where it says so.

/// Most comparisons: of five thousand elements with a namespace of their own each, in an envelope that declares a hundred.
const MOST: usize = 1 << 26;

/// What the tags read so far cost.
#[derive(Default)]
struct Cost(usize);

impl Cost {
    /// So many names are compared with so many others each.
    fn compare(&mut self, names: usize, others: usize) -> Result<(), String> {
        self.0 = self.0.saturating_add(names.saturating_mul(others));
        if self.0 > MOST { Err("it has too many attributes and namespaces".to_owned()) } else { Ok(()) }
    }
}

/// Looks at all tags; the words of what is wrong.
pub(super) fn check(text: &str) -> Result<(), String> {
    // Declarations at and around each open element.
    let mut open: Vec<usize> = Vec::new();
    let mut cost = Cost::default();
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
            tag(rest, &mut open, &mut cost)?
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
fn tag<'a>(mut rest: &'a [u8], open: &mut Vec<usize>, cost: &mut Cost) -> Result<Option<&'a [u8]>, String> {
    let around = open.last().copied().unwrap_or_default();
    let (mut attributes, mut declared) = (0, around);
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'>' | b'"' | b'\'')) {
        let (before, mark) = (&rest[..at], &rest[at..=at]);
        rest = &rest[at + 1..];
        if mark == b">" {
            cost.compare(attributes, attributes)?;
            // Each name's prefix is looked for.
            cost.compare(attributes + 1, declared)?;
            if declared > around {
                cost.compare(declared, declared)?;
            }
            if !before.ends_with(b"/") {
                open.push(declared);
            }
            return Ok(Some(rest));
        }
        attributes += 1;
        declared += usize::from(before.split(u8::is_ascii_whitespace).any(|word| word.starts_with(b"xmlns")));
        let Some(value) = behind(rest, mark) else { break };
        rest = value;
    }
    // The reader compares declarations as they come.
    cost.compare(attributes, attributes).map(|()| None)
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
        let declarations = |count: usize| (0..count).map(|n| format!("xmlns:a{n}"));
        let attributes = |count: usize| (0..count).map(|n| format!("a{n}"));
        assert_eq!(refused(&element(declarations(500))), None);
        assert_eq!(refused(&element(attributes(500))), None);
        let nested = |depth: usize| {
            let mut text = String::new();
            (0..depth).for_each(|n| write!(text, "<!--<--><b\n\txmlns:a{n}=\"'u>\"><c xmlns:x='y'/>").unwrap());
            text + "<![CDATA[<z>]]>" + &"</b>".repeat(depth)
        };
        assert_eq!(refused(&nested(400)), None);
        // An envelope as cameras send it, and one of which every second element declares something.
        let around = |inner: &str, count: usize| {
            let (envelope, inner) = (element(declarations(100)).replace("/>", ">"), inner.repeat(count));
            format!("{envelope}{inner}</a>")
        };
        assert_eq!(refused(&around("<b><c xmlns='v'/></b>", 5000)), None);
        for costly in [
            element(declarations(9000)),
            element(attributes(9000)),
            element(attributes(9000)).replace("/>", ""),
            nested(600),
            around(&element(declarations(10)), 9000),
            around(&element(attributes(200)), 2000),
            element(declarations(7000)).replace("/>", ">") + &"<b a6999:c=''/>".repeat(5000),
        ] {
            let told = refused(&costly).unwrap();
            assert!(told.contains("it has too many attributes and namespaces"), "{told}");
        }
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
