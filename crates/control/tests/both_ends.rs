//! Both ends in one process, over a socket.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use control::{Admission, Followed, ManagementEnd, Options, follow};
use faas::{CallTerms, Limits, Router};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(20);

fn terms(name: &str) -> CallTerms {
    CallTerms {
        name: name.parse().unwrap(),
        deadline: Duration::from_millis(1234),
        queue_max: 7,
        cors: (name == "a").then(|| Arc::new("https://app.example".parse().unwrap())),
    }
}

/// A management service that knows some functions.
struct Management {
    end: ManagementEnd,
    router: Arc<Router>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Management {
    async fn start(addr: SocketAddr, functions: &[&str]) -> (Self, SocketAddr) {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let end = ManagementEnd::start(Options {
            listener,
            secret: "secret".to_owned(),
            limits: Arc::new(Limits::default()),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        });
        let router = Arc::new(Router::default());
        router.announce(functions.iter().map(|name| terms(name)));
        end.follow(&router);
        let management = Self {
            end,
            router,
            tracker,
            shutdown,
        };
        (management, addr)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A reverse proxy that shows this secret.
fn proxy(addr: SocketAddr, secret: &str, shutdown: &CancellationToken) -> Arc<Router> {
    let (router, _) = proxy_with(addr, secret, (shutdown, Admission::default()));
    router
}

fn proxy_with(
    addr: SocketAddr,
    secret: &str,
    (shutdown, admission): (&CancellationToken, Admission),
) -> (Arc<Router>, JoinHandle<()>) {
    let (router, tracker) = (Arc::new(Router::default()), TaskTracker::new());
    let followed = Followed {
        addr,
        secret: secret.to_owned(),
        router: Arc::clone(&router),
        limits: Arc::new(Limits::default()),
        tracker: tracker.clone(),
        admission,
    };
    let following = tracker.spawn(follow(followed, shutdown.clone()));
    (router, following)
}

fn names(router: &Router) -> Vec<String> {
    let routes = router.routes();
    let mut names: Vec<_> = routes
        .iter()
        .map(|route| route.name().to_string())
        .collect();
    names.sort();
    names
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

#[tokio::test]
async fn the_table_is_the_same_after_every_change_and_every_start() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let shutdown = CancellationToken::new();
    let (management, addr) = Management::start(any, &["a", "b/c"]).await;
    let theirs = proxy(addr, "secret", &shutdown);
    in_time(management.router.applied()).await;
    assert_eq!(names(&theirs), ["a", "b/c"]);
    let route = theirs.find("a").unwrap();
    assert_eq!((route.deadline().as_millis(), route.queue_max()), (1234, 7));
    let cors = |name: &str| theirs.find(name).unwrap().cors();
    let shown = cors("a").map(|cors| cors.to_string());
    assert_eq!(shown.as_deref(), Some("https://app.example"));
    assert_eq!(cors("b/c"), None);

    management
        .router
        .find("a")
        .unwrap()
        .set_failure(faas::Failure {
            reason: "this node can't start it".to_owned(),
            detail: "no disk at /home".to_owned(),
        });
    in_time(management.router.applied()).await;
    // What callers may not read stays here.
    let failure = route.failure().unwrap();
    assert_eq!(failure.text(), "this node can't start it");
    management.router.withdraw(&"a".parse().unwrap());
    in_time(management.router.applied()).await;
    assert_eq!(names(&theirs), ["b/c"]);
    assert!(route.is_withdrawn());

    // A proxy that comes later has it too.
    shutdown.cancel();
    let shutdown = CancellationToken::new();
    let theirs = proxy(addr, "secret", &shutdown);
    in_time(async {
        while theirs.find("b/c").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // A management service that goes leaves what is there; one that comes says what is true.
    management.stop().await;
    assert_eq!(names(&theirs), ["b/c"]);
    let (management, _) = Management::start(addr, &["d"]).await;
    in_time(management.router.applied()).await;
    assert_eq!(names(&theirs), ["d"]);
    shutdown.cancel();
    management.stop().await;
}

#[tokio::test]
async fn only_who_knows_the_secret_gets_the_table() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let shutdown = CancellationToken::new();
    let (management, addr) = Management::start(any, &["a"]).await;
    let stranger = proxy(addr, "guess!", &shutdown);
    let friend = proxy(addr, "secret", &shutdown);
    in_time(management.end.connected()).await;
    in_time(management.router.applied()).await;
    assert_eq!(names(&friend), ["a"]);
    assert_eq!(names(&stranger), [""; 0]);
    shutdown.cancel();
    management.stop().await;
}

#[tokio::test]
async fn a_management_service_waits_until_the_proxy_has_finished_its_calls() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (shutdown, admission) = (CancellationToken::new(), Admission::default());
    let (management, addr) = Management::start(any, &["a"]).await;
    let with = (&shutdown, admission.clone());
    let (_router, following) = proxy_with(addr, "secret", with);
    in_time(management.end.connected()).await;
    let end = management.end.clone();
    let closing = management
        .tracker
        .spawn(async move { end.close(PATIENCE).await });
    in_time(admission.closing()).await;
    // Its calls are not finished.
    assert!(!closing.is_finished() && !following.is_finished());
    assert!(!management.end.close(Duration::ZERO).await);
    admission.set_closed();
    assert!(in_time(closing).await.unwrap());
    // It has nothing to wait for once the management service is gone, and no other is followed.
    assert!(!following.is_finished());
    management.stop().await;
    in_time(following).await.unwrap();
}

#[tokio::test]
async fn closing_where_there_is_no_proxy_ends_at_once() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (management, _) = Management::start(any, &["a"]).await;
    assert!(!in_time(management.end.close(PATIENCE * 2)).await);
    management.stop().await;
}
