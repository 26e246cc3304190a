use super::*;
use crate::frame::FromProxy;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeSet;

const TIMING: Timing = Timing {
    cancel_grace: Duration::from_secs(4),
    health_interval: Duration::from_secs(10),
    health_timeout: Duration::from_secs(5),
};

/// What may happen to a connection.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody calls.
    Call,
    /// One of those that wait goes.
    Cancel(usize),
    /// So many milliseconds pass, with what falls due in them.
    Pass(u64),
    /// The handler reads what was written.
    Read,
    /// It answers one of the requests that it has read.
    Answer(usize),
    /// It gives one back.
    GiveBack(usize),
    /// It answers the pings that it has read.
    Pong,
    /// It asks to be replaced.
    Leave,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Call),
        2 => any::<usize>().prop_map(Event::Cancel),
        3 => (1u64..7000).prop_map(Event::Pass),
        4 => Just(Event::Read),
        4 => any::<usize>().prop_map(Event::Answer),
        1 => any::<usize>().prop_map(Event::GiveBack),
        2 => Just(Event::Pong),
        1 => Just(Event::Leave),
    ];
    proptest::collection::vec(event, 0..120)
}

type Outcomes = oneshot::Receiver<Result<Reply, InvokeError>>;

/// A connection, its time, its callers, and a handler that has read some of what was written.
struct World {
    calls: Calls,
    now: Instant,
    waiting: Vec<(usize, InvocationId, Outcomes)>,
    requests: Vec<u32>,
    pings: usize,
    said: BytesMut,
    has_left: bool,
    end: Option<End>,
}

impl World {
    fn new() -> Self {
        let (mut calls, now) = (Calls::new(), Instant::now());
        calls.rest(TIMING, now);
        Self {
            calls,
            now,
            waiting: Vec::new(),
            requests: Vec::new(),
            pings: 0,
            said: BytesMut::new(),
            has_left: false,
            end: None,
        }
    }

    fn call(&mut self) {
        let (reply, outcome) = oneshot::channel();
        let invocation = Invocation::new("POST", Bytes::from_static(b"/"), Bytes::new());
        let taken = self
            .calls
            .submit(&invocation, Duration::from_secs(1), reply);
        assert_eq!(taken.is_ok(), self.calls.is_open());
        if let Ok(key) = taken {
            self.waiting.push((key, invocation.id, outcome));
        }
    }

    fn cancel(&mut self, index: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let (key, id, _outcome) = self.waiting.swap_remove(index % self.waiting.len());
        assert!(self.calls.cancel(key, id, self.now), "it was waiting");
        assert!(!self.calls.cancel(key, id, self.now), "it is gone");
    }

    /// Lets time pass as a driver would: to each moment at which something is due.
    fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        let mut looks = 0;
        while let Some(due) = self.calls.deadline(TIMING).filter(|due| *due <= end) {
            looks += 1;
            assert!(looks < 100, "it spins");
            self.now = self.now.max(due);
            let has_unread = !self.calls.unwritten().is_empty();
            self.end = self.calls.expire(TIMING, self.now, || has_unread);
            if self.end.is_some() {
                return;
            }
        }
        self.now = end;
    }

    fn read(&mut self) {
        let mut written = BytesMut::from(self.calls.unwritten());
        self.calls.wrote(written.len());
        while let Some(frame) = frame::decode_from_proxy(&mut written).expect("it is in order") {
            match frame {
                FromProxy::Request { id, .. } => self.requests.push(id),
                FromProxy::Cancel { id } => assert!(id > 0),
                FromProxy::Ping(_) => self.pings += 1,
            }
        }
        assert!(written.is_empty(), "frames are written whole");
    }

    fn say(&mut self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.said);
        self.end = self.calls.receive(&mut self.said).err();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Call => self.call(),
            Event::Cancel(index) => self.cancel(index),
            Event::Pass(millis) => self.pass(millis),
            Event::Read => self.read(),
            Event::Answer(index) | Event::GiveBack(index) if self.requests.is_empty() => {
                let _none_to_answer = index;
            }
            Event::Answer(index) => {
                let id = self.requests.swap_remove(index % self.requests.len());
                let reply = Reply {
                    status: 200,
                    headers: faas::Headers::new(),
                    payload: Bytes::new(),
                };
                self.say(|out| frame::encode_reply(out, id, &reply).expect("it is small"));
            }
            Event::GiveBack(index) => {
                let id = self.requests.swap_remove(index % self.requests.len());
                self.say(|out| frame::encode_not_begun(out, id));
            }
            Event::Pong => {
                for _ in 0..std::mem::take(&mut self.pings) {
                    self.say(|out| frame::encode_pong(out, b""));
                }
            }
            Event::Leave if self.has_left => {}
            Event::Leave => {
                self.has_left = true;
                self.say(frame::encode_leaving);
                assert_eq!(self.end.take(), Some(End::Leaving));
                assert!(!self.calls.is_open());
                // Whoever drives it goes on hearing what it says.
                self.calls.rest(TIMING, self.now);
            }
        }
        self.waiting
            .retain_mut(|(_, _, outcome)| outcome.try_recv().is_err());
        let keys: BTreeSet<_> = self.waiting.iter().map(|(key, ..)| key).collect();
        assert_eq!(keys.len(), self.waiting.len(), "two calls have one id");
        assert!(self.calls.busy() >= self.waiting.len());
        assert_eq!(self.calls.is_awaited(), !self.waiting.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes in whatever order, nobody is answered twice or forgotten, the protocol is kept,
    /// and time is waited for rather than spun through.
    #[test]
    fn every_call_has_one_end(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
            if world.end.is_some() {
                break;
            }
        }
        prop_assert!(!matches!(world.end, Some(End::Protocol(_) | End::Closed)), "{:?}", world.end);
        let left = world.calls.close();
        prop_assert_eq!(left.len(), world.waiting.len());
        for waiter in left {
            prop_assert!(waiter.send(Err(InvokeError::NotTaken)).is_ok(), "somebody waits");
        }
        for (_, _, mut outcome) in world.waiting {
            prop_assert!(outcome.try_recv().expect("an answer").is_err());
        }
        prop_assert_eq!(world.calls.busy(), 0);
    }

    /// A handler that says nothing any more is found in the time that `Timing` promises, whatever it
    /// was doing, unless it is at work on what it has read.
    #[test]
    fn a_silent_handler_is_found_in_time(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
            if world.end.is_some() {
                return Ok(());
            }
        }
        let is_cancelled = world.calls.busy() > world.waiting.len();
        let is_idle = world.calls.busy() == 0;
        let longest = TIMING.health_interval + TIMING.health_timeout * 2 + TIMING.cancel_grace;
        // A round of examination may have just begun, and one more follows it.
        world.pass(2 * u64::try_from(longest.as_millis()).expect("some seconds"));
        if is_cancelled || is_idle {
            prop_assert!(world.end.is_some(), "nobody noticed");
        }
    }
}

fn passed(events: impl IntoIterator<Item = Event>) -> World {
    let mut world = World::new();
    for event in events {
        world.happen(event);
    }
    world
}

#[test]
fn a_cancelled_call_is_doubted_then_given_up() {
    let events = [Event::Call, Event::Read, Event::Cancel(0)];
    let mut world = passed(events);
    assert_eq!(world.calls.trust(), Trust::Doubtful);
    world.pass(999);
    assert_eq!(world.calls.trust(), Trust::Doubtful);
    world.pass(1);
    assert_eq!(world.calls.trust(), Trust::None);
    world.pass(2999);
    assert_eq!(world.end, None);
    world.pass(1);
    assert_eq!(world.end, Some(End::Stuck));
}

#[test]
fn a_cancelled_call_that_is_confirmed_leaves_no_doubt() {
    let mut world = passed([
        Event::Call,
        Event::Read,
        Event::Cancel(0),
        Event::Pass(1500),
    ]);
    assert_eq!(world.calls.trust(), Trust::None);
    world.happen(Event::Answer(0));
    assert_eq!(world.calls.trust(), Trust::Whole);
    world.pass(9000);
    assert_eq!(world.end, None);
}

#[test]
fn a_ping_without_a_pong_ends_an_idle_handler() {
    let mut world = passed([Event::Pass(10_000), Event::Read, Event::Pass(1249)]);
    assert_eq!((world.pings, world.calls.trust()), (1, Trust::Whole));
    world.pass(1);
    assert_eq!(world.calls.trust(), Trust::None);
    world.pass(5000);
    assert_eq!(world.end, Some(End::Silent));
}

#[test]
fn the_only_call_that_is_not_read_shows_that_the_handler_hangs() {
    let mut world = passed([Event::Call, Event::Pass(11_249)]);
    assert_eq!(world.calls.trust(), Trust::Whole);
    world.pass(1);
    assert_eq!(world.calls.trust(), Trust::None);
    world.pass(5000);
    assert_eq!(world.end, Some(End::Deaf));
    // The control: one that is read is at work.
    let mut world = passed([Event::Call, Event::Read, Event::Pass(10_000)]);
    world.pass(100_000);
    assert_eq!((world.end, world.calls.trust()), (None, Trust::Whole));
}

/// A handler that is called all the time, one call after the other, is met by its examination while it
/// has just been given one.
#[test]
fn a_call_that_is_just_being_read_is_no_reason_to_doubt() {
    let mut world = passed([Event::Call, Event::Pass(10_000)]);
    assert_eq!(world.calls.trust(), Trust::Whole);
    for event in [
        Event::Read,
        Event::Answer(0),
        Event::Call,
        Event::Pass(1300),
    ] {
        world.happen(event);
        assert_eq!(world.calls.trust(), Trust::Whole, "{event:?}");
    }
    world.pass(100_000);
    assert_eq!(world.end, Some(End::Deaf), "the second call is not read");
}

/// What a handler that was doubted says counts at once.
#[test]
fn a_handler_that_speaks_again_is_trusted_again() {
    let mut world = passed([Event::Pass(10_000), Event::Read, Event::Pass(1250)]);
    assert_eq!(world.calls.trust(), Trust::None);
    world.happen(Event::Pong);
    assert_eq!(world.calls.trust(), Trust::Whole);
    let mut world = passed([Event::Call, Event::Pass(14_000)]);
    assert_eq!(world.calls.trust(), Trust::None);
    world.happen(Event::Read);
    world.happen(Event::Answer(0));
    assert_eq!(world.calls.trust(), Trust::Whole);
    world.pass(2000);
    assert_eq!(world.end, None);
}
