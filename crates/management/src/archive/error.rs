//! Why code was refused.

/// Why code was refused. The texts are for whoever deploys it and name the mend.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Nothing is in it.
    #[error("the archive has no files")]
    Empty,
    /// It is neither a zip nor a tar.gz.
    #[error("expected a zip or tar.gz archive, or a .wasm file")]
    NotAnArchive,
    /// It is a tar that is not compressed.
    #[error("this is a plain tar archive")]
    PlainTar,
    /// It is larger than [`faas::Limits::archive_packed_bytes_max`].
    #[error("the archive is larger than {bytes_max} bytes")]
    PackedTooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// It unpacks to more than [`faas::Limits::archive_unpacked_bytes_max`].
    #[error("the archive unpacks to more than {bytes_max} bytes")]
    UnpackedTooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// It unpacks to more than [`faas::Limits::archive_ratio_max`] times its size.
    #[error("the archive unpacks to more than {ratio_max} times its own size")]
    Ratio {
        /// The bound.
        ratio_max: u64,
    },
    /// It has more than [`faas::Limits::archive_files_max`] entries.
    #[error("the archive has more than {files_max} files and folders")]
    TooManyFiles {
        /// The bound.
        files_max: usize,
    },
    /// A folder lies deeper than [`faas::Limits::archive_depth_max`].
    #[error("the archive's {path:?} lies more than {depth_max} folders deep")]
    TooDeep {
        /// The entry, cut.
        path: String,
        /// The bound.
        depth_max: usize,
    },
    /// A path is longer than [`faas::Limits::archive_name_bytes_max`], or a segment than 255 bytes.
    #[error("the archive's {path:?}… has a name longer than {bytes_max} bytes")]
    NameTooLong {
        /// The entry, cut.
        path: String,
        /// The bound.
        bytes_max: usize,
    },
    /// A path starts at the root.
    #[error("the archive's {0:?} has an absolute name")]
    Absolute(String),
    /// A path starts with a Windows drive.
    #[error("the archive's {0:?} names a Windows drive")]
    Drive(String),
    /// A path has a `..`.
    #[error("the archive's {0:?} leaves the function's folder with \"..\"")]
    Parent(String),
    /// A path has a control character.
    #[error("the archive's {0:?} has a control character in its name")]
    ControlCharacter(String),
    /// A path is not UTF-8.
    #[error("the archive's {0:?} has a name that is not UTF-8")]
    NameNotText(String),
    /// Two entries have the same path.
    #[error("the archive has {0:?} twice")]
    Twice(String),
    /// A path is a file or link and at the same time a folder.
    #[error("the archive's {0:?} is a folder and something else at once")]
    Conflict(String),
    /// A link points out of the function's folder.
    #[error("the archive's link {path:?} points out of the function's folder, to {target:?}")]
    LinkOut {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// A link points to nothing.
    #[error("the archive's link {path:?} points to {target:?}, which is not in the archive")]
    LinkBroken {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// A device, pipe or socket.
    #[error("the archive's {0:?} is a device, pipe or socket")]
    Special(String),
    /// An entry is encrypted.
    #[error("the archive's {0:?} is encrypted")]
    Encrypted(String),
    /// An entry is compressed in a way that is not known.
    #[error("the archive's {0:?} is compressed in an unusual way")]
    Compression(String),
    /// The archive is cut short or broken.
    #[error("the archive is damaged or cut short ({0})")]
    Damaged(String),
    /// The asked for folder is not inside.
    #[error("the archive has no folder {0:?}")]
    NoSubfolder(String),
    /// This host's disk.
    #[error("this host could not store the code ({0})")]
    Disk(#[from] std::io::Error),
}

impl ArchiveError {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Empty => "put the function's files in it",
            Self::NotAnArchive => "pack the function's folder as a zip or tar.gz",
            Self::PlainTar => "compress it with gzip (tar -czf)",
            Self::PackedTooLarge { .. } | Self::UnpackedTooLarge { .. } => {
                "leave out what the function does not need"
            }
            Self::Ratio { .. } => "leave out files of nothing but the same byte",
            Self::TooManyFiles { .. } => {
                "leave out installed dependencies, they are installed at deployment"
            }
            Self::TooDeep { .. } => "use fewer",
            Self::NameTooLong { .. } => "give it a shorter one",
            Self::Absolute(_) | Self::Drive(_) => "pack the folder with relative names",
            Self::Parent(_) => "pack the folder itself",
            Self::ControlCharacter(_) | Self::NameNotText(_) => "rename the file",
            Self::Twice(_) | Self::Conflict(_) => "pack the folder again",
            Self::LinkOut { .. } | Self::LinkBroken { .. } => "pack the file itself",
            Self::Special(_) => "leave it out",
            Self::Encrypted(_) => "pack the folder without a password",
            Self::Compression(_) => "use deflate (zip's default)",
            Self::Damaged(_) => "send it again",
            Self::NoSubfolder(_) => "check subfolder_path",
            Self::Disk(_) => "look at its disk and try again",
        }
    }
}
