//! Instances of handlers, as the reverse proxy sees them: the management service starts and ends
//! them.

use crate::link::Link;
use crate::lock::lock;
use crate::message::{Failure, ToManagement};
use auth::Secret;
use faas::{BoxFuture, PrepareError};
use handler_protocol::{Launch, Launched, Process};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{oneshot, watch};

/// What is asked for and what runs.
#[derive(Debug)]
pub(crate) struct Instances {
    link: Arc<Link<ToManagement>>,
    next_call: AtomicU64,
    calls: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// How each ended; none while it runs.
    running: Mutex<HashMap<u64, watch::Sender<Option<String>>>>,
}

type Answer = Result<Started, Failure>;

/// An instance that the management service has started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) id: u64,
    pub(crate) addr: SocketAddr,
    pub(crate) secret: Secret,
}

impl Instances {
    pub(crate) fn new(link: Arc<Link<ToManagement>>) -> Self {
        Self {
            link,
            next_call: AtomicU64::new(0),
            calls: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// Those that are in use here.
    pub(crate) fn ids(&self) -> Vec<u64> {
        lock(&self.running).keys().copied().collect()
    }

    /// Ends what the management service does not know: an earlier one started it.
    pub(crate) fn keep(&self, known: &[u64]) {
        for (id, ended) in &*lock(&self.running) {
            if !known.contains(id) {
                let how = "the management service restarted".to_owned();
                ended.send_replace(Some(how));
            }
        }
    }

    pub(crate) fn ended(&self, id: u64, how: String) {
        if let Some(ended) = lock(&self.running).get(&id) {
            ended.send_replace(Some(how));
        }
    }

    /// Takes the instance that a call asked for. Says whether anybody waits for it.
    pub(crate) fn launched(&self, call: u64, started: Started) -> bool {
        let id = started.id;
        // Known before the caller looks.
        lock(&self.running).insert(id, watch::Sender::new(None));
        let is_awaited = self.answer(call, Ok(started));
        if !is_awaited {
            lock(&self.running).remove(&id);
        }
        is_awaited
    }

    /// Takes why there is no instance for a call.
    pub(crate) fn not_launched(&self, call: u64, failure: Failure) {
        // Where nobody waits any more nobody has to know.
        let _is_awaited = self.answer(call, Err(failure));
    }

    fn answer(&self, call: u64, answer: Answer) -> bool {
        let waiting = lock(&self.calls).remove(&call);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }
}

/// Asks the management service for instances.
#[derive(Debug)]
pub(crate) struct RemoteLaunch(pub(crate) Arc<Instances>);

impl Launch for RemoteLaunch {
    fn launch<'a>(&'a self, id: &'a Arc<str>) -> BoxFuture<'a, Result<Launched, PrepareError>> {
        Box::pin(async move {
            let Started { id, addr, secret } = self.ask(id).await?;
            let ended = lock(&self.0.running).get(&id).map(watch::Sender::subscribe);
            Ok(Launched {
                addr,
                secret,
                process: Box::new(RemoteProcess {
                    instances: Arc::clone(&self.0),
                    id,
                    ended,
                }),
            })
        })
    }
}

impl RemoteLaunch {
    /// Asks until there is an answer: a management service that is away is waited for.
    async fn ask(&self, id: &Arc<str>) -> Result<Started, PrepareError> {
        loop {
            let instances = &self.0;
            let outbox = instances.link.linked().await;
            let call = instances.next_call.fetch_add(1, Ordering::Relaxed);
            let (sender, answer) = oneshot::channel();
            lock(&instances.calls).insert(call, sender);
            let _forgotten = Forgotten(instances, call);
            let launch = ToManagement::Launch {
                call,
                handler: id.to_string(),
            };
            if outbox.send(launch).await.is_err() {
                continue;
            }
            tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(answer) => return answer.map_err(PrepareError::from),
                    Err(_forgotten) => {}
                },
                () = outbox.closed() => {}
            }
        }
    }
}

/// A call that nobody waits for any more when this is dropped.
struct Forgotten<'a>(&'a Instances, u64);

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        lock(&self.0.calls).remove(&self.1);
    }
}

/// An instance that the management service started for this proxy.
#[derive(Debug)]
struct RemoteProcess {
    instances: Arc<Instances>,
    id: u64,
    /// None where it had ended already.
    ended: Option<watch::Receiver<Option<String>>>,
}

impl Process for RemoteProcess {
    fn kill(&mut self) {
        // Where this is not heard, the instance is missing from the next hello.
        let kill = ToManagement::Kill { instance: self.id };
        let _is_queued = self.instances.link.try_tell(kill);
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let Some(ended) = &mut self.ended else {
                return "it was ended".to_owned();
            };
            let has_ended = ended.wait_for(Option::is_some);
            tokio::select! {
                how = has_ended => match how.as_deref() {
                    Ok(Some(how)) => how.clone(),
                    Ok(None) | Err(_) => "it was ended".to_owned(),
                },
                // Nobody can tell: the connection to it says what there is to say.
                () = self.instances.link.unlinked() => "its container ended".to_owned(),
            }
        })
    }
}

impl Drop for RemoteProcess {
    fn drop(&mut self) {
        let running = lock(&self.instances.running).remove(&self.id);
        let has_ended = running.is_none_or(|ended| ended.borrow().is_some());
        if !has_ended {
            self.kill();
        }
    }
}
