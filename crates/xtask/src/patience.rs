//! Waiting for a connection, but not for ever.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The next connection; each read of it is given as long as it has been given to come.
///
/// # Errors
/// The kernel's, or kind `TimedOut`.
pub(crate) fn accept(listener: &TcpListener, patience: Duration) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if start.elapsed() > patience => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody has connected"));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
