//! Unix sockets that leave no trouble behind.
//!
//! A socket file outlives a killed process and would refuse the next bind. It is replaced if nobody
//! listens on it any more, appears with its mode already set, and is removed at the end unless
//! another process has put its own in its place.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Removes a socket's file when dropped, if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Listens on `path` with the permissions `mode`, in non-blocking mode.
///
/// # Errors
/// `AddrInUse` if somebody listens there, `AlreadyExists` if there is a file that is no socket,
/// else what the system says.
pub fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    refuse_if_taken(path)?;
    // Under another name first: between bind and chmod nobody must get in, and the rename replaces
    // a stale file in one step.
    let apart = path.with_file_name(format!(".{:07x}", fastrand::u32(..) >> 4));
    let listener = UnixListener::bind(&apart)?;
    let ready = (|| {
        listener.set_nonblocking(true)?;
        fs::set_permissions(&apart, fs::Permissions::from_mode(mode))?;
        let identity = identity(&apart)?;
        fs::rename(&apart, path)?;
        Ok(identity)
    })();
    match ready {
        Ok(identity) => Ok((
            listener,
            SocketFile {
                path: path.into(),
                identity,
            },
        )),
        Err(error) => {
            let _gone = fs::remove_file(&apart);
            Err(error)
        }
    }
}

fn refuse_if_taken(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket: remove it or choose another path",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens on this socket",
        )),
        Err(_) => Ok(()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.sock");
        drop(UnixListener::bind(&path).expect("binds"));
        assert!(path.exists(), "a plain listener leaves its file behind");

        let (listener, file) = bind_unix(&path, 0o600).expect("replaces the stale file");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = bind_unix(&path, 0o600).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop((listener, file));
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("precious");
        fs::write(&path, "data").expect("written");
        let error = bind_unix(&path, 0o600).expect_err("not a socket");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("still there"), b"data");
    }

    #[test]
    fn the_socket_of_a_successor_is_not_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.sock");
        let (first, file) = bind_unix(&path, 0o600).expect("binds");
        drop(first);
        let (_second, _file) = bind_unix(&path, 0o600).expect("replaces");
        drop(file);
        assert!(path.exists());
    }
}
