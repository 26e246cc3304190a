//! Code that is fetched from elsewhere: bounded in size, redirects and time.

use bytes::Bytes;
use faas::Limits;
use std::io::Read;

/// Why code could not be fetched. The texts are for whoever deploys it.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// It is no address that can be fetched.
    #[error("url: {0:?} is no http or https address; give one, such as https://example.org/fn.zip")]
    BadUrl(String),
    /// The server did not answer with the archive.
    #[error("url: the server answered with status {0}; check the address")]
    Status(u16),
    /// The archive is larger than [`Limits::archive_packed_bytes_max`].
    #[error("url: the archive is larger than {0} bytes; leave out what the function does not need")]
    TooLarge(u64),
    /// More redirects than [`Limits::download_redirects_max`].
    #[error("url: more than {0} redirects; give the final address")]
    TooManyRedirects(u32),
    /// It took longer than [`Limits::download`].
    #[error("url: the download took longer than {0} s; try again or upload the archive itself")]
    TooSlow(u64),
    /// It could not be reached or broke off.
    #[error("url: it could not be fetched ({0}); check the address and this host's network")]
    Failed(String),
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
