//! Figures of a process over time, and whether they are flat.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mos_tests::proc::Process;

/// Part of a run that is left out of judgement: caches, arenas and the archive fill up.
const WARM_UP: f64 = 0.35;

/// What a process held at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) minute: f64,
    pub(crate) threads: usize,
    pub(crate) fds: usize,
    pub(crate) pss: u64,
    /// The part of it that no file stands behind.
    pub(crate) anonymous: u64,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Looks at a process every now and then.
pub(crate) struct Watch {
    process: Process,
    begin: Instant,
    every: Duration,
    last: Option<Instant>,
    pub(crate) held: Vec<Held>,
}

impl Watch {
    pub(crate) fn new(process: Process, every: Duration) -> Self {
        Self { process, begin: Instant::now(), every, last: None, held: Vec::new() }
    }

    pub(crate) fn minute(&self) -> f64 {
        self.begin.elapsed().as_secs_f64() / 60.0
    }

    /// Takes a sample if one is due.
    pub(crate) fn look(&mut self) {
        if self.last.is_none_or(|last| last.elapsed() >= self.every) {
            self.last = Some(Instant::now());
            self.held.push(self.now());
        }
    }

    pub(crate) fn now(&self) -> Held {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", self.process.0)).unwrap().count();
        let (pss, anonymous) = (self.process.pss(), self.process.pss_anonymous());
        Held { minute: self.minute(), threads: count("task"), fds: count("fd"), pss, anonymous }
    }

    /// Asserts that nothing grows: by the trend behind the warm-up, over the time behind it.
    pub(crate) fn assert_flat(&self) {
        let series = |of: fn(&Held) -> f64| self.held.iter().map(|h| (h.minute, of(h))).collect::<Vec<_>>();
        // Of libraries a process has the more the less others use them; that part says little while others come and go.
        let level = |of: fn(&Held) -> f64| (median(self.held.iter().map(of).collect()) * 0.08).max(3.0);
        let pss = |h: &Held| mib(h.pss);
        let anonymous = |h: &Held| mib(h.anonymous);
        for (name, points, allowed) in [
            ("threads", series(|h| h.threads as f64), 1.0),
            ("descriptors", series(|h| h.fds as f64), 3.0),
            ("PSS in MiB", series(pss), level(pss)),
            ("anonymous MiB", series(anonymous), level(anonymous)),
        ] {
            let grown = growth(&points);
            println!("trend behind the warm-up: {name} {grown:+.2} (allowed {allowed:+.2})");
            assert!(grown <= allowed, "{name} grow by {grown:.2}: {points:?}");
        }
    }
}

/// Times of requests by kind and moment.
#[derive(Default)]
pub(crate) struct Requests(BTreeMap<&'static str, Vec<(f64, f64)>>);

impl Requests {
    /// Notes one that took so long.
    pub(crate) fn add(&mut self, kind: &'static str, minute: f64, took: Duration) {
        self.0.entry(kind).or_default().push((minute, took.as_secs_f64() * 1000.0));
    }

    fn between(&self, kind: &str, from: f64, to: f64) -> Vec<f64> {
        self.0[kind].iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, ms)| *ms).collect()
    }

    /// Asserts of each kind that its p99 of the last third is not beyond twice that of the third before, both behind the warm-up; a
    /// few milliseconds are nothing on a busy machine.
    pub(crate) fn assert_flat(&self, length: f64) {
        let begin = length * WARM_UP;
        let third = (length - begin) / 3.0;
        for kind in self.0.keys() {
            let early = percentile(self.between(kind, begin, begin + third), 0.99);
            let last = percentile(self.between(kind, length - third, f64::MAX), 0.99);
            println!("{kind}: p99 {early:.1} ms in the first third behind the warm-up, {last:.1} ms in the last");
            assert!(last <= early * 2.0 + 100.0, "{kind}: p99 grew from {early} to {last} ms");
        }
    }

    /// A table of both, a line for each part of the run.
    pub(crate) fn print(&self, watch: &Watch, lines: usize, more: impl Fn(f64) -> String) {
        let length = watch.minute();
        let kinds: Vec<&str> = self.0.keys().copied().collect();
        let head: Vec<String> = kinds.iter().map(|k| format!("{k:>19}")).collect();
        println!("minute threads fds  PSS MiB anonymous {}   (requests: number p50/p99 in ms)", head.join(" "));
        for line in 0..lines {
            let (from, to) = (length * line as f64 / lines as f64, length * (line + 1) as f64 / lines as f64);
            let held: Vec<&Held> = watch.held.iter().filter(|h| (from..to).contains(&h.minute)).collect();
            let Some(last) = held.last() else { continue };
            let pss = median(held.iter().map(|h| mib(h.pss)).collect());
            let anonymous = median(held.iter().map(|h| mib(h.anonymous)).collect());
            let times = |kind: &&str| {
                let all = self.between(kind, from, to);
                let (p50, p99) = (percentile(all.clone(), 0.5), percentile(all.clone(), 0.99));
                format!("{:>19}", format!("{} {p50:.1}/{p99:.1}", all.len()))
            };
            let times: Vec<String> = kinds.iter().map(times).collect();
            println!(
                "{to:6.1} {:7} {:3} {pss:8.2} {anonymous:9.2} {} {}",
                last.threads,
                last.fds,
                times.join(" "),
                more(to)
            );
        }
    }
}

/// How much the points grow behind the warm-up: the median slope of all pairs (Theil and Sen), times the time.
fn growth(points: &[(f64, f64)]) -> f64 {
    let Some(last) = points.last() else { return 0.0 };
    let points: Vec<_> = points.iter().filter(|p| p.0 >= last.0 * WARM_UP).collect();
    let mut slopes = Vec::new();
    for (n, a) in points.iter().enumerate() {
        slopes.extend(points[n + 1..].iter().filter(|b| b.0 > a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)));
    }
    if slopes.is_empty() { 0.0 } else { median(slopes) * last.0 * (1.0 - WARM_UP) }
}

fn median(values: Vec<f64>) -> f64 {
    percentile(values, 0.5)
}

/// 0 of nothing.
pub(crate) fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len().saturating_sub(1)) as f64 * part).ceil() as usize).copied().unwrap_or(0.0)
}

#[test]
fn a_trend_is_found_among_noise_and_none_where_there_is_none() {
    let noise = |n: u32| f64::from(n * 7919 % 13);
    let flat: Vec<_> = (0..200).map(|n| (f64::from(n), noise(n))).collect();
    assert!(growth(&flat).abs() < 1.0);
    let rising: Vec<_> = (0..200).map(|n| (f64::from(n), noise(n) + f64::from(n) / 10.0)).collect();
    assert!(growth(&rising) > 10.0);
}
