//! Segments as the recorder writes them, clips as the service cuts them, and every kind of harm done to both.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use super::chain::{Chain, Made, path};
use super::manifest::Signed;
use super::verify::{self, Verdict};
use super::*;
use crate::archive::Archive;
use crate::archive::ids::{RunId, SegmentId};
use crate::clip::{Clips, Edges};
use crate::http::tests::Rig;
use mos_hal::media::LensId;

fn lens() -> LensId {
    LensId::new("road").unwrap()
}

fn kept(rig: &Rig) -> Evidence {
    Evidence::start(rig.archive().clone(), &rig.root().join("device.key")).unwrap()
}

/// Waits until `road` has so many links in run 1.
fn linked(archive: &Archive, count: usize) -> Vec<u8> {
    let begun = std::time::Instant::now();
    loop {
        let text =
            crate::archive::run::read_whole(archive.disk().as_ref(), &path(&lens(), RunId(1))).unwrap_or_default();
        if Chain::read("road", 1, &text).links.len() >= count {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "no links");
        std::thread::sleep(Duration::from_millis(20));
    }
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
    let key = evidence.key();
    let id: SegmentId = "road-1-1".parse().unwrap();
    let whole = read(&rig, &id.media_path());
    let verdict = |file: &[u8], chain: &[u8]| verify::segment(&file, chain, Some(&key));
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
    let theirs = verify::segment(&whole.as_slice(), &chain, Some("ed25519:AAAA"));
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
    // (J3)
    for n in (0..whole.len()).step_by(97) {
        let mut file = whole.clone();
        file[n] ^= 0x41;
        let _ = verdict(&file, &chain);
        let _ = verdict(&whole[..n], &chain);
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
    assert_eq!(evidence.key(), key);
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
    assert!(refused.to_string().contains("not signed by the key of the manifest"), "{refused}");
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
    drop((linked_then_stopped(&rig), ()));
    let file = rig.root().join(path(&lens(), RunId(1)));
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 30]).unwrap();
    let (rig, archive) = rig.again();
    let evidence = Evidence::start(archive.clone(), &rig.join("device.key")).unwrap();
    // Four closed in order, the last one by recovery.
    let chain = Chain::read("road", 1, &linked(&archive, 5));
    assert_eq!(chain.broken, None);
    let made: Vec<Made> = chain.links.iter().map(|link| link.made).collect();
    assert_eq!(made, [Made::Closed, Made::Closed, Made::Closed, Made::Later, Made::Later]);
    drop(evidence);
    // What is wrong before the end stays as it is, for whoever looks into it.
    let mut text = std::fs::read(rig.join(path(&lens(), RunId(1)))).unwrap();
    text[20] ^= 1;
    assert!(Chain::read("road", 1, &text).tail("road", 1).is_none());
}

/// Lets the thread link what is closed, and ends it.
fn linked_then_stopped(rig: &Rig) -> Vec<u8> {
    let evidence = kept(rig);
    let text = linked(rig.archive(), 4);
    drop(evidence);
    text
}
