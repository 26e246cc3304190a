//! A stream whose client has to take what it is sent.

use crate::clients::Client;
use crate::pace::Pace;
use crate::socket::Socket;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream that fails where its client takes too slowly what was written.
///
/// Only the time counts in which the socket has no room. Its room is no measure of the pace: the
/// system lets go of a third of a buffer of megabytes at a time, which takes an honest client of a
/// slow link minutes, and is little where a client has the buffer kept small. So what the client's
/// system acknowledged is counted.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    client: Arc<Client>,
    idle: Duration,
    bytes_min: u64,
    written: u64,
    /// None until the socket is full for the first time.
    watch: Option<Watch>,
}

/// How fast a client takes what fills its socket.
#[derive(Debug)]
struct Watch {
    pace: Pace,
    timer: Pin<Box<Sleep>>,
    /// The most that was seen to be taken.
    taken: u64,
    is_full: bool,
}

impl<S: Socket> Paced<S> {
    /// A stream to a client that has to take so many bytes a second at the least, and may take
    /// nothing for `idle`.
    #[must_use]
    pub fn new(stream: S, client: Arc<Client>, (idle, bytes_min): (Duration, u64)) -> Self {
        Self {
            stream,
            client,
            idle,
            bytes_min,
            written: 0,
            watch: None,
        }
    }

    fn taken(&self) -> u64 {
        self.written.saturating_sub(self.stream.untaken_bytes())
    }

    fn counted(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if bytes > 0 {
                    self.written += bytes as u64;
                    self.client.turn();
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.wait(cx),
        }
    }

    /// Waits for room, and for the client no longer than it may take.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut watch = match self.watch.take() {
            Some(watch) => watch,
            None => Watch::new(self.idle, self.bytes_min, self.taken()),
        };
        if !watch.is_full {
            watch.begin();
            self.client.fill_changed();
        }
        let mut is_slow = false;
        while !is_slow && watch.timer.as_mut().poll(cx).is_ready() {
            is_slow = !watch.goes_on(self.taken());
        }
        self.watch = Some(watch);
        if is_slow {
            let told = "the client takes what it is sent too slowly";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, told)));
        }
        Poll::Pending
    }
}

impl Watch {
    fn new(idle: Duration, bytes_min: u64, taken: u64) -> Self {
        let pace = Pace::new(idle, bytes_min);
        Self {
            pace,
            timer: Box::pin(tokio::time::sleep_until(pace.deadline())),
            taken,
            is_full: false,
        }
    }

    /// The socket is full from now on.
    fn begin(&mut self) {
        self.is_full = true;
        self.pace.resume();
        self.timer.as_mut().reset(self.pace.deadline());
    }

    /// The socket has room for all that was to be written.
    fn end(&mut self, taken: u64) {
        self.is_full = false;
        self.count(taken);
        self.pace.pause();
    }

    /// Whether the client may take more time.
    fn goes_on(&mut self, taken: u64) -> bool {
        self.count(taken);
        let deadline = self.pace.deadline();
        self.timer.as_mut().reset(deadline);
        deadline > Instant::now()
    }

    fn count(&mut self, taken: u64) {
        let bytes = taken.saturating_sub(self.taken);
        self.taken = self.taken.max(taken);
        self.pace.came(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}

impl<S: Socket> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.counted(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.counted(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Whoever writes flushes when all is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(mut watch) = this.watch.take_if(|watch| watch.is_full) {
            watch.end(this.taken());
            this.watch = Some(watch);
            this.client.fill_changed();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{Bounds, Clients, Place};
    use crate::peer::Peer;
    use std::sync::Mutex;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt;

    const IDLE: Duration = Duration::from_secs(30);

    /// What a system keeps of a connection whose client takes it byte by byte. It has room for more
    /// when it kept a third less than it can, as Linux does.
    #[derive(Debug)]
    struct Buffer {
        bytes_max: u64,
        kept: u64,
        is_full: bool,
        waiting: Option<Waker>,
    }

    impl Buffer {
        fn take(&mut self, bytes: u64) {
            self.kept = self.kept.saturating_sub(bytes);
            if self.kept <= self.bytes_max / 3 * 2 {
                self.is_full = false;
                self.waiting.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    #[derive(Debug, Clone)]
    struct Fake(Arc<Mutex<Buffer>>);

    impl Fake {
        fn new(bytes_max: u64) -> Self {
            Self(Arc::new(Mutex::new(Buffer {
                bytes_max,
                kept: 0,
                is_full: false,
                waiting: None,
            })))
        }
    }

    impl AsyncRead for Fake {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Fake {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut buffer = self.0.lock().unwrap();
            let room = usize::try_from(buffer.bytes_max - buffer.kept).unwrap();
            if buffer.is_full || room == 0 {
                buffer.is_full = true;
                buffer.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let bytes = buf.len().min(room);
            buffer.kept += bytes as u64;
            Poll::Ready(Ok(bytes))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Socket for Fake {
        fn untaken_bytes(&self) -> u64 {
            self.0.lock().unwrap().kept
        }
    }

    fn place() -> Place {
        let clients = Clients::new(Bounds::default());
        clients.admit(Peer::Local).unwrap()
    }

    /// Writes replies of so many bytes, one after the other, to a client that takes so many after
    /// each pause; for how long that lasted where the client was too slow.
    async fn lasts(
        buffer: u64,
        (count, bytes): (usize, usize),
        (taken, pause): (u64, Duration),
    ) -> Result<(), Duration> {
        let (place, fake) = (place(), Fake::new(buffer));
        let client = Arc::clone(place.client());
        let mut stream = Paced::new(fake.clone(), client, (IDLE, 1 << 10));
        let begin = Instant::now();
        let reply = vec![0; bytes];
        let writing = async {
            for _ in 0..count {
                stream.write_all(&reply).await?;
                stream.flush().await?;
            }
            Ok::<_, io::Error>(())
        };
        let taking = async {
            loop {
                tokio::time::sleep(pause).await;
                fake.0.lock().unwrap().take(taken);
            }
        };
        let written = tokio::select! {
            written = writing => written,
            () = taking => Ok(()),
        };
        written.map_err(|error| {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            begin.elapsed()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_above_the_least_pace_is_served_however_large_the_buffer() {
        let second = Duration::from_secs(1);
        let far = (3 << 10, second);
        for taken in [far, (64 << 10, 21 * second), (1 << 20, second)] {
            assert_eq!(lasts(3 << 20, (1, 16 << 20), taken).await, Ok(()));
        }
        assert_eq!(lasts(12 << 10, (1000, 3 << 10), far).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_or_too_little_is_too_slow() {
        let check = async |taken, seconds, at_most| {
            let taken = (taken, Duration::from_secs(seconds));
            let lasted = lasts(3 << 20, (1, 8 << 20), taken).await;
            let lasted = lasted.expect_err("it is too slow");
            assert!(lasted < Duration::from_secs(at_most), "{lasted:?}");
        };
        check(0, 1, 31).await;
        check(100, 1, 40).await;
        check(20 << 10, 29, 120).await;
        check(2 << 20, 70, 31).await;
    }

    #[tokio::test(start_paused = true)]
    async fn replies_one_after_the_other_earn_no_new_pause() {
        // Each time the socket has room for some of them, and is full with the next.
        let taken = (4 << 10, Duration::from_secs(20));
        let lasted = lasts(12 << 10, (10_000, 1 << 10), taken).await;
        assert!(lasted.is_err_and(|lasted| lasted < Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_replies_is_no_slowness() {
        let (place, fake) = (place(), Fake::new(3 << 20));
        let client = Arc::clone(place.client());
        let mut stream = Paced::new(fake.clone(), client, (IDLE, 1 << 10));
        let reply = vec![0; 4 << 20];
        for _ in 0..10 {
            let taking = async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                fake.0.lock().unwrap().take(u64::MAX);
            };
            let (written, ()) = tokio::join!(stream.write_all(&reply), taking);
            written.unwrap();
            stream.flush().await.unwrap();
            fake.0.lock().unwrap().take(u64::MAX);
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        assert!(!place.client().fills().is_full());
    }
}
