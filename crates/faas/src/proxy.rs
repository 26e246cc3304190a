//! The one way into a function: admit, find, run, reply.

use crate::function::FunctionName;
use crate::invocation::{Deadline, Fault, Invocation, InvokeError, Reply};
use crate::limits::Limits;
use crate::router::{Busy, Deployment, Inside, Route, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The reverse proxy without its endpoints: they decode, call [`Proxy::invoke`], and encode.
/// Admission, deadline and counters live here alone.
#[derive(Debug)]
pub struct Proxy {
    router: Arc<Router>,
    limits: Arc<Limits>,
    is_stopping: AtomicBool,
    in_flight: AtomicUsize,
    left: Notify,
    detached: TaskTracker,
}

impl Proxy {
    /// A proxy that finds its functions in `router`.
    #[must_use]
    pub fn new(router: Arc<Router>, limits: Arc<Limits>) -> Self {
        Self {
            router,
            limits,
            is_stopping: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            left: Notify::new(),
            detached: TaskTracker::new(),
        }
    }

    /// The bounds that endpoints keep while they decode.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether a function has that name, for endpoints that answer before the body has come.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.router.find(name).is_some()
    }

    /// Invocations that are inside now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Runs the function of that name and returns its reply. `name` is the path without its
    /// leading slash. Dropping the future cancels the invocation.
    ///
    /// # Errors
    /// Every way in which there can be no reply; see [`InvokeError`]. The invocation may have been
    /// run, in part, except where the error is the caller's or the platform's fault.
    pub async fn invoke(&self, name: &str, invocation: Invocation) -> Result<Reply, InvokeError> {
        let _count = self.admit(&invocation)?;
        let Some(route) = self.router.find(name) else {
            return Err(InvokeError::NotFound(name.to_owned()));
        };
        route.counters.invocations.fetch_add(1, Ordering::Relaxed);
        let begin = Instant::now();
        let mut handled = Duration::ZERO;
        let result = run(&route, &invocation, &self.limits, begin, &mut handled).await;
        match &result {
            Ok(_) => {
                let overhead = begin.elapsed().saturating_sub(handled);
                route.counters.overhead.record(overhead);
            }
            Err(error) => count(&route, error),
        }
        tracing::debug!(
            function = %route.name(),
            invocation = invocation.id.get(),
            error = result.as_ref().err().map(tracing::field::display),
            "invoked"
        );
        result
    }

    /// Runs the function of that name after the caller was answered. Its reply is dropped.
    ///
    /// # Errors
    /// Where the function is not known, or [`Limits::async_invocations_max`] such invocations are
    /// under way.
    pub fn invoke_detached(
        self: &Arc<Self>,
        name: &str,
        invocation: Invocation,
    ) -> Result<(), InvokeError> {
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(InvokeError::Stopping);
        }
        let Some(route) = self.router.find(name) else {
            return Err(InvokeError::NotFound(name.to_owned()));
        };
        if self.detached.len() >= self.limits.async_invocations_max {
            return Err(overloaded(route.name()));
        }
        let (proxy, name) = (Arc::clone(self), route.name().clone());
        self.detached.spawn(async move {
            // The reply has no taker; failures are in the counters and the function's log.
            drop(proxy.invoke(name.as_str(), invocation).await);
        });
        Ok(())
    }

    /// Takes no more invocations and lets those inside finish, up to `grace`. Returns how many
    /// were left.
    pub async fn stop(&self, grace: Duration) -> usize {
        self.detached.close();
        let finished = async {
            self.detached.wait().await;
            self.is_stopping.store(true, Ordering::SeqCst);
            loop {
                let left = self.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.in_flight.load(Ordering::SeqCst) == 0 {
                    return;
                }
                left.await;
            }
        };
        // What is left is counted below.
        let _in_time = tokio::time::timeout(grace, finished).await.is_ok();
        self.is_stopping.store(true, Ordering::SeqCst);
        self.in_flight.load(Ordering::SeqCst)
    }

    fn admit(&self, invocation: &Invocation) -> Result<Count<'_>, InvokeError> {
        let too_large = |what, bytes_max| InvokeError::TooLarge { what, bytes_max };
        if invocation.payload.len() > self.limits.payload_bytes_max {
            return Err(too_large("body", self.limits.payload_bytes_max));
        }
        if invocation.headers.len_bytes() > self.limits.headers_bytes_max {
            return Err(too_large("header", self.limits.headers_bytes_max));
        }
        if invocation.query.len() > self.limits.query_bytes_max {
            return Err(too_large("query", self.limits.query_bytes_max));
        }
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let count = Count(self);
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(InvokeError::Stopping);
        }
        Ok(count)
    }
}

/// An invocation that is counted as inside; dropping it takes it out.
struct Count<'a>(&'a Proxy);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let before = self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.is_stopping.load(Ordering::SeqCst) {
            self.0.left.notify_waiters();
        }
    }
}

/// Runs an invocation within its function's deadline.
async fn run(
    route: &Route,
    invocation: &Invocation,
    limits: &Limits,
    begin: Instant,
    handled: &mut Duration,
) -> Result<Reply, InvokeError> {
    let deadline = route.deadline();
    let expires = Deadline::at(begin + deadline);
    let attempts = async {
        loop {
            match attempt(route, invocation, expires, limits, handled).await {
                // The handler or the deployment went away before it took the invocation: the
                // route's next one will.
                Err(InvokeError::NotTaken) => tokio::task::yield_now().await,
                result => return result,
            }
        }
    };
    match tokio::time::timeout_at(expires.instant().into(), attempts).await {
        Ok(result) => result,
        Err(_elapsed) => Err(InvokeError::Deadline {
            name: route.name().clone(),
            deadline,
        }),
    }
}

async fn attempt(
    route: &Route,
    invocation: &Invocation,
    expires: Deadline,
    limits: &Limits,
    handled: &mut Duration,
) -> Result<Reply, InvokeError> {
    let deployment = current(route).await?;
    let inside = match deployment.try_enter() {
        Ok(inside) => inside,
        Err(Busy::Full) => queue(route, &deployment).await?,
        Err(Busy::Retired) => return wait_for_next(route, &deployment).await,
    };
    let Some(handler) = deployment.least_busy() else {
        drop(inside);
        return wait_for_handler(route, &deployment, limits).await;
    };
    let begin = Instant::now();
    let result = handler
        .invoke(
            invocation,
            expires.instant().saturating_duration_since(begin),
        )
        .await;
    *handled = begin.elapsed();
    result
}

/// The deployment that serves the route, awaited where it is still being prepared.
async fn current(route: &Route) -> Result<Arc<Deployment>, InvokeError> {
    if let Some(deployment) = route.deployment() {
        return Ok(deployment);
    }
    if route.is_withdrawn() {
        return Err(InvokeError::NotFound(route.name().to_string()));
    }
    if let Some(failure) = route.failure() {
        return Err(unavailable(
            route,
            failure.reason.clone(),
            Duration::from_secs(5),
        ));
    }
    let _place = route.wait_place().ok_or_else(|| overloaded(route.name()))?;
    route.changed_from(None).await;
    Err(InvokeError::NotTaken)
}

async fn queue<'a>(route: &Route, deployment: &'a Deployment) -> Result<Inside<'a>, InvokeError> {
    let _place = route.wait_place().ok_or_else(|| overloaded(route.name()))?;
    deployment
        .enter()
        .await
        .map_err(|_busy| InvokeError::NotTaken)
}

async fn wait_for_next(route: &Route, retired: &Arc<Deployment>) -> Result<Reply, InvokeError> {
    let _place = route.wait_place().ok_or_else(|| overloaded(route.name()))?;
    route.changed_from(Some(retired)).await;
    Err(InvokeError::NotTaken)
}

async fn wait_for_handler(
    route: &Route,
    deployment: &Arc<Deployment>,
    limits: &Limits,
) -> Result<Reply, InvokeError> {
    let _place = route.wait_place().ok_or_else(|| overloaded(route.name()))?;
    let settled = async {
        match deployment.handler_settled().await {
            Ok(()) => Ok(()),
            Err((_, pause)) if pause <= limits.restart_waited_max => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Err((reason, pause)) => Err(unavailable(route, reason, pause)),
        }
    };
    tokio::select! {
        settled = settled => settled?,
        () = route.changed_from(Some(deployment)) => {}
    }
    Err(InvokeError::NotTaken)
}

fn overloaded(name: &FunctionName) -> InvokeError {
    InvokeError::Overloaded {
        name: name.clone(),
        retry_after: Duration::from_secs(1),
    }
}

fn unavailable(route: &Route, reason: String, retry_after: Duration) -> InvokeError {
    InvokeError::Unavailable {
        name: route.name().clone(),
        reason,
        retry_after,
    }
}

fn count(route: &Route, error: &InvokeError) {
    let counter = match error.fault() {
        Fault::Caller => return,
        Fault::Function => &route.counters.function_errors,
        Fault::Platform => &route.counters.platform_errors,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}
