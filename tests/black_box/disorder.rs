//! Packets that a network puts out of order: over UDP they are put in order again and cost nothing.

use std::time::Duration;

use mos_tests::camera::{Camera, Manner};
use mos_tests::daemon::{Daemon, Setup, span};
use mos_tests::judge::accounts::{absences, assert_accounted, causes};
use mos_tests::proc::dropped_datagrams;
use mos_tests::streams::{Kind, Stream};
use mos_tests::wait_for;

const LONG: Duration = Duration::from_mins(3);
/// A packet is waited for by ours for 200 ms; one picture comes each 40 ms.
const LATE_NS: u64 = 120_000_000;

fn await_more(daemon: &Daemon, seconds: f64) {
    let footage = || daemon.segments("road").iter().map(span).sum::<f64>();
    let before = footage();
    wait_for("more footage", LONG, || (footage() > before + seconds).then_some(()));
}

#[test]
fn packets_that_change_places_over_udp_cost_nothing() {
    let stream = Stream::get(Kind::H264);
    let manner = Manner { udp_only: true, ..Manner::default() };
    let mut camera = Camera::with(std::slice::from_ref(&stream), manner);
    let setup = Setup::new().storage("segment_seconds", "2").camera_with("road", &camera.url(0), "transport = \"udp\"");
    let dropped = dropped_datagrams();
    let daemon = setup.start();
    await_more(&daemon, 1.5);
    // A camera's clock is set, and a camera's clock is slow: a packet is waited for by ours.
    for order in ["disorder 1", "jump -3000", "disorder 3", "jump 9000", "disorder 1"] {
        camera.order(0, order);
        await_more(&daemon, 2.0);
    }
    // The same kind of packet, lost: the judge sees it, and the order of the others was no matter of luck.
    camera.order(0, "lose 1");
    await_more(&daemon, 4.0);
    let (shown, missing) = assert_accounted(&daemon, "road", &[&stream], &camera);
    let gaps = daemon.gaps("road");
    let lost = absences(&gaps, "packet_loss").len();
    // Where the machine was too busy to send what was held back in time, or to take what was sent, more may be lost: each at most
    // one absence. Asked for behind the gaps, so that it is known of each why.
    let late = camera.sent(0).windows(2).filter(|two| two[1].sent_ns - two[0].sent_ns > LATE_NS).count();
    let most = 1 + late + (dropped_datagrams() - dropped) as usize;
    assert!((1..=most).contains(&lost), "only what was lost is a gap: {gaps:#?}");
    assert!(missing <= 25 * lost && shown > 100, "{missing} pictures are missing beside {shown}");
    assert_eq!(causes(&daemon, "road"), ["packet_loss"]);
}
