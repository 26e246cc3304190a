//! Code that is fetched from elsewhere: bounded in size, redirects and time.

use bytes::Bytes;
use faas::Limits;
use std::io::Read;

/// Why code could not be fetched. The texts are for whoever deploys it.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// It is no address that can be fetched.
    #[error("{0:?} is no http or https address")]
    BadUrl(String),
    /// The server did not answer with the archive.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// The archive is larger than [`Limits::archive_packed_bytes_max`].
    #[error("the archive is larger than {0} bytes")]
    TooLarge(u64),
    /// More redirects than [`Limits::download_redirects_max`].
    #[error("more than {0} redirects")]
    TooManyRedirects(u32),
    /// It took longer than [`Limits::download`].
    #[error("the download took longer than {0} s")]
    TooSlow(u64),
    /// It could not be reached or broke off.
    #[error("it could not be fetched ({0})")]
    Failed(String),
}

impl DownloadError {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "give one, such as https://example.org/fn.zip",
            Self::Status(_) => "check the address",
            Self::TooLarge(_) => "leave out what the function does not need",
            Self::TooManyRedirects(_) => "give the final address",
            Self::TooSlow(_) => "try again or upload the archive itself",
            Self::Failed(_) => "check the address and this host's network",
        }
    }
}

/// Fetches an archive. Blocks, up to [`Limits::download`].
pub(crate) fn fetch(url: &str, limits: &Limits) -> Result<Bytes, DownloadError> {
    let scheme = url
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return Err(DownloadError::BadUrl(url.chars().take(200).collect()));
    }
    let agent = ureq::Agent::config_builder()
        .max_redirects(limits.download_redirects_max)
        .timeout_global(Some(limits.download))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let refused = |error| refused(&error, url, limits);
    let response = agent.get(url).call().map_err(refused)?;
    let status = response.status();
    if !status.is_success() {
        return Err(DownloadError::Status(status.as_u16()));
    }
    let bytes_max = limits.archive_packed_bytes_max;
    let mut body = Vec::new();
    let reader = response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .reader();
    let read = reader
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut body);
    read.map_err(|error| match error.downcast::<ureq::Error>() {
        Ok(error) => refused(error),
        Err(error) => DownloadError::Failed(error.to_string()),
    })?;
    if body.len() as u64 > bytes_max {
        return Err(DownloadError::TooLarge(bytes_max));
    }
    Ok(body.into())
}

fn refused(error: &ureq::Error, url: &str, limits: &Limits) -> DownloadError {
    match error {
        ureq::Error::TooManyRedirects => {
            DownloadError::TooManyRedirects(limits.download_redirects_max)
        }
        ureq::Error::Timeout(_) => DownloadError::TooSlow(limits.download.as_secs()),
        ureq::Error::BadUri(_) => DownloadError::BadUrl(url.chars().take(200).collect()),
        other => DownloadError::Failed(other.to_string()),
    }
}
