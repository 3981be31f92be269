//! Any values in a board's tree: lenses come out right or with a fault each, and nothing that they say holds control characters.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use mos_hal::device_tree::{Attachment, Node, lenses};

mod edits;

fuzz_target!(|data: &[u8]| {
    let mut root = Node { path: "/".into(), properties: BTreeMap::new(), children: Vec::new() };
    let board = edits::BOARD.iter().map(|(path, value)| ((*path).to_owned(), value.to_vec()));
    for (path, value) in board.chain(edits::edits(data)) {
        set(&mut root, &path, value);
    }
    let (found, faults) = lenses(&root);
    assert!(found.len() <= 32);
    for lens in &found {
        assert!([0, 90, 180, 270].contains(&lens.rotation));
        if let Attachment::Gmsl2 { deserializer, link, .. } = &lens.attachment {
            assert!(*link < 4 && (0x08..0x78).contains(&deserializer.address));
        }
    }
    let names: std::collections::BTreeSet<_> = found.iter().map(|lens| lens.name.to_string()).collect();
    assert_eq!(names.len(), found.len(), "names are unique");
    edits::shown(faults.iter().map(ToString::to_string));
    edits::shown(found.iter().map(|lens| format!("{lens:?}")));
});

fn set(node: &mut Node, path: &str, value: Vec<u8>) {
    let Some((dir, rest)) = path.split_once('/') else {
        node.properties.insert(path.to_owned(), value);
        return;
    };
    let inner = format!("{}/{dir}", node.path.trim_end_matches('/'));
    let at = node.children.iter().position(|c| c.path == inner).unwrap_or_else(|| {
        node.children.push(Node { path: inner, properties: BTreeMap::new(), children: Vec::new() });
        node.children.len() - 1
    });
    set(&mut node.children[at], rest, value);
}
