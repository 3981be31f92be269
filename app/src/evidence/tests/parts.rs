//! Chains of several parts, and chains and manifests of other forms.

use super::super::manifest::Unreadable;
use super::*;

/// Recorded so long that its chain has three parts, linked, and stopped.
fn in_three_parts() -> (Rig, String) {
    let rig = Rig::recorded(i64::from(2 * chain::PART + 2) * 2);
    let evidence = kept(&rig);
    let key = until("no key", || evidence.key());
    until("not linked", || (evidence.counts().linked > u64::from(2 * chain::PART)).then_some(()));
    drop(evidence);
    (rig, key)
}

#[test]
fn j4_a_middle_part_that_was_dropped_or_altered_is_found() {
    let (rig, key) = in_three_parts();
    let (root, last) = (rig.root().to_owned(), 2 * chain::PART);
    let middle = root.join(path(&lens(), RunId(1), 1));
    let whole = std::fs::read(&middle).unwrap();
    assert!(matches!(judged(&root, last, &key), Verdict::Intact { .. }), "{}", judged(&root, last, &key));
    let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
    std::fs::write(&middle, lines[..lines.len() - 1].concat()).unwrap();
    let verdict = judged(&root, last, &key);
    assert!(
        matches!(&verdict, Verdict::Tampered(places) if places[0].contains("1-2.jsonl does not follow")),
        "{verdict}"
    );
    std::fs::remove_file(&middle).unwrap();
    let verdict = judged(&root, last, &key);
    assert!(matches!(&verdict, Verdict::Incomplete(places) if places[0].contains("1-1.jsonl")), "{verdict}");
    // The next start tells, though the last part is as the ledger says, and what it links makes nothing intact.
    falsify(&root, last - 1);
    let (root, archive) = rig.again();
    let (evidence, alarms) = started(&archive, &root);
    until("not told", || told(&alarms).contains("1-1.jsonl").then_some(()));
    until("not linked", || (evidence.counts().late >= u64::from(chain::PART)).then_some(()));
    let verdict = judged(&root, last - 1, &key);
    assert!(matches!(verdict, Verdict::Late { .. }), "{verdict}");
    let verdict = judged(&root, last, &key);
    assert!(matches!(&verdict, Verdict::Tampered(_)), "{verdict}");
}

/// The verdict over a segment as it lies in the archive, when others were judged before it, and how many parts were asked for
/// besides its own.
fn judged_with(root: &Path, seq: u32, key: &str, judged: &mut Judged) -> (Verdict, usize) {
    let id: SegmentId = format!("road-1-{seq}").parse().unwrap();
    let file = std::fs::read(root.join(id.media_path())).unwrap();
    let folder = root.join("evidence/road");
    let asked = std::cell::Cell::new(0);
    let beside = |name: &str| {
        asked.set(asked.get() + usize::from(chain::parse_name(name).is_some()));
        Ok(std::fs::read(folder.join(name)).unwrap_or_default())
    };
    let own = std::fs::read(folder.join(chain::part_name(1, chain::part_of(seq)))).unwrap_or_default();
    let verdict = verify::segment(&file, &own, Some(&beside), Some(key), judged);
    (verdict, asked.get())
}

#[test]
fn k1_segments_that_are_judged_together_get_the_verdicts_that_they_get_alone_and_share_the_cost() {
    let (rig, key) = in_three_parts();
    let root = rig.root().to_owned();
    let ascending: Vec<u32> = (0..=2 * chain::PART).collect();
    let mut by_letters = ascending.clone();
    by_letters.sort_by_key(u32::to_string);
    let descending: Vec<u32> = ascending.iter().rev().copied().collect();
    let middle = root.join(path(&lens(), RunId(1), 1));
    let whole = std::fs::read(&middle).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
    // A link of the middle that is sound but for its signature, which no later head speaks of.
    let mut link = Chain::read("road", 1, &whole).links[5].clone();
    link.signature = Chain::read("road", 1, &whole).links[4].signature.clone();
    let resigned = crate::archive::line::seal(&link) + "\n";
    let changed = [&lines[..5].concat(), resigned.as_bytes(), &lines[6..].concat()].concat();
    for (harm, text) in [
        ("none", Some(whole.clone())),
        ("shortened", Some(lines[..lines.len() - 1].concat())),
        ("signed otherwise", Some(changed)),
        ("gone", None),
    ] {
        match &text {
            Some(text) => std::fs::write(&middle, text).unwrap(),
            None => std::fs::remove_file(&middle).unwrap(),
        }
        let alone: Vec<Verdict> = ascending.iter().map(|seq| judged(&root, *seq, &key)).collect();
        let last = alone.last().unwrap();
        assert_eq!(matches!(last, Verdict::Intact { .. }), harm == "none", "{harm}: {last}");
        for order in [&ascending, &by_letters, &descending] {
            let (mut judged, mut asked) = (Judged::default(), 0);
            // The last part has but one that is certainly linked: what is known of it by the others counts when it comes again.
            for seq in order.iter().chain(order) {
                let (verdict, parts) = judged_with(&root, *seq, &key, &mut judged);
                assert_eq!(verdict, alone[*seq as usize], "{harm}, {seq}");
                asked += parts;
            }
            assert_eq!(judged.count, 3, "{harm}: each of three files is judged once");
            assert!(asked <= 3, "{harm}: {asked} parts were followed back, of two that have any before them");
        }
    }
    // What is written while others are judged is seen.
    let mut judged = Judged::default();
    std::fs::write(&middle, lines[..3].concat()).unwrap();
    let (early, _) = judged_with(&root, chain::PART + 3, &key, &mut judged);
    assert!(matches!(early, Verdict::Unlinked(_)), "{early}");
    std::fs::write(&middle, &whole).unwrap();
    for seq in [chain::PART + 3, 2 * chain::PART] {
        let (verdict, _) = judged_with(&root, seq, &key, &mut judged);
        assert!(matches!(verdict, Verdict::Intact { .. }), "{verdict}");
    }
}

/// Who harms the end of a run, and takes it away once that was told, is told again.
#[test]
fn o5_a_run_that_was_told_as_harmed_is_guarded_as_before() {
    let (rig, _) = in_three_parts();
    let last = rig.root().join(path(&lens(), RunId(1), 2));
    let mut text = std::fs::read(&last).unwrap();
    text[20] ^= 1;
    std::fs::write(&last, text).unwrap();
    let (root, archive) = rig.again();
    let (evidence, alarms) = started(&archive, &root);
    until("not looked through", || root.join("device.key.past-links").exists().then_some(()));
    assert!(told(&alarms).contains("1-2.jsonl"), "{}", told(&alarms));
    drop(evidence);
    std::fs::remove_file(&last).unwrap();
    for seq in 2 * chain::PART.. {
        let id: SegmentId = format!("road-1-{seq}").parse().unwrap();
        if std::fs::remove_file(root.join(id.media_path())).is_err() {
            break;
        }
    }
    let mut archive = next(archive, &root);
    for _ in 0..2 {
        let (evidence, alarms) = started(&archive, &root);
        until("not told", || told(&alarms).contains("shortened or replaced").then_some(()));
        drop(evidence);
        archive = next(archive, &root);
    }
}

#[test]
fn o2_a_part_that_went_with_its_segments_is_vouched_for() {
    let (rig, key) = in_three_parts();
    let last = 2 * chain::PART;
    for seq in chain::PART..last {
        let id: SegmentId = format!("road-1-{seq}").parse().unwrap();
        std::fs::remove_file(rig.root().join(id.media_path())).unwrap();
    }
    let (root, archive) = rig.again();
    let (evidence, alarms) = started(&archive, &root);
    let gone = root.join(path(&lens(), RunId(1), 1));
    until("no segment needs it", || (!gone.exists()).then_some(()));
    let intact = judged(&root, last, &key);
    assert!(matches!(intact, Verdict::Intact { .. }), "{intact}");
    assert_eq!(told(&alarms), "");
    drop(evidence);
    // A note that this device did not sign is none.
    let note = root.join("evidence/road").join(joints::gone_name(1));
    let text = std::fs::read_to_string(&note).unwrap();
    for forged in [text.replace("\"to\":1", "\"to\":0"), String::new()] {
        assert_ne!(forged, text);
        std::fs::write(&note, forged).unwrap();
        let verdict = judged(&root, last, &key);
        assert!(matches!(verdict, Verdict::Incomplete(_)), "{verdict}");
    }
}

/// The notes of the part that went are by the key that signed the parts behind it.
#[test]
fn o2_a_new_key_believes_what_the_former_noted_of_its_chain() {
    let (rig, _) = in_three_parts();
    for seq in chain::PART..2 * chain::PART {
        let id: SegmentId = format!("road-1-{seq}").parse().unwrap();
        std::fs::remove_file(rig.root().join(id.media_path())).unwrap();
    }
    let (root, archive) = rig.again();
    let (evidence, _) = started(&archive, &root);
    let gone = root.join(path(&lens(), RunId(1), 1));
    until("no segment needs it", || (!gone.exists()).then_some(()));
    drop(evidence);
    for name in ["device.key", "device.key.links", "device.key.past-links"] {
        let _ = std::fs::remove_file(root.join(name));
    }
    let archive = next(archive, &root);
    let (_evidence, alarms) = started(&archive, &root);
    until("not looked through", || root.join("device.key.past-links").exists().then_some(()));
    let told = told(&alarms);
    assert!(told.contains("a new key was made") && !told.contains("not as it was written"), "{told}");
}

/// A run of which retention has taken all footage: its folder stays for its accounts, and the ledger knows of its links.
#[test]
fn o2_a_run_of_which_only_accounts_are_left_was_not_shortened() {
    // The first run was recorded without evidence: its links are made behind all that is said of the second.
    let (root, archive) = Rig::recorded(9).again();
    let folder = root.join("segments/road/2");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("gaps.jsonl"), "").unwrap();
    let key_file = root.join("device.key");
    let key = key::DeviceKey::load(&key_file).unwrap();
    let mut tail = chain::Tail::begin(0, chain::root("road", 2));
    for seq in 0..3 {
        let name = digest::Name { lens: "road".into(), run: 2, seq, boot: "01".into(), mono_start: 0, utc: None };
        let link = chain::Link::new(name, digest::Hash::of(&[b"shape"]), Vec::new(), (tail.head, Made::Closed), &key);
        chain::append(archive.disk().as_ref(), &mut tail, &link).unwrap();
    }
    let mut ledger = Ledger::load(&key_file, &key).0;
    ledger.set(Row::new("road", 2, &tail));
    ledger.write(&key).unwrap();
    // Something is left to be linked at each start.
    let (last, aside) = (root.join("segments/road/1/4.mp4"), root.join("aside"));
    std::fs::rename(&last, &aside).unwrap();
    let mut archive = next(archive, &root);
    let note = root.join("evidence/road").join(joints::gone_name(2));
    for count in [4, 5] {
        let (evidence, alarms) = started(&archive, &root);
        linked(&archive, count);
        assert_eq!(told(&alarms), "");
        assert!(note.exists() && !root.join(path(&lens(), RunId(2), 0)).exists());
        drop(evidence);
        let _ = std::fs::rename(&aside, &last);
        archive = next(archive, &root);
    }
    std::fs::remove_dir_all(folder).unwrap();
    let (_evidence, _) = started(&archive, &root);
    until("nothing is left of the run", || (!note.exists()).then_some(()));
}

#[test]
fn o4_what_the_disk_does_not_give_at_one_start_is_linked_by_the_next_as_if_by_this() {
    let left: SegmentId = "road-1-4".parse().unwrap();
    for (file, words) in [
        (path(&lens(), RunId(1), 0), "cannot be read, is tried again at the next start"),
        (left.media_path(), "road-1-4 gets no link"),
    ] {
        let rig = Rig::recorded(9);
        linked_then_stopped(&rig);
        let (root, archive) = rig.again();
        // A link in its place is not followed: an error that says nothing of the file.
        let (file, aside) = (root.join(file), root.join("aside"));
        std::fs::rename(&file, &aside).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        let (evidence, alarms) = started(&archive, &root);
        let key = until("no key", || evidence.key());
        until("not told", || told(&alarms).contains(words).then_some(()));
        drop(evidence);
        std::fs::rename(&aside, &file).unwrap();
        let archive = next(archive, &root);
        let (_evidence, alarms) = started(&archive, &root);
        let chain = Chain::read("road", 1, &linked(&archive, 5));
        assert_eq!(chain.links[4].made, Made::Later, "{words}");
        assert_eq!(told(&alarms), "", "{words}");
        let verdict = judged(&root, 4, &key);
        assert!(matches!(&verdict, Verdict::Intact { later, .. } if later.len() == 1), "{words}: {verdict}");
    }
}

#[test]
fn o4_a_ledger_that_cannot_be_read_at_once_is_waited_for() {
    let rig = Rig::recorded(9);
    linked_then_stopped(&rig);
    let (root, archive) = rig.again();
    let (file, aside) = (root.join("device.key.links"), root.join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    let (_evidence, alarms) = started(&archive, &root);
    until("not told", || told(&alarms).contains("device.key.links").then_some(()));
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let chain = Chain::read("road", 1, &linked(&archive, 5));
    assert_eq!(chain.links[4].made, Made::Later);
    assert_eq!(told(&alarms), "");
}

#[test]
fn a_chain_of_the_older_form_is_told_for_what_it_is_and_linked_anew() {
    let rig = Rig::recorded(9);
    let whole = linked_then_stopped(&rig);
    let key = key::DeviceKey::load(&rig.root().join("device.key")).unwrap().public();
    let older = |row: &[u8]| {
        let mut link = crate::archive::line::unseal::<serde_json::Value>(row).unwrap();
        link.as_object_mut().unwrap().remove("shape");
        crate::archive::line::seal(&link) + "\n"
    };
    let text: String = whole.split_inclusive(|b| *b == b'\n').map(older).collect();
    std::fs::remove_file(chain_file(rig.root())).unwrap();
    std::fs::write(rig.root().join("evidence/road/1.jsonl"), &text).unwrap();
    let verdict = judged(rig.root(), 1, &key);
    assert!(
        matches!(&verdict, Verdict::Unlinked(why) if why.contains("1.jsonl, a chain of an older form")),
        "{verdict}"
    );
    let file = read(&rig, &"road-1-1".parse::<SegmentId>().unwrap().media_path());
    let verdict = verify::segment(&file, text.as_bytes(), None, Some(&key), &mut Judged::default());
    assert!(matches!(&verdict, Verdict::Unlinked(why) if why.contains("older form")), "{verdict}");
    assert_eq!(chain::older(rig.archive().disk().as_ref()).unwrap(), [Path::new("evidence/road/1.jsonl")]);
    let (root, archive) = rig.again();
    let (_evidence, _) = started(&archive, &root);
    linked(&archive, 5);
    let verdict = judged(&root, 1, &key);
    assert!(matches!(verdict, Verdict::Late { .. }), "{verdict}");
}

#[test]
fn a_manifest_of_another_form_is_refused_with_its_name() {
    let rig = Rig::recorded(5);
    let evidence = kept(&rig);
    linked(rig.archive(), 2);
    let clips = Clips::new(rig.archive().clone()).with_sources(true);
    let clip = clips.by_segment(&"road-1-0".parse().unwrap(), 0.5, 1.5, Edges::Exact).unwrap();
    let signed = evidence.manifest(clip.id).unwrap();
    assert_eq!(signed.manifest.format, "mos-manifest-2");
    let whole = read(&rig, &clip.path);
    // The same under its former name, signed.
    let key = key::DeviceKey::load(&rig.root().join("device.key")).unwrap();
    let mut former = signed.manifest.clone();
    former.format = "mos-manifest-1".to_owned();
    let former = serde_json::to_value(manifest::sign(former, &key)).unwrap();
    let verdict = |text: &[u8]| Signed::read(text).map(|signed| verify::clip(&whole.as_slice(), &signed, None));
    let said = verdict(former.to_string().as_bytes());
    assert!(matches!(said, Ok(Verdict::Intact { .. })), "{said:?}");
    // The form of this name before, whose links have no shape, and one that is to come.
    let mut older = former.clone();
    older["manifest"]["segments"][0]["link"].as_object_mut().unwrap().remove("shape");
    let refused = verdict(older.to_string().as_bytes()).unwrap_err();
    assert_eq!(refused, Unreadable::Form("mos-manifest-1".to_owned()));
    assert!(refused.to_string().contains("not mos-manifest-2"), "{refused}");
    let mut newer = former;
    newer["manifest"]["format"] = "mos-manifest-3".into();
    assert!(matches!(verdict(newer.to_string().as_bytes()), Err(Unreadable::Form(_))));
    assert!(matches!(verdict(b"{}"), Err(Unreadable::Text(_))));
}

/// The archive of a start after `archive` has ended.
fn next(archive: Archive, root: &Path) -> Archive {
    let clock = archive.clock().clone();
    drop(archive);
    let disk = std::sync::Arc::new(crate::archive::disk::RealDisk::open(root).unwrap());
    let archive = Archive::open(disk, clock, &crate::archive::ArchiveOptions::default()).unwrap();
    archive.load().unwrap();
    archive
}

#[test]
fn g1_a_run_that_was_looked_through_is_guarded_by_every_later_start() {
    let rig = Rig::recorded(9);
    linked_then_stopped(&rig);
    let (root, mut archive) = rig.again();
    for _ in 0..2 {
        let (evidence, alarms) = started(&archive, &root);
        linked(&archive, 5);
        let note = root.join("device.key.past-links");
        until("not looked through", || note.exists().then_some(()));
        assert_eq!(told(&alarms), "");
        drop(evidence);
        archive = next(archive, &root);
    }
    let whole = std::fs::read(chain_file(&root)).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
    std::fs::write(chain_file(&root), lines[..3].concat()).unwrap();
    let (_evidence, alarms) = started(&archive, &root);
    until("not told", || told(&alarms).contains("shortened or replaced").then_some(()));
    let chain = Chain::read("road", 1, &linked(&archive, 5));
    assert!(chain.links[3..].iter().all(|link| link.made == Made::Old), "what is linked anew is late");
}

#[test]
fn g1_the_end_of_a_part_is_guarded_until_the_next_one_has_a_link() {
    for shorten in [false, true] {
        let rig = Rig::recorded(9);
        let whole = linked_then_stopped(&rig);
        let key_file = rig.root().join("device.key");
        let key = key::DeviceKey::load(&key_file).unwrap();
        let mut ledger = Ledger::load(&key_file, &key).0;
        let head = Chain::read("road", 1, &whole).links[3].head;
        ledger.set(Row { lens: "road".to_owned(), run: 1, part: 1, links: 0, head });
        ledger.write(&key).unwrap();
        if shorten {
            let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
            std::fs::write(chain_file(rig.root()), lines[..3].concat()).unwrap();
        }
        let (root, archive) = rig.again();
        let (_evidence, alarms) = started(&archive, &root);
        linked(&archive, 5);
        assert_eq!(told(&alarms).contains("shortened or replaced"), shorten, "{}", told(&alarms));
        assert!(shorten || told(&alarms).is_empty(), "{}", told(&alarms));
    }
}

#[test]
fn what_another_key_signed_is_neither_tampered_nor_signed_anew() {
    let rig = Rig::recorded(9);
    linked_then_stopped(&rig);
    let former = key::DeviceKey::load(&rig.root().join("device.key")).unwrap().public();
    std::fs::remove_file(rig.root().join("device.key")).unwrap();
    let (root, archive) = rig.again();
    let (evidence, alarms) = started(&archive, &root);
    until("not told", || told(&alarms).contains("a new key was made").then_some(()));
    let clips = Clips::new(archive.clone()).with_sources(true);
    let clip = clips.by_segment(&"road-1-1".parse().unwrap(), 0.5, 1.5, Edges::Exact).unwrap();
    let refused = evidence.manifest(clip.id).unwrap_err();
    assert!(
        matches!(&refused, ManifestFailure::Evidence(EvidenceError::OtherKey(_, key)) if *key == former),
        "{refused}"
    );
    let verdict = judged(&root, 1, &former);
    assert!(matches!(verdict, Verdict::Intact { .. }), "{verdict}");
}
