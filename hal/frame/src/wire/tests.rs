//! Messages as bytes, and `PROTOCOL.md` as the judge of them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn picture() -> impl Strategy<Value = Picture> {
    let plane = (0..MAX_MEMORIES as u32, any::<u32>(), any::<u64>());
    let plane = plane.prop_map(|(memory, stride, offset)| Plane { memory, stride, offset });
    let planes = prop::collection::vec(plane, 1..=MAX_PLANES);
    (any::<u32>(), any::<u64>(), 1..=u32::MAX, 1..=u32::MAX, planes).prop_map(
        |(fourcc, modifier, width, height, planes)| {
            let (fourcc, modifier) = (Fourcc(fourcc), Modifier(modifier));
            Picture { fourcc, modifier, width, height, planes: planes.into_iter().collect() }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let index = || 0..MAX_BUFFERS as u8;
    let class = prop_oneof![Just(Class::Trusted), Just(Class::Other)];
    let reason = prop_oneof![Just(Reason::Time), Just(Reason::Pressure)];
    let farewell = prop_oneof![
        Just(Farewell::Leaving),
        Just(Farewell::Reconfigured),
        Just(Farewell::Full),
        Just(Farewell::Violation),
        Just(Farewell::Version),
        Just(Farewell::Refused),
    ];
    let one = || 1..=u32::MAX;
    let frame = (index(), any::<[u64; 3]>(), picture());
    prop_oneof![
        (one(), one(), any::<u32>()).prop_map(|(waiting, leases, max_rate)| Message::Hello(Hello {
            waiting,
            leases,
            max_rate
        })),
        (one(), one(), class, any::<u32>()).prop_map(|(waiting, leases, class, lease_ms)| {
            Message::Welcome(Welcome { waiting, leases, class, lease_ms })
        }),
        (index(), prop::collection::vec(1..=i64::MAX as u64, 1..=MAX_MEMORIES), any::<bool>()).prop_map(
            |(index, memories, dmabuf)| {
                let sizes = std::array::from_fn(|i| memories.get(i).copied().unwrap_or(0));
                Message::Announce(Announce { index, memories: memories.len() as u8, dmabuf, sizes })
            }
        ),
        frame.prop_map(|(index, [generation, sequence, captured], picture)| {
            Message::Frame(FrameNote { index, generation, sequence, captured, picture })
        }),
        (index(), any::<u64>()).prop_map(|(index, generation)| Message::Release { index, generation }),
        (index(), any::<u64>(), reason).prop_map(|(index, generation, reason)| Message::Revoked {
            index,
            generation,
            reason
        }),
        farewell.prop_map(Message::Goodbye),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_itself(message in message()) {
        prop_assert_eq!(Message::decode(message.encode().as_slice()), Ok(message));
    }

    #[test]
    fn a_cut_or_lengthened_message_is_refused(message in message(), cut in 0..MAX_MESSAGE, more in 1..64usize) {
        let encoded = message.encode();
        let bytes = encoded.as_slice();
        prop_assert!(Message::decode(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        prop_assert!(Message::decode(&[bytes, &vec![0; more]].concat()).is_err());
    }

    #[test]
    fn a_changed_byte_gives_an_error_or_a_message_of_those_bytes(
        message in message(), at in 0..MAX_MESSAGE, to in any::<u8>(),
    ) {
        let mut bytes = message.encode().as_slice().to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(message) = Message::decode(&bytes) {
            let again = message.encode();
            prop_assert_eq!(again.as_slice(), &bytes[..]);
        }
    }
}

/// A field's offset and size.
type Row = (usize, usize);

/// The messages of `PROTOCOL.md`: type, then length and the rows of its table.
fn documented() -> BTreeMap<u16, (usize, Vec<Row>)> {
    let mut messages = BTreeMap::new();
    let mut kind = None;
    for line in include_str!("../../PROTOCOL.md").lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let number: u16 = heading.split(' ').next().unwrap().parse().unwrap();
            let length = heading.split(", ").nth(1).unwrap().trim_end_matches(" bytes").parse().unwrap();
            messages.insert(number, (length, Vec::new()));
            kind = Some(number);
        } else if line.starts_with("The descriptor is the **generation page**") {
            kind = None;
        } else if let Some(kind) = kind {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, offset, size, ..] = cells[..] else { continue };
            let Ok(size) = size.parse() else { continue };
            let rows = &mut messages.get_mut(&kind).unwrap().1;
            match offset.split_once(" + ") {
                None => rows.push((offset.parse().unwrap(), size)),
                // "16 + 8 · k" and "64 + 16 · p" are arrays of four.
                Some((start, step)) => {
                    let (start, step): (usize, usize) =
                        (start.parse().unwrap(), step.split(' ').next().unwrap().parse().unwrap());
                    rows.extend((0..4).map(|i| (start + step * i, size)));
                }
            }
        }
    }
    messages
}

#[test]
fn protocol_md_says_what_the_code_does() {
    let documented = documented();
    assert_eq!(documented.len(), 7);
    for (kind, (bytes, mut rows)) in documented {
        assert_eq!(length(kind), Some(bytes), "length of message type {kind}");
        rows.sort_unstable();
        let end = rows.iter().fold(8, |end, (offset, size)| {
            assert_eq!(*offset, end, "message type {kind}: a hole or an overlap at {offset}");
            end + size
        });
        assert_eq!(end, bytes, "message type {kind}");
    }
    assert_eq!(length(8), None);
}

/// One frame, byte by byte as documented.
#[test]
fn a_frame_lies_at_its_documented_offsets() {
    let mut picture = Picture::nv12(1920, 1080, 2048);
    picture.planes[1].memory = 1;
    let (generation, sequence, captured) = (0x1112_1314_1516_1718, 0x21, 0x3132_3334_3536_3738);
    let encoded = Message::Frame(FrameNote { index: 7, generation, sequence, captured, picture }).encode();
    let bytes = encoded.as_slice();
    let mut wanted = vec![4, 0, 1, 0, 128, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    wanted.extend(generation.to_le_bytes());
    wanted.extend(sequence.to_le_bytes());
    wanted.extend(captured.to_le_bytes());
    wanted.extend(b"NV12");
    wanted.extend(2u32.to_le_bytes());
    wanted.extend(0u64.to_le_bytes());
    wanted.extend(1920u32.to_le_bytes());
    wanted.extend(1080u32.to_le_bytes());
    for (memory, stride, offset) in [(0u32, 2048u32, 0u64), (1, 2048, 2048 * 1080), (0, 0, 0), (0, 0, 0)] {
        wanted.extend(memory.to_le_bytes());
        wanted.extend(stride.to_le_bytes());
        wanted.extend(offset.to_le_bytes());
    }
    assert_eq!(bytes, wanted);
}
