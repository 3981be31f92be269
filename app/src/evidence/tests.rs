//! Segments as the recorder writes them, clips as the service cuts them, and every kind of harm done to both.
#![allow(clippy::unwrap_used)]

mod parts;

use std::path::Path;
use std::time::Duration;

use super::chain::{self, Chain, Made, path};
use super::judged::Judged;
use super::ledger::{Ledger, Row};
use super::manifest::Signed;
use super::verify::{self, Verdict};
use super::*;
use crate::alarms::{AlarmKind, Alarms};
use crate::archive::Archive;
use crate::archive::ids::{RunId, SegmentId};
use crate::clip::{Clips, Edges};
use crate::http::tests::Rig;
use mos_hal::media::LensId;

fn lens() -> LensId {
    LensId::new("road").unwrap()
}

fn started(archive: &Archive, root: &Path) -> (Evidence, Alarms) {
    let alarms = Alarms::new(archive.clock().clone());
    (Evidence::start(archive.clone(), &root.join("device.key"), alarms.clone()), alarms)
}

fn kept(rig: &Rig) -> Evidence {
    started(rig.archive(), rig.root()).0
}

/// What the alarm says.
fn told(alarms: &Alarms) -> String {
    let raised = alarms.list().into_iter().find(|alarm| alarm.kind == AlarmKind::Evidence);
    raised.map(|alarm| alarm.message).unwrap_or_default()
}

/// Waits until something is so.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn chain_file(root: &Path) -> std::path::PathBuf {
    root.join(path(&lens(), RunId(1), 0))
}

/// Waits until `road` has so many links in run 1.
fn linked(archive: &Archive, count: usize) -> Vec<u8> {
    until("no links", || {
        let file = path(&lens(), RunId(1), 0);
        let text = crate::archive::run::read_whole(archive.disk().as_ref(), &file).unwrap_or_default();
        (Chain::read("road", 1, &text).links.len() >= count).then_some(text)
    })
}

/// The verdict over a segment as it lies in the archive.
fn judged(root: &Path, seq: u32, key: &str) -> Verdict {
    let id: SegmentId = format!("road-1-{seq}").parse().unwrap();
    let file = std::fs::read(root.join(id.media_path())).unwrap();
    let folder = root.join("evidence/road");
    let beside = |name: &str| Ok(std::fs::read(folder.join(name)).unwrap_or_default());
    let own = beside(&chain::part_name(1, chain::part_of(seq))).unwrap();
    verify::segment(&file, &own, Some(&beside), Some(key), &mut Judged::default())
}

fn read(rig: &Rig, file: &Path) -> Vec<u8> {
    std::fs::read(rig.root().join(file)).unwrap()
}

#[test]
fn v3_the_key_is_made_once_and_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.key");
    let key = key::DeviceKey::load(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(key::DeviceKey::load(&file).unwrap().public(), key.public());
    let signature = key.sign(b"words");
    assert!(key::is_signed(&key.public(), b"words", &signature));
    assert!(!key::is_signed(&key.public(), b"sword", &signature));
    let other = key::DeviceKey::load(&folder.path().join("other.key")).unwrap();
    assert!(!key::is_signed(&other.public(), b"words", &signature));
    for bad in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA"] {
        assert!(!key::is_signed(bad, b"words", &signature), "{bad}");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(key::DeviceKey::load(&file), Err(EvidenceError::Key { .. })));
    std::fs::write(folder.path().join("junk.key"), b"junk").unwrap();
    std::fs::set_permissions(folder.path().join("junk.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(key::DeviceKey::load(&folder.path().join("junk.key")), Err(EvidenceError::Key { .. })));
}

#[test]
fn j2_every_harm_to_a_segment_is_told_with_its_place() {
    let rig = Rig::recorded(9);
    let evidence = kept(&rig);
    let chain = linked(rig.archive(), 3);
    let key = evidence.key().unwrap();
    let id: SegmentId = "road-1-1".parse().unwrap();
    let whole = read(&rig, &id.media_path());
    let verdict = |file: &[u8], chain: &[u8]| verify::segment(&file, chain, None, Some(&key), &mut Judged::default());
    assert_eq!(verdict(&whole, &chain), Verdict::Intact { key: key.clone(), later: Vec::new() });
    // Every byte of media: here one of the second keyframe, in the second block.
    let content = mos_mp4::SegmentFile::read(&whole.as_slice(), mos_mp4::Verify::Structure).unwrap();
    let second = content.movie.video().unwrap().table.get(25).unwrap();
    let mut file = whole.clone();
    file[second.offset as usize + 5] ^= 1;
    let Verdict::Tampered(places) = verdict(&file, &chain) else { panic!("not tampered") };
    assert_eq!(places.len(), 1);
    assert!(places[0].starts_with("block 1, picture at 1.000 s"), "{places:?}");
    // A closed segment whose end is lost is read by its fragments: what is missing is told.
    let cut = &whole[..second.offset as usize + 100];
    assert!(matches!(verdict(cut, &chain), Verdict::Incomplete(_)), "{}", verdict(cut, &chain));
    // Another's footage under this name, and another's key.
    let other = read(&rig, &"road-1-2".parse::<SegmentId>().unwrap().media_path());
    assert!(matches!(verdict(&other, &chain), Verdict::Intact { .. }), "it says itself which it is");
    let mut renamed = whole.clone();
    let header = content.header_len as usize;
    renamed[header..].iter_mut().zip(&other[header..]).for_each(|(ours, theirs)| *ours = *theirs);
    assert!(matches!(verdict(&renamed, &chain), Verdict::Tampered(_)));
    let theirs = verify::segment(&whole.as_slice(), &chain, None, Some("ed25519:AAAA"), &mut Judged::default());
    assert!(matches!(theirs, Verdict::Tampered(_)), "{theirs}");
    // The chain: a line changed, left out, swapped; the last one torn.
    let lines: Vec<&[u8]> = chain.split_inclusive(|b| *b == b'\n').collect();
    let without = [lines[0], lines[2]].concat();
    assert!(matches!(verdict(&whole, &[lines[1], lines[0]].concat()), Verdict::Tampered(_)));
    assert!(!matches!(verdict(&whole, &without), Verdict::Intact { .. }));
    assert!(matches!(verdict(&whole, &[lines[0], &lines[1][..40]].concat()), Verdict::Unlinked(_)));
    assert!(matches!(verdict(&whole, b""), Verdict::Unlinked(_)));
    let mut forged = chain.clone();
    let at = lines[0].len() + lines[1].iter().position(|b| *b == b'[').unwrap() + 3;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    assert!(matches!(verdict(&whole, &forged), Verdict::Tampered(_)), "{}", verdict(&whole, &forged));
    // (J3) Boxes that no player shows are not attested, but every picture is, and every end.
    let is_genuine = |file: &[u8]| matches!(verdict(file, &chain), Verdict::Intact { .. } | Verdict::Late { .. });
    let pictures: Vec<_> =
        content.movie.video().unwrap().table.iter().map(|s| s.offset..s.offset + u64::from(s.size)).collect();
    for n in (0..whole.len()).step_by(97) {
        let mut file = whole.clone();
        file[n] ^= 0x41;
        let is_picture = pictures.iter().any(|bytes| bytes.contains(&(n as u64)));
        assert!(!(is_genuine(&file) && is_picture), "byte {n} was changed in silence");
        assert!(!is_genuine(&whole[..n]), "cut at {n} in silence");
    }
}

#[test]
fn j1_every_byte_of_a_clip_is_attested() {
    let rig = Rig::recorded(9);
    let evidence = kept(&rig);
    let _ = linked(rig.archive(), 3);
    let clips = Clips::new(rig.archive().clone()).with_sources(true);
    let clip = clips.by_segment(&"road-1-1".parse().unwrap(), 0.5, 1.5, Edges::Exact).unwrap();
    let signed = evidence.manifest(clip.id).unwrap();
    let whole = read(&rig, &clip.path);
    let key = signed.key.clone();
    assert_eq!(evidence.key(), Some(key.clone()));
    let text = serde_json::to_vec_pretty(&signed).unwrap();
    let signed: Signed = serde_json::from_slice(&text).unwrap();
    let verdict = |file: &[u8]| verify::clip(&file, &signed, Some(&key));
    assert_eq!(verdict(&whole), Verdict::Intact { key: key.clone(), later: Vec::new() });
    for at in (0..whole.len()).step_by(31).chain([0, whole.len() - 1]) {
        let mut file = whole.clone();
        file[at] ^= 0x20;
        let Verdict::Tampered(places) = verdict(&file) else { panic!("byte {at} was changed in silence") };
        let head = at < signed.manifest.head_bytes as usize;
        let told = if head { "how the clip is shown" } else { "of road-1-1, bytes" };
        assert!(places.len() == 1 && places[0].contains(told), "byte {at}: {places:?}");
        assert!(!matches!(verdict(&whole[..at]), Verdict::Intact { .. } | Verdict::Unlinked(_)), "cut at {at}");
    }
    assert!(matches!(verdict(&whole[..whole.len() - 1]), Verdict::Incomplete(_)));
    assert!(matches!(verdict(&[&whole[..], b"more"].concat()), Verdict::Tampered(_)));
    // A manifest that says something else is not signed any more, and one by another key is another's.
    let mut forged = signed.clone();
    forged.manifest.clip.push('x');
    assert!(matches!(verify::clip(&whole.as_slice(), &forged, Some(&key)), Verdict::Tampered(_)));
    let other = key::DeviceKey::load(&rig.root().join("other.key")).unwrap();
    let forged = manifest::sign(signed.manifest.clone(), &other);
    assert!(matches!(verify::clip(&whole.as_slice(), &forged, Some(&key)), Verdict::Tampered(_)));
    let refused = verify::clip(&whole.as_slice(), &forged, None);
    assert!(refused.to_string().contains("linked by another key than the manifest's"), "{refused}");
    // Without notes of its sources nothing ties a clip to the chain; what is being recorded is not linked yet.
    let plain = Clips::new(rig.archive().clone()).by_segment(&"road-1-1".parse().unwrap(), 0.5, 1.5, Edges::Exact);
    let Err(ManifestFailure::Evidence(EvidenceError::NoSources(_))) = evidence.manifest(plain.unwrap().id) else {
        panic!("a manifest without sources")
    };
    let open = clips.by_segment(&"road-1-4".parse().unwrap(), 0.0, 0.5, Edges::Exact).unwrap();
    let early = evidence.manifest(open.id).unwrap_err();
    assert!(matches!(early, ManifestFailure::Evidence(EvidenceError::NotYet(_))), "{early}");
}

#[test]
fn v2_a_torn_link_is_made_anew_by_the_next_start_and_says_so() {
    let rig = Rig::recorded(9);
    let whole = linked_then_stopped(&rig);
    // The power went while the fourth was written: nobody was told yet that it was there.
    let file = chain_file(rig.root());
    std::fs::write(&file, &whole[..whole.len() - 30]).unwrap();
    let key_file = rig.root().join("device.key");
    let key = key::DeviceKey::load(&key_file).unwrap();
    let mut ledger = Ledger::load(&key_file, &key).0;
    let third = Chain::read("road", 1, &whole).links[2].head;
    ledger.set(Row { lens: "road".to_owned(), run: 1, part: 0, links: 3, head: third });
    ledger.write(&key).unwrap();
    let (root, archive) = rig.again();
    let (evidence, alarms) = started(&archive, &root);
    // Four closed in order, the last one by recovery.
    let chain = Chain::read("road", 1, &linked(&archive, 5));
    assert_eq!(chain.broken, None);
    let made: Vec<Made> = chain.links.iter().map(|link| link.made).collect();
    assert_eq!(made, [Made::Closed, Made::Closed, Made::Closed, Made::Later, Made::Later]);
    until("not counted", || (evidence.counts().late == 2).then_some(()));
    assert_eq!(told(&alarms), "");
    for (seq, later) in [(2, 0), (3, 1), (4, 1)] {
        let verdict = judged(&root, seq, &key.public());
        assert!(matches!(&verdict, Verdict::Intact { later: l, .. } if l.len() == later), "{seq}: {verdict}");
    }
    drop(evidence);
    // What is wrong before the end stays as it is, for whoever looks into it.
    let mut text = std::fs::read(chain_file(&root)).unwrap();
    text[20] ^= 1;
    assert!(Chain::read("road", 1, &text).tail(0, chain::root("road", 1)).is_none());
}

/// Lets the thread link what is closed, and ends it.
fn linked_then_stopped(rig: &Rig) -> Vec<u8> {
    let evidence = kept(rig);
    let text = linked(rig.archive(), 4);
    drop(evidence);
    text
}

/// Changes a picture of a closed segment.
fn falsify(root: &Path, seq: u32) {
    let id: SegmentId = format!("road-1-{seq}").parse().unwrap();
    let path = root.join(id.media_path());
    let mut file = std::fs::read(&path).unwrap();
    let content = mos_mp4::SegmentFile::read(&file.as_slice(), mos_mp4::Verify::Structure).unwrap();
    let at = content.movie.video().unwrap().table.get(3).unwrap().offset as usize;
    file[at + 9] ^= 1;
    std::fs::write(path, file).unwrap();
}

#[test]
fn g1_a_chain_that_was_shortened_makes_nothing_intact() {
    for keep in [0, 2] {
        let rig = Rig::recorded(9);
        let whole = linked_then_stopped(&rig);
        let file = chain_file(rig.root());
        let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
        if keep == 0 {
            std::fs::remove_file(&file).unwrap();
        } else {
            std::fs::write(&file, lines[..keep].concat()).unwrap();
        }
        falsify(rig.root(), 3);
        let (root, archive) = rig.again();
        let (evidence, alarms) = started(&archive, &root);
        let chain = Chain::read("road", 1, &linked(&archive, 5));
        assert!(chain.links[keep..].iter().all(|link| link.made == Made::Old), "{keep}");
        assert!(told(&alarms).contains("shortened or replaced"), "{}", told(&alarms));
        let verdict = judged(&root, 3, &evidence.key().unwrap());
        assert!(matches!(&verdict, Verdict::Late { segments, .. } if *segments == ["road-1-3"]), "{keep}: {verdict}");
    }
}

#[test]
fn g1_what_was_recorded_without_evidence_is_late_and_never_intact() {
    let (root, archive) = Rig::recorded(9).again();
    let (evidence, alarms) = started(&archive, &root);
    linked(&archive, 5);
    for seq in 0..5 {
        let verdict = judged(&root, seq, &evidence.key().unwrap());
        assert!(matches!(verdict, Verdict::Late { .. }), "{seq}: {verdict}");
    }
    assert_eq!(told(&alarms), "");
}

#[test]
fn n2_only_what_a_power_cut_can_leave_is_torn() {
    let rig = Rig::recorded(9);
    let whole = linked_then_stopped(&rig);
    let last = whole.len() - whole.split_inclusive(|b| *b == b'\n').next_back().unwrap().len();
    let read = |text: &[u8]| Chain::read("road", 1, text);
    // The same line, whole and sealed anew, with another signature.
    let mut link = read(&whole).links[3].clone();
    link.signature = read(&whole).links[2].signature.clone();
    let forged = [&whole[..last], crate::archive::line::seal(&link).as_bytes(), b"\n"].concat();
    let mut flipped = whole.clone();
    flipped[last + 40] ^= 1;
    for (text, why) in [(&forged, "signature"), (&flipped, "cannot be read")] {
        let chain = read(text);
        assert!(!chain.torn && chain.broken.unwrap().1.contains(why), "{:?}", chain.broken);
        std::fs::write(chain_file(rig.root()), text).unwrap();
        let key = key::DeviceKey::load(&rig.root().join("device.key")).unwrap().public();
        let verdict = judged(rig.root(), 3, &key);
        assert!(matches!(&verdict, Verdict::Tampered(_)), "{verdict}");
    }
    // Blocks in the middle that never reached the disk read as zeros.
    let mut torn = whole.clone();
    torn[last + 10..last + 60].fill(0);
    assert!(read(&torn).torn && read(&whole[..whole.len() - 1]).torn);
    // (O1) The next start writes nothing behind what is wrong, and says so.
    std::fs::write(chain_file(rig.root()), &forged).unwrap();
    let (root, archive) = rig.again();
    let (_evidence, alarms) = started(&archive, &root);
    until("not told", || told(&alarms).contains("its signature does not hold").then_some(()));
    assert_eq!(std::fs::read(chain_file(&root)).unwrap(), forged);
}

#[test]
fn n3_a_link_is_found_by_its_own_line_and_goes_with_its_segments() {
    let rig = Rig::recorded(9);
    let whole = linked_then_stopped(&rig);
    let disk = rig.archive().disk().clone();
    let id = |seq: u32| format!("road-1-{seq}").parse::<SegmentId>().unwrap();
    for (seq, link) in (0..).zip(&Chain::read("road", 1, &whole).links) {
        assert_eq!(chain::find(disk.as_ref(), &id(seq)).unwrap().as_ref(), Some(link));
    }
    assert_eq!(chain::find(disk.as_ref(), &id(4)).unwrap(), None);
    assert_eq!(chain::find(disk.as_ref(), &id(chain::PART)).unwrap(), None);
    drop(disk);
    let (root, archive) = rig.again();
    let other = root.join(path(&lens(), RunId(1), 7));
    std::fs::copy(chain_file(&root), &other).unwrap();
    // What cannot be listed is no reason to forget its chain.
    let of_other = root.join(path(&LensId::new("door").unwrap(), RunId(1), 0));
    std::fs::create_dir_all(of_other.parent().unwrap()).unwrap();
    std::fs::write(&of_other, b"kept").unwrap();
    std::fs::create_dir_all(root.join("segments/door")).unwrap();
    std::fs::write(root.join("segments/door/1"), b"no folder").unwrap();
    let (_evidence, _) = started(&archive, &root);
    until("no segment needs it", || (!other.exists()).then_some(()));
    assert!(chain_file(&root).exists() && of_other.exists());
}

#[test]
fn v1_a_key_that_cannot_be_used_is_an_alarm_and_is_tried_again() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::recorded(5);
    let file = rig.root().join("device.key");
    key::DeviceKey::load(&file).unwrap();
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    let (evidence, alarms) = started(rig.archive(), rig.root());
    assert_eq!(evidence.key(), None);
    assert!(told(&alarms).contains("no evidence is kept: the device's key"), "{}", told(&alarms));
    let clips = Clips::new(rig.archive().clone()).with_sources(true);
    let clip = clips.by_segment(&"road-1-0".parse().unwrap(), 0.5, 1.5, Edges::Exact).unwrap();
    let refused = evidence.manifest(clip.id).unwrap_err();
    assert!(matches!(refused, ManifestFailure::Evidence(EvidenceError::Key { .. })), "{refused}");
    mode(0o600);
    linked(rig.archive(), 2);
    assert_eq!(told(&alarms), "");
    let in_vain = Evidence::start(rig.archive().clone(), Path::new("/nowhere/device.key"), alarms.clone());
    assert!(in_vain.key().is_none() && told(&alarms).contains("/nowhere/device.key"));
}

#[test]
fn p2_a_segment_that_cannot_be_read_is_given_up_and_told() {
    let rig = Rig::recorded(9);
    let id: SegmentId = "road-1-1".parse().unwrap();
    std::fs::write(rig.root().join(id.media_path()), b"nothing of a segment").unwrap();
    let (evidence, alarms) = started(rig.archive(), rig.root());
    let chain = Chain::read("road", 1, &linked(rig.archive(), 3));
    let linked: Vec<u32> = chain.links.iter().map(|link| link.segment.seq).collect();
    assert_eq!((linked.as_slice(), chain.broken), ([0, 2, 3].as_slice(), None));
    let counts = Counts { linked: 3, late: 0, skipped: 0, given_up: 1 };
    until("not counted", || (evidence.counts() == counts).then_some(()));
    assert!(told(&alarms).contains("road-1-1 gets no link"), "{}", told(&alarms));
}

/// Renews the checksum of a `moov` of ours that was changed.
fn reseal(moov: &mut [u8]) {
    let at = moov.windows(16).position(|w| *w == mos_mp4::close::SUMMARY_UUID).unwrap() + 16;
    let sum = crate::archive::line::crc32(&moov[at + 4..]);
    moov[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn j2_how_a_segment_is_shown_and_when_it_began_are_attested() {
    let rig = Rig::recorded(9);
    let evidence = kept(&rig);
    let chain = linked(rig.archive(), 3);
    let key = evidence.key().unwrap();
    let whole = read(&rig, &"road-1-1".parse::<SegmentId>().unwrap().media_path());
    let content = mos_mp4::SegmentFile::read(&whole.as_slice(), mos_mp4::Verify::Structure).unwrap();
    let moov = content.end as usize + 8;
    let place = |kind: &[u8; 4]| moov + whole[moov..].windows(4).position(|w| w == kind).unwrap() + 4;
    // Duration and media time of an edit, ticks per second, width of the sample entry, a byte of the decoder's configuration,
    // turning the picture, the clock of the whole.
    for (what, at) in [
        ("how long an edit lasts", place(b"elst") + 15),
        ("where an edit begins", place(b"elst") + 23),
        ("ticks per second", place(b"mdhd") + 23),
        ("width", place(b"avc1") + 25),
        ("decoder", place(b"avcC") + 1),
        ("turn", place(b"tkhd") + 55),
        ("clock", place(b"mvhd") + 23),
    ] {
        let mut file = whole.clone();
        file[at] ^= 1;
        reseal(&mut file[moov..content.used as usize]);
        let read = mos_mp4::SegmentFile::read(&file.as_slice(), mos_mp4::Verify::Structure).unwrap();
        let verdict = verify::segment(&file, &chain, None, Some(&key), &mut Judged::default());
        assert!(matches!(verdict, Verdict::Tampered(_)), "{what}: {verdict} {:?}", read.state);
    }
    // The wall clock in the identity, with its checksum.
    let identity = mos_mp4::layout::IDENTITY_OFFSET as usize;
    let mut file = whole.clone();
    let body = identity + 24;
    file[body + 79] ^= 1;
    let sum = crate::archive::line::crc32(&file[body..body + 124]);
    file[body + 124..body + 128].copy_from_slice(&sum.to_be_bytes());
    let verdict = verify::segment(&file, &chain, None, Some(&key), &mut Judged::default());
    assert!(verdict.to_string().contains("the file says that it is"), "{verdict}");
    // A fragment behind the end, which some players show.
    let verdict =
        verify::segment(&[&whole[..], b"\0\0\0\x08moof"].concat(), &chain, None, Some(&key), &mut Judged::default());
    assert!(verdict.to_string().contains("which were added"), "{verdict}");
}

#[test]
fn j3_no_manifest_and_no_chain_does_harm() {
    let rig = Rig::recorded(5);
    let evidence = kept(&rig);
    let chain = linked(rig.archive(), 2);
    let clips = Clips::new(rig.archive().clone()).with_sources(true);
    let clip = clips.by_segment(&"road-1-0".parse().unwrap(), 0.5, 1.5, Edges::Exact).unwrap();
    let text = serde_json::to_vec(&evidence.manifest(clip.id).unwrap()).unwrap();
    let key = evidence.key().unwrap();
    let whole = read(&rig, &clip.path);
    let segment = read(&rig, &"road-1-0".parse::<SegmentId>().unwrap().media_path());
    let seeds = [[&text, &b"\0"[..], &whole].concat(), [&chain, &b"\0"[..], &segment].concat()];
    crate::fuzzing::tests::mutate(&seeds, |data| {
        crate::fuzzing::evidence(data);
        let cut = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
        let file = data.get(cut + 1..).unwrap_or_default();
        if let Ok(signed) = serde_json::from_slice::<Signed>(&data[..cut])
            && matches!(verify::clip(&file, &signed, Some(&key)), Verdict::Intact { .. })
        {
            assert!(file == whole, "another clip is said to be intact");
        }
    });
}

#[test]
fn j3_numbers_of_a_manifest_from_outside_do_no_harm() {
    let rig = Rig::recorded(5);
    let evidence = kept(&rig);
    linked(rig.archive(), 2);
    let clips = Clips::new(rig.archive().clone()).with_sources(true);
    let clip = clips.by_segment(&"road-1-0".parse().unwrap(), 0.5, 1.5, Edges::Exact).unwrap();
    let signed = evidence.manifest(clip.id).unwrap();
    let whole = read(&rig, &clip.path);
    // Signed by a key of the forger, which the verifier was not told.
    let key = key::DeviceKey::load(&rig.root().join("other.key")).unwrap();
    for (from, bytes, size) in
        [(u64::MAX, u64::MAX, u32::MAX), (u64::MAX - 5, 7, 7), (0, u64::MAX, 0), (3, 0, u32::MAX)]
    {
        let mut forged = signed.manifest.clone();
        forged.head_bytes = size;
        for copied in &mut forged.copies {
            (copied.from, copied.bytes) = (from, bytes);
        }
        let proof = &mut forged.segments[0];
        for unit in proof.blocks.iter_mut().flat_map(|(_, units)| units) {
            (unit.at, unit.size, unit.pts, unit.dts) = (from, size, i64::MIN, i64::MAX);
        }
        let mut blocks = proof.link.blocks.clone();
        for (number, units) in &proof.blocks {
            blocks[*number as usize] = digest::block(units);
        }
        let link = &proof.link;
        let at = (link.before, link.made);
        proof.link = chain::Link::new(link.segment.clone(), link.shape, blocks, at, &key);
        let forged = manifest::sign(forged, &key);
        let verdict = verify::clip(&whole.as_slice(), &forged, None);
        assert!(!matches!(verdict, Verdict::Intact { .. }), "{verdict}");
    }
}
