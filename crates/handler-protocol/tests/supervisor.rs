//! The supervisor and its connections, with handlers that are tasks and do as they are told.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not tests to the lint"
)]

mod task;

use bytes::{Bytes, BytesMut};
use faas::{
    BoxFuture, Callable, FunctionLog, Handler, HandlerState, Headers, Invocation, InvokeError,
    Limits, PrepareError, Reply,
};
use handler_protocol::frame::{self, FromProxy};
use handler_protocol::supervisor::Identity;
use handler_protocol::{Spawn, Spawned, Stream, Supervised};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use task::Task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

/// How an instance behaves, by the payload of each request:
/// `echo` is answered, `hold` is answered with the next `echo`, `fail` fails, `hang` is never answered, `exit` ends the instance,
/// `delay` fails a while after another call was cancelled, `later` is given back, `rubbish` sends a frame that is none, `pong` a pong that nobody asked for, `dribble` is answered byte
/// by byte, `halve` is answered in two parts, the second a while after another call was cancelled, `leave` asks for a
/// replacement and is answered, with all that is held, when another call was cancelled, `deafen` is answered and is the last that is heard.
#[derive(Debug)]
struct Tasks {
    tracker: TaskTracker,
    started: AtomicUsize,
    /// Instances from this number on do not load.
    broken_from: usize,
}

impl Spawn for Tasks {
    fn spawn<'a>(&'a self, _id: &'a Arc<str>) -> BoxFuture<'a, Result<Spawned, PrepareError>> {
        Box::pin(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let number = self.started.fetch_add(1, Ordering::SeqCst);
            let is_broken = number >= self.broken_from;
            let task = self.tracker.spawn(behave(theirs, number, is_broken));
            Ok(Spawned {
                stream: Stream::Unix(ours),
                process: Box::new(Task(task)),
            })
        })
    }
}

async fn behave(mut stream: UnixStream, number: usize, is_broken: bool) {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    if is_broken {
        frame::encode_failed(&mut output, "SyntaxError: as told");
        stream.write_all(&output).await.unwrap();
        return;
    }
    frame::encode_hello(&mut output, 4);
    let (mut held, mut delayed) = (Vec::new(), Vec::new());
    let (mut half, mut is_leaving) = (BytesMut::new(), false);
    loop {
        stream.write_all(&output).await.unwrap();
        output.clear();
        if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
            return;
        }
        while let Some(request) = frame::decode_from_proxy(&mut input).unwrap() {
            let (id, payload) = match request {
                FromProxy::Request { id, payload, .. } => (id, payload),
                FromProxy::Ping(body) => {
                    frame::encode_pong(&mut output, &body);
                    continue;
                }
                FromProxy::Cancel { .. } => {
                    if is_leaving {
                        answer(&mut output, &mut held, number);
                    }
                    if !delayed.is_empty() || !half.is_empty() {
                        // Until the proxy has given up on this instance.
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                    for id in delayed.drain(..) {
                        frame::encode_failure(&mut output, id, "at last");
                    }
                    output.unsplit(half.split());
                    continue;
                }
            };
            match &payload[..] {
                b"fail" => frame::encode_failure(&mut output, id, "as told"),
                b"hang" => {}
                b"delay" => delayed.push(id),
                b"later" => frame::encode_not_begun(&mut output, id),
                b"hold" => held.push(id),
                b"exit" => return,
                b"leave" => {
                    held.push(id);
                    is_leaving = true;
                    frame::encode_leaving(&mut output);
                }
                b"halve" => {
                    answer(&mut output, &mut vec![id], number);
                    half = output.split_off(output.len() / 2);
                }
                b"pong" => frame::encode_pong(&mut output, b""),
                b"dribble" | b"deafen" => {
                    dribble(&mut stream, id).await;
                    if payload == "deafen" {
                        std::future::pending::<()>().await;
                    }
                }
                b"rubbish" => output.extend_from_slice(&[0xff; 16]),
                _ => {
                    held.push(id);
                    answer(&mut output, &mut held, number);
                }
            }
        }
    }
}

async fn dribble(stream: &mut UnixStream, id: u32) {
    let mut output = BytesMut::new();
    let reply = reply(Bytes::from_static(&[b'd'; 4000]));
    frame::encode_reply(&mut output, id, &reply).unwrap();
    for byte in output {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
}

fn answer(output: &mut BytesMut, held: &mut Vec<u32>, number: usize) {
    let reply = reply(Bytes::from(format!("{number}")));
    for id in held.drain(..) {
        frame::encode_reply(output, id, &reply).unwrap();
    }
}

fn reply(payload: Bytes) -> Reply {
    Reply {
        status: 200,
        headers: Headers::new(),
        payload,
    }
}

struct World {
    handler: Supervised,
    log: Arc<FunctionLog>,
    tracker: TaskTracker,
}

impl World {
    async fn start(broken_from: usize) -> Result<Self, PrepareError> {
        let limits = Arc::new(Limits {
            cancel_grace: Duration::from_millis(50),
            drain: Duration::from_secs(5),
            ..Limits::default()
        });
        let tracker = TaskTracker::new();
        let started = AtomicUsize::new(0);
        let spawn = Arc::new(Tasks {
            tracker: tracker.clone(),
            started,
            broken_from,
        });
        let log = Arc::new(FunctionLog::new(&limits));
        let identity = Identity {
            id: "h-1".into(),
            name: "h".parse().unwrap(),
            log: Arc::clone(&log),
        };
        let handler = Supervised::start(spawn, identity, limits, &tracker).await?;
        Ok(Self {
            handler,
            log,
            tracker,
        })
    }

    async fn call(&self, payload: &'static str) -> Result<String, InvokeError> {
        let invocation = Invocation::new("POST", "/h".into(), payload.into());
        let reply = self
            .handler
            .invoke(&invocation, Duration::from_secs(9))
            .await?;
        Ok(String::from_utf8(reply.payload.to_vec()).unwrap())
    }

    /// Calls until the handler takes it: between two instances it takes none.
    async fn call_next(&self) -> String {
        loop {
            self.handler.settled().await;
            match self.call("echo").await {
                Err(InvokeError::NotTaken) => tokio::task::yield_now().await,
                result => return result.unwrap(),
            }
        }
    }

    async fn end(&self) {
        self.handler.stop(Duration::from_secs(1)).await;
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[tokio::test]
async fn many_calls_share_a_stream() {
    let world = World::start(9).await.unwrap();
    let calls = (0..100).map(|_| world.call("echo"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("0")));
    assert_eq!(
        (world.handler.concurrency(), world.handler.in_flight()),
        (4, 0)
    );
    assert_eq!(
        world.call("fail").await,
        Err(InvokeError::Function("as told".into()))
    );
    world.end().await;
}

#[tokio::test]
async fn a_caller_who_goes_after_the_reply_came_cancels_no_other_call() {
    let world = World::start(9).await.unwrap();
    let mut first = Box::pin(world.call("echo"));
    assert!(futures_util::poll!(&mut first).is_pending());
    while world.handler.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    // Its reply is here and its id free, but it has not looked.
    let mut second = Box::pin(world.call("hold"));
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    let (second, third) = tokio::join!(second, world.call("echo"));
    assert_eq!((second.as_deref(), third.as_deref()), (Ok("0"), Ok("0")));
    world.end().await;
}

#[tokio::test]
async fn a_call_that_is_given_back_is_another_handlers() {
    let world = World::start(9).await.unwrap();
    assert_eq!(world.call("later").await, Err(InvokeError::NotTaken));
    assert_eq!(world.call("echo").await.as_deref(), Ok("0"));
    assert_eq!(world.handler.in_flight(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_function_that_does_not_load_fails_with_its_own_words() {
    let error = World::start(0).await.err().unwrap();
    assert_eq!(error.output, "SyntaxError: as told");
}

#[tokio::test]
async fn a_handler_that_dies_fails_its_calls_and_is_replaced() {
    let world = World::start(9).await.unwrap();
    let (died, hung) = tokio::join!(world.call("exit"), world.call("hang"));
    for result in [died, hung] {
        let error = result.unwrap_err();
        assert!(matches!(error, InvokeError::HandlerDied { .. }), "{error}");
        assert!(error.to_string().contains("exit status 7"), "{error}");
    }
    assert_eq!(world.call_next().await, "1");
    assert_eq!(world.handler.status().restarts, 1);
    world.end().await;
}

#[tokio::test]
async fn a_handler_that_breaks_the_protocol_is_replaced() {
    let world = World::start(9).await.unwrap();
    let error = world.call("rubbish").await.unwrap_err();
    assert!(matches!(error, InvokeError::Protocol { .. }), "{error}");
    assert_eq!(world.call_next().await, "1");
    world.end().await;
}

#[tokio::test]
async fn a_call_that_is_not_let_go_of_has_its_handler_replaced_while_others_finish() {
    let world = World::start(9).await.unwrap();
    let other = world.call("hang");
    tokio::pin!(other);
    let given_up = tokio::time::timeout(Duration::from_millis(20), world.call("hang"));
    tokio::select! {
        biased;
        _ = &mut other => panic!("it hangs"),
        result = given_up => assert!(result.is_err()),
    }
    // The hanging call is not confirmed, so a new instance takes over; the other call stays with
    // the old one until its time is up too.
    let next = async {
        loop {
            if world.call_next().await == "1" {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = next => {}
        result = &mut other => panic!("ended too soon: {result:?}"),
    }
    world.end().await;
}

#[tokio::test]
async fn a_handler_that_hangs_is_ended_once_its_other_calls_are_over() {
    let world = World::start(9).await.unwrap();
    let tasks = world.tracker.len();
    let other = world.call("delay");
    tokio::pin!(other);
    assert!(futures_util::poll!(&mut other).is_pending());
    let given_up = tokio::time::timeout(Duration::from_millis(20), world.call("hang"));
    assert!(given_up.await.is_err());
    assert_eq!(other.await, Err(InvokeError::Function("at last".into())));
    assert_eq!(world.call_next().await, "1");
    // Not at the longest deadline that any call may have.
    let ended = async {
        while world.tracker.len() > tasks {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(ended.is_ok(), "the instance that hangs is still there");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_while_a_handler_keeps_dying() {
    let world = World::start(1).await.unwrap();
    assert!(world.call("exit").await.is_err());
    let mut pauses = Vec::new();
    while pauses.len() < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let HandlerState::Pausing {
            failure,
            retry_after,
        } = world.handler.status().state
        {
            assert!(
                failure.detail.contains("SyntaxError: as told"),
                "{failure:?}"
            );
            assert_eq!(failure.reason, "it could not be loaded");
            tokio::time::sleep(retry_after).await;
            pauses.push(retry_after);
        }
    }
    assert!(
        pauses.is_sorted() && pauses[3] > 3 * pauses[0],
        "{pauses:?}"
    );
    assert!(!world.handler.is_ready());
    // What it said while loading is in the log once, whatever the number of starts.
    let log = world.log.last_text("h-1", 100);
    assert_eq!(log.matches("SyntaxError: as told").count(), 1, "{log}");
    assert!(
        log.matches("handler ended (it could not be loaded)")
            .count()
            > 3,
        "{log}"
    );
    world.end().await;
}

#[tokio::test]
async fn stopping_lets_calls_finish_and_leaves_nothing() {
    let world = World::start(9).await.unwrap();
    assert_eq!(world.call("echo").await.as_deref(), Ok("0"));
    let stop = world.handler.stop(Duration::from_millis(50));
    let (hung, ()) = tokio::join!(world.call("hang"), stop);
    assert_eq!(world.handler.status().state, HandlerState::Stopped);
    let refused = world.call("echo").await;
    assert_eq!(refused, Err(InvokeError::NotTaken));
    // It is no fault of the function's.
    let cut = hung.unwrap_err();
    assert!(matches!(cut, InvokeError::Cut { .. }), "{cut}");
    assert_eq!(cut.fault(), faas::Fault::Platform);
    world.tracker.close();
    world.tracker.wait().await;
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_breaks_the_protocol() {
    let world = World::start(9).await.unwrap();
    let error = world.call("pong").await.unwrap_err();
    assert!(matches!(error, InvokeError::Protocol { .. }), "{error}");
    assert_eq!(world.call_next().await, "1");
    world.end().await;
}

/// The control of the one above: pongs that were asked for.
#[tokio::test(start_paused = true)]
async fn an_idle_handler_that_answers_stays() {
    let world = World::start(9).await.unwrap();
    tokio::time::sleep(10 * Limits::default().health_interval).await;
    assert_eq!(world.call("echo").await.as_deref(), Ok("0"));
    assert_eq!(world.handler.status().restarts, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_sends_byte_by_byte_is_not_read_so() {
    let world = World::start(9).await.unwrap();
    let begin = tokio::time::Instant::now();
    assert_eq!(world.call("dribble").await.unwrap().len(), 4000);
    // The clock stands still unless somebody waits.
    assert!(begin.elapsed() > Duration::ZERO);
    let begin = tokio::time::Instant::now();
    assert_eq!(world.call("echo").await.as_deref(), Ok("0"));
    assert_eq!(begin.elapsed(), Duration::ZERO);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_idle_handler_is_found_before_a_call_is_given_to_it() {
    let world = World::start(9).await.unwrap();
    let limits = Limits::default();
    assert!(world.call("deafen").await.is_ok());
    tokio::time::sleep(limits.health_interval + limits.health_timeout / 2).await;
    // It is in doubt: others take its calls, or they wait.
    assert!(!world.handler.is_ready() && world.handler.load() > 1000);
    tokio::time::sleep(limits.health_timeout).await;
    assert_eq!(world.call_next().await, "1");
    assert_eq!(world.handler.status().restarts, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_hung_handler_did_not_read_is_given_back() {
    let world = World::start(9).await.unwrap();
    assert!(world.call("deafen").await.is_ok());
    assert_eq!(world.call("echo").await, Err(InvokeError::NotTaken));
    assert_eq!(world.call_next().await, "1");
    assert_eq!(world.handler.status().restarts, 1);
    world.end().await;
}

/// The control of the one above: it was read, so that it may have been run.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_read_stays_with_its_handler() {
    let world = World::start(9).await.unwrap();
    let limits = Limits::default();
    let waited = 5 * (limits.health_interval + limits.health_timeout);
    let held = tokio::time::timeout(waited, world.call("hold"));
    assert!(held.await.is_err());
    assert_eq!(world.handler.status().restarts, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_let_go_of_a_call_gets_no_more() {
    let world = World::start(9).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(1), world.call("hang"));
    assert!(given_up.await.is_err());
    assert!(world.handler.load() > 1000);
    // Within a part of the grace of 50 ms, at the end of which it is replaced.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!world.handler.is_ready());
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(world.call_next().await, "1");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn bystanders_of_a_hung_call_have_as_long_as_they_would_have_had() {
    let world = World::start(9).await.unwrap();
    let mut other = Box::pin(world.call("hold"));
    assert!(futures_util::poll!(&mut other).is_pending());
    let given_up = tokio::time::timeout(Duration::from_millis(1), world.call("hang"));
    assert!(given_up.await.is_err());
    // Far longer than the grace and the drain.
    let waited = tokio::time::timeout(Duration::from_secs(50), &mut other).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(world.call_next().await, "1");
    drop(other);
    world.end().await;
}

#[tokio::test]
async fn half_a_reply_is_kept_when_its_handler_is_replaced() {
    let world = World::start(9).await.unwrap();
    let mut other = Box::pin(world.call("halve"));
    assert!(futures_util::poll!(&mut other).is_pending());
    let given_up = tokio::time::timeout(Duration::from_millis(20), world.call("hang"));
    assert!(given_up.await.is_err());
    assert_eq!(other.await.as_deref(), Ok("0"));
    assert_eq!(world.call_next().await, "1");
    world.end().await;
}

#[tokio::test]
async fn a_handler_that_asks_to_leave_finishes_what_it_has_while_another_serves() {
    let world = World::start(9).await.unwrap();
    let tasks = world.tracker.len();
    let mut bystanders: Vec<_> = (0..3).map(|_| Box::pin(world.call("hold"))).collect();
    for bystander in &mut bystanders {
        assert!(futures_util::poll!(bystander).is_pending());
    }
    let mut given_up = Box::pin(world.call("hold"));
    assert!(futures_util::poll!(&mut given_up).is_pending());
    let mut leave = Box::pin(world.call("leave"));
    assert!(futures_util::poll!(&mut leave).is_pending());
    // All new calls go to its successor.
    while world.handler.status().restarts == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        assert_eq!(world.call_next().await, "1");
    }
    drop(given_up);
    assert_eq!(leave.await.as_deref(), Ok("0"));
    for bystander in bystanders {
        assert_eq!(bystander.await.as_deref(), Ok("0"));
    }
    let ended = async {
        while world.tracker.len() > tasks {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(ended.is_ok(), "the instance that left is still there");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn handlers_that_ask_to_leave_do_not_pile_up() {
    let world = World::start(99).await.unwrap();
    let tasks = world.tracker.len();
    let mut leaving = Vec::new();
    for number in 0..3 {
        let mut leave = Box::pin(world.call("leave"));
        assert!(futures_util::poll!(&mut leave).is_pending());
        leaving.push(leave);
        let is_replaced = || world.handler.status().restarts > number && world.handler.is_ready();
        while number < 2 && !is_replaced() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    while world.handler.is_ready() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The third has no successor before it has ended, which takes as long as its call.
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!world.handler.is_ready());
    }
    assert_eq!(world.tracker.len(), tasks + 2);
    drop(leaving);
    while !world.handler.is_ready() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.call("echo").await.as_deref(), Ok("3"));
    world.end().await;
}
