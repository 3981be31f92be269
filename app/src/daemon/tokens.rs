//! Tokens that are added and revoked while the daemon runs: their files are looked at once a second.
//!
//! Promises: (L1) what the configuration or the token file says of tokens holds at most two seconds later, without a restart;
//! (L2) a token file, or a configuration, that is gone or cannot be read any more gives no token, but not before it was looked at
//! twice, since editors replace files; (L3) a configuration with a mistake in it changes nothing, and the log says so. Looked at
//! rather than listened for: what was replaced through links, or on a mounted file system, is seen all the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::Token;
use crate::config::{ConfigError, TokenSource};
use crate::http::Tokens;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps `tokens` as they are configured, for ever.
pub(super) async fn follow(source: TokenSource, tokens: Tokens) {
    let mut watch = Watch::new(source);
    let mut times = tokio::time::interval(LOOK);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        watch.look(&tokens);
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

#[derive(Debug)]
struct Watch {
    source: TokenSource,
    /// The file of a token, if one is configured.
    file: Option<PathBuf>,
    seen: [Trace; 2],
    /// Whether the files are read even if they look the same: a change may follow a reading within the time that a file
    /// system tells apart, and what was missing may have been under way.
    again: bool,
}

impl Watch {
    fn new(source: TokenSource) -> Self {
        Self { source, file: None, seen: [None; 2], again: true }
    }

    fn look(&mut self, tokens: &Tokens) {
        let seen = [trace(self.source.file()), self.file.as_deref().and_then(trace)];
        let changed = seen != self.seen;
        if !changed && !self.again {
            return;
        }
        (self.seen, self.again) = (seen, changed);
        let given = match self.source.read() {
            Ok(given) => {
                if self.file != given.file {
                    self.file.clone_from(&given.file);
                    self.again = true;
                }
                match given.lacking {
                    Some(_) if self.again => return,
                    Some(lacking) => log::warn!("a token does not hold: {lacking}"),
                    None => {}
                }
                given.tokens
            }
            Err(_) if self.again => return,
            Err(e @ ConfigError::Unreadable { .. }) => {
                log::warn!("no token holds any more: {e}");
                Vec::new()
            }
            Err(e) => {
                log::error!("the tokens stay as they are until the configuration is right: {e}");
                return;
            }
        };
        told(&tokens.held(), &given);
        tokens.set(given);
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

    struct Rig {
        folder: tempfile::TempDir,
        watch: Watch,
        tokens: Tokens,
    }

    const TOKEN: &str = "a token of the file";

    fn section(name: &str, role: Role) -> String {
        format!("[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nhash = \"{}\"\n", TokenHash::of(name))
    }

    impl Rig {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("mos.toml");
            let variables = [("MOS_STORAGE__ROOT".to_owned(), "/data".to_owned())];
            let (watch, tokens) = (Watch::new(TokenSource::new(&config, variables)), Tokens::new(Vec::new()));
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
        let mut rig = Rig::new(&section("depot", Role::Viewer));
        assert_eq!(rig.after(1), named(&[("depot", Role::Viewer)]));
        let path = rig.folder.path().join("mos.toml");
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        rig.write("mos.toml", &section("other", Role::Viewer));
        std::fs::File::open(&path).unwrap().set_modified(before).unwrap();
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
}
