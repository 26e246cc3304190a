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
use faas::{PrepareError, PrepareErrorKind, Stage};
use serde::Serialize;

/// What went wrong. Boxed, as it goes through many results.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ProblemKind,
    status: StatusCode,
    detail: String,
    fix: String,
    field: Option<String>,
    output: Option<String>,
    retry_after_s: Option<u32>,
}

/// The kinds of problems that the API has. `docs/reference/api.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    BadArchive,
    BadBody,
    BadDownload,
    BadField,
    Broken,
    BuildFailed,
    BuildRuns,
    Busy,
    Cancelled,
    Code,
    ForeignPage,
    Full,
    Host,
    LoadFailed,
    LogReaders,
    NoRoom,
    Runtime,
    Starting,
    Stopping,
    Store,
    Token,
    TooLarge,
    TooSlow,
    UnknownCall,
    UnknownFunction,
    Unwritable,
    WrongMethod,
}

impl ProblemKind {
    /// The last part of its type, its title and its status.
    fn words(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::BadArchive => ("bad-archive", "the archive is not valid", S::BAD_REQUEST),
            Self::BadBody => ("bad-body", "a bad body", S::BAD_REQUEST),
            Self::BadDownload => (
                "bad-download",
                "the archive can't be fetched",
                S::BAD_REQUEST,
            ),
            Self::BadField => ("bad-field", "a field is not valid", S::BAD_REQUEST),
            Self::Broken => ("broken", "a bug of tinyFaaS", S::INTERNAL_SERVER_ERROR),
            Self::BuildFailed => ("build-failed", "the build failed", S::UNPROCESSABLE_ENTITY),
            Self::BuildRuns => ("build-runs", "a build runs", S::SERVICE_UNAVAILABLE),
            Self::Cancelled => ("cancelled", "the build was cancelled", S::CONFLICT),
            Self::Busy => ("busy", "too much to do", S::SERVICE_UNAVAILABLE),
            Self::Code => ("code", "the code lacks something", S::UNPROCESSABLE_ENTITY),
            Self::ForeignPage => ("foreign-page", "refused for safety", S::FORBIDDEN),
            Self::Full => ("full", "too many functions", S::INSUFFICIENT_STORAGE),
            Self::Host => ("host", "the host can't do it", S::SERVICE_UNAVAILABLE),
            Self::LoadFailed => (
                "load-failed",
                "the function could not be loaded",
                S::UNPROCESSABLE_ENTITY,
            ),
            Self::LogReaders => (
                "log-readers",
                "too many clients read logs",
                S::SERVICE_UNAVAILABLE,
            ),
            Self::NoRoom => (
                "no-room",
                "the disk has too little room",
                S::INSUFFICIENT_STORAGE,
            ),
            Self::Runtime => (
                "runtime",
                "the runtime can't be used",
                S::UNPROCESSABLE_ENTITY,
            ),
            Self::Starting => ("starting", "starting", S::SERVICE_UNAVAILABLE),
            Self::Stopping => ("stopping", "stopping", S::SERVICE_UNAVAILABLE),
            Self::Store => (
                "store",
                "it could not be made durable",
                S::INTERNAL_SERVER_ERROR,
            ),
            Self::Token => ("token", "no valid token", S::UNAUTHORIZED),
            Self::TooLarge => ("too-large", "too large", S::PAYLOAD_TOO_LARGE),
            Self::TooSlow => ("too-slow", "too slow", S::REQUEST_TIMEOUT),
            Self::UnknownCall => ("unknown-call", "unknown call", S::NOT_FOUND),
            Self::UnknownFunction => ("unknown-function", "unknown function", S::NOT_FOUND),
            Self::Unwritable => (
                "unwritable",
                "nothing can be stored",
                S::INSUFFICIENT_STORAGE,
            ),
            Self::WrongMethod => ("wrong-method", "wrong method", S::METHOD_NOT_ALLOWED),
        }
    }
}

/// The members of RFC 9457, section 3.1, and ours.
#[derive(Serialize)]
struct Shape<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    fix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
}

impl Problem {
    /// A problem of that kind: what is wrong, and what its client can do about it.
    pub(crate) fn new(
        kind: ProblemKind,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (_word, _title, status) = kind.words();
        Self(Box::new(Parts {
            kind,
            status,
            detail: detail.into(),
            fix: fix.into(),
            field: None,
            output: None,
            retry_after_s: None,
        }))
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
        let detail = format!("no function named {name:?} is deployed");
        Self::new(
            ProblemKind::UnknownFunction,
            detail,
            "see GET /list for the names",
        )
    }

    /// No function has the name yet.
    pub(crate) fn not_yet(far: &Far) -> Self {
        let what = match far.stage {
            Stage::Starts => "it is being started",
            Stage::WaitsForBuild => "it waits for other builds to end",
            Stage::Builds => "it is being built",
        };
        let (name, since) = (far.name.as_str(), rfc3339(far.since));
        let detail = format!("no function named {name:?} is deployed yet: {what}, since {since}");
        let fix = "ask again later, or delete it to cancel that";
        Self::new(ProblemKind::UnknownFunction, detail, fix)
    }

    /// As the old calls answer: a line, and what a build or the function printed.
    pub(crate) fn into_text(self) -> Response {
        let (detail, fix) = (&self.0.detail, &self.0.fix);
        let mut text = match &self.0.field {
            Some(field) => format!("{field}: {detail}; {fix}\n"),
            None => format!("{detail}; {fix}\n"),
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
        let (word, title, _status) = parts.kind.words();
        let shape = Shape {
            r#type: format!("urn:problem-type:tinyfaas:{word}"),
            title,
            status: parts.status.as_u16(),
            detail: &parts.detail,
            fix: &parts.fix,
            field: parts.field.as_deref(),
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
        Self::new(ProblemKind::BadField, error.reason, error.fix).field(error.field)
    }
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        let (detail, fix) = (error.to_string(), error.fix());
        let ArchiveError::Disk(error) = error else {
            return Self::new(ProblemKind::BadArchive, detail, fix).field("archive");
        };
        match Unwritable::from_lack_of_space(&error) {
            Some(unwritable) => unwritable.into(),
            None => Self::new(ProblemKind::Host, detail, fix),
        }
    }
}

impl From<Unwritable> for Problem {
    fn from(error: Unwritable) -> Self {
        Self::new(ProblemKind::Unwritable, error.to_string(), error.fix())
    }
}

impl From<DownloadError> for Problem {
    fn from(error: DownloadError) -> Self {
        Self::new(ProblemKind::BadDownload, error.to_string(), error.fix()).field("url")
    }
}

impl From<PrepareError> for Problem {
    fn from(error: PrepareError) -> Self {
        let kind = match error.kind {
            PrepareErrorKind::Runtime => ProblemKind::Runtime,
            PrepareErrorKind::Code => ProblemKind::Code,
            PrepareErrorKind::Build => ProblemKind::BuildFailed,
            PrepareErrorKind::Load => ProblemKind::LoadFailed,
            PrepareErrorKind::Host => ProblemKind::Host,
            PrepareErrorKind::NoRoom => ProblemKind::NoRoom,
            PrepareErrorKind::Busy => ProblemKind::Busy,
        };
        let mut problem = Self::new(kind, error.detail, error.fix);
        problem.0.output = Some(error.output).filter(|output| !output.is_empty());
        problem
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let kind = match error {
            DeployError::Field(error) => return error.into(),
            DeployError::Archive(error) => return error.into(),
            DeployError::Download(error) => return error.into(),
            DeployError::Prepare(error) => return error.into(),
            DeployError::Unwritable(error) => return error.into(),
            DeployError::Store(_) => ProblemKind::Store,
            DeployError::Busy { .. } | DeployError::BuildsBusy { .. } => ProblemKind::Busy,
            DeployError::Superseded | DeployError::Abandoned => ProblemKind::Cancelled,
            DeployError::Full { .. } => ProblemKind::Full,
            DeployError::Stopping => ProblemKind::Stopping,
            DeployError::Broken => ProblemKind::Broken,
        };
        let is_slow = matches!(error, DeployError::BuildsBusy { .. });
        let problem = Self::new(kind, error.to_string(), error.fix());
        match kind {
            ProblemKind::Busy if is_slow => problem.retry_after(60),
            ProblemKind::Busy | ProblemKind::Stopping => problem.retry_after(5),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use std::io;

    const REFERENCE: &str = include_str!("../../../docs/reference/api.md");

    fn archive_errors() -> Vec<ArchiveError> {
        use ArchiveError as E;
        let (path, target) = (|| "a".to_owned(), "b".to_owned());
        vec![
            E::Empty,
            E::NotAnArchive,
            E::PlainTar,
            E::PackedTooLarge { bytes_max: 1 },
            E::UnpackedTooLarge { bytes_max: 1 },
            E::Ratio { ratio_max: 1 },
            E::TooManyFiles { files_max: 1 },
            E::TooDeep {
                path: path(),
                depth_max: 1,
            },
            E::NameTooLong {
                path: path(),
                bytes_max: 1,
            },
            E::Absolute(path()),
            E::Drive(path()),
            E::Parent(path()),
            E::ControlCharacter(path()),
            E::NameNotText(path()),
            E::Twice(path()),
            E::Conflict(path()),
            E::LinkOut {
                path: path(),
                target: target.clone(),
            },
            E::LinkBroken {
                path: path(),
                target,
            },
            E::Special(path()),
            E::Encrypted(path()),
            E::Compression(path()),
            E::Damaged(path()),
            E::NoSubfolder(path()),
            E::Disk(io::Error::other("x")),
            E::Disk(io::ErrorKind::StorageFull.into()),
        ]
    }

    fn deploy_errors() -> Vec<DeployError> {
        let text = || "x".to_owned();
        let mut errors: Vec<DeployError> = vec![
            BadField::new("threads", "too many", "choose 1").into(),
            DownloadError::BadUrl(text()).into(),
            DownloadError::Status(404).into(),
            DownloadError::TooLarge(1).into(),
            DownloadError::TooManyRedirects(1).into(),
            DownloadError::TooSlow(1).into(),
            DownloadError::Failed(text()).into(),
            PrepareError::runtime("r", "fix r").into(),
            PrepareError::code("c", "fix c").into(),
            PrepareError::build("b", "fix b")
                .with_output("printed")
                .into(),
            PrepareError::load("l", "fix l").into(),
            PrepareError::host("h", "fix h").into(),
            PrepareError::no_room("n", "fix n").into(),
            StoreError::Damaged(text()).into(),
            StoreError::TooNew(9).into(),
            StoreError::File(io::Error::other("x")).into(),
            StoreError::Thread(io::Error::other("x")).into(),
            StoreError::Closed.into(),
            Unwritable::Full.into(),
            Unwritable::ReadOnly.into(),
            Unwritable::Fails(text()).into(),
            DeployError::Busy { waiting_max: 1 },
            DeployError::Full { functions_max: 1 },
            DeployError::Stopping,
            DeployError::Broken,
        ];
        errors.extend(archive_errors().into_iter().map(DeployError::from));
        errors
    }

    #[test]
    fn every_error_of_a_deployment_is_a_problem_that_says_what_to_do() {
        for error in deploy_errors() {
            let (detail, fix) = (error.to_string(), error.fix().to_owned());
            assert!(!fix.is_empty() && !detail.contains(&fix), "{detail}");
            assert!(!detail.contains("; "), "{detail}: the remedy is a field");
            let problem = Problem::from(error).0;
            assert!(!problem.detail.is_empty(), "{problem:?}");
            // A disk that is full has a remedy of its own, whatever found that out.
            let is_unwritable = problem.kind == ProblemKind::Unwritable;
            assert!(problem.fix == fix || is_unwritable, "{problem:?}");
            let (word, title, status) = problem.kind.words();
            assert!(!title.is_empty() && status.as_u16() >= 400, "{problem:?}");
            assert!(REFERENCE.contains(&format!("`{word}`")), "{word}");
        }
    }
}
