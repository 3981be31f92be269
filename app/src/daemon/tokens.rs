//! Tokens that are added and revoked while the daemon runs: their files are looked at once a second.
//!
//! Promises: (L1) what the configuration or the token file says of tokens holds at most two seconds later, without a restart;
//! (L2) a token file, or a configuration, that is gone or cannot be read any more gives no token, but not before it was looked at
//! twice, since editors replace files; (L3) a configuration with a mistake in it changes nothing, and the log says so; (L4) an
//! error that says nothing of a file (no descriptors, a device that fails) changes nothing that the file says, and whatever could
//! not be read is read again at every look, so that no error outlasts itself; (L5) nobody waits for a file, however long it takes:
//! the looks have a thread of their own. Looked at rather than listened for: what was replaced through links, or on a mounted file
//! system, is seen all the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::access::Token;
use crate::config::{ConfigError, HTTP_TOKEN, TokenSource};
use crate::http::Tokens;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Enough for the parser of a configuration.
const STACK: usize = 512 * 1024;

/// Keeps `tokens` as they are configured, for ever.
pub(super) async fn follow(source: TokenSource, tokens: Tokens) {
    looks(|| Watch::new(source.clone(), trace), tokens).await;
}

/// Looks on a thread of its own, for ever. One that panics is followed by another. (L5)
async fn looks<T: Fn(&Path) -> Trace + Send + 'static>(watch: impl Fn() -> Watch<T>, tokens: Tokens) {
    loop {
        let (mut watch, tokens) = (watch(), tokens.clone());
        // Both ends go with this future, the thread with its end.
        let (_here, gone) = mpsc::channel::<()>();
        let (alive, ended) = oneshot::channel::<()>();
        let thread = move || {
            let _alive = alive;
            while {
                watch.look(&tokens);
                gone.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout)
            } {}
        };
        match std::thread::Builder::new().name("mos-tokens".into()).stack_size(STACK).spawn(thread) {
            Ok(_) => {
                let _ = ended.await;
                log::error!("a look at the tokens ended in a fault of the program");
            }
            Err(e) => log::error!("changes of tokens are not seen: no thread for that: {e}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What changes with a file's content: device and number, size, and both times in nanoseconds.
type Trace = Option<[i128; 5]>;

fn trace(path: &Path) -> Trace {
    let found = std::fs::metadata(path).ok()?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Some([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        time(found.mtime(), found.mtime_nsec()),
        time(found.ctime(), found.ctime_nsec()),
    ])
}

/// Of what [`HTTP_TOKEN`] is the token.
enum Held {
    /// Nothing was read since the start.
    AsAtTheStart,
    /// Of this file, or of the configuration itself.
    Of(Option<PathBuf>),
}

impl Held {
    fn is_of(&self, file: Option<&Path>) -> bool {
        match self {
            Self::AsAtTheStart => true,
            Self::Of(held) => held.as_deref() == file,
        }
    }
}

struct Watch<T> {
    source: TokenSource,
    trace: T,
    /// The file of a token, if one is configured.
    file: Option<PathBuf>,
    held: Held,
    seen: [Trace; 2],
    /// Whether the files are read even if they look the same: a change may follow a reading within the time that a file
    /// system tells apart, and what was missing may have been under way.
    again: bool,
    /// Whether they are because of what could not be read: that it can be again need not be seen from outside.
    failing: bool,
    /// What the log was told of that.
    said: Option<String>,
}

impl<T: Fn(&Path) -> Trace> Watch<T> {
    fn new(source: TokenSource, trace: T) -> Self {
        Self {
            source,
            trace,
            file: None,
            held: Held::AsAtTheStart,
            seen: [None; 2],
            again: true,
            failing: false,
            said: None,
        }
    }

    fn look(&mut self, tokens: &Tokens) {
        let seen = [(self.trace)(self.source.file()), self.file.as_deref().and_then(&self.trace)];
        let changed = seen != self.seen;
        if !changed && !self.again && !self.failing {
            return;
        }
        (self.seen, self.again, self.failing) = (seen, changed, false);
        let held = tokens.held();
        let Some(given) = self.read(&held) else { return };
        told(&held, &given);
        tokens.set(given);
    }

    /// What holds from now on; `None`: what holds now.
    fn read(&mut self, held: &[Token]) -> Option<Vec<Token>> {
        let read = self.source.read();
        if let Ok(given) = &read
            && self.file != given.file
        {
            self.file.clone_from(&given.file);
            self.again = true;
        }
        self.failing = read.as_ref().map_or(true, |given| given.lacking.is_some());
        if self.failing && self.again {
            return None;
        }
        let (holds, words) = match read {
            Ok(mut given) => match given.lacking {
                None => {
                    self.held = Held::Of(given.file);
                    (Some(given.tokens), None)
                }
                // What the configuration names no longer is not kept for what it names now.
                Some(lacking) if lacking.passes && self.held.is_of(given.file.as_deref()) => {
                    let before = held.iter().filter(|token| &*token.name == HTTP_TOKEN).cloned();
                    given.tokens.splice(0..0, before);
                    (Some(given.tokens), Some(format!("a token stays as it is until it can be read: {}", lacking.why)))
                }
                Some(lacking) => (Some(given.tokens), Some(format!("a token does not hold: {}", lacking.why))),
            },
            Err(e @ ConfigError::Unreadable { passes: false, .. }) => {
                (Some(Vec::new()), Some(format!("no token holds any more: {e}")))
            }
            Err(e) => (None, Some(format!("the tokens stay as they are until the configuration is right: {e}"))),
        };
        if let Some(words) = words.as_ref().filter(|words| self.said.as_ref() != Some(words)) {
            log::error!("{words}");
        }
        self.said = words;
        holds
    }
}

/// Notes what changes.
fn told(before: &[Token], now: &[Token]) {
    for token in before.iter().filter(|token| !now.contains(token)) {
        log::info!("the token {} as {} holds no more", token.name, token.role);
    }
    for token in now.iter().filter(|token| !before.contains(token)) {
        log::info!("the token {} holds as {}", token.name, token.role);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::{Role, TokenHash};

    type Tracer = Box<dyn Fn(&Path) -> Trace + Send>;

    struct Rig {
        folder: tempfile::TempDir,
        watch: Watch<Tracer>,
        tokens: Tokens,
    }

    const TOKEN: &str = "a token of the file";

    fn section(name: &str, role: Role) -> String {
        format!("[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nhash = \"{}\"\n", TokenHash::of(name))
    }

    impl Rig {
        fn new(text: &str) -> Self {
            Self::traced(text, Box::new(trace))
        }

        /// As if its files looked to be what `trace` says.
        fn traced(text: &str, trace: Tracer) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("mos.toml");
            let variables = [("MOS_STORAGE__ROOT".to_owned(), "/data".to_owned())];
            let (watch, tokens) = (Watch::new(TokenSource::new(&config, variables), trace), Tokens::new(Vec::new()));
            let rig = Self { folder, watch, tokens };
            rig.write("mos.toml", text);
            rig
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        fn remove(&self, name: &str) {
            std::fs::remove_file(self.folder.path().join(name)).unwrap();
        }

        /// Who has a token after so many looks.
        fn after(&mut self, looks: usize) -> Vec<(String, Role)> {
            (0..looks).for_each(|_| self.watch.look(&self.tokens));
            self.tokens.held().into_iter().map(|token| (token.name.to_string(), token.role)).collect()
        }
    }

    fn named(names: &[(&str, Role)]) -> Vec<(String, Role)> {
        names.iter().map(|(name, role)| ((*name).to_owned(), *role)).collect()
    }

    #[test]
    fn l1_what_is_written_of_tokens_holds_at_the_next_look() {
        let (depot, boss) = (section("depot", Role::Viewer), section("boss", Role::Admin));
        let mut rig = Rig::new(&format!("{depot}{boss}"));
        assert_eq!(rig.after(1), named(&[("depot", Role::Viewer), ("boss", Role::Admin)]));
        rig.write("mos.toml", &boss);
        assert_eq!(rig.after(1), named(&[("boss", Role::Admin)]));
        // Other settings are not judged, nor do they take effect.
        rig.write("mos.toml", &format!("[log]\nlevel = \"no such level\"\n{}", section("boss", Role::Operator)));
        assert_eq!(rig.after(1), named(&[("boss", Role::Operator)]));
        rig.write("mos.toml", "");
        assert_eq!(rig.after(1), named(&[]));
        // As an editor replaces it.
        rig.write("other.toml", &depot);
        std::fs::rename(rig.folder.path().join("other.toml"), rig.folder.path().join("mos.toml")).unwrap();
        assert_eq!(rig.after(1), named(&[("depot", Role::Viewer)]));
    }

    #[test]
    fn l1_two_changes_in_one_tick_of_the_file_system_are_both_seen() {
        let mut rig = Rig::traced(&section("depot", Role::Viewer), Box::new(|_| Some([0; 5])));
        assert_eq!(rig.after(1), named(&[("depot", Role::Viewer)]));
        rig.write("mos.toml", &section("other", Role::Viewer));
        assert_eq!(rig.after(1), named(&[("other", Role::Viewer)]));
    }

    #[test]
    fn l1_l2_a_token_file_is_followed_and_gone_it_gives_nothing() {
        let mut rig = Rig::new("");
        let file = rig.folder.path().join("token");
        let depot = section("depot", Role::Viewer);
        rig.write("mos.toml", &format!("[http]\ntoken_file = \"{}\"\n{depot}", file.display()));
        rig.write("token", &TOKEN.replace(' ', "-"));
        let both = named(&[("http.token", Role::Admin), ("depot", Role::Viewer)]);
        assert_eq!(rig.after(2), both);
        let first = rig.tokens.held();
        rig.write("token", "another-token-of-the-file");
        assert_eq!(rig.after(1), both);
        assert_ne!(rig.tokens.held(), first, "the old one is revoked");
        rig.remove("token");
        assert_eq!(rig.after(1), both, "as if an editor were replacing it");
        assert_eq!(rig.after(1), named(&[("depot", Role::Viewer)]));
        rig.write("token", "too short");
        assert_eq!(rig.after(2), named(&[("depot", Role::Viewer)]));
        rig.write("token", "long-enough-to-be-a-token");
        assert_eq!(rig.after(1), both);
        rig.write("token", "");
        assert_eq!(rig.after(2), named(&[("depot", Role::Viewer)]));
    }

    #[test]
    fn l2_l3_a_mistake_changes_nothing_and_a_file_that_is_gone_ends_all() {
        let mut rig = Rig::new(&section("depot", Role::Viewer));
        let depot = named(&[("depot", Role::Viewer)]);
        assert_eq!(rig.after(3), depot);
        for mistake in ["[[token", "[[token]]\nname = \"depot\"\n", "[nonsense]\n"] {
            rig.write("mos.toml", mistake);
            assert_eq!(rig.after(3), depot, "{mistake}");
        }
        rig.remove("mos.toml");
        assert_eq!(rig.after(1), depot);
        assert_eq!(rig.after(1), named(&[]));
        rig.write("mos.toml", &section("depot", Role::Viewer));
        assert_eq!(rig.after(1), depot);
    }

    /// A file that looks fine and of which the kernel reads nothing but EIO.
    const EIO: &str = "/proc/self/mem";

    #[test]
    fn l4_an_error_that_passes_changes_nothing_and_leaves_nothing_behind() {
        let now = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
        let tick = now.clone();
        let trace = move |_: &Path| Some([now.load(std::sync::atomic::Ordering::Relaxed).into(); 5]);
        let mut rig = Rig::traced("", Box::new(trace));
        let (config, file) = (rig.folder.path().join("mos.toml"), rig.folder.path().join("token"));
        let with_file = format!("[http]\ntoken_file = \"{}\"\n", file.display());
        rig.write("token", "long-enough-to-be-a-token");
        rig.write("mos.toml", &format!("{with_file}{}", section("depot", Role::Viewer)));
        let all = named(&[("http.token", Role::Admin), ("depot", Role::Viewer)]);
        assert_eq!(rig.after(3), all);
        // The token's file fails: what is said of others holds.
        rig.remove("token");
        std::os::unix::fs::symlink(EIO, &file).unwrap();
        rig.write("mos.toml", &with_file);
        tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(rig.after(3), named(&[("http.token", Role::Admin)]));
        // But it is not that of another file which the configuration names now.
        let other = rig.folder.path().join("other");
        std::os::unix::fs::symlink(EIO, &other).unwrap();
        rig.write("mos.toml", &format!("[http]\ntoken_file = \"{}\"\n", other.display()));
        tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(rig.after(3), named(&[]));
        rig.remove("token");
        rig.write("token", "long-enough-to-be-a-token");
        rig.write("mos.toml", &with_file);
        tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(rig.after(3), named(&[("http.token", Role::Admin)]));
        rig.remove("token");
        std::os::unix::fs::symlink(EIO, &file).unwrap();
        tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // So does the configuration.
        rig.remove("mos.toml");
        std::os::unix::fs::symlink(EIO, &config).unwrap();
        tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(rig.after(3), named(&[("http.token", Role::Admin)]));
        // It can be read again, and looks the same.
        for name in ["token", "mos.toml"] {
            rig.remove(name);
        }
        rig.write("mos.toml", &section("boss", Role::Admin));
        assert_eq!(rig.after(1), named(&[("boss", Role::Admin)]));
        // The same of what revoked them: gone, and back as if it had never been away.
        rig.remove("mos.toml");
        tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(rig.after(5), named(&[]));
        rig.write("mos.toml", &section("boss", Role::Admin));
        assert_eq!(rig.after(1), named(&[("boss", Role::Admin)]));
    }

    #[test]
    fn l5_what_is_no_file_is_not_waited_for_and_what_is_too_long_not_read() {
        let mut rig = Rig::new(&section("depot", Role::Viewer));
        assert_eq!(rig.after(2), named(&[("depot", Role::Viewer)]));
        rig.remove("mos.toml");
        let fifo = rig.folder.path().join("mos.toml");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(rig.after(2), named(&[]));
        rig.remove("mos.toml");
        rig.write("mos.toml", &section("depot", Role::Viewer));
        assert_eq!(rig.after(1), named(&[("depot", Role::Viewer)]));
        std::fs::File::options().append(true).open(&fifo).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(rig.after(2), named(&[]));
    }

    #[test]
    fn l5_a_look_that_hangs_or_panics_holds_nobody_up() {
        let rig = Rig::new("");
        let source = TokenSource::new(&rig.folder.path().join("mos.toml"), []);
        let (count, (hang, hung)) = (std::sync::atomic::AtomicU32::new(0), mpsc::channel::<()>());
        let (looked, mut looks_seen) = tokio::sync::mpsc::unbounded_channel();
        let hung = std::sync::Arc::new(std::sync::Mutex::new(hung));
        let watch = || {
            let (n, hung, looked) =
                (count.fetch_add(1, std::sync::atomic::Ordering::Relaxed), hung.clone(), looked.clone());
            Watch::new(source.clone(), move |_: &Path| {
                looked.send(n).unwrap();
                assert!(n > 0, "a file from hell");
                let _ = hung.lock().unwrap().recv();
                None
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let seen = runtime.block_on(async {
            let seen = async { [looks_seen.recv().await, looks_seen.recv().await] };
            tokio::select! {
                seen = seen => seen,
                () = looks(watch, Tokens::new(Vec::new())) => unreachable!("for ever"),
            }
        });
        assert_eq!(seen, [Some(0), Some(1)]);
        drop(hang);
    }
}
