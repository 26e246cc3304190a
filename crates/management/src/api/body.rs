//! Reading the bodies of requests: bounded in size, patience and what they take together.

use crate::deployer::Deployer;
use crate::problem::Problem;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use faas::Limits;
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What a request may have besides its archive: settings and the frame around both.
const SLACK_BYTES: u64 = 1 << 20;

/// How many of the largest bodies are read of one that is too large.
const DISCARDED_MAX: u64 = 2;

/// The largest body: an archive in base64, and settings.
fn bytes_max(limits: &Limits) -> u64 {
    let base64 = limits
        .archive_packed_bytes_max
        .div_ceil(3)
        .saturating_mul(4);
    base64.saturating_add(SLACK_BYTES)
}

/// The room that bodies have together, in KiB.
pub(crate) fn room_kib(limits: &Limits) -> usize {
    let kib = (bytes_max(limits) / 1024 + 1).saturating_mul(limits.uploads_at_once_max);
    usize::try_from(kib)
        .unwrap_or(usize::MAX)
        .min(u32::MAX as usize)
}

/// A body and the room that it takes.
#[derive(Debug)]
pub(crate) struct Received {
    /// The body.
    pub(crate) bytes: Bytes,
    /// Its room, to be kept as long as the bytes are.
    pub(crate) room: OwnedSemaphorePermit,
}

/// Reads the body. Waits for room, up to [`Limits::http_idle`], and that long for each piece.
pub(crate) async fn read(
    deployer: &Arc<Deployer>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Problem> {
    let limits = &deployer.options.limits;
    let bytes_max = bytes_max(limits);
    let claimed = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    let claimed = claimed.and_then(|length| length.parse::<u64>().ok());
    if claimed.is_some_and(|claimed| claimed > bytes_max) {
        // Who asked first (RFC 9110, section 10.1.1) has not sent it; others would not read the
        // answer while they send.
        if !headers.contains_key(header::EXPECT) {
            discard(body, limits, bytes_max).await;
        }
        return Err(too_large(bytes_max));
    }
    let kib = u32::try_from(claimed.unwrap_or(bytes_max) / 1024 + 1).unwrap_or(u32::MAX);
    let room = Arc::clone(&deployer.bodies).acquire_many_owned(kib);
    let Ok(Ok(room)) = tokio::time::timeout(limits.http_idle, room).await else {
        let detail = "other uploads fill the memory that they may take together";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Problem::new(status, "busy", "too much to do", detail);
        return Err(problem.fix("try again in a few seconds").retry_after(5));
    };
    let bytes = collect(body, limits, bytes_max).await?;
    Ok(Received { bytes, room })
}

async fn collect(mut body: Body, limits: &Limits, bytes_max: u64) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    loop {
        let Ok(frame) = tokio::time::timeout(limits.http_idle, body.frame()).await else {
            let seconds = limits.http_idle.as_secs();
            let detail = format!("nothing of the body came for {seconds} s");
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(Problem::new(status, "too-slow", "too slow", detail).fix("send it again"));
        };
        let Some(frame) = frame else {
            return Ok(bytes.freeze());
        };
        let frame = frame.map_err(|error| {
            let detail = format!("the body broke off ({error})");
            Problem::new(StatusCode::BAD_REQUEST, "bad-body", "a bad body", detail)
                .fix("send it again")
        })?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if (bytes.len() + piece.len()) as u64 > bytes_max {
            drop(bytes);
            discard(body, limits, bytes_max).await;
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Reads on and keeps nothing, so that the client comes to read its answer; up to a bound.
async fn discard(mut body: Body, limits: &Limits, bytes_max: u64) {
    let mut bytes = 0;
    while bytes < bytes_max.saturating_mul(DISCARDED_MAX) {
        match tokio::time::timeout(limits.http_idle, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Ok(Some(Err(_)) | None) | Err(_) => return,
        }
    }
}

fn too_large(bytes_max: u64) -> Problem {
    let detail = format!("the request is larger than {bytes_max} bytes");
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        "too large",
        detail,
    )
    .fix("leave out what the function does not need")
}
