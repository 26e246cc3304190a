//! The shim runs a script for every request that comes over its socket.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends there"
)]

use bytes::{Bytes, BytesMut};
use faas::{Headers, Invocation};
use handler_protocol::frame::{self, FromHandler, Outcome};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

/// What the request's payload says is what the script does.
const SCRIPT: &str = r#"
input=$(cat)
case "$input" in
    variables) echo "$REQUEST_METHOD $PATH_INFO $QUERY_STRING $HTTP_X_A $COLOUR" ;;
    fail) exit 3 ;;
    complain) echo "no such colour"; exit 1 ;;
    hang) sleep 1000 ;;
    *) printf %s "$input" ;;
esac
"#;

struct Shim {
    stream: UnixStream,
    received: BytesMut,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Shim {
    fn start(code: &Path) -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let envs = vec![
            ("TINYFAAS_CODE".to_owned(), code.display().to_string()),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("COLOUR".to_owned(), "green".to_owned()),
        ];
        Self {
            stream,
            received: BytesMut::new(),
            thread: std::thread::spawn(move || runtime_binary::run(theirs.into(), envs)),
        }
    }

    fn begin(&mut self, id: u32, payload: &'static str) {
        let path = Bytes::from_static(b"/colours/all");
        let mut invocation = Invocation::new("PUT", path, Bytes::from_static(payload.as_bytes()));
        invocation.query = Bytes::from_static(b"x=1");
        invocation.headers = Headers::collect([(&b"x-a"[..], &b"b"[..])]).unwrap();
        let mut out = BytesMut::new();
        frame::encode_request(&mut out, id, &invocation, Duration::from_secs(60)).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    fn next(&mut self) -> FromHandler {
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = frame::decode_from_handler(&mut self.received).unwrap() {
                return frame;
            }
            let count = self.stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the shim ended");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// The reply's payload, or the function's message.
    fn call(&mut self, id: u32, payload: &'static str) -> Result<String, String> {
        self.begin(id, payload);
        let FromHandler::Reply {
            id: replied,
            outcome,
        } = self.next()
        else {
            panic!("no reply");
        };
        assert_eq!(replied, id);
        text(outcome)
    }
}

fn text(outcome: Outcome) -> Result<String, String> {
    match outcome {
        Outcome::Reply(reply) => Ok(String::from_utf8(reply.payload.to_vec()).unwrap()),
        Outcome::Failed(message) => Err(message),
        Outcome::NotBegun => Err("not begun".to_owned()),
    }
}

#[test]
fn a_script_is_run_for_every_request_until_the_stream_ends() {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("fn.sh"), SCRIPT).unwrap();
    let mut shim = Shim::start(code.path());
    assert_eq!(shim.next(), FromHandler::Hello { at_once: 16 });
    assert_eq!(shim.call(1, "text"), Ok("text".into()));
    assert_eq!(shim.call(2, ""), Ok(String::new()));
    let variables = "PUT /colours/all x=1 b green\n";
    assert_eq!(shim.call(3, "variables"), Ok(variables.into()));
    assert_eq!(
        shim.call(4, "fail"),
        Err("fn.sh exited with status 3".into())
    );
    assert_eq!(shim.call(5, "complain"), Err("no such colour".into()));

    shim.begin(6, "hang");
    assert_eq!(shim.call(7, "quick"), Ok("quick".into()));
    let mut cancel = BytesMut::new();
    frame::encode_cancel(&mut cancel, 6);
    frame::encode_ping(&mut cancel, b"p");
    shim.stream.write_all(&cancel).unwrap();
    let mut frames = [shim.next(), shim.next()];
    frames.sort_by_key(|frame| matches!(frame, FromHandler::Pong));
    assert!(
        matches!(
            &frames[0],
            FromHandler::Reply {
                id: 6,
                outcome: Outcome::Failed(_)
            }
        ),
        "{frames:?}"
    );
    assert_eq!(frames[1], FromHandler::Pong);

    drop(shim.stream);
    shim.thread.join().unwrap().unwrap();

    std::fs::remove_file(code.path().join("fn.sh")).unwrap();
    let mut shim = Shim::start(code.path());
    let FromHandler::Failed(reason) = shim.next() else {
        panic!("a shim without a script says hello");
    };
    assert!(reason.contains("fn.sh"), "{reason}");
    shim.thread.join().unwrap().unwrap_err();
}
