//! The book: every job that is shown, where it stands, and whose turn it is. Nothing here waits: no disk, no network.
//!
//! Promises:
//! - B1: the file of a job stays pinned until the job is done or cancelled, whatever happens to it in between.
//! - B2: a job that is over stays as it is.
//! - B3: of jobs that are over the newest `ended` are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use mos_hal::clock::{Mono, UtcMicros};
use tokio::sync::{Notify, watch};

use super::Access;
use super::contents::Known;
use super::destination::Destination;
use super::failure::{Failure, FailureKind};
use super::job::{Job, JobId, JobState};
use super::outbox::Outgoing;
use super::schedule::{Road, Schedule, Turn};
use super::store::Record;

/// How a job gets in.
#[derive(Clone, Debug)]
pub(super) enum WayIn {
    /// With what came with the call; in memory only.
    Given(Arc<Access>),
    /// With the credential of this destination of the configuration.
    Named(String),
    /// It came with a call of an earlier life.
    Forgotten,
}

/// One job.
pub(super) struct Entry {
    pub(super) number: i64,
    pub(super) record: Record,
    pub(super) to: Destination,
    pub(super) way_in: WayIn,
    /// Keeps the file; none once the job is over.
    pub(super) outgoing: Option<Arc<Outgoing>>,
    /// What is known of the part that lies at the server.
    pub(super) known: Known,
    tell: watch::Sender<Job>,
    /// Calls off a try that runs.
    call_off: Arc<Notify>,
    stuck: u32,
}

/// A job whose turn it is.
pub(super) struct Task {
    pub(super) number: i64,
    pub(super) record: Record,
    pub(super) to: Destination,
    pub(super) way_in: WayIn,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) known: Known,
    pub(super) call_off: Arc<Notify>,
}

/// What a job that was called off may have left at its server.
#[derive(Clone)]
pub(super) struct Remains {
    pub(super) id: JobId,
    pub(super) to: Destination,
    pub(super) way_in: WayIn,
}

pub(super) struct Book {
    jobs: BTreeMap<i64, Entry>,
    numbers: HashMap<JobId, i64>,
    over: VecDeque<i64>,
    schedule: Schedule,
    ended: usize,
}

impl Entry {
    pub(super) fn new(
        number: i64,
        record: Record,
        to: Destination,
        way_in: WayIn,
        outgoing: Option<Outgoing>,
        state: JobState,
    ) -> Self {
        let job = Job {
            id: record.id.clone(),
            group: record.group.clone(),
            path: record.path.clone(),
            destination: to.to_string(),
            clock: record.clock.clone(),
            priority: record.priority,
            state,
        };
        let (tell, outgoing) = (watch::Sender::new(job), outgoing.map(Arc::new));
        let known = Known::default();
        Self { number, record, to, way_in, outgoing, known, tell, call_off: Arc::default(), stuck: 0 }
    }

    pub(super) fn job(&self) -> Job {
        self.tell.borrow().clone()
    }

    pub(super) fn state(&self) -> JobState {
        self.tell.borrow().state.clone()
    }

    /// What calling it off leaves to be removed; a try that runs removes it itself.
    pub(super) fn remains(&self) -> Option<Remains> {
        let remains = || Remains { id: self.record.id.clone(), to: self.to.clone(), way_in: self.way_in.clone() };
        (!self.state().is_running() && self.known.may_lie_there()).then(remains)
    }

    fn turn(&self) -> Turn {
        Turn { priority: self.record.priority, endpoint: self.to.endpoint(), stuck: self.stuck }
    }
}

impl Book {
    pub(super) fn new(schedule: Schedule, ended: usize) -> Self {
        Self { jobs: BTreeMap::new(), numbers: HashMap::new(), over: VecDeque::new(), schedule, ended }
    }

    /// Enters a job; one that is queued waits for its turn.
    pub(super) fn enter(&mut self, entry: Entry) -> Job {
        let (number, job) = (entry.number, entry.job());
        match job.state {
            JobState::Queued => self.schedule.wait(number, entry.turn()),
            ref state if state.is_over() => self.over.push_back(number),
            _ => {}
        }
        self.numbers.insert(entry.record.id.clone(), number);
        self.jobs.insert(number, entry);
        job
    }

    pub(super) fn get(&self, id: &JobId) -> Option<&Entry> {
        self.jobs.get(self.numbers.get(id)?)
    }

    pub(super) fn entry_mut(&mut self, id: &JobId) -> Option<&mut Entry> {
        self.jobs.get_mut(self.numbers.get(id)?)
    }

    pub(super) fn watch(&self, id: &JobId) -> Option<watch::Receiver<Job>> {
        Some(self.get(id)?.tell.subscribe())
    }

    /// All jobs, oldest first.
    pub(super) fn list(&self) -> Vec<Job> {
        self.jobs.values().map(Entry::job).collect()
    }

    /// Jobs that are not over.
    pub(super) fn live(&self) -> usize {
        self.jobs.len() - self.over.len()
    }

    /// Files that must stay (B1).
    pub(super) fn in_use(&self) -> BTreeSet<PathBuf> {
        self.jobs.values().filter_map(|entry| Some(entry.outgoing.as_ref()?.path.clone())).collect()
    }

    /// Takes the next job whose turn it is. It runs from here on: who calls it off leaves what lies at the server to its try.
    pub(super) fn next(&mut self, now: Mono) -> Option<Task> {
        loop {
            let entry = self.jobs.get_mut(&self.schedule.next(now)?)?;
            if let Some(outgoing) = entry.outgoing.clone() {
                entry.call_off = Arc::default();
                entry.tell.send_modify(|job| job.state = JobState::Connecting);
                return Some(Task {
                    number: entry.number,
                    record: entry.record.clone(),
                    to: entry.to.clone(),
                    way_in: entry.way_in.clone(),
                    outgoing,
                    known: entry.known.clone(),
                    call_off: entry.call_off.clone(),
                });
            }
            let endpoint = entry.to.endpoint();
            self.schedule.over(&endpoint, Road::Open, now);
        }
    }

    /// What a job that was called off has left, if its try did not come to removing it: the daemon ends.
    pub(super) fn left_by(&self, number: i64) -> Option<Remains> {
        let entry = self.jobs.get(&number).filter(|entry| entry.state() == JobState::Cancelled)?;
        entry.remains()
    }

    /// When time alone lets a job go on.
    pub(super) fn wake(&self) -> Option<Mono> {
        self.schedule.wake()
    }

    /// A try tells how far it is.
    pub(super) fn progress(&mut self, number: i64, state: JobState) {
        if let Some(entry) = self.jobs.get_mut(&number).filter(|entry| !entry.state().is_over()) {
            entry.tell.send_modify(|job| job.state = state);
        }
    }

    /// The server of a task is free for the next one.
    pub(super) fn free(&mut self, to: &Destination, now: Mono) {
        self.schedule.over(&to.endpoint(), Road::Open, now);
    }

    /// A try failed. A fault of the road is tried again; the job stays the same.
    pub(super) fn fail(&mut self, number: i64, failure: Failure, further: bool, now: Mono, utc: UtcMicros) -> JobState {
        let Some(entry) = self.jobs.get_mut(&number) else { return JobState::Cancelled };
        let endpoint = entry.to.endpoint();
        let again = failure.kind.is_road_fault();
        let until = self.schedule.over(&endpoint, if again { Road::Blocked } else { Road::Open }, now);
        if entry.state().is_over() {
            return entry.state();
        }
        let next_try_ts = until.filter(|_| again).map(|until| utc.0 + until.since(now) / 1000);
        let state = JobState::Failed { kind: failure.kind, message: failure.message, next_try_ts };
        entry.tell.send_modify(|job| job.state = state.clone());
        // Nobody reached is no fault of the job.
        entry.stuck = match failure.kind {
            _ if further => 0,
            FailureKind::Unreachable => entry.stuck,
            _ => entry.stuck + 1,
        };
        if again {
            self.schedule.wait(number, entry.turn());
        }
        state
    }

    /// A job waits for its turn again, which comes at once if its server is free: somebody asked for it. One whose turn has come
    /// in the meantime runs already.
    pub(super) fn again(&mut self, id: &JobId) -> Option<Job> {
        let entry = self.jobs.get_mut(self.numbers.get(id)?)?;
        if entry.state().is_running() {
            return Some(entry.job());
        }
        entry.stuck = 0;
        entry.tell.send_modify(|job| {
            job.state = JobState::Queued;
            job.destination = entry.to.to_string();
        });
        self.schedule.wake_up(&entry.to.endpoint());
        self.schedule.wait(entry.number, entry.turn());
        Some(entry.job())
    }

    /// The jobs to forget when one more is over (B3).
    pub(super) fn surplus(&self) -> Vec<JobId> {
        let surplus = (self.over.len() + 1).saturating_sub(self.ended.max(1));
        let old = self.over.iter().take(surplus).filter_map(|number| self.jobs.get(number));
        old.map(|entry| entry.record.id.clone()).collect()
    }

    /// A job is over: lets go of its file and credential, and of the jobs in `forget`.
    pub(super) fn close(&mut self, id: &JobId, state: JobState, forget: &[JobId]) -> Option<Job> {
        let entry = self.jobs.get_mut(self.numbers.get(id)?)?;
        if entry.state().is_over() {
            return Some(entry.job());
        }
        self.schedule.leave(entry.number);
        entry.call_off.notify_one();
        entry.outgoing = None;
        entry.way_in = WayIn::Forgotten;
        entry.tell.send_modify(|job| job.state = state);
        let job = entry.job();
        self.over.push_back(entry.number);
        for old in forget {
            if let Some(number) = self.numbers.remove(old) {
                self.jobs.remove(&number);
                self.over.retain(|n| *n != number);
            }
        }
        Some(job)
    }

    /// The daemon ends: what runs will begin anew.
    pub(super) fn park(&mut self) {
        for entry in self.jobs.values() {
            if entry.state().is_running() {
                entry.tell.send_modify(|job| job.state = JobState::Queued);
            }
            entry.call_off.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::archive::testing::Machine;
    use crate::upload::outbox::Outbox;

    /// A book with one job of an earlier life, which waits.
    fn with_a_job() -> (Book, JobId) {
        let outbox = Outbox::new(Path::new("/"), Machine::new().start());
        let to = Destination::parse("sftp://vehicle@depot:22/inbox/a.mp4").unwrap();
        let record = Record {
            id: JobId("j-0".to_owned()),
            group: "g-0".to_owned(),
            path: "clips/a.mp4".to_owned(),
            destination: to.to_string(),
            host_key: String::new(),
            named: Some("depot".to_owned()),
            priority: crate::upload::job::Priority::default(),
            overwrite: false,
            max_rate: None,
            read_back: false,
            reduce: false,
            clock: None,
        };
        let (id, outgoing) = (record.id.clone(), outbox.retake(Path::new(&record.path)));
        let mut book = Book::new(Schedule::new(1, 1), 1);
        let way_in = WayIn::Named("depot".to_owned());
        let mut entry = Entry::new(1, record, to, way_in, Some(outgoing), JobState::Queued);
        entry.known = Known::of_earlier_life();
        book.enter(entry);
        (book, id)
    }

    /// From the moment that its turn has come a try runs, which removes what it left itself; nobody else does so besides.
    #[test]
    fn a_job_that_is_called_off_before_its_try_says_anything_is_left_once() {
        let (mut book, id) = with_a_job();
        assert!(book.get(&id).unwrap().remains().is_some(), "it waits, so nobody else removes it");
        let task = book.next(Mono(0)).unwrap();
        assert!(task.known.may_lie_there() && book.get(&id).unwrap().remains().is_none());
        book.park();
        assert_eq!(book.get(&id).unwrap().state(), JobState::Queued, "the next life tries it anew");
    }

    /// Who asks for a retry looks at the job before, and its turn may come in between.
    #[test]
    fn a_job_that_is_asked_to_wait_again_while_it_runs_goes_on() {
        let (mut book, id) = with_a_job();
        let task = book.next(Mono(0)).unwrap();
        assert_eq!(book.again(&id).unwrap().state, JobState::Connecting);
        book.free(&task.to, Mono(0));
        assert!(book.next(Mono(0)).is_none(), "it waits besides");
    }
}
