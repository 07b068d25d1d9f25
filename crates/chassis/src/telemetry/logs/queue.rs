//! The log queue: callers append to a bounded buffer without waiting, one thread writes the lines in
//! batches. Must not know the content of a line.
//!
//! A process that is killed loses the lines of its last few milliseconds; a process that ends by itself flushes first.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Capacity of the buffer in bytes; lines beyond it are dropped and counted.
const BYTES_MAX: usize = 4 << 20;

/// Memory that the buffers keep after a burst.
const BYTES_KEPT: usize = 64 << 10;

/// Pause of the writer after a write, so that the lines of a busy service share the next write.
const REST: Duration = Duration::from_millis(2);

/// Time limit of a flush.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The lines that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    arrived: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    dropped: u64,
    /// Total bytes queued and total bytes written.
    bytes_in: u64,
    bytes_out: u64,
    writer_waits: bool,
    /// A flush is waiting: the writer must not sleep.
    flushing: bool,
}

impl Queue {
    /// Starts the writer. `dropped` formats the line that reports dropped lines.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        dropped: impl Fn(u64) -> String + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let own = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || own.write_for_ever(out, &dropped))?;
        Ok(queue)
    }

    /// Queues a line, or counts it as dropped. Never waits for the reader of the log.
    pub(super) fn put(&self, line: &str) {
        let mut pending = self.lock();
        if pending.text.len() + line.len() > BYTES_MAX {
            pending.dropped += 1;
            return;
        }
        pending.text.extend_from_slice(line.as_bytes());
        pending.bytes_in += line.len() as u64;
        if pending.writer_waits {
            pending.writer_waits = false;
            self.arrived.notify_one();
        }
    }

    /// Waits until the queued lines are written, unless the reader is stuck.
    pub(super) fn flush(&self) {
        let mut pending = self.lock();
        let target = pending.bytes_in;
        pending.flushing = true;
        self.arrived.notify_one();
        let is_missing = |pending: &mut Pending| pending.bytes_out < target;
        drop(self.written.wait_timeout_while(pending, FLUSH_MAX, is_missing));
    }

    fn write_for_ever(&self, mut out: impl Write, dropped: &impl Fn(u64) -> String) {
        let mut batch = Vec::new();
        loop {
            let (bytes_in, lost) = self.take(&mut batch);
            if lost > 0 {
                batch.extend_from_slice(dropped(lost).as_bytes());
            }
            // A log that cannot be written is lost; a service must not stop because of that.
            let _closed = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            batch.shrink_to(BYTES_KEPT);
            let mut pending = self.lock();
            pending.bytes_out = bytes_in;
            self.written.notify_all();
            drop(self.arrived.wait_timeout_while(pending, REST, |pending| !pending.flushing));
        }
    }

    /// Waits for lines and takes all that are queued.
    fn take(&self, batch: &mut Vec<u8>) -> (u64, u64) {
        let mut pending = self.lock();
        while pending.text.is_empty() {
            pending.writer_waits = true;
            pending = self.arrived.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        (pending.writer_waits, pending.flushing) = (false, false);
        std::mem::swap(&mut pending.text, batch);
        (pending.bytes_in, std::mem::take(&mut pending.dropped))
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A log reader that accepts one write per permit.
    struct Reader {
        go_on: mpsc::Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // Once the sender is gone, every write is accepted.
            let _ = self.go_on.recv();
            self.read.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (Arc<Queue>, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (tell, go_on) = mpsc::channel();
        let read = Arc::new(Mutex::new(Vec::new()));
        let reader = Reader { go_on, read: Arc::clone(&read) };
        let queue = Queue::start(reader, |lines| format!("{lines} dropped\n")).unwrap();
        (queue, tell, read)
    }

    #[test]
    fn after_a_flush_every_line_is_written_in_order() {
        let (queue, tell, read) = queue();
        drop(tell);
        let lines: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        lines.split_inclusive('\n').for_each(|line| queue.put(line));
        queue.flush();
        assert_eq!(String::from_utf8(read.lock().unwrap().clone()).unwrap(), lines);
    }

    #[test]
    fn a_log_that_is_not_read_delays_no_caller_and_reports_later_what_was_dropped() {
        let (queue, tell, read) = queue();
        let line = "x".repeat(1023) + "\n";
        // The writer holds one line, and the buffer is full after the others.
        queue.put(&line);
        while !queue.lock().text.is_empty() {
            std::thread::yield_now();
        }
        for _ in 0..BYTES_MAX / line.len() + 7 {
            queue.put(&line);
        }
        drop(tell);
        queue.flush();
        let read = String::from_utf8(read.lock().unwrap().clone()).unwrap();
        assert_eq!(read.lines().filter(|read| read.starts_with('x')).count(), 1 + BYTES_MAX / line.len());
        assert!(read.ends_with("\n7 dropped\n"), "{}", &read[read.len() - 40..]);
    }
}
