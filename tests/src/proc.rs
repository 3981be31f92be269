//! What Linux tells about a process: command line, CPU time, memory, bytes written.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Datagrams that this machine has dropped so far because nobody took them in time, whosever they were.
#[must_use]
pub fn dropped_datagrams() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(str::split_whitespace);
    let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.position(|name| name == "RcvbufErrors").unwrap();
    values.nth(at).unwrap().parse().unwrap()
}

/// A process by number.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn read(self, file: &str) -> String {
        let path = PathBuf::from(format!("/proc/{}/{file}", self.0));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The command line with spaces between arguments.
    #[must_use]
    pub fn command_line(self) -> String {
        self.read("cmdline").replace('\0', " ")
    }

    /// CPU seconds used so far, user and system.
    #[must_use]
    pub fn cpu_seconds(self) -> f64 {
        let stat = self.read("stat");
        // The name in parentheses may hold spaces; fields 14 and 15 of proc(5) follow it as 11 and 12.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap();
        ticks as f64 / per_second as f64
    }

    /// Nanoseconds on a CPU of all threads, from schedstat: finer than the clock ticks of [`Self::cpu_seconds`].
    #[must_use]
    pub fn cpu_ns(self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
        let first = |text: String| text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        tasks.flatten().filter_map(read).filter_map(first).sum()
    }

    /// Proportional set size in bytes.
    #[must_use]
    pub fn pss(self) -> u64 {
        self.kilobytes("smaps_rollup", "Pss:") * 1024
    }

    /// The part of [`Self::pss`] that no file stands behind: what others map does not change it.
    #[must_use]
    pub fn pss_anonymous(self) -> u64 {
        self.kilobytes("smaps_rollup", "Pss_Anon:") * 1024
    }

    /// Resident set in bytes.
    #[must_use]
    pub fn rss(self) -> u64 {
        self.kilobytes("status", "VmRSS:") * 1024
    }

    /// The largest resident set that it ever had, in bytes.
    #[must_use]
    pub fn most_rss(self) -> u64 {
        self.kilobytes("status", "VmHWM:") * 1024
    }

    /// The same; `None` of a process that has ended.
    #[must_use]
    pub fn most_rss_if_any(self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    fn kilobytes(self, file: &str, key: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{file} has no {key}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Bytes that this process caused to be sent to storage (`write_bytes` of proc(5)); 0 on tmpfs.
    #[must_use]
    pub fn bytes_written(self) -> u64 {
        self.io("write_bytes:")
    }

    /// Bytes passed to write calls, sockets included (`wchar` of proc(5)).
    #[must_use]
    pub fn bytes_passed(self) -> u64 {
        self.io("wchar:")
    }

    fn io(self, key: &str) -> u64 {
        let text = self.read("io");
        let line = text.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Lets it have no more than `most` descriptors (RLIMIT_NOFILE); gives how many it could have before.
    #[must_use]
    pub fn limit_descriptors(self, most: u64) -> u64 {
        let limits = self.read("limits");
        let line = limits.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap();
        let before = line.split_whitespace().next().unwrap().parse().unwrap();
        crate::cli::tool(Command::new("prlimit").arg(format!("--pid={}", self.0)).arg(format!("--nofile={most}:")));
        before
    }

    /// Sends a signal.
    pub fn signal(self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0 as i32), signal).expect("the process lives");
    }
}
