//! SOAP 1.2: envelopes out, bodies and faults in.
//!
//! Promises that no text of ours can break out of its element, and that names are compared without their namespace: cameras
//! use other prefixes, older namespaces and sometimes wrong ones.

use roxmltree::{Document, Node, ParsingOptions};

use super::{OnvifError, shown, tags};

/// Most elements of an answer; a list of all services and profiles has a few hundred.
const MAX_NODES: u32 = 20_000;
/// How faults without ONVIF's codes say that a login is missing or wrong, in small letters.
const REFUSALS: [&str; 9] = [
    "notauthorized",
    "not authorized",
    "not authorised",
    "unauthorized",
    "unauthorised",
    "authentication failed",
    "authentication failure",
    "authentication required",
    "security header required",
];

/// An envelope around a body; `header` is XML.
pub(super) fn envelope(header: &str, body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" xmlns:a=\"http://www.w3.org/2005/08/addressing\" \
         xmlns:tt=\"http://www.onvif.org/ver10/schema\"><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

/// Text as it may stand in an element or an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no other control characters.
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => {}
            c => out.push(c),
        }
    }
    out
}

/// Reads a document; DTDs, and with them entities of one's own, are refused, and what would keep the reader for long.
pub(super) fn read<'a>(operation: &'static str, text: &'a str) -> Result<Document<'a>, OnvifError> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    let bad = |reason: String| OnvifError::Nonsense { operation, reason };
    tags::check(text).map_err(bad)?;
    Document::parse_with_options(text, options).map_err(|e| bad(format!("not XML: {}", shown(&e.to_string()))))
}

/// The first element of the body; a fault becomes an error.
pub(super) fn body<'a, 'd>(operation: &'static str, document: &'d Document<'a>) -> Result<Node<'d, 'a>, OnvifError> {
    let nonsense = |reason: &str| OnvifError::Nonsense { operation, reason: reason.into() };
    let body = child(document.root_element(), "Body").ok_or_else(|| nonsense("no SOAP body"))?;
    let first = body.children().find(Node::is_element).ok_or_else(|| nonsense("an empty SOAP body"))?;
    if first.tag_name().name() == "Fault" {
        return Err(fault(operation, first));
    }
    Ok(first)
}

/// A login is missing or wrong, or permits less.
pub(super) fn refusal(operation: &'static str) -> OnvifError {
    OnvifError::Refused(format!("it does not permit {operation} to this user"))
}

/// A fault of SOAP 1.2 or 1.1.
fn fault(operation: &'static str, fault: Node<'_, '_>) -> OnvifError {
    let codes: Vec<&str> = fault
        .descendants()
        .filter(|n| matches!(n.tag_name().name(), "Value" | "faultcode"))
        .filter_map(|n| n.text())
        .map(|code| code.rsplit(':').next().unwrap_or(code).trim())
        .collect();
    // ONVIF Core 5.11.2.2 and WSS 1.0 section 12.
    let not_authorized = ["NotAuthorized", "FailedAuthentication", "OperationProhibited", "InvalidSecurity"];
    let reason = fault.descendants().find(|n| matches!(n.tag_name().name(), "Text" | "faultstring"));
    let reason = reason.and_then(|n| n.text()).filter(|text| !text.trim().is_empty());
    let said = reason.unwrap_or_default().to_ascii_lowercase();
    if codes.iter().any(|code| not_authorized.contains(code)) || REFUSALS.iter().any(|words| said.contains(words)) {
        return refusal(operation);
    }
    let reason = reason.map(shown).or_else(|| codes.last().map(|code| shown(code)));
    OnvifError::Fault { operation, reason: reason.unwrap_or_else(|| "it gives no reason".into()) }
}

/// The first child of that name, in any namespace.
pub(super) fn child<'a, 'd>(node: Node<'d, 'a>, name: &str) -> Option<Node<'d, 'a>> {
    node.children().find(|n| n.is_element() && n.tag_name().name() == name)
}

/// All children of that name.
pub(super) fn children<'a, 'd>(node: Node<'d, 'a>, name: &str) -> impl Iterator<Item = Node<'d, 'a>> {
    node.children().filter(move |n| n.is_element() && n.tag_name().name() == name)
}

/// The descendant that a path of names leads to.
pub(super) fn at<'a, 'd>(node: Node<'d, 'a>, path: &[&str]) -> Option<Node<'d, 'a>> {
    path.iter().try_fold(node, |node, name| child(node, name))
}

/// Its text without white space around it; `None` if there is none.
pub(super) fn text<'d>(node: Node<'d, '_>, path: &[&str]) -> Option<&'d str> {
    at(node, path)?.text().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_both_versions_become_errors() {
        let new = envelope(
            "",
            "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>ter:InvalidArgVal</s:Value></s:Subcode></s:Code>\
             <s:Reason><s:Text>no such\nprofile</s:Text></s:Reason></s:Fault>",
        );
        let document = read("GetStreamUri", &new).unwrap();
        let error = body("GetStreamUri", &document).unwrap_err();
        assert_eq!(error.to_string(), "GetStreamUri failed: no such profile");
        let old = "<e:Envelope xmlns:e='x'><e:Body><e:Fault><faultcode>wsse:FailedAuthentication</faultcode></e:Fault></e:Body></e:Envelope>";
        let document = read("GetProfiles", old).unwrap();
        assert!(matches!(body("GetProfiles", &document), Err(OnvifError::Refused(_))));
    }

    #[test]
    fn a_refused_login_is_known_by_its_words_as_well() {
        for (words, refused) in [
            ("Sender not Authorized", true),
            ("The action requested requires authorization: NotAuthorized", true),
            ("Authentication failed: digest mismatch", true),
            ("WS-Security header required but not provided", true),
            ("Unauthorized", true),
            ("the profile is not configured", false),
            ("Optional Action Not Implemented", false),
        ] {
            let text = envelope(
                "",
                &format!(
                    "<s:Fault><s:Code><s:Value>s:Sender</s:Value></s:Code><s:Reason><s:Text>{words}</s:Text></s:Reason></s:Fault>"
                ),
            );
            let document = read("GetProfiles", &text).unwrap();
            let error = body("GetProfiles", &document).unwrap_err();
            assert_eq!(matches!(error, OnvifError::Refused(_)), refused, "{words}: {error}");
        }
    }

    #[test]
    fn what_is_not_a_soap_answer_is_refused() {
        for bad in ["", "hello", "<a", "<a/>", "<a><Body/></a>", "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>"] {
            let refused =
                read("Get", bad).and_then(|document| body("Get", &document).map(|n| n.tag_name().name().len()));
            assert!(matches!(refused, Err(OnvifError::Nonsense { .. })), "{bad}: {refused:?}");
        }
        let deep = format!("{}{}", "<a>".repeat(15_000), "</a>".repeat(15_000));
        let _ = read("Get", &deep);
        let many = format!("<a>{}</a>", "<b/>".repeat(30_000));
        assert!(read("Get", &many).is_err());
    }

    #[test]
    fn no_text_breaks_out_of_its_element() {
        let text = "a<b>&\"c\u{1}";
        let document = format!("<x y=\"{0}\">{0}</x>", escaped(text));
        let document = read("Get", &document).unwrap();
        assert_eq!(document.root_element().text(), Some("a<b>&\"c"));
        assert_eq!(document.root_element().attribute("y"), Some("a<b>&\"c"));
    }
}
