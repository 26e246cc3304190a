//! Zips, of any system.

use super::ArchiveError;
use super::path::{self, Named};
use super::tree::Tree;
use std::io::{Cursor, Read};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

const TYPE_MASK: u32 = 0o170_000;
const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;

/// The longest target of a link, as Linux has it.
const TARGET_BYTES_MAX: u64 = 4096;

/// Writes every entry of the zip into the tree.
pub(crate) fn unpack(archive: &[u8], tree: &mut Tree<'_>) -> Result<(), ArchiveError> {
    let files_max = tree.limits().archive_files_max;
    if entries_claimed(archive).is_some_and(|entries| entries > files_max) {
        return Err(ArchiveError::TooManyFiles { files_max });
    }
    let mut zip = ZipArchive::new(Cursor::new(archive)).map_err(|error| refused(&error, "zip"))?;
    if zip.has_duplicate_names() {
        let name = duplicate(&zip).unwrap_or_default();
        return Err(ArchiveError::Twice(name));
    }
    for index in 0..zip.len() {
        add_entry(&mut zip, index, tree)?;
    }
    Ok(())
}

fn add_entry(
    zip: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    tree: &mut Tree<'_>,
) -> Result<(), ArchiveError> {
    let raw = zip
        .by_index_raw(index)
        .map_err(|error| refused(&error, "zip"))?;
    let name = raw
        .name()
        .map_err(|error| refused(&error, "zip"))?
        .into_owned();
    let (is_encrypted, mode) = (raw.encrypted(), raw.external_attributes() >> 16);
    let is_known = matches!(
        raw.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    );
    drop(raw);
    tree.count_entry()?;
    let Named::Entry(path) = path::parse(&name, tree.limits())? else {
        return Ok(());
    };
    if is_encrypted {
        return Err(ArchiveError::Encrypted(path));
    }
    if !is_known {
        return Err(ArchiveError::Compression(path));
    }
    if name.ends_with(['/', '\\']) || mode & TYPE_MASK == TYPE_FOLDER {
        return tree.add_folder(&path);
    }
    let mut file = zip
        .by_index(index)
        .map_err(|error| refused(&error, &path))?;
    match mode & TYPE_MASK {
        0 | TYPE_FILE => tree.add_file(&path, mode & 0o111 != 0, &mut file),
        TYPE_LINK => {
            let mut target = Vec::new();
            let read = file.take(TARGET_BYTES_MAX).read_to_end(&mut target);
            read.map_err(|error| ArchiveError::Damaged(error.to_string()))?;
            tree.add_link(&path, &String::from_utf8_lossy(&target))
        }
        _ => Err(ArchiveError::Special(path)),
    }
}

/// How many entries the end record claims, so that a directory of millions is refused before it
/// is read. A claim that is too low is found out by the reader.
fn entries_claimed(archive: &[u8]) -> Option<usize> {
    const RECORD_BYTES: usize = 22;
    let start = archive
        .len()
        .saturating_sub(RECORD_BYTES + usize::from(u16::MAX));
    let tail = &archive[start..];
    let at = tail
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")?;
    let claimed = tail.get(at + 10..at + 12)?;
    Some(usize::from(u16::from_le_bytes([claimed[0], claimed[1]])))
}

/// A name that more than one entry has, where it can be told.
fn duplicate(zip: &ZipArchive<Cursor<&[u8]>>) -> Option<String> {
    let name = zip.file_names().next()?.ok()?;
    (zip.len() == 1).then(|| name.into_owned())
}

fn refused(error: &ZipError, path: &str) -> ArchiveError {
    match error {
        ZipError::UnsupportedArchive(text) if *text == ZipError::PASSWORD_REQUIRED => {
            ArchiveError::Encrypted(path.to_owned())
        }
        ZipError::CompressionMethodNotSupported(_) | ZipError::UnsupportedArchive(_) => {
            ArchiveError::Compression(path.to_owned())
        }
        other => ArchiveError::Damaged(other.to_string()),
    }
}
