//! What went wrong with a request, for its client: problem details (RFC 9457), or for the old
//! calls one line of text.

use crate::archive::ArchiveError;
use crate::bad_field::BadField;
use crate::download::DownloadError;
use crate::order::DeployError;
use crate::probe::Unwritable;
use crate::underway::Far;
use crate::wire::rfc3339;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use faas::{PrepareError, Stage};
use serde::Serialize;

/// What went wrong. Boxed, as it goes through many results.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    field: Option<String>,
    fix: Option<String>,
    output: Option<String>,
    retry_after_s: Option<u32>,
}

/// The members of RFC 9457, section 3.1, and ours.
#[derive(Serialize)]
struct Shape<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
}

impl Problem {
    /// A problem with the words that tell its kind.
    pub(crate) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Parts {
            status,
            kind,
            title,
            detail: detail.into(),
            field: None,
            fix: None,
            output: None,
            retry_after_s: None,
        }))
    }

    /// The same, with what the client can do.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = Some(fix.into());
        self
    }

    /// The same, with the field that it is about.
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same, where it is about the code: that came in another field.
    pub(crate) fn code_came_in(self, field: &str) -> Self {
        if self.0.field.as_deref() == Some("archive") {
            return self.field(field);
        }
        self
    }

    /// The same, with another status.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// The same, with when to try again.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// No function has the name.
    pub(crate) fn unknown_function(name: &str) -> Self {
        let detail = format!("there is no function {name:?}");
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-function",
            "unknown function",
            detail,
        )
        .fix("see GET /list for the names")
    }

    /// No function has the name yet.
    pub(crate) fn not_yet(far: &Far) -> Self {
        let what = match far.stage {
            Stage::Starts => "it is being started",
            Stage::WaitsForBuild => "it waits for other builds to end",
            Stage::Builds => "it is being built",
        };
        let (name, since) = (far.name.as_str(), rfc3339(far.since));
        let detail = format!("there is no function {name:?} yet: {what}, since {since}");
        let status = StatusCode::NOT_FOUND;
        Self::new(status, "unknown-function", "unknown function", detail)
            .fix("ask again later, or delete it to cancel that")
    }

    /// As the old calls answer: a line, and what a build or the function printed.
    pub(crate) fn into_text(self) -> Response {
        let detail = &self.0.detail;
        let mut text = match (&self.0.field, &self.0.fix) {
            (Some(field), Some(fix)) => format!("{field}: {detail}; {fix}\n"),
            (Some(field), None) => format!("{field}: {detail}\n"),
            (None, Some(fix)) => format!("{detail}; {fix}\n"),
            (None, None) => format!("{detail}\n"),
        };
        if let Some(output) = &self.0.output {
            text.push_str(output.trim_end());
            text.push('\n');
        }
        self.finish((self.0.status, text).into_response())
    }

    fn finish(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tinyFaaS\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let parts = &self.0;
        let shape = Shape {
            r#type: format!("urn:problem-type:tinyfaas:{}", parts.kind),
            title: parts.title,
            status: parts.status.as_u16(),
            detail: &parts.detail,
            field: parts.field.as_deref(),
            fix: parts.fix.as_deref(),
            output: parts.output.as_deref(),
        };
        let mut response = (parts.status, Json(shape)).into_response();
        let media = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        self.finish(response)
    }
}

impl From<BadField> for Problem {
    fn from(error: BadField) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-field",
            "a field is not valid",
            error.reason,
        )
        .field(error.field)
        .fix(error.fix)
    }
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        let (detail, fix) = split_fix(&error.to_string());
        if let ArchiveError::Disk(error) = &error
            && let Some(unwritable) = Unwritable::from_lack_of_space(error)
        {
            return unwritable.into();
        }
        if let ArchiveError::Disk(_) = error {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Self::new(status, "host", "the host can't do it", detail).fix(fix);
        }
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, "bad-archive", "the archive is not valid", detail)
            .field("archive")
            .fix(fix)
    }
}

impl From<Unwritable> for Problem {
    fn from(error: Unwritable) -> Self {
        let (detail, fix) = split_fix(&error.to_string());
        let status = StatusCode::INSUFFICIENT_STORAGE;
        Self::new(status, "unwritable", "nothing can be stored", detail).fix(fix)
    }
}

impl From<DownloadError> for Problem {
    fn from(error: DownloadError) -> Self {
        let (detail, fix) = split_fix(&error.to_string());
        let status = StatusCode::BAD_REQUEST;
        Self::new(
            status,
            "bad-download",
            "the archive can't be fetched",
            detail,
        )
        .field("url")
        .fix(fix)
    }
}

impl From<PrepareError> for Problem {
    fn from(error: PrepareError) -> Self {
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        let (status, kind, title) = match &error {
            PrepareError::Runtime(_) => (unprocessable, "runtime", "the runtime can't be used"),
            PrepareError::Code(_) => (unprocessable, "code", "the code lacks something"),
            PrepareError::Build { .. } => (unprocessable, "build-failed", "the build failed"),
            PrepareError::Load { .. } => (
                unprocessable,
                "load-failed",
                "the function could not be loaded",
            ),
            PrepareError::Host(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "host",
                "the host can't do it",
            ),
            PrepareError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy", "too much to do"),
            PrepareError::NoRoom(_) => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no-room",
                "the disk has too little room",
            ),
        };
        let output = Some(error.output().to_owned()).filter(|output| !output.is_empty());
        let mut problem = Self::new(status, kind, title, error.to_string());
        if let PrepareError::NoRoom(message) = &error {
            let (detail, fix) = split_fix(message);
            problem.0.detail = detail;
            problem = problem.fix(fix);
        }
        problem.0.output = output;
        problem
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let (detail, fix) = split_fix(&error.to_string());
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            DeployError::Field(error) => error.into(),
            DeployError::Archive(error) => error.into(),
            DeployError::Download(error) => error.into(),
            DeployError::Prepare(error) => error.into(),
            DeployError::Store(_) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(status, "store", "it could not be made durable", detail).fix(fix)
            }
            DeployError::Unwritable(error) => error.into(),
            DeployError::Busy { .. } => Self::new(unavailable, "busy", "too much to do", detail)
                .fix(fix)
                .retry_after(5),
            DeployError::Full { .. } => {
                let status = StatusCode::INSUFFICIENT_STORAGE;
                Self::new(status, "full", "too many functions", detail).fix(fix)
            }
            DeployError::BuildsBusy { .. } => {
                Self::new(unavailable, "busy", "too much to do", detail)
                    .fix(fix)
                    .retry_after(60)
            }
            DeployError::Superseded | DeployError::Abandoned => {
                let status = StatusCode::CONFLICT;
                Self::new(status, "cancelled", "the build was cancelled", detail).fix(fix)
            }
            DeployError::Stopping => Self::new(unavailable, "stopping", "stopping", detail)
                .fix(fix)
                .retry_after(5),
            DeployError::Broken => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(status, "broken", "a bug of tinyFaaS", detail).fix(fix)
            }
        }
    }
}

/// Takes a message apart: our messages say what is wrong, a semicolon, what to do. What names the
/// field before a colon goes where the problem has a field of its own.
fn split_fix(message: &str) -> (String, String) {
    let message = message.strip_prefix("url: ").unwrap_or(message);
    match message.rsplit_once("; ") {
        Some((detail, fix)) => (detail.to_owned(), fix.to_owned()),
        None => (message.to_owned(), "see the log of tinyfaas".to_owned()),
    }
}
