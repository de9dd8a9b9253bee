//! Opens files by their real path, and only below a root.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tower_http::services::fs::{Backend, TokioBackend, TokioFile};

/// Opens files by their real path, and only below the root.
#[derive(Debug, Clone)]
pub(super) struct Confined {
    root: Arc<Path>,
}

impl Confined {
    /// Confined to that directory, which need not exist yet.
    pub(super) fn to(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The real path of a file or directory below the root.
    async fn real(self, path: PathBuf) -> io::Result<(PathBuf, std::fs::Metadata)> {
        let find = move || {
            let root = self.root.canonicalize()?;
            let path = path.canonicalize()?;
            let metadata = path.metadata()?;
            // Opening a pipe or a device could block its thread for ever.
            let is_plain = metadata.is_file() || metadata.is_dir();
            if path.starts_with(&root) && is_plain {
                Ok((path, metadata))
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        };
        let found = tokio::task::spawn_blocking(find).await;
        found.map_err(io::Error::other)?.map_err(|error| {
            if is_absence(&error) {
                // The one kind that lets a search for compressed twins go on.
                io::ErrorKind::NotFound.into()
            } else {
                error
            }
        })
    }
}

impl Backend for Confined {
    type File = TokioFile;
    type Metadata = std::fs::Metadata;
    type OpenFuture = Pin<Box<dyn Future<Output = io::Result<TokioFile>> + Send>>;
    type MetadataFuture = BoxFuture<'static, io::Result<std::fs::Metadata>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let confined = self.clone();
        Box::pin(async move {
            let (path, _) = confined.real(path).await?;
            TokioBackend.open(path).await
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let confined = self.clone();
        Box::pin(async move { Ok(confined.real(path).await?.1) })
    }
}

/// True where the file system says in one way or another that there is no such file for us.
pub(super) fn is_absence(error: &io::Error) -> bool {
    // Too many symbolic links; its kind has no stable name.
    const ELOOP: i32 = 40;
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(ELOOP)
}
