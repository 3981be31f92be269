//! Power cuts of the queue on disk.
//!
//! SQLite writes past the archive's simulated disk. So this program starts itself under strace and keeps a queue there; what that
//! process did to its folder is played to a simulated disk up to a cut, which loses, keeps or tears what was not synced. What is
//! left is opened and compared with what had been answered. Lives follow one another: each begins with what the one before left
//! when it was cut or killed, so that recovery is cut, too.
//!
//! `CUTS=1000` for more points in each life.

use std::fs;
use std::io::{IoSlice, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mos_hal::clock::{BootId, SimClock, UtcMicros};

use crate::archive::disk::{Disk, OpenMode, SimDisk};
use crate::upload::failure::FailureKind;
use crate::upload::job::{JobId, JobState, Priority};
use crate::upload::store::{Record, Store};

const NAME: &str = "upload::tests::power::a_power_cut_costs_no_job_that_was_accepted_and_no_end";
/// For the traced process: where it keeps its queue, what it draws its deeds from, and where it writes a byte for each answer.
const ROOT: &str = "MOS_QUEUE_ROOT";
const SEED: &str = "MOS_QUEUE_SEED";
const ANSWERS: &str = "MOS_QUEUE_ANSWERS";
/// Each ends with another cut or kill.
const LIVES: u64 = 4;
/// Enough for the log to be carried over into the database twice.
const DEEDS: u64 = 200;
/// Cuts that are tried in each life.
const CUTS: u64 = 40;

/// All calls that could change a file; `?`: where there is such a call.
const CALLS: &str = "?open,openat,?openat2,?creat,?mkdir,mkdirat,?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,\
    ?unlink,unlinkat,?rmdir,write,writev,pwrite64,pwritev,?pwritev2,truncate,ftruncate,fallocate,fsync,fdatasync,sync,syncfs,\
    sync_file_range,msync,mmap,?copy_file_range,sendfile,splice,lseek,read";

/// A small generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// The jobs of a queue in their order, each with its end.
type Jobs = Vec<(Record, Option<JobState>)>;

enum Deed {
    Add(Vec<Record>),
    End(JobId, JobState, Vec<JobId>),
    Revive(Record),
}

impl Deed {
    /// The deed number `n` of a life on what is there.
    fn draw(seed: u64, n: u64, jobs: &Jobs) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x1_0001) ^ n);
        let pick = |dice: &mut Dice, ended: bool| {
            let all: Vec<&Record> = jobs.iter().filter(|(_, end)| end.is_some() == ended).map(|(job, _)| job).collect();
            (!all.is_empty()).then(|| all[dice.below(all.len() as u64) as usize].clone())
        };
        match dice.below(5) {
            0 | 1 => {
                if let Some(job) = pick(&mut dice, false) {
                    let forget = (dice.below(3) == 0).then(|| pick(&mut dice, true)).flatten();
                    return Self::End(job.id, end(&mut dice), forget.into_iter().map(|job| job.id).collect());
                }
            }
            2 => {
                if let Some(job) = pick(&mut dice, true) {
                    return Self::Revive(Record { max_rate: Some(n), ..job });
                }
            }
            _ => {}
        }
        let record = |k| Record {
            id: JobId(format!("{seed:08x}-{n}-{k}")),
            group: format!("g{seed:08x}-{n}"),
            path: "segments/road/1/17.mp4".to_owned(),
            destination: format!("sftp://car@depot.example/{}", "far/".repeat(dice.below(300) as usize)),
            host_key: "SHA256:x".to_owned(),
            named: None,
            priority: Priority::Normal,
            overwrite: false,
            max_rate: None,
            read_back: false,
            reduce: false,
            clock: None,
        };
        Self::Add((0..=n % 4).map(record).collect())
    }

    fn is_done_to(&self, jobs: &mut Jobs) {
        match self {
            Self::Add(records) => jobs.extend(records.iter().map(|job| (job.clone(), None))),
            Self::End(id, state, forget) => {
                jobs.iter_mut().filter(|(job, _)| job.id == *id).for_each(|(_, end)| *end = Some(state.clone()));
                jobs.retain(|(job, _)| !forget.contains(&job.id));
            }
            Self::Revive(record) => {
                let revived = jobs.iter_mut().filter(|(job, _)| job.id == record.id);
                revived.for_each(|job| *job = (record.clone(), None));
            }
        }
    }
}

fn end(dice: &mut Dice) -> JobState {
    let (remote_path, sha256) = ("far/17.mp4".to_owned(), "0".repeat(64));
    match dice.below(3) {
        0 => JobState::Done { remote_path, bytes: 7, sha256, synced: true },
        1 => JobState::Failed { kind: FailureKind::TimedOut, message: "late".to_owned(), next_try_ts: None },
        _ => JobState::Cancelled,
    }
}

/// The traced process: opens the queue of `root`, does its deeds and tells of each when it is through.
fn keep_a_queue(root: &Path, seed: u64) {
    let mut answers = fs::File::create(std::env::var_os(ANSWERS).unwrap()).unwrap();
    let (mut store, found) = Store::open(root).unwrap();
    answers.write_all(b".").unwrap();
    let mut jobs: Jobs = found.into_iter().map(|job| (job.record, job.end)).collect();
    for n in 0..DEEDS {
        let deed = Deed::draw(seed, n, &jobs);
        match &deed {
            Deed::Add(records) => drop(store.add(records).unwrap()),
            Deed::End(id, state, forget) => store.end(id, state, forget).unwrap(),
            Deed::Revive(record) => store.revive(record).unwrap(),
        }
        answers.write_all(b".").unwrap();
        deed.is_done_to(&mut jobs);
    }
}

/// What a process did to its folder, by paths relative to that.
enum Step {
    Folder(PathBuf),
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Length(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// A deed was answered; the first one: the queue is open.
    Answer,
}

/// Lets this program keep the queue of `root` and gives what it did there.
fn traced(root: &Path, seed: u64) -> Vec<Step> {
    let dir = tempfile::tempdir().unwrap();
    let (log, answers) = (dir.path().join("log"), dir.path().join("answers"));
    let mut command = Command::new("strace");
    // -y: descriptors with their paths, -x: bytes in hex, all of them.
    command.args([
        "-f",
        "-qq",
        "-y",
        "-x",
        "-s",
        "1000000",
        "-e",
        "signal=none",
        "-e",
        &format!("trace={CALLS}"),
        "-o",
    ]);
    command.arg(&log).arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--test-threads=1"]);
    let out = command.env(ROOT, root).env(SEED, seed.to_string()).env(ANSWERS, &answers).output();
    let out = out.expect("strace is installed");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let text = fs::read_to_string(&log).unwrap();
    let mut reader = Reader { root, answers: &answers, position: 0 };
    let steps: Vec<Step> = text.lines().filter_map(|line| reader.step(line)).collect();
    let answered = steps.iter().filter(|step| matches!(step, Step::Answer)).count() as u64;
    assert_eq!(answered, DEEDS + 1, "the trace is whole");
    steps
}

/// Reads strace's log; what it does not understand of the folder is an error.
struct Reader<'a> {
    root: &'a Path,
    answers: &'a Path,
    /// Of the descriptor that was last moved: SQLite moves before each write.
    position: u64,
}

impl Reader<'_> {
    fn step(&mut self, line: &str) -> Option<Step> {
        let within = |text: &str| line.contains(text);
        let (root, answers) = (self.root.to_str().unwrap(), self.answers.to_str().unwrap());
        if !within(root) && !within(answers) {
            return None;
        }
        // `1234 write(5</folder/queue.db>, "\x00"..., 24) = 24</…>`
        let (call, rest) = line.split_once(' ').unwrap().1.trim_start().split_once('(').unwrap();
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("not understood: {line:.300}"));
        if result.starts_with('-') {
            return None;
        }
        if within(answers) {
            return (call == "write").then_some(Step::Answer);
        }
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("not understood: {line:.300}"));
        let result = number(result.split(['<', ' ']).next().unwrap());
        let last = || number(arguments.trim_end().trim_end_matches(')').rsplit(',').next().unwrap());
        // A name is in quotes; that of a descriptor is not.
        let names: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
        let relative = |name: &str| Path::new(name).strip_prefix(root).unwrap().to_owned();
        let of_descriptor = || relative(arguments.split(['<', '>']).nth(1).unwrap());
        match call {
            "open" | "openat" if arguments.contains("O_TRUNC") => panic!("not understood: {line:.300}"),
            "open" | "openat" => arguments.contains("O_CREAT").then(|| Step::Create(relative(names[0]))),
            "mkdir" | "mkdirat" => Some(Step::Folder(relative(names[0]))),
            "lseek" => {
                self.position = result;
                None
            }
            "read" => {
                self.position += result;
                None
            }
            "write" | "pwrite64" => {
                let at = if call == "write" { self.position } else { last() };
                self.position = at + result;
                let bytes = bytes(names[0]);
                assert!(bytes.len() as u64 == result, "not understood: {line:.300}");
                Some(Step::Write(of_descriptor(), at, bytes))
            }
            "ftruncate" => Some(Step::Length(of_descriptor(), last())),
            "fsync" | "fdatasync" => Some(Step::Sync(of_descriptor())),
            "rename" | "renameat" | "renameat2" => Some(Step::Rename(relative(names[0]), relative(names[1]))),
            "unlink" | "unlinkat" => Some(Step::Remove(relative(names[0]))),
            "mmap" if !arguments.contains("PROT_WRITE") => None,
            _ => panic!("not understood: {line:.300}"),
        }
    }
}

/// A string as strace writes it: all in hex, or plain.
fn bytes(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        assert!(!text.contains('\\'), "not understood: {text}");
        return text.as_bytes().to_vec();
    }
    text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()
}

impl Step {
    fn is_done_to(&self, disk: &SimDisk) {
        let file = |path: &Path| disk.open(path, OpenMode::ReadWrite).unwrap();
        match self {
            Self::Folder(path) => disk.create_dir(path).unwrap(),
            Self::Create(path) if disk.size(path).is_ok() => {}
            Self::Create(path) => drop(disk.open(path, OpenMode::CreateNew).unwrap()),
            Self::Write(path, at, bytes) => file(path).write_at(*at, &[IoSlice::new(bytes)]).unwrap(),
            Self::Length(path, length) => file(path).set_len(*length).unwrap(),
            Self::Sync(path) if disk.size(path).is_ok() => file(path).sync().unwrap(),
            Self::Sync(path) => disk.sync_dir(path).unwrap(),
            Self::Rename(from, to) => disk.rename(from, to).unwrap(),
            Self::Remove(path) => disk.remove_file(path).unwrap(),
            Self::Answer => {}
        }
    }
}

/// A life behind which others follow: what it did up to its end, and what the power cut left of that by its seed; none: a kill.
struct Life {
    steps: Vec<Step>,
    cut: Option<u64>,
}

impl Life {
    fn is_lived_on(&self, disk: &SimDisk) {
        self.steps.iter().for_each(|step| step.is_done_to(disk));
        match self.cut {
            Some(seed) => disk.crash(seed),
            None => disk.kill(),
        }
    }
}

fn disk_after(lives: &[Life]) -> SimDisk {
    let clock = Arc::new(SimClock::new(BootId([7; 16]), UtcMicros(1_790_000_000_000_000)));
    let disk = SimDisk::new(clock, u64::MAX);
    for life in lives {
        life.is_lived_on(&disk);
    }
    disk
}

/// The files of the simulated disk as real ones.
fn laid_out(disk: &SimDisk) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in disk.read_dir(Path::new("")).unwrap() {
        fs::create_dir(root.path().join(folder.name)).unwrap();
    }
    for (path, bytes) in disk.files() {
        fs::write(root.path().join(path), bytes).unwrap();
    }
    root
}

/// Whether this machine lets a process be traced: containers may forbid it.
fn may_trace() -> bool {
    let out = Command::new("strace").args(["-o", "/dev/null", "true"]).output().expect("strace is installed");
    let said = String::from_utf8_lossy(&out.stderr);
    let forbidden = !out.status.success() && said.contains("Operation not permitted");
    assert!(out.status.success() || forbidden, "{said}");
    !forbidden
}

/// What a start finds; a queue must never be put aside.
fn found(root: &Path, when: &str) -> Jobs {
    let (_, found) = Store::open(root).unwrap_or_else(|e| panic!("{when}: {e}"));
    let names = fs::read_dir(root.join("uploads")).unwrap().map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> = names.filter(|name| name.to_string_lossy().contains("damaged")).collect();
    assert!(aside.is_empty(), "{when}: {aside:?}");
    found.into_iter().map(|job| (job.record, job.end)).collect()
}

#[test]
#[allow(clippy::print_stderr)]
fn a_power_cut_costs_no_job_that_was_accepted_and_no_end() {
    if let Some(root) = std::env::var_os(ROOT) {
        return keep_a_queue(Path::new(&root), std::env::var(SEED).unwrap().parse().unwrap());
    }
    if !may_trace() {
        eprintln!("skipped: no process may be traced here");
        return;
    }
    let cuts = std::env::var("CUTS").map_or(CUTS, |n| n.parse().expect("CUTS is a number"));
    let mut before: Vec<Life> = Vec::new();
    let mut base = Jobs::new();
    for life in 1..=LIVES {
        let root = laid_out(&disk_after(&before));
        let steps = traced(root.path(), life);
        // What there is after each answer.
        let mut states = vec![base.clone()];
        for n in 0..DEEDS {
            let mut jobs = states[n as usize].clone();
            Deed::draw(life, n, &jobs).is_done_to(&mut jobs);
            states.push(jobs);
        }
        let opened = steps.iter().position(|step| matches!(step, Step::Answer)).unwrap() as u64;
        let mut dice = Dice(life);
        let mut last = 0;
        for n in 0..cuts {
            // A fourth of them in the opening, where the file is made or recovered.
            let at = dice.below(if n % 4 == 0 { opened } else { steps.len() as u64 + 1 }) as usize;
            let disk = disk_after(&before);
            steps[..at].iter().for_each(|step| step.is_done_to(&disk));
            disk.crash(n);
            let when = format!("life {life}, cut {n} behind step {at} of {}", steps.len());
            let jobs = found(laid_out(&disk).path(), &when);
            let answers = steps[..at].iter().filter(|step| matches!(step, Step::Answer)).count();
            let done = answers.saturating_sub(1);
            // One more may have been on its way.
            let right = [Some(&states[done]), states.get(done + 1).filter(|_| answers > 0)];
            assert!(right.contains(&Some(&jobs)), "{when}: {done} deeds were answered");
            last = at;
        }
        // The next one goes on from the last cut, or from a kill there; the first is killed as soon as its folder is there.
        let mut steps = steps;
        steps.truncate(if life == 1 { 1 } else { last });
        before.push(Life { steps, cut: (life % 2 == 0).then_some(cuts - 1) });
        base = found(laid_out(&disk_after(&before)).path(), "between two lives");
    }
}
