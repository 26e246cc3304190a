//! Reading the bodies of requests: bounded in size, patience and what they take together.

use crate::deployer::Deployer;
use crate::problem::{Problem, ProblemKind};
use crate::upload::{Room, bytes_max};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use faas::Limits;
use http_body_util::BodyExt;
use net::Pace;
use std::sync::Arc;

/// A body and the memory that it takes.
#[derive(Debug)]
pub(crate) struct Received {
    /// The body.
    pub(crate) bytes: Bytes,
    /// Its memory, to be held as long as the bytes are.
    pub(crate) room: Room,
}

/// Reads the body, which has to come at [`Limits::pace_bytes_min`]. Memory is taken as it comes.
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
    let mut room = deployer.uploads.begin().map_err(|_spent| busy())?;
    let bytes = collect(body, limits, (bytes_max, &mut room)).await?;
    Ok(Received { bytes, room })
}

fn busy() -> Problem {
    let detail = "other uploads fill the memory that they may take together";
    Problem::new(ProblemKind::Busy, detail, "try again in a few seconds").retry_after(5)
}

fn too_slow(limits: &Limits) -> Problem {
    let (idle, pace) = (limits.http_idle.as_secs(), limits.pace_bytes_min);
    let detail =
        format!("nothing of the body came for {idle} s, or less than {pace} bytes a second");
    Problem::new(ProblemKind::TooSlow, detail, "send it again")
}

async fn collect(
    mut body: Body,
    limits: &Limits,
    (bytes_max, room): (u64, &mut Room),
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    let mut pace = Pace::new(limits.http_idle, limits.pace_bytes_min);
    loop {
        let Ok(frame) = tokio::time::timeout_at(pace.deadline(), body.frame()).await else {
            return Err(too_slow(limits));
        };
        let Some(frame) = frame else {
            return Ok(bytes.freeze());
        };
        let frame = frame.map_err(|error| {
            let detail = format!("the body broke off ({error})");
            Problem::new(ProblemKind::BadBody, detail, "send it again")
        })?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        pace.came(piece.len());
        if (bytes.len() + piece.len()) as u64 > bytes_max {
            drop(bytes);
            room.clear();
            discard(body, limits, bytes_max).await;
            return Err(too_large(bytes_max));
        }
        room.grow(piece.len()).await.map_err(|_spent| busy())?;
        bytes.extend_from_slice(&piece);
    }
}

/// Reads on and keeps nothing, so that the client comes to read its answer; up to a bound.
async fn discard(mut body: Body, limits: &Limits, bytes_max: u64) {
    let mut bytes = 0;
    while bytes < bytes_max.saturating_mul(limits.upload_discarded_max) {
        match tokio::time::timeout(limits.http_idle, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Ok(Some(Err(_)) | None) | Err(_) => return,
        }
    }
}

fn too_large(bytes_max: u64) -> Problem {
    let detail = format!("the request is larger than {bytes_max} bytes");
    let fix = "leave out what the function does not need";
    Problem::new(ProblemKind::TooLarge, detail, fix)
}
