//! The one way into a function: admit, find, run, reply.

use crate::deployment::{Deployment, Inside};
use crate::function::FunctionName;
use crate::gate::{Gate, Pass};
use crate::handler::{Callable, Handlers};
use crate::hold_back::Refusals;
use crate::invocation::{Fault, Invocation, InvokeError, Reply, RequestPart};
use crate::limits::Limits;
use crate::route::{Route, WaitPlace};
use crate::router::Router;
use crate::slots::NoSlot;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The reverse proxy without its endpoints: they decode, call [`Proxy::invoke`], and encode.
/// Admission, deadline and counters live here alone.
#[derive(Debug)]
pub struct Proxy {
    router: Arc<Router>,
    limits: Arc<Limits>,
    /// Closed when the proxy stops.
    gate: Gate,
    /// Invocations whose callers were answered before they ran.
    detached: TaskTracker,
    refusals: Refusals,
}

/// Looks at a route that are of no use, after which the next one waits, and longer each time.
const LOOKS_AT_ONCE: u32 = 4;
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOOK_DOUBLINGS: u32 = 6;

impl Proxy {
    /// A proxy that finds its functions in `router`.
    #[must_use]
    pub fn new(router: Arc<Router>, limits: Arc<Limits>) -> Self {
        Self {
            router,
            limits,
            gate: Gate::new(),
            detached: TaskTracker::new(),
            refusals: Refusals::new(),
        }
    }

    /// The handlers as they are called, for whoever measures or tests them without the way to them.
    #[must_use]
    pub fn callable<'a>(&self, handlers: &'a Handlers) -> &'a [Arc<dyn Callable>] {
        handlers.callable()
    }

    /// The bounds that endpoints keep while they decode.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The route of that name, for endpoints that answer before the body has come.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.router.find(name)
    }

    /// Invocations that are inside now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.gate.inside() + self.detached.len()
    }

    /// Runs the function of that name and returns its reply. `name` is the path without its
    /// leading slash. Dropping the future cancels the invocation.
    ///
    /// # Errors
    /// Every way in which there can be no reply; see [`InvokeError`]. The invocation may have been
    /// run, in part, except where the error is the caller's or the platform's fault.
    pub async fn invoke(&self, name: &str, invocation: Invocation) -> Result<Reply, InvokeError> {
        self.check(&invocation)?;
        let _count = self.count_in()?;
        let Some(route) = self.router.find(name) else {
            return Err(InvokeError::NotFound(name.to_owned()));
        };
        self.run(&route, &invocation, None).await
    }

    /// Runs the function of that name after the caller was answered. Its reply is dropped. Once
    /// accepted, it is refused no more: it has its place in the queue.
    ///
    /// # Errors
    /// If the function is not known, it could not be run in time, or
    /// [`Limits::async_invocations_max`] such invocations are under way.
    pub fn invoke_detached(
        self: &Arc<Self>,
        name: &str,
        invocation: Invocation,
    ) -> Result<(), InvokeError> {
        self.check(&invocation)?;
        // Counted until it is spawned, so that a stop that begins now waits for it.
        let _count = self.count_in()?;
        let Some(route) = self.router.find(name) else {
            return Err(InvokeError::NotFound(name.to_owned()));
        };
        if self.detached.len() >= self.limits.async_invocations_max {
            return Err(overloaded(route.name()));
        }
        let place = route.wait_place().ok_or_else(|| overloaded(route.name()))?;
        if let Some(deployment) = route.deployment()
            && place.ahead > 0
            && deployment.expected(place.ahead) > route.deadline()
        {
            return Err(overloaded(route.name()));
        }
        let proxy = Arc::clone(self);
        self.detached.spawn(async move {
            // The reply has no taker; failures are in the counters and the function's log.
            drop(proxy.run(&route, &invocation, Some(place)).await);
        });
        Ok(())
    }

    /// Holds the answer to a refused caller back where refusals are many, but not beyond the
    /// caller's deadline, for endpoints to await before they tell it. Nothing of the request should
    /// be in memory any more.
    pub async fn hold_back(&self, error: &InvokeError) {
        if let Some(time_left) = error.refused_with_left() {
            self.refusals.hold_back(&self.limits, time_left).await;
        }
    }

    async fn run(
        &self,
        route: &Arc<Route>,
        invocation: &Invocation,
        place: Option<WaitPlace>,
    ) -> Result<Reply, InvokeError> {
        route.counters.invocations.fetch_add(1, Ordering::Relaxed);
        let begin = Instant::now();
        let call = Call {
            route,
            limits: &self.limits,
            invocation,
            deadline: route.deadline(),
            expires: begin + route.deadline(),
            is_accepted: place.is_some(),
        };
        let mut handled = Duration::ZERO;
        let mut result = call.run(place, &mut handled).await;
        match &mut result {
            Ok(_) => {
                let overhead = begin.elapsed().saturating_sub(handled);
                route.counters.overhead.record(overhead);
            }
            Err(error) => {
                error.refused_before(call.expires);
                count(route, error);
            }
        }
        tracing::debug!(
            function = %route.name(),
            invocation = invocation.id.get(),
            error = result.as_ref().err().map(tracing::field::display),
            "invoked"
        );
        result
    }

    /// Takes no more invocations and lets those inside finish, up to `grace`; those that were
    /// accepted have [`Limits::async_drain`]. Returns how many were left.
    pub async fn stop(&self, grace: Duration) -> usize {
        let accepted_until = Instant::now() + grace.max(self.limits.async_drain);
        self.gate.close();
        // What is left is counted below.
        let _in_time = tokio::time::timeout(grace, self.gate.emptied())
            .await
            .is_ok();
        self.detached.close();
        let accepted = tokio::time::timeout_at(accepted_until, self.detached.wait());
        let _in_time = accepted.await.is_ok();
        self.in_flight()
    }

    fn check(&self, invocation: &Invocation) -> Result<(), InvokeError> {
        let too_large = |part, bytes_max| InvokeError::TooLarge { part, bytes_max };
        if invocation.payload.len() > self.limits.payload_bytes_max {
            return Err(too_large(RequestPart::Body, self.limits.payload_bytes_max));
        }
        if invocation.headers.len_bytes() > self.limits.headers_bytes_max {
            return Err(too_large(
                RequestPart::Headers,
                self.limits.headers_bytes_max,
            ));
        }
        if invocation.query.len() > self.limits.query_bytes_max {
            return Err(too_large(RequestPart::Query, self.limits.query_bytes_max));
        }
        Ok(())
    }

    /// Counts an invocation as inside until what is returned is dropped.
    fn count_in(&self) -> Result<Pass<'_>, InvokeError> {
        self.gate.enter().ok_or(InvokeError::Stopping)
    }
}

/// An invocation on its way to a handler.
struct Call<'a> {
    route: &'a Arc<Route>,
    limits: &'a Limits,
    invocation: &'a Invocation,
    /// How long it may take.
    deadline: Duration,
    expires: Instant,
    /// Whether its caller was told already that it will be run.
    is_accepted: bool,
}

impl Call<'_> {
    /// Runs it within its deadline.
    async fn run(
        &self,
        place: Option<WaitPlace>,
        handled: &mut Duration,
    ) -> Result<Reply, InvokeError> {
        match tokio::time::timeout_at(self.expires, self.attempts(place, handled)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(InvokeError::Deadline {
                name: self.route.name().clone(),
                deadline: self.deadline,
            }),
        }
    }

    async fn attempts(
        &self,
        mut place: Option<WaitPlace>,
        handled: &mut Duration,
    ) -> Result<Reply, InvokeError> {
        let mut looks = 0;
        loop {
            match self.attempt(&mut place, handled).await {
                // The handler or the deployment went away before it took the invocation: the
                // route's next one will.
                Err(InvokeError::NotTaken) => {
                    looks += 1;
                    Box::pin(self.pause(looks, &mut place)).await?;
                }
                result => return result,
            }
        }
    }

    /// Waits before another look, longer where many were of no use, so that whatever handlers say
    /// of themselves nobody goes round in circles.
    async fn pause(&self, looks: u32, place: &mut Option<WaitPlace>) -> Result<(), InvokeError> {
        let Some(late) = looks.checked_sub(LOOKS_AT_ONCE) else {
            tokio::task::yield_now().await;
            return Ok(());
        };
        self.wait(place)?;
        let pause = LOOK_PAUSE_MIN * 2_u32.pow(late.min(LOOK_DOUBLINGS));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn attempt(
        &self,
        place: &mut Option<WaitPlace>,
        handled: &mut Duration,
    ) -> Result<Reply, InvokeError> {
        // What waits is on the heap: the room for it would be moved about with every call that does
        // not.
        let Some(deployment) = self.route.deployment() else {
            return Box::pin(self.wait_for_first(place)).await;
        };
        let inside = match deployment.try_enter() {
            Ok(inside) => inside,
            Err(NoSlot::Full) => Box::pin(self.queue(&deployment, place)).await?,
            Err(NoSlot::Closed) => return Box::pin(self.wait_for_next(&deployment, place)).await,
        };
        let Some(handler) = deployment.least_busy() else {
            drop(inside);
            return Box::pin(self.wait_for_handler(&deployment, place)).await;
        };
        *place = None;
        let mut timed = Timed {
            deployment: &deployment,
            begin: Instant::now(),
            expires: self.expires,
            deadline: self.deadline,
            has_ended: false,
        };
        let time_left = self.expires.saturating_duration_since(timed.begin);
        let result = handler.invoke(self.invocation, time_left).await;
        timed.has_ended = true;
        *handled = timed.begin.elapsed();
        if !matches!(result, Err(InvokeError::NotTaken)) {
            deployment.learn(*handled, self.deadline);
        }
        result
    }

    /// Waits for a deployment that is still being prepared.
    async fn wait_for_first(&self, place: &mut Option<WaitPlace>) -> Result<Reply, InvokeError> {
        let route = self.route;
        if route.is_withdrawn() {
            return Err(InvokeError::NotFound(route.name().to_string()));
        }
        if let Some(failure) = route.failure() {
            return Err(self.unavailable(failure.reason.clone(), Duration::from_secs(5)));
        }
        self.wait(place)?;
        route.want();
        route.changed_from(None).await;
        Err(InvokeError::NotTaken)
    }

    /// Waits for a place inside, unless it would come too late.
    async fn queue<'d>(
        &self,
        deployment: &'d Deployment,
        place: &mut Option<WaitPlace>,
    ) -> Result<Inside<'d>, InvokeError> {
        let ahead = self.wait(place)?;
        let time_left = || self.expires.saturating_duration_since(Instant::now());
        if !self.is_accepted && deployment.expected(ahead) > time_left() {
            return Err(overloaded(self.route.name()));
        }
        let inside = deployment.enter().await;
        let inside = inside.map_err(|_busy| InvokeError::NotTaken)?;
        // It took longer than expected. Running it would cost the next one its time as well.
        if !self.is_accepted && deployment.mean() > time_left() {
            return Err(overloaded(self.route.name()));
        }
        Ok(inside)
    }

    async fn wait_for_next(
        &self,
        retired: &Arc<Deployment>,
        place: &mut Option<WaitPlace>,
    ) -> Result<Reply, InvokeError> {
        self.wait(place)?;
        self.route.changed_from(Some(retired)).await;
        Err(InvokeError::NotTaken)
    }

    async fn wait_for_handler(
        &self,
        deployment: &Arc<Deployment>,
        place: &mut Option<WaitPlace>,
    ) -> Result<Reply, InvokeError> {
        self.wait(place)?;
        let patience = self.limits.restart_waited_max;
        tokio::select! {
            settled = deployment.handler_settled(patience) => {
                settled.map_err(|(reason, pause)| self.unavailable(reason, pause))?;
            }
            () = self.route.changed_from(Some(deployment)) => {}
        }
        Err(InvokeError::NotTaken)
    }

    /// Counts it as waiting until it is with a handler. Returns how many were ahead of it.
    fn wait(&self, place: &mut Option<WaitPlace>) -> Result<usize, InvokeError> {
        if place.is_none() {
            *place = self.route.wait_place();
        }
        let place = place.as_ref();
        place
            .map(|place| place.ahead)
            .ok_or_else(|| overloaded(self.route.name()))
    }

    fn unavailable(&self, reason: String, retry_after: Duration) -> InvokeError {
        InvokeError::Unavailable {
            name: self.route.name().clone(),
            reason: reason.into(),
            retry_after,
            time_left: self.deadline,
        }
    }
}

/// An invocation that is with a handler. Where it is dropped at its deadline, that is learnt too.
struct Timed<'a> {
    deployment: &'a Deployment,
    begin: Instant,
    expires: Instant,
    deadline: Duration,
    has_ended: bool,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let now = Instant::now();
        if now >= self.expires {
            self.deployment.learn(now - self.begin, self.deadline);
        }
    }
}

fn overloaded(name: &FunctionName) -> InvokeError {
    InvokeError::Overloaded {
        name: name.clone(),
        retry_after: Duration::from_secs(1),
        time_left: Duration::MAX,
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
