//! Archives that no honest packer makes.

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};
use std::io::Write;
use tar::{Builder, EntryType, Header};

/// A file's mode with its type, as Unix's zip keeps it.
const REGULAR: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;

/// An entry of a zip, byte for byte.
#[derive(Debug, Clone)]
pub struct ZipEntry {
    name: Vec<u8>,
    contents: Vec<u8>,
    mode: u32,
    flags: u16,
    method: u16,
    crc: Option<u32>,
}

impl ZipEntry {
    /// A file; its name may be anything.
    #[must_use]
    pub fn file(name: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            contents: contents.as_ref().to_owned(),
            mode: REGULAR,
            flags: 0,
            method: 0,
            crc: None,
        }
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(name: &str, target: &str) -> Self {
        Self {
            mode: SYMLINK,
            ..Self::file(name, target)
        }
    }

    /// The same, said to be encrypted.
    #[must_use]
    pub fn encrypted(self) -> Self {
        Self { flags: 1, ..self }
    }

    /// The same, said to be compressed in that way.
    #[must_use]
    pub fn method(self, method: u16) -> Self {
        Self { method, ..self }
    }

    /// The same with a checksum that is wrong.
    #[must_use]
    pub fn damaged(self) -> Self {
        Self {
            crc: Some(0xdead_beef),
            ..self
        }
    }

    /// The fields that the local and the central header share.
    fn head(&self, packed: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(&self.contents);
        // Bit 11 says that the name is UTF-8.
        let flags = self.flags | 1 << 11;
        let mut head = Vec::new();
        for word in [20, flags, self.method, 0, 0x21] {
            head.extend(word.to_le_bytes());
        }
        head.extend(self.crc.unwrap_or(crc.sum()).to_le_bytes());
        head.extend(length(packed).to_le_bytes());
        head.extend(length(&self.contents).to_le_bytes());
        head.extend(
            u16::try_from(self.name.len())
                .unwrap_or(u16::MAX)
                .to_le_bytes(),
        );
        head.extend(0u16.to_le_bytes());
        head
    }

    fn packed(&self) -> Vec<u8> {
        if self.method != 8 {
            return self.contents.clone();
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(&self.contents);
        written
            .and_then(|()| encoder.finish())
            .expect("memory takes every byte")
    }
}

/// A zip of these entries.
#[must_use]
pub fn zip(entries: &[ZipEntry]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let packed = entry.packed();
        let head = entry.head(&packed);
        let offset = length(&zip);
        zip.extend(b"PK\x03\x04");
        zip.extend(&head);
        zip.extend(&entry.name);
        zip.extend(&packed);
        // Made by Unix, so that the mode counts.
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&head);
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&entry.name);
    }
    let (start, count) = (
        length(&zip),
        u16::try_from(entries.len()).unwrap_or(u16::MAX),
    );
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count.to_le_bytes());
    zip.extend(count.to_le_bytes());
    zip.extend(length(&directory).to_le_bytes());
    zip.extend(start.to_le_bytes());
    zip.extend(0u16.to_le_bytes());
    zip
}

/// A tar.gz with one entry of that type, beside a good `fn.py`. `name` may be anything up to 100
/// bytes; `target` is where a link points.
///
/// # Panics
/// If the name is longer.
#[must_use]
pub fn tar_gz(kind: EntryType, name: impl AsRef<[u8]>, target: &str) -> Vec<u8> {
    let tar = tar(kind, name, target);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(&tar);
    written
        .and_then(|()| encoder.finish())
        .expect("memory takes every byte")
}

/// The same, not compressed.
///
/// # Panics
/// If the name is longer than 100 bytes.
#[must_use]
pub fn tar(kind: EntryType, name: impl AsRef<[u8]>, target: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let code = b"def fn(input): return input\n";
    for (kind, name, target, contents) in [
        (EntryType::Regular, &b"fn.py"[..], "", &code[..]),
        (kind, name.as_ref(), target, b""),
    ] {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(contents.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        let added = tar.append(&header, contents);
        added.expect("memory takes every byte");
    }
    tar.into_inner().expect("memory takes every byte")
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
