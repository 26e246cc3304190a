//! What functions printed, as JSON lines or text, and as it comes.

use super::Deployers;
use super::v1::{Pairs, find};
use crate::bad_field::BadField;
use crate::deployer::Deployer;
use crate::functions::Function;
use crate::problem::{Problem, ProblemKind};
use crate::wire::{LineShape, parse_rfc3339, rfc3339};
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use faas::{FunctionLog, LogLine, quantity};
use futures_util::future::select_all;
use futures_util::{StreamExt, stream};
use net::{Held, Peer, Spent};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// `GET /v1/functions/{name}/logs`.
pub(crate) async fn of_function(
    State(deployer): Deployers,
    Path(name): Path<String>,
    Query(pairs): Pairs,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    find(&deployer, &name)?;
    let asked = Asked::parse(&pairs, &headers)?;
    respond(deployer, Some(name), (asked, peer))
}

/// `GET /v1/logs`.
pub(crate) async fn of_all(
    State(deployer): Deployers,
    Query(pairs): Pairs,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked::parse(&pairs, &headers)?;
    respond(deployer, None, (asked, peer))
}

/// What lines are asked for, and how.
#[derive(Debug, Clone, Copy)]
struct Asked {
    follow: bool,
    since: Option<SystemTime>,
    after: u64,
    is_text: bool,
}

impl Asked {
    fn parse(pairs: &[(String, String)], headers: &HeaderMap) -> Result<Self, BadField> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let mut asked = Self {
            follow: false,
            since: None,
            after: 0,
            is_text: accept.is_some_and(|accept| accept.starts_with("text/plain")),
        };
        for (name, value) in pairs {
            let bad = |fix: &str| {
                let shown: String = value.chars().take(80).collect();
                BadField::new(name, format!("{shown:?} is not valid"), fix)
            };
            match name.as_str() {
                "follow" => {
                    let follow = quantity::switch(value);
                    asked.follow = follow.ok_or_else(|| bad("send true or false"))?;
                }
                "since" => {
                    let fix = "send a time such as 2026-01-31T12:00:00Z, or a span such as 10m";
                    asked.since = Some(moment(value).ok_or_else(|| bad(fix))?);
                }
                "after" => {
                    let fix = "send the number of the last line that you have";
                    asked.after = value.parse().map_err(|_bad| bad(fix))?;
                }
                _ => return Err(bad("the parameters are follow, since and after")),
            }
        }
        Ok(asked)
    }
}

/// A moment: RFC 3339, or a span before now.
fn moment(text: &str) -> Option<SystemTime> {
    // A plus sign that was not encoded came as a space.
    let moment = parse_rfc3339(&text.replace(' ', "+"));
    moment.or_else(|| SystemTime::now().checked_sub(quantity::time(text)?))
}

fn respond(
    deployer: Arc<Deployer>,
    name: Option<String>,
    (asked, peer): (Asked, Peer),
) -> Result<Response, Problem> {
    let place = deployer.log_readers.share(peer).hold(1);
    let place = place.map_err(|spent| too_many(&deployer, spent))?;
    let media = if asked.is_text {
        "text/plain; charset=utf-8"
    } else {
        "application/x-ndjson"
    };
    let reader = Reader {
        changes: deployer.functions.follow(),
        deployer,
        name,
        asked,
        seen: HashMap::new(),
        is_first: true,
        _place: place,
    };
    let chunks = stream::unfold(reader, |mut reader| async {
        let chunk = reader.next().await?;
        Some((Ok::<_, Infallible>(chunk), reader))
    });
    let body = Body::from_stream(chunks.boxed());
    Ok(([(header::CONTENT_TYPE, media)], body).into_response())
}

/// Each reader holds lines in memory, and whoever follows wakes with every line.
fn too_many(deployer: &Deployer, spent: Spent) -> Problem {
    let readers_max = deployer.options.limits.log_readers_max;
    let detail = match spent {
        Spent::Share => format!(
            "your address reads logs {} times already",
            readers_max.div_ceil(2)
        ),
        Spent::Budget => format!("{readers_max} clients read logs already"),
    };
    let fix = "end one of them, or ask again later";
    Problem::new(ProblemKind::LogReaders, detail, fix).retry_after(5)
}

/// Where a client has got to.
#[derive(Debug)]
struct Reader {
    deployer: Arc<Deployer>,
    /// The function; none for all.
    name: Option<String>,
    asked: Asked,
    /// The last line that was sent of each function, and the log that it is of: a function that
    /// was deleted and deployed again has a new one.
    seen: HashMap<String, (u64, Arc<FunctionLog>)>,
    changes: watch::Receiver<u64>,
    is_first: bool,
    _place: Held,
}

impl Reader {
    /// The next lines. None at the end: nothing is followed, the function was deleted, or this
    /// node is stopping.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.is_first && !self.asked.follow {
                return None;
            }
            self.is_first = false;
            self.changes.mark_unchanged();
            let functions = self.functions();
            if functions.is_empty() && self.name.is_some() {
                return None;
            }
            // Taken before the look, so that no line is missed.
            let news: Vec<_> = functions.iter().map(|f| f.log.follow()).collect();
            let chunk = self.collect(&functions);
            if !chunk.is_empty() || !self.asked.follow {
                return Some(chunk);
            }
            drop(functions);
            self.wait(news).await?;
        }
    }

    fn functions(&self) -> Vec<Arc<Function>> {
        match &self.name {
            Some(name) => self.deployer.functions.get(name).into_iter().collect(),
            None => self.deployer.functions.all(),
        }
    }

    async fn wait(&mut self, mut news: Vec<watch::Receiver<u64>>) -> Option<()> {
        let waits = news.iter_mut().map(|news| Box::pin(news.changed()));
        let lines = async {
            if waits.len() == 0 {
                std::future::pending::<()>().await;
            }
            // Whether there is news or a log has ended, the next look tells.
            let (_news, _which, _rest) = select_all(waits).await;
        };
        tokio::select! {
            () = lines => Some(()),
            changed = self.changes.changed() => changed.ok(),
            () = self.deployer.stopped() => None,
        }
    }

    fn collect(&mut self, functions: &[Arc<Function>]) -> Bytes {
        let mut lines: Vec<(&str, LogLine)> = Vec::new();
        for function in functions {
            let name = function.record.spec.name.as_str();
            let after = match self.seen.get(name) {
                Some((number, log)) if Arc::ptr_eq(log, &function.log) => *number,
                Some(_) => 0,
                None => self.asked.after,
            };
            let new = function.log.after(after);
            let last = new.last().map_or(after, |line| line.number);
            let seen = (last, Arc::clone(&function.log));
            self.seen.insert(name.to_owned(), seen);
            let since = self.asked.since;
            let wanted = new
                .into_iter()
                .filter(|line| since.is_none_or(|s| line.time >= s));
            lines.extend(wanted.map(|line| (name, line)));
        }
        lines.sort_by_key(|(_, line)| line.time);
        let mut text = Vec::new();
        for (name, line) in &lines {
            self.write(&mut text, name, line);
        }
        text.into()
    }

    fn write(&self, text: &mut Vec<u8>, name: &str, line: &LogLine) {
        if self.asked.is_text {
            let (time, stream) = (rfc3339(line.time), line.stream.as_str());
            let (handler, printed) = (&line.handler, &line.text);
            let line = format!("{time} function={name} handler={handler} {stream} {printed}\n");
            text.extend_from_slice(line.as_bytes());
        } else {
            let shape = LineShape::new(name, line);
            let json = serde_json::to_vec(&shape);
            text.extend_from_slice(&json.expect("the shape has only texts and numbers"));
            text.push(b'\n');
        }
    }
}
