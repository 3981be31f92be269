//! The tokens that hold now. They change while the API is served.
//!
//! Promises: (T1) from the moment at which a token is taken out, or has another role, no request passes by what it was before,
//! nor does one go on that had passed and waits, for the rest of its body or its turn (work that is at the disk comes to its end);
//! (T2) what is still being sent to whom it let in, streams of events too, is broken off, never ended as if it were complete.
//! Told by the daemon (`daemon/tokens.rs`), asked by the guard of TCP. Never shows a token.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

use crate::access::{self, Token};

/// The tokens that hold; all clones are the same.
#[derive(Clone, Debug)]
pub struct Tokens(watch::Sender<Vec<Token>>);

impl Tokens {
    /// These hold.
    #[must_use]
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(watch::Sender::new(tokens))
    }

    /// Now these hold, and no other. (T1, T2)
    pub fn set(&self, tokens: Vec<Token>) {
        self.0.send_if_modified(|held| {
            let changed = *held != tokens;
            *held = tokens;
            changed
        });
    }

    /// Those that hold.
    #[must_use]
    pub fn held(&self) -> Vec<Token> {
        self.0.borrow().clone()
    }

    /// Whose token that is.
    pub(super) fn owner(&self, offered: &str) -> Option<Token> {
        access::owner(&self.0.borrow(), offered).cloned()
    }

    /// Resolves when a token does not hold any more as it is.
    pub(super) fn lost(&self, token: Token) -> impl Future<Output = ()> + Send + use<> {
        let mut held = self.0.subscribe();
        async move {
            // The sender is gone only with the API.
            let _ = held.wait_for(|held| !held.contains(&token)).await;
        }
    }

    /// An answer's body that is broken off when the token that asked for it is lost. (T2)
    pub(super) fn bound(&self, token: Token, body: Body) -> Body {
        if hyper::body::Body::is_end_stream(&body) {
            return body;
        }
        Body::new(Bound { body, lost: Some(Box::pin(self.lost(token))) })
    }
}

struct Bound {
    body: Body,
    /// `None`: it is lost.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl hyper::body::Body for Bound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(lost) = &mut self.lost else { return Poll::Ready(None) };
        if lost.as_mut().poll(cx).is_ready() {
            self.lost = None;
            // An error, for an end would make half of a file look whole.
            return Poll::Ready(Some(Err(axum::Error::new("the token was revoked"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;

    use super::*;
    use crate::access::{Role, TokenHash};

    fn token(name: &str, role: Role) -> Token {
        Token { name: name.into(), role, hash: TokenHash::of(&format!("the token of {name}")) }
    }

    /// A body of which nothing comes.
    fn silent(tokens: &Tokens, token: &Token) -> Body {
        let stream = tokio_stream::pending::<Result<Bytes, std::convert::Infallible>>();
        tokens.bound(token.clone(), Body::from_stream(stream))
    }

    #[test]
    fn t1_t2_who_is_taken_out_or_has_another_role_is_out_and_nobody_else_is() {
        let all = [token("a", Role::Viewer), token("b", Role::Operator), token("c", Role::Admin)];
        let tokens = Tokens::new(all.to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut bodies: Vec<Body> = all.iter().map(|token| silent(&tokens, token)).collect();
            let waiting = bodies.remove(0).into_data_stream();
            let ended = tokio::spawn(async move { tokio_stream::StreamExt::collect::<Vec<_>>(waiting).await });
            tokio::task::yield_now().await;
            tokens.set(vec![Token { role: Role::Viewer, ..all[1].clone() }, all[2].clone()]);
            let got = ended.await.unwrap();
            assert!(matches!(&got[..], [Err(e)] if e.to_string().contains("revoked")), "broken off: {got:?}");
            assert!(bodies.remove(0).frame().await.unwrap().is_err(), "by a role that it has no more");
            let mut still = bodies.remove(0);
            let frame = still.frame();
            tokio::pin!(frame);
            assert!(std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx).is_pending())).await);
        });
        assert_eq!(tokens.owner("the token of a"), None);
        assert_eq!(tokens.owner("the token of b").unwrap().role, Role::Viewer);
        assert_eq!(tokens.owner("the token of c"), Some(all[2].clone()));
    }
}
