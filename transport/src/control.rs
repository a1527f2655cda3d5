//! The control socket of a mounted group: one request, one JSON value a line, then answers until the last one.
//!
//! The socket lies in the group's own directory (mode 0700), has mode 0600 itself, and is reached through the
//! directory's descriptor, because a socket address holds 108 bytes and a path may be longer. A socket that nobody
//! listens on is what a killed process left; it is told apart by connecting, and replaced by the next listener.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Name of the socket in the group's directory.
pub const SOCKET_NAME: &str = "control.sock";

/// The longest line that is read, in bytes (1 MiB).
pub const LINE_MAX: u64 = 1 << 20;

/// What can go wrong on the control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The operating system said no.
    #[error("control socket in {directory}: {operation}: {source}", directory = directory.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The group's directory.
        directory: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// Another process listens already.
    #[error("another process listens on the control socket in {directory}", directory = .0.display())]
    Taken(PathBuf),
    /// A line is no message.
    #[error("a control message cannot be understood: {0}")]
    Message(#[from] serde_json::Error),
    /// A line has no end.
    #[error("a control message is longer than {LINE_MAX} bytes")]
    TooLong,
    /// The other side went away in the middle.
    #[error("the other side of the control socket went away")]
    Gone,
    /// Reading or writing failed.
    #[error("control message: {0}")]
    Stream(#[source] io::Error),
}

/// One line from the listening side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<P, D> {
    /// Still at it.
    Progress(P),
    /// Done; the last line.
    Done(D),
    /// It failed; the last line.
    Failed {
        /// Exit code for the command line.
        code: u8,
        /// What went wrong.
        message: String,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// The listening side: the process that has the group mounted.
#[derive(Debug)]
pub struct Listener {
    directory: PathBuf,
    socket: UnixListener,
}

/// One conversation, seen from either side.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Listener {
    /// Listens in the group's directory; replaces a socket that nobody listens on.
    ///
    /// # Errors
    /// Somebody listens already, or the operating system says no.
    pub fn bind(directory: &Path) -> Result<Listener, ControlError> {
        let fail = |operation| move |source| ControlError::Io { operation, directory: directory.to_owned(), source };
        if Connection::connect(directory)?.is_some() {
            return Err(ControlError::Taken(directory.to_owned()));
        }
        let opened = File::open(directory).map_err(fail("open the directory"))?;
        match fs::remove_file(directory.join(SOCKET_NAME)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(fail("remove the old socket")(source));
            }
            _ => {}
        }
        let address = address(&opened);
        let socket = UnixListener::bind(&address).map_err(fail("bind"))?;
        fs::set_permissions(&address, fs::Permissions::from_mode(0o600)).map_err(fail("set its mode"))?;
        Ok(Listener { directory: directory.to_owned(), socket })
    }

    /// Waits for the next conversation.
    ///
    /// # Errors
    /// The operating system says no.
    pub fn accept(&self) -> Result<Connection, ControlError> {
        let fail = |source| ControlError::Io { operation: "accept", directory: self.directory.clone(), source };
        let (stream, _) = self.socket.accept().map_err(fail)?;
        Connection::new(stream).map_err(fail)
    }

    /// Listens no more: whoever waits for a conversation gets an error, now and later.
    pub fn stop(&self) {
        // on a listening socket it cannot fail
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // what stays behind is stale, and the next one replaces it
        let _ = fs::remove_file(self.directory.join(SOCKET_NAME));
    }
}

impl Connection {
    /// Talks to whoever has the group mounted; `None` when nobody has.
    ///
    /// # Errors
    /// The operating system says no.
    pub fn connect(directory: &Path) -> Result<Option<Connection>, ControlError> {
        let fail = |operation| move |source| ControlError::Io { operation, directory: directory.to_owned(), source };
        let opened = match File::open(directory) {
            Ok(opened) => opened,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fail("open the directory")(source)),
        };
        match UnixStream::connect(address(&opened)) {
            Ok(stream) => Connection::new(stream).map(Some).map_err(fail("prepare the connection")),
            Err(source) if nobody_listens(&source) => Ok(None),
            Err(source) => Err(fail("connect")(source)),
        }
    }

    fn new(stream: UnixStream) -> io::Result<Connection> {
        Ok(Connection { reader: BufReader::new(stream.try_clone()?), writer: stream })
    }

    /// How long [`Connection::receive`] and [`Connection::send`] wait; `None` waits as long as it takes.
    ///
    /// # Errors
    /// A time of zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ControlError> {
        let set = || self.writer.set_read_timeout(timeout).and_then(|()| self.writer.set_write_timeout(timeout));
        set().map_err(ControlError::Stream)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The other side has gone.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.writer.write_all(&line).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::Gone,
            _ => ControlError::Stream(source),
        })
    }

    /// The next message; `None` when the other side has finished.
    ///
    /// # Errors
    /// Not a message, or too long for one.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(LINE_MAX + 1);
        match bounded.read_until(b'\n', &mut line) {
            Err(source) if source.kind() == io::ErrorKind::ConnectionReset => return Err(ControlError::Gone),
            Err(source) => return Err(ControlError::Stream(source)),
            Ok(0) => return Ok(None),
            Ok(_) => {}
        }
        if line.last() == Some(&b'\n') {
            return Ok(Some(serde_json::from_slice(&line)?));
        }
        Err(if line.len() as u64 > LINE_MAX { ControlError::TooLong } else { ControlError::Gone })
    }

    /// Sends a request and reads answers up to the last one; `progress` sees those between.
    ///
    /// # Errors
    /// The other side went away before the last answer.
    pub fn ask<R, P, D>(&mut self, request: &R, mut progress: impl FnMut(P)) -> Result<Answer<P, D>, ControlError>
    where
        R: Serialize,
        P: DeserializeOwned,
        D: DeserializeOwned,
    {
        self.send(request)?;
        loop {
            match self.receive()?.ok_or(ControlError::Gone)? {
                Answer::Progress(step) => progress(step),
                last => return Ok(last),
            }
        }
    }

    /// The other side has closed the connection, or is about to: waits until then.
    pub fn wait_closed(&mut self) {
        let mut rest = [0; 256];
        while matches!(self.reader.read(&mut rest), Ok(count) if count > 0) {}
    }
}

fn address(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd()))
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests;
