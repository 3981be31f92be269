//! A long road: several channels, and how the file is read meanwhile.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::rig::{Rig, Sshd, names, request};
use crate::archive::disk::{DiskFile, FileSize, OpenMode};
use crate::demo::sftp_server::SftpServer;
use crate::upload::contents::{Contents, Known};
use crate::upload::credential::Credential;
use crate::upload::destination::Destination;
use crate::upload::host_key::HostKeyPin;
use crate::upload::job::{JobId, JobState};
use crate::upload::sftp::Sftp;
use crate::upload::{Access, Parcel, Progress, UploadBackend as _};

/// A road to `to` on which everything takes `delay` each way. Ends with its connections.
fn long_road(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to) else { return };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                to.set_nodelay(true).unwrap();
                let (put, take) = mpsc::channel::<(Instant, Vec<u8>)>();
                thread::spawn(move || {
                    for (due, bytes) in take {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        if to.write_all(&bytes).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = from.read(&mut buffer) {
                        if put.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    at
}

/// So long that every machine sends a window of 2 MiB in a round trip: its speed, and what else it does meanwhile, decide nothing.
/// That a short road has one channel is judged in `transfer.rs`, for here it may seem long.
#[test]
fn a_long_road_is_filled_by_several_channels() {
    let rig = Rig::new();
    let sshd = Sshd::start(&rig.scratch("sshd"), "");
    let (path, contents) = rig.clip("a.mp4", 60_000_000);
    let road = long_road(sshd.address(), Duration::from_millis(300));
    let uri = sshd.uri(&rig.inbox.join("a.mp4")).replace(&sshd.address().to_string(), &road.to_string());
    let job = rig.end_of(&request(&path, &uri, &sshd.pin(), sshd.identity()));
    assert!(matches!(job.state, JobState::Done { .. }), "{job:?}");
    assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents);
    assert_eq!(names(&rig.inbox), ["a.mp4"]);
    let log = sshd.log();
    let channels = log.matches("subsystem 'sftp'").count();
    assert!((2..=4).contains(&channels), "{channels}: {log}");
}

/// A file that watches how it is read.
struct Watched {
    file: Arc<dyn DiskFile>,
    now: AtomicUsize,
    most_at_once: AtomicUsize,
    longest: AtomicUsize,
    furthest: AtomicU64,
    out_of_order: AtomicUsize,
}

impl DiskFile for Watched {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        self.longest.fetch_max(buf.len(), Ordering::SeqCst);
        let before = self.furthest.fetch_max(offset + buf.len() as u64, Ordering::SeqCst);
        self.out_of_order.fetch_add(usize::from(offset != before), Ordering::SeqCst);
        let read = self.file.read_at(offset, buf);
        self.now.fetch_sub(1, Ordering::SeqCst);
        read
    }
    fn write_at(&self, _: u64, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        panic!("an upload writes nothing")
    }
    fn sync(&self) -> io::Result<()> {
        panic!("an upload syncs nothing")
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        panic!("an upload cuts nothing")
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn size(&self) -> io::Result<FileSize> {
        self.file.size()
    }
    fn reserve(&self, _: u64) -> io::Result<()> {
        panic!("an upload reserves nothing")
    }
    fn evict(&self) -> io::Result<()> {
        panic!("an upload evicts nothing")
    }
    fn copy_to(&self, _: u64, _: u64, _: &dyn DiskFile, _: u64) -> io::Result<()> {
        panic!("an upload copies nothing")
    }
    fn raw_fd(&self) -> Option<RawFd> {
        self.file.raw_fd()
    }
}

/// X3: the disk sees one read of at most 255 KiB at a time, in order, and never far ahead of the road. So whatever else waits
/// for the disk, such as the sync of a fragment, waits behind at most one of them.
#[test]
fn x3_the_file_is_read_in_small_steps_one_at_a_time_and_not_ahead() {
    let rig = Rig::new();
    let server = SftpServer::start(&rig.inbox).unwrap();
    let (path, contents) = rig.clip("a.mp4", 30_000_000);
    let file = rig.archive.disk().open(Path::new(&path), OpenMode::Read).unwrap();
    let watched = Arc::new(Watched {
        file,
        now: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
        longest: AtomicUsize::new(0),
        furthest: AtomicU64::new(0),
        out_of_order: AtomicUsize::new(0),
    });
    let to = Destination::parse(&server.uri("a.mp4")).unwrap();
    let endpoint = to.endpoint();
    let pin = HostKeyPin::parse(&server.pin(), &endpoint).unwrap();
    let credential = Credential::from_key_text(&server.identity().unwrap().into(), None).unwrap();
    let parcel = Parcel {
        job: JobId("j-0".to_owned()),
        contents: Arc::new(Contents::whole(watched.clone()).unwrap()),
        to,
        overwrite: false,
        known: Known::default(),
        max_rate: None,
        read_back: false,
    };
    let ahead = AtomicU64::new(0);
    let progress = |progress: Progress| {
        if let Progress::Sent { bytes, .. } = progress {
            ahead.fetch_max(watched.furthest.load(Ordering::SeqCst) - bytes, Ordering::SeqCst);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let access = Access { endpoint, pin, credential };
        let mut session = Sftp.connect(&access).await.unwrap();
        session.send(&parcel, &progress).await.unwrap();
        session.close().await;
    });
    assert!(fs::read(rig.inbox.join("a.mp4")).unwrap() == contents);
    assert_eq!(watched.most_at_once.load(Ordering::SeqCst), 1);
    assert!(watched.longest.load(Ordering::SeqCst) <= 255 << 10);
    assert_eq!(watched.out_of_order.load(Ordering::SeqCst), 0);
    assert!(ahead.load(Ordering::SeqCst) <= 10 << 20, "{} bytes read ahead", ahead.load(Ordering::SeqCst));
}
