//! The end of work that a thread does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::Error;

/// Tells a thread to end its work: nobody waits for it, or its time is over. Clones are the same.
#[derive(Debug, Clone)]
pub struct StopFlag {
    is_raised: Arc<AtomicBool>,
    end: Instant,
}

/// Raises the flag when it is dropped.
pub struct StopOnDrop(StopFlag);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.is_raised.store(true, Ordering::Relaxed);
    }
}

impl StopFlag {
    /// A flag that counts as raised after `time`.
    pub fn after(time: Duration) -> Self {
        Self { is_raised: Arc::default(), end: Instant::now() + time }
    }

    /// What raises it when it is dropped.
    pub fn drop_guard(self) -> StopOnDrop {
        StopOnDrop(self)
    }

    /// Whether the work goes on.
    pub fn check(&self) -> Result<(), Error> {
        match self.is_raised.load(Ordering::Relaxed) || Instant::now() >= self.end {
            true => Err(Error::ImageTime),
            false => Ok(()),
        }
    }

    fn check_io(&self) -> io::Result<()> {
        self.check().map_err(io::Error::other)
    }
}

/// Reads or writes until a flag is raised.
pub struct Stoppable<T> {
    /// What is read, or written to.
    pub inner: T,
    /// The flag.
    pub stop: StopFlag,
}

impl<T: io::Read> io::Read for Stoppable<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check_io()?;
        self.inner.read(buffer)
    }
}

/// Bytes that a buffer shows at a time, so that the flag is looked at.
const SHOWN_BYTES: usize = 16 * 1024;

impl<T: io::BufRead> io::BufRead for Stoppable<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stop.check_io()?;
        let shown = self.inner.fill_buf()?;
        Ok(&shown[..shown.len().min(SHOWN_BYTES)])
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

impl<T: io::Seek> io::Seek for Stoppable<T> {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

impl<T: io::Write> io::Write for Stoppable<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check_io()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Cursor, Write};

    use super::*;

    #[test]
    fn work_ends_with_its_time_and_with_its_guard() {
        assert!(StopFlag::after(Duration::ZERO).check().is_err());
        let stop = StopFlag::after(Duration::from_secs(60));
        let guard = stop.clone().drop_guard();
        let mut read = Stoppable { inner: Cursor::new(vec![0; SHOWN_BYTES + 1]), stop: stop.clone() };
        let mut written = Stoppable { inner: Vec::new(), stop: stop.clone() };
        assert_eq!(read.fill_buf().expect("it goes on").len(), SHOWN_BYTES);
        assert!(stop.check().is_ok() && written.write(b"a").is_ok());
        drop(guard);
        assert!(stop.check().is_err() && read.fill_buf().is_err() && written.write(b"a").is_err());
    }
}
