//! systemd's watchdog, at the socket that systemd would listen on: it is fed while footage becomes durable, or while there is
//! none to be had; a recorder whose disk hangs is left to it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use mos_tests::daemon::Setup;
use mos_tests::disk::SmallDisk;

const LONG: Duration = Duration::from_mins(3);
const SCENE: &str = "test:?width=320&height=180&fps=10&gop=10&bitrate=200000";

/// What systemd is told.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen(setup: Setup) -> (Self, Setup) {
        let path = setup.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let setup = setup.environment("NOTIFY_SOCKET", path.to_str().unwrap()).environment("WATCHDOG_USEC", "3000000");
        (Self(socket), setup)
    }

    /// The next word within `limit`.
    fn hear(&self, limit: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut bytes = [0; 256];
        let length = self.0.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
    }

    fn await_word(&self, word: &str) {
        while let Some(heard) = self.hear(LONG) {
            if heard == word {
                return;
            }
        }
        panic!("no {word} in {LONG:?}");
    }
}

#[test]
fn a_recorder_that_records_or_has_nothing_to_record_feeds_the_watchdog() {
    for setup in [Setup::new().camera("road", SCENE), Setup::new()] {
        let (systemd, setup) = Systemd::listen(setup);
        let daemon = setup.start();
        systemd.await_word("READY=1");
        (0..5).for_each(|_| systemd.await_word("WATCHDOG=1"));
        daemon.stop();
        systemd.await_word("STOPPING=1");
    }
}

#[test]
fn a_recorder_whose_disk_hangs_starves_the_watchdog_until_footage_is_durable_again() {
    let disk = SmallDisk::mount_ext4(128);
    let setup = Setup::on(&disk).storage("max_bytes", "\"64MiB\"").camera("road", SCENE);
    let (systemd, setup) = Systemd::listen(setup);
    let daemon = setup.start();
    let _ = daemon.await_open("road", 1.0, LONG);
    systemd.await_word("WATCHDOG=1");
    let freeze = |how: &str| {
        let done = Command::new("fsfreeze").arg(how).arg(disk.path()).output().expect("fsfreeze(8) exists");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    freeze("--freeze");
    // Fed at each look, a second apart, while ticks went on; a tick that hangs is seen at the look after the next.
    let starved = (0..40).any(|_| systemd.hear(Duration::from_secs(8)).is_none());
    freeze("--unfreeze");
    assert!(starved, "it was fed while nothing could be written");
    systemd.await_word("WATCHDOG=1");
    daemon.stop();
}
