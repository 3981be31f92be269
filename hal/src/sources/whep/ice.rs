//! Servers for ICE that a WHEP server names in `Link` headers (draft-ietf-wish-whep-03 section 4.5, RFC 9725 section 4.6).
//!
//! Promises URLs as `webrtcbin` takes them, and nothing of what cannot be read. `whepserversink` (gst-plugins-rs 0.15) leaves the
//! relation of STUN servers out and writes `credential:"…"`: both are read.

use url::Url;

/// A server for ICE.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum IceServer {
    /// `stun://host:port`.
    Stun(String),
    /// `turn://user:password@host:port?transport=udp`, or `turns://`.
    Turn(String),
}

/// Those of one header, which may hold several.
pub(super) fn servers(header: &str) -> Vec<IceServer> {
    parts(header, ',').filter_map(server).collect()
}

/// What stands between separators that are in no quotes.
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let between = text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    });
    between.map(str::trim)
}

fn server(link: &str) -> Option<IceServer> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let parameter = |name: &str| {
        let mut each = parts(parameters, ';').filter_map(|p| p.split_once(['=', ':']));
        each.find(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().trim_matches('"'))
    };
    if parameter("rel").is_some_and(|rel| !rel.eq_ignore_ascii_case("ice-server")) {
        return None;
    }
    let (scheme, place) = target.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let mut url = Url::parse(&format!("{scheme}://{}", place.trim_start_matches('/'))).ok()?;
    url.host_str().filter(|host| !host.is_empty())?;
    if url.port().is_none() {
        url.set_port(Some(if scheme.ends_with('s') { 5349 } else { 3478 })).ok()?;
    }
    match &*scheme {
        "stun" => Some(IceServer::Stun(url.into())),
        "turn" | "turns" => {
            url.set_username(parameter("username")?).ok()?;
            url.set_password(Some(parameter("credential")?)).ok()?;
            Some(IceServer::Turn(url.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_are_read_from_headers() {
        let header = "<stun:stun.example.net>; rel=\"ice-server\", <https://x/>; rel=next, \
                      <turn:turn.example.net:3479?transport=udp>; rel=\"ice-server\"; username=\"u,;s\"; \
                      credential=\"p/w\"; credential-type=\"password\"";
        let stun = IceServer::Stun("stun://stun.example.net:3478".into());
        let turn = IceServer::Turn("turn://u,%3Bs:p%2Fw@turn.example.net:3479?transport=udp".into());
        assert_eq!(servers(header), [stun, turn]);
        let header = "<turns:192.0.2.3?transport=tcp>; rel=ice-server; username=u; credential=p";
        assert_eq!(servers(header), [IceServer::Turn("turns://u:p@192.0.2.3:5349?transport=tcp".into())]);
        // As whepserversink writes it.
        let header = "<stun:192.0.2.4:3478>, <turn:192.0.2.3>; rel=\"ice-server\"; username=\"u\"; credential:\"p\"; credential-type:\"password\";";
        let written =
            [IceServer::Stun("stun://192.0.2.4:3478".into()), IceServer::Turn("turn://u:p@192.0.2.3:3478".into())];
        assert_eq!(servers(header), written);
        for none in [
            "",
            "<",
            "<stun:>; rel=ice-server",
            "<stun:a>; rel=next",
            "<turn:a>; rel=ice-server",
            "<x:a>; rel=ice-server",
        ] {
            assert_eq!(servers(none), [], "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_left(head in "(<(stun|turn)s?:[a-z:]*>; rel=\"?ice-server\"?[;,]?)?", tail in "\\PC*") {
            let _ = servers(&format!("{head}{tail}"));
        }
    }
}
