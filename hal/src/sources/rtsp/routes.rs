//! Which transport a camera is reached by when the configuration leaves it open.
//!
//! Promises (U1) that TCP comes first; (U2) that UDP is tried at once where a camera that answers refuses TCP or sends no
//! picture over it, and next time where TCP broke off [`PATIENCE`] times in a row before it had proved itself; (U3) that a
//! camera stays with UDP as long as that delivers, and goes back to TCP when it fails, or has brought no picture [`PATIENCE`]
//! times in a row, whoever ended that. Kept per configured address, as some cameras stream at another one each time, for the
//! life of the process; pure but for the table.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

/// TCP sessions in a row that broke off early, after which UDP is tried; and sessions over UDP without a picture.
const PATIENCE: u32 = 3;
/// A session that delivered for this long has proved itself.
const PROVEN: Duration = Duration::from_secs(10);

/// What is known of the cameras that may choose.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<BTreeMap<Url, Known>>);

#[derive(Debug, Default)]
struct Known {
    short: u32,
    udp: bool,
    /// Sessions over UDP that have begun since the last picture over it.
    blind: u32,
}

impl Routes {
    /// The table of this process.
    pub(super) fn get() -> &'static Self {
        static ROUTES: Routes = Routes(Mutex::new(BTreeMap::new()));
        &ROUTES
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Url, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next session is to go over UDP.
    pub(super) fn is_udp(&self, url: &Url) -> bool {
        self.lock().get(url).is_some_and(|known| known.udp)
    }

    /// A TCP session broke off after it had delivered for `delivered`.
    pub(super) fn tcp_ended(&self, url: &Url, delivered: Duration) {
        let mut table = self.lock();
        let known = table.entry(url.clone()).or_default();
        known.short = if delivered >= PROVEN { 0 } else { known.short + 1 };
        known.udp |= known.short >= PATIENCE;
    }

    /// A session over UDP begins. What led to it need not be tried again next time, should somebody end the session before
    /// a picture comes.
    pub(super) fn udp_begins(&self, url: &Url) {
        let mut table = self.lock();
        let known = table.entry(url.clone()).or_default();
        known.blind += 1;
        *known = if known.blind < PATIENCE { Known { short: 0, udp: true, ..*known } } else { Known::default() };
    }

    /// The first picture of a session over UDP came.
    pub(super) fn udp_delivers(&self, url: &Url) {
        self.lock().insert(url.clone(), Known { short: 0, udp: true, blind: 0 });
    }

    /// A session over UDP ended by itself without a picture.
    pub(super) fn udp_failed(&self, url: &Url) {
        self.lock().insert(url.clone(), Known::default());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(2);

    #[test]
    fn u2_tcp_that_keeps_breaking_off_early_gives_way() {
        let (routes, url) = (Routes::default(), Url::parse("rtsp://h/s").unwrap());
        assert!(!routes.is_udp(&url));
        for delivered in [SHORT, SHORT, PROVEN, SHORT, SHORT] {
            routes.tcp_ended(&url, delivered);
            assert!(!routes.is_udp(&url));
        }
        routes.tcp_ended(&url, SHORT);
        assert!(routes.is_udp(&url));
        assert!(!routes.is_udp(&Url::parse("rtsp://h/other").unwrap()));
    }

    #[test]
    fn u3_udp_stays_while_it_delivers() {
        let (routes, url) = (Routes::default(), Url::parse("rtsp://h/s").unwrap());
        routes.udp_begins(&url);
        assert!(routes.is_udp(&url), "TCP was dumb just now");
        for _ in 0..2 * PATIENCE {
            routes.udp_begins(&url);
            routes.udp_delivers(&url);
            assert!(routes.is_udp(&url));
        }
        routes.udp_failed(&url);
        assert!(!routes.is_udp(&url));
        routes.tcp_ended(&url, SHORT);
        assert!(!routes.is_udp(&url), "TCP has all its tries again");
    }

    #[test]
    fn u3_udp_that_shows_nothing_gives_way_whoever_ends_it() {
        let (routes, url) = (Routes::default(), Url::parse("rtsp://h/s").unwrap());
        for round in 0..2 {
            for begun in 1..=PATIENCE {
                routes.udp_begins(&url);
                assert_eq!(routes.is_udp(&url), begun < PATIENCE, "round {round}");
            }
        }
    }
}
