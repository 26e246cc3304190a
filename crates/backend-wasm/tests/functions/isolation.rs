//! What one call can't do to another, and to the node.

use super::node::{COMMAND_ECHO, LONG, Node, OWN_ECHO, call, command, invocation, own};
use faas::{HandlerState, InvokeError, Limits};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

#[tokio::test]
async fn state_of_one_call_is_not_seen_by_the_next() {
    let node = Node::start();
    // Replies with the four bytes at 2048 and then leaves the body's there.
    let counts = own("
        (i32.store16 (i32.const 1028) (i32.const 200))
        (i32.store (i32.const 2052) (i32.load (i32.const 2048)))
        (i32.store (i32.const 2048) (i32.load (local.get $body)))
        (i32.store (i32.const 1040) (i32.const 2052))
        (i32.store (i32.const 1044) (i32.const 4))
        (i32.const 1024)");
    let counts = node.deploy_many(&counts, 1).await.unwrap();
    for _ in 0..100 {
        assert_eq!(call(&counts, "leak").await.unwrap().payload, "\0\0\0\0");
    }
}

#[tokio::test]
async fn a_trap_is_the_functions_error_and_its_stack_is_in_the_log() {
    let node = Node::start();
    let traps = command("unreachable");
    let traps = node.deploy(&traps).await.unwrap();
    let error = call(&traps, "").await.unwrap_err();
    assert!(matches!(error, InvokeError::Function(_)), "{error:?}");
    assert!(error.to_string().contains("unreachable"), "{error}");
    assert!(
        node.log_text().contains("wasm backtrace"),
        "{}",
        node.log_text()
    );
    assert_eq!(traps.status().state, HandlerState::Ready);
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline_while_others_run() {
    let node = Node::start();
    let loops = node
        .deploy(&own("(loop $on (br $on)) (i32.const 0)"))
        .await
        .unwrap();
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    let looping = async {
        let time_left = Duration::from_millis(300);
        loops.invoke(&invocation(""), time_left).await
    };
    // On the one thread of this test: each runs in the turns that the loop gives.
    let echoing = async {
        for _ in 0..20 {
            assert_eq!(call(&echo, "ping").await.unwrap().payload, "ping");
        }
    };
    let (looped, ()) = tokio::join!(looping, echoing);
    assert!(
        matches!(looped, Err(InvokeError::Deadline { .. })),
        "{looped:?}"
    );
    assert_eq!(loops.in_flight(), 0);
}

#[tokio::test]
async fn a_loop_in_a_command_ends_when_its_function_is_stopped() {
    let node = Node::start();
    let loops = node.deploy(&command("(loop $on (br $on))")).await.unwrap();
    let sent = invocation("");
    let stopping = async {
        while loops.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        loops.stop(Duration::ZERO).await;
    };
    let (looped, ()) = tokio::join!(loops.invoke(&sent, LONG), stopping);
    assert!(matches!(looped, Err(InvokeError::Cut { .. })), "{looped:?}");
    assert_eq!(loops.status().state, HandlerState::Stopped);
    let late = loops.invoke(&sent, LONG).await;
    assert_eq!(late, Err(InvokeError::NotTaken));
}

#[tokio::test]
async fn memory_without_end_is_refused_and_named() {
    let node = Node::start();
    let grows = "(loop $more
                   (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                 unreachable";
    for code in [command(grows), own(grows)] {
        let grows = node.deploy(&code).await.unwrap();
        let error = call(&grows, "").await.unwrap_err();
        assert!(error.to_string().contains("more memory"), "{error}");
    }
}

#[tokio::test]
async fn memory_beyond_a_slot_is_had_where_the_limit_allows_it() {
    let mut node = Node::start();
    // 80 MiB where a slot has 32.
    let grows = command(
        "(if (i32.eq (memory.grow (i32.const 1280)) (i32.const -1)) (then unreachable))
         (i32.store (i32.const 83886080) (i32.const 1))",
    );
    node.limits.memory_bytes_max = 128 << 20;
    let large = node.deploy(&grows).await.unwrap();
    assert!(call(&large, "").await.is_ok());
    node.limits.memory_bytes_max = 32 << 20;
    let small = node.deploy(&grows).await.unwrap();
    assert!(call(&small, "").await.is_err());
}

#[tokio::test]
async fn a_gigabyte_of_output_is_refused() {
    let node = Node::start();
    // 65,536 bytes, 16,384 times.
    let prints = command(
        "(local $left i32)
         (local.set $left (i32.const 16384))
         (i32.store (i32.const 0) (i32.const 65536))
         (i32.store (i32.const 4) (i32.const 65536))
         (loop $more
           (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $more (local.get $left)))",
    );
    let prints = node.deploy(&prints).await.unwrap();
    let error = call(&prints, "").await.unwrap_err();
    assert!(error.to_string().contains("printed more than"), "{error}");
    // A list of a gigabyte that does not even exist.
    let replies = own("
        (i32.store16 (i32.const 1028) (i32.const 200))
        (i32.store (i32.const 1040) (i32.const 0))
        (i32.store (i32.const 1044) (i32.const 1073741824))
        (i32.const 1024)");
    let replies = node.deploy(&replies).await.unwrap();
    assert!(call(&replies, "").await.is_err());
    // One that does exist, and is larger than a reply may be.
    let replies = own("
        (drop (memory.grow (i32.const 800)))
        (i32.store16 (i32.const 1028) (i32.const 200))
        (i32.store (i32.const 1040) (i32.const 65536))
        (i32.store (i32.const 1044) (i32.const 50000000))
        (i32.const 1024)");
    let replies = node.deploy(&replies).await.unwrap();
    assert!(call(&replies, "").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_share_a_pool_of_fifty() {
    let node = Node::with_slots(50);
    let echo = node
        .deploy_many(&command(COMMAND_ECHO), 1000)
        .await
        .unwrap();
    let calls = TaskTracker::new();
    let running: Vec<_> = (0..1000)
        .map(|number| {
            let echo = Arc::clone(&echo);
            calls.spawn(async move {
                let reply = call(&echo, number.to_string()).await.unwrap();
                assert_eq!(reply.payload, number.to_string());
            })
        })
        .collect();
    for call in running {
        call.await.unwrap();
    }
    assert_eq!(echo.in_flight(), 0);
}

#[tokio::test]
async fn calls_beyond_those_that_may_wait_for_an_instance_are_refused() {
    let mut limits = Limits::default();
    limits.wasm.waiting_max = 2;
    let node = Node::with(16, limits);
    let loops = node
        .deploy(&own("(loop $on (br $on)) (i32.const 0)"))
        .await
        .unwrap();
    let calls = TaskTracker::new();
    let sent = |time_left| {
        let loops = Arc::clone(&loops);
        calls.spawn(async move { loops.invoke(&invocation(""), time_left).await })
    };
    // Every slot but the quarter that others are sure of, and all that may wait.
    let held: Vec<_> = (0..14).map(|_| sent(LONG)).collect();
    while loops.in_flight() < 14 {
        tokio::task::yield_now().await;
    }
    let refused = sent(LONG).await.unwrap();
    assert!(
        matches!(refused, Err(InvokeError::Overloaded { .. })),
        "{refused:?}"
    );
    loops.stop(Duration::ZERO).await;
    for call in held {
        assert!(call.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn functions_that_hold_their_slots_for_long_leave_some_to_others() {
    let node = Node::with_slots(16);
    let holds = node
        .deploy(&own("(loop $on (br $on)) (i32.const 0)"))
        .await
        .unwrap();
    let echo = node.deploy(&own(OWN_ECHO)).await.unwrap();
    let tracker = TaskTracker::new();
    for _ in 0..64 {
        let holds = Arc::clone(&holds);
        tracker.spawn(async move { holds.invoke(&invocation(""), LONG).await.map(drop) });
    }
    while holds.in_flight() < 64 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        assert_eq!(call(&echo, "ping").await.unwrap().payload, "ping");
    }
    holds.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_tenth_of_a_core_is_a_tenth_of_a_core() {
    let used = |cpu_millis_max: u32| async move {
        let mut node = Node::start();
        node.limits.cpu_millis_max = cpu_millis_max;
        let loops = own("(loop $on (br $on)) (i32.const 0)");
        let loops = node.deploy_many(&loops, 1).await.unwrap();
        let begin = cpu_time();
        let sent = invocation("");
        let looped = loops.invoke(&sent, Duration::from_secs(2)).await;
        assert!(
            matches!(looped, Err(InvokeError::Deadline { .. })),
            "{looped:?}"
        );
        cpu_time() - begin
    };
    // However busy the machine is, the one gets no more than its part of the two seconds.
    let tenth = used(100).await;
    assert!(tenth < Duration::from_millis(700), "{tenth:?}");
}

fn cpu_time() -> Duration {
    let times = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    times.try_into().unwrap()
}
