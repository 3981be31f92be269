//! `srt://` in the configuration: MPEG-TS over SRT, called or awaited.
//!
//! Promises the bounds of libsrt, and that the passphrase and the stream id, which many servers take as a password, stand in
//! no error and in no `Debug`. Opens nothing.

use std::fmt;

use url::Url;

use super::spec::{self, BadSource, SourceSpec};

/// Which side connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtMode {
    /// We call the camera.
    Caller,
    /// The camera calls us; the host is the address that we listen at.
    Listener,
}

/// How a camera is reached over SRT. `Debug` shows neither passphrase nor stream id.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtOptions {
    /// Which side connects.
    pub mode: SrtMode,
    /// 10 to 79 bytes; without it nothing is encrypted, and as listener everybody may deliver.
    pub passphrase: Option<String>,
    /// What the other side asks for as stream, up to 512 bytes.
    pub stream_id: Option<String>,
    /// Time for lost packets to be sent again, in ms; the greater of both sides' counts.
    pub latency: u32,
}

impl fmt::Debug for SrtOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrtOptions({:?}, {} ms, ..)", self.mode, self.latency)
    }
}

const OPTIONS: &str = "mode, passphrase, streamid, latency";
/// What srtsrc takes unless told otherwise, in ms.
const LATENCY: u32 = 125;

/// Reads a text that starts with `srt:`.
pub(super) fn parse(text: &str) -> Result<SourceSpec, BadSource> {
    let bad = |why: &str| BadSource::Url(why.to_owned());
    let (url, credentials) = spec::parse_url(text)?;
    if credentials.is_some() || !url.path().trim_matches('/').is_empty() || url.port().is_none() {
        return Err(bad("srt:// has a host, a port and options, like srt://192.0.2.10:7001?passphrase=…"));
    }
    let mut found = SrtOptions { mode: SrtMode::Caller, passphrase: None, stream_id: None, latency: LATENCY };
    for (option, value) in spec::options(url.query().unwrap_or_default()) {
        let accepted = |option, accepted: &str| BadSource::Option { option, accepted: accepted.into() };
        match &*option {
            "mode" => {
                found.mode = match &*value {
                    "caller" => SrtMode::Caller,
                    "listener" => SrtMode::Listener,
                    _ => return Err(accepted("mode", "caller or listener")),
                }
            }
            "passphrase" => {
                let fits = (10..=79).contains(&value.len()) && !value.contains('\0');
                found.passphrase = Some(fits.then(|| value.into_owned()).ok_or_else(|| {
                    accepted("passphrase", "10 to 79 bytes, with & + # % written as %26 %2B %23 %25")
                })?);
            }
            "streamid" => {
                let fits = (1..=512).contains(&value.len()) && !value.contains('\0');
                let fits = fits.then(|| value.into_owned());
                found.stream_id = Some(fits.ok_or_else(|| accepted("streamid", "1 to 512 bytes"))?);
            }
            "latency" => found.latency = spec::number("latency", &value, 20, 8000)?,
            _ => {
                return Err(BadSource::UnknownOption { kind: "srt", option: spec::shown(&option), accepted: OPTIONS });
            }
        }
    }
    Ok(SourceSpec::Srt { url, options: found })
}

/// The address without options, as srtsrc takes it.
pub(crate) fn address(url: &Url) -> String {
    format!("srt://{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_secrets_never_shown() {
        let text = "srt://192.0.2.4:7001?mode=listener&passphrase=hunter2%26hunter2&streamid=s3cret&latency=300";
        let spec = SourceSpec::parse(text).unwrap();
        let SourceSpec::Srt { url, options } = &spec else { panic!("not SRT") };
        assert_eq!((options.mode, options.latency), (SrtMode::Listener, 300));
        assert_eq!(options.passphrase.as_deref(), Some("hunter2&hunter2"));
        assert_eq!(address(url), "srt://192.0.2.4:7001");
        assert_eq!(spec.to_string(), "srt://192.0.2.4:7001?…");
        for shown in [format!("{spec:?}"), format!("{options:?}")] {
            assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
        }
        let SourceSpec::Srt { options, .. } = SourceSpec::parse("srt://[::1]:7001").unwrap() else { panic!("not SRT") };
        assert_eq!((options.mode, options.passphrase), (SrtMode::Caller, None));
    }

    #[test]
    fn what_libsrt_would_refuse_is_refused_without_a_word_of_it() {
        for bad in [
            "srt://host:7001?passphrase=hunter2",
            "srt://host:7001?streamid=",
            "srt://host:7001?latency=1",
            "srt://host:7001?mode=rendezvous",
            "srt://host:7001?hunter2=1",
            "srt://host:7001/hunter2",
            "srt://host",
            "srt://admin:hunter2@host:7001",
            "srt:hunter2",
        ] {
            let e = SourceSpec::parse(bad).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{bad}: {e}");
        }
    }
}
