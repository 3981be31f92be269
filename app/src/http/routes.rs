//! The table of routes: what the router serves, as a list that can be compared with the OpenAPI document. Each stands behind
//! the guard of its least role.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, on};

use super::Services;
use super::fault::Fault;
use super::roles;
use crate::error::Kind;

/// Routes under construction.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Arc<Services>>,
    listed: Vec<(Method, &'static str)>,
}

impl Routes {
    pub(super) fn get<T: 'static>(&mut self, path: &'static str, handler: impl Handler<T, Arc<Services>>) {
        self.add(Method::GET, MethodFilter::GET, path, handler);
    }

    pub(super) fn post<T: 'static>(&mut self, path: &'static str, handler: impl Handler<T, Arc<Services>>) {
        self.add(Method::POST, MethodFilter::POST, path, handler);
    }

    pub(super) fn put<T: 'static>(&mut self, path: &'static str, handler: impl Handler<T, Arc<Services>>) {
        self.add(Method::PUT, MethodFilter::PUT, path, handler);
    }

    pub(super) fn delete<T: 'static>(&mut self, path: &'static str, handler: impl Handler<T, Arc<Services>>) {
        self.add(Method::DELETE, MethodFilter::DELETE, path, handler);
    }

    fn add<T: 'static>(
        &mut self,
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        handler: impl Handler<T, Arc<Services>>,
    ) {
        let guard = from_fn_with_state(roles::needs(&method, path), roles::guard);
        self.listed.push((method, path));
        self.router = std::mem::take(&mut self.router).route(path, on(filter, handler).layer(guard));
    }

    /// What is served: method and path of every operation.
    #[cfg(test)]
    pub(super) fn listed(&self) -> &[(Method, &'static str)] {
        &self.listed
    }

    pub(super) fn into_router(self) -> Router<Arc<Services>> {
        log::debug!("{} operations are served", self.listed.len());
        self.router
            .fallback(async || Fault::new(Kind::NotFound, "there is no such operation; /v1/openapi.json lists all"))
            .method_not_allowed_fallback(async || {
                Fault::new(Kind::MethodNotAllowed, "not by this method; /v1/openapi.json lists all")
            })
    }
}
