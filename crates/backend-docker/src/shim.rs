//! The shims: what a container runs, as files for a volume, and the binary runtime's, which is this
//! program.

use crate::volume::{Entry, Source};
use faas::hex;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

/// The word that makes this program the shim of the binary runtime.
pub(crate) const WORD: &str = "tinyfaas-binary-shim";

/// Where a container has the shims.
pub(crate) const FOLDER: &str = "/shim";
/// This program, there.
pub(crate) const PROGRAM: &str = "/shim/tinyfaas";

const NODEJS: &str = include_str!("../../../runtimes/nodejs/shim.js");
const NODEJS_CALLER: &str = include_str!("../../../runtimes/nodejs/caller.js");
const NODEJS_ERRORS: &str = include_str!("../../../runtimes/nodejs/errors.js");
const NODEJS_EXPRESS: &str = include_str!("../../../runtimes/nodejs/express.js");
const NODEJS_HEADERS: &str = include_str!("../../../runtimes/nodejs/headers.js");
const NODEJS_LOAD: &str = include_str!("../../../runtimes/nodejs/load.js");
const NODEJS_NATIVE: &str = include_str!("../../../runtimes/nodejs/native.js");
const NODEJS_REQUEST: &str = include_str!("../../../runtimes/nodejs/request.js");
const NODEJS_RESPONSE: &str = include_str!("../../../runtimes/nodejs/response.js");
const PYTHON3: &str = include_str!("../../../runtimes/python3/shim.py");
const PYTHON3_CALLER: &str = include_str!("../../../runtimes/python3/tinyfaas_caller.py");
const PYTHON3_HEADERS: &str = include_str!("../../../runtimes/python3/tinyfaas_headers.py");
const PYTHON3_REPLIES: &str = include_str!("../../../runtimes/python3/tinyfaas_replies.py");
/// What is compiled together with a Go function.
pub(crate) const GO: &str = include_str!("../../../runtimes/go/shim.go");

/// Runs the shim of the binary runtime where this program was started as one; call it before
/// anything else in `main`.
pub fn shim_main() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != WORD {
        return None;
    }
    let variable = |name| std::env::var(name).unwrap_or_default();
    let served = runtime_binary::accept(&variable("TINYFAAS_LISTEN"), &variable("TINYFAAS_SECRET"))
        .and_then(|socket| runtime_binary::run(socket, std::env::vars().collect()));
    Some(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_stream_broke) => ExitCode::FAILURE,
    })
}

/// The files that interpreters load, with a digest that tells them from other versions'.
pub(crate) fn interpreted() -> (String, Vec<Entry>) {
    let files = [
        ("shim.js", NODEJS),
        ("caller.js", NODEJS_CALLER),
        ("errors.js", NODEJS_ERRORS),
        ("express.js", NODEJS_EXPRESS),
        ("headers.js", NODEJS_HEADERS),
        ("load.js", NODEJS_LOAD),
        ("native.js", NODEJS_NATIVE),
        ("request.js", NODEJS_REQUEST),
        ("response.js", NODEJS_RESPONSE),
        ("shim.py", PYTHON3),
        ("tinyfaas_caller.py", PYTHON3_CALLER),
        ("tinyfaas_headers.py", PYTHON3_HEADERS),
        ("tinyfaas_replies.py", PYTHON3_REPLIES),
    ];
    let digest = files
        .iter()
        .fold(Sha256::new(), |digest, (_, text)| digest.chain_update(text));
    let entries = files.map(|(name, text)| Entry {
        path: name.into(),
        mode: 0o444,
        source: Source::Bytes(text.as_bytes().to_vec()),
    });
    (hex(&digest.finalize()[..8]), entries.into())
}

/// This program, likewise. Reads all of it.
pub(crate) fn program(path: &Path) -> io::Result<(String, Vec<Entry>)> {
    let mut digest = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => digest.update(&chunk[..count]),
        }
    }
    let entry = Entry {
        path: "tinyfaas".into(),
        mode: 0o555,
        source: Source::File(path.to_owned()),
    };
    Ok((hex(&digest.finalize()[..8]), vec![entry]))
}
